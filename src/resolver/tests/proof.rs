//! What proves a checksum, and what does not.

use std::sync::atomic::Ordering;

use super::super::Missed;
use super::super::proof::{Proof, Proofs};
use super::*;
use crate::asset::{Algorithm, Checksum};
use crate::store;

const CONTENT: &[u8] = b"content";

fn hash(algorithm: Algorithm, content: &[u8]) -> Checksum {
    let raw = Digest::of(algorithm.function(), content).unwrap().raw();
    Checksum::new(algorithm, &raw).unwrap()
}

fn wanted(hashes: &[&Checksum]) -> Integrity {
    let texts: Vec<String> = hashes.iter().map(ToString::to_string).collect();
    Integrity::parse(&texts.join(" ")).unwrap()
}

fn signed(content: &[u8], source: Source, verified: &Checksum) -> AssetReference {
    AssetReference {
        verified: vec![verified.clone()],
        signed_at: Some(SystemTime::now()),
        ..reference(content, source)
    }
}

#[test]
fn a_digest_proves_its_own_algorithm_and_a_signature_what_was_fetched() {
    use Algorithm::{Sha256, Sha512};
    let proofs = Proofs::new();
    let weigh = |entry: &AssetReference, hashes: &[&Checksum]| {
        proofs.weigh(DigestFunction::Sha256, entry, &wanted(hashes))
    };
    let (own, other) = (hash(Sha256, CONTENT), hash(Sha512, CONTENT));
    let (not_own, not_other) = (hash(Sha256, b"x"), hash(Sha512, b"x"));
    let plain = reference(CONTENT, Source::Fetch);
    assert_eq!(weigh(&plain, &[&own]), Proof::Proven);
    assert_eq!(weigh(&plain, &[&not_own]), Proof::Disproven);
    assert_eq!(weigh(&plain, &[&other]), Proof::Unknown);
    assert_eq!(weigh(&plain, &[&not_other, &own]), Proof::Proven);
    assert_eq!(weigh(&plain, &[&not_own, &other]), Proof::Unknown);
    let claimed = AssetReference {
        signed_at: None,
        ..signed(CONTENT, Source::Fetch, &other)
    };
    assert_eq!(weigh(&claimed, &[&other]), Proof::Unknown);
    let pushed = signed(CONTENT, Source::Push, &other);
    assert_eq!(weigh(&pushed, &[&other]), Proof::Unknown);
    let fetched = signed(CONTENT, Source::Fetch, &other);
    assert_eq!(weigh(&fetched, &[&not_own, &other]), Proof::Proven);
    assert_eq!(weigh(&fetched, &[&not_other]), Proof::Disproven);
    // Of a directory, its digest is no hash of what was unpacked.
    let tree = AssetReference {
        kind: AssetKind::Directory,
        ..plain
    };
    assert_eq!(weigh(&tree, &[&own]), Proof::Unknown);
}

#[test]
fn what_was_hashed_is_remembered_where_the_digest_was_seen_to_be_right() {
    use Algorithm::{Blake3, Sha512};
    let proofs = Proofs::new();
    let (right, wrong) = (hash(Sha512, CONTENT), hash(Sha512, b"x"));
    let entry = reference(CONTENT, Source::Push);
    let scope = |function| Scope::new(InstanceName::default(), function);
    let weigh = |function, hashes: &[&Checksum]| proofs.weigh(function, &entry, &wanted(hashes));
    let sha256 = DigestFunction::Sha256;
    proofs.learn(&scope(sha256), &entry.digest, std::slice::from_ref(&right));
    assert_eq!(weigh(sha256, &[&right]), Proof::Proven);
    assert_eq!(weigh(sha256, &[&wrong]), Proof::Disproven);
    let blake3 = hash(Blake3, CONTENT);
    assert_eq!(weigh(sha256, &[&wrong, &blake3]), Proof::Unknown);
    proofs.learn(&scope(sha256), &entry.digest, std::slice::from_ref(&blake3));
    assert_eq!(weigh(sha256, &[&blake3]), Proof::Proven);
    let uncomputable = DigestFunction::Sha256Tree;
    proofs.learn(
        &scope(uncomputable),
        &entry.digest,
        std::slice::from_ref(&right),
    );
    assert_eq!(weigh(uncomputable, &[&right]), Proof::Unknown);
    let tree = AssetReference {
        kind: AssetKind::Directory,
        ..entry.clone()
    };
    let found = proofs.weigh(sha256, &tree, &wanted(&[&right]));
    assert_eq!(found, Proof::Unknown);
}

#[test]
fn what_the_digest_proves_waits_for_nothing() {
    let proofs = Proofs::new();
    let entry = reference(CONTENT, Source::Fetch);
    let pinned = wanted(&[&hash(Algorithm::Sha256, CONTENT)]);
    // With its lock held, weighing would never end if it took it.
    let proof = proofs.while_held(|proofs| {
        let (sender, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(proofs.weigh(DigestFunction::Sha256, &entry, &pinned)));
            told.recv_timeout(Duration::from_secs(10)).ok()
        })
    });
    assert_eq!(proof, Some(Proof::Proven));
}

#[tokio::test]
async fn an_explanation_proves_as_a_fetch_does() {
    for (there, missed) in [
        (&b"pushed"[..], None),
        (b"else", Some(Missed::Contradicted)),
    ] {
        let world = World::default();
        let query = query(&["urn:x"], Some(b"pushed"));
        let entry = reference(there, Source::Push);
        world
            .store
            .contents
            .lock()
            .insert(entry.digest.clone(), there.to_vec());
        put(&world.store, &query, exact(&query, "urn:x"), entry);
        let resolver = world.resolver(Settings::default());
        let told = resolver.explain(&CallContext::default(), &query).await;
        let told = told.unwrap();
        let exact = told.keys.iter().find(|k| k.found.reference.is_some());
        assert_eq!(exact.unwrap().missed, missed);
        let answer = resolver.fetch(&CallContext::default(), query).await;
        assert_eq!(answer.is_ok(), missed.is_none());
        assert_eq!(world.store.reads.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn what_is_gone_when_it_is_read_back_is_gone() {
    let world = World::default();
    let query = query(&["urn:x"], Some(b"pushed"));
    let entry = reference(b"pushed", Source::Push);
    put(&world.store, &query, exact(&query, "urn:x"), entry);
    let answer = world.resolver(Settings::default());
    let answer = answer.fetch(&CallContext::default(), query).await;
    let gone = |e: &ResolveError| {
        matches!(
            e,
            ResolveError::NotFound {
                missed: Missed::Gone,
                ..
            }
        )
    };
    assert!(answer.as_ref().is_err_and(gone), "{answer:?}");
}

/// A world in which a push claims these checksums, one a URI, and rightly.
fn claiming(algorithms: &[Algorithm]) -> (World, Vec<Query>) {
    let world = World::default();
    let entry = reference(CONTENT, Source::Push);
    let contents = &world.store.contents;
    contents
        .lock()
        .insert(entry.digest.clone(), CONTENT.to_vec());
    let claims = algorithms.iter().enumerate().map(|(index, algorithm)| {
        let uri = format!("urn:x:{index}");
        let mut query = query(&[&uri], Some(CONTENT));
        let integrity = wanted(&[&hash(*algorithm, CONTENT)]);
        let pair = (CHECKSUM_SRI.to_owned(), integrity.to_string());
        query.request.qualifiers = Qualifiers::new([pair]).unwrap();
        query.request.integrity = Some(integrity);
        put(&world.store, &query, exact(&query, &uri), entry.clone());
        query
    });
    let claims = claims.collect();
    (world, claims)
}

fn caller(name: &str) -> CallContext {
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert("authorization", name.parse().unwrap());
    CallContext::from_caller(&metadata)
}

#[tokio::test]
async fn who_waits_for_another_algorithm_reads_next() {
    let (world, queries) = claiming(&[Algorithm::Sha512, Algorithm::Sha384]);
    let resolver = world.resolver(Settings::default());
    let context = CallContext::default();
    let both = queries.into_iter().map(|q| resolver.fetch(&context, q));
    let both = futures_util::future::try_join_all(both).await.unwrap();
    assert_eq!(both.len(), 2);
    assert_eq!(world.store.reads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_the_cache_told_one_caller_is_no_news_for_another() {
    let (world, queries) = claiming(&[Algorithm::Sha512]);
    let resolver = world.resolver(Settings::default());
    let refused = super::super::testing::refused(tonic::Code::PermissionDenied);
    *world.store.read_error.lock() = Some(store::Error::Upstream(refused));
    let (alice, bob) = (caller("alice"), caller("bob"));
    let later = async |caller| {
        tokio::time::sleep(Duration::from_millis(10)).await;
        resolver.fetch(caller, queries[0].clone()).await
    };
    let answers = tokio::join!(
        resolver.fetch(&alice, queries[0].clone()),
        later(&alice),
        later(&bob),
    );
    let is_refused = |a: &Result<_, ResolveError>| matches!(a, Err(ResolveError::Upstream(_)));
    assert!(
        is_refused(&answers.0) && is_refused(&answers.1),
        "{answers:?}"
    );
    assert!(answers.2.is_ok(), "{answers:?}");
    assert_eq!(world.store.reads.load(Ordering::SeqCst), 2);
}
