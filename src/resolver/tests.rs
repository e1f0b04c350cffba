//! What does not show at the API: forged entries, order and number of
//! look-ups, threads. The rest is tested as clients see it, in `api::tests`.

mod explain;
mod freshness;
mod matching;
mod proof;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::testing::{FakeStore, World, content};
use super::{Outcome, Query, ResolveError, Settings};
use crate::asset::{
    AssetKey, AssetKind, AssetReference, CHECKSUM_SRI, Integrity, KeySpace, OriginHeaders,
    Qualifiers, Source, Uri, Validators,
};
use crate::digest::{Digest, DigestFunction, InstanceName, Scope};
use crate::fetcher::{FetchRequest, Waiters};
use crate::upstream::CallContext;

const URL: &str = "https://origin.example/a";

pub(super) fn query(uris: &[&str], pinned: Option<&[u8]>) -> Query {
    let sri = pinned.map(|content| {
        use base64::Engine as _;
        let raw = Digest::of(DigestFunction::Sha512, content).unwrap().raw();
        let encoded = base64::engine::general_purpose::STANDARD.encode(raw);
        format!("sha512-{encoded}")
    });
    let pairs = sri.iter().map(|sri| (CHECKSUM_SRI.to_owned(), sri.clone()));
    let request = FetchRequest {
        kind: AssetKind::Blob,
        scope: Scope::new(InstanceName::default(), DigestFunction::Sha256),
        uris: uris.iter().map(|u| Uri::new(u.to_string())).collect(),
        qualifiers: Qualifiers::new(pairs).unwrap(),
        integrity: sri.as_deref().map(|sri| Integrity::parse(sri).unwrap()),
        headers: OriginHeaders::default(),
        timeout: None,
        oldest: None,
        known: Vec::new(),
        waiters: Waiters::default(),
    };
    Query {
        request,
        comes_back: true,
    }
}

/// The same, of what was retrieved then or later.
pub(super) fn at(mut query: Query, oldest: impl Into<Option<SystemTime>>) -> Query {
    query.request.oldest = oldest.into();
    query
}

fn reference(content: &[u8], source: Source) -> AssetReference {
    AssetReference {
        kind: AssetKind::Blob,
        digest: Digest::of(DigestFunction::Sha256, content).unwrap(),
        uri: String::new(),
        qualifiers: Qualifiers::default(),
        content_time: SystemTime::now(),
        expire_at: None,
        source,
        validators: Validators::default(),
        verified: Vec::new(),
        signed_at: None,
        referenced_blobs: Vec::new(),
        referenced_directories: Vec::new(),
    }
}

fn put(store: &FakeStore, query: &Query, space: KeySpace, entry: AssetReference) {
    let key = AssetKey {
        scope: query.request.scope.clone(),
        kind: query.request.kind,
        space,
    };
    store.entries.lock().insert(key, entry);
}

fn exact(query: &Query, uri: &str) -> KeySpace {
    KeySpace::Exact {
        uri: Uri::new(uri.to_owned()),
        qualifiers: query.request.qualifiers.clone(),
    }
}

#[tokio::test]
async fn a_checksum_entry_that_nobody_verified_is_not_believed() {
    let world = World::default();
    let query = query(&[URL], Some(b"from the origin"));
    let checksum = query.request.integrity.as_ref().unwrap().checksums()[0].clone();
    let space = KeySpace::checksum(&checksum, &query.request.qualifiers).unwrap();
    put(
        &world.store,
        &query,
        space,
        reference(b"forged", Source::Fetch),
    );
    put(
        &world.store,
        &query,
        exact(&query, URL),
        reference(b"forged", Source::Fetch),
    );
    let answer = world.resolver(Settings::default());
    let answer = answer.fetch(&CallContext::default(), query).await.unwrap();
    assert_eq!(answer.outcome, Outcome::Fetched);
}

#[tokio::test]
async fn an_entry_of_another_kind_is_not_believed() {
    let world = World::default();
    let query = query(&["urn:x"], None);
    let mut entry = reference(b"tree", Source::Push);
    entry.kind = AssetKind::Directory;
    put(&world.store, &query, exact(&query, "urn:x"), entry);
    let resolver = world.resolver(Settings::default());
    let answer = resolver.fetch(&CallContext::default(), query).await;
    assert!(
        matches!(answer, Err(ResolveError::NotFound { .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn look_ups_stop_at_the_first_hit() {
    let world = World::default();
    let names: Vec<String> = (0..20).map(|i| format!("urn:x:{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let query = query(&names, None);
    for i in [19, 10] {
        let entry = reference(names[i].as_bytes(), Source::Push);
        put(&world.store, &query, exact(&query, names[i]), entry);
    }
    let resolver = world.resolver(Settings::default());
    let answer = resolver
        .fetch(&CallContext::default(), query)
        .await
        .unwrap();
    assert_eq!(answer.uri_index, Some(10));
    assert_eq!(world.store.gets.lock().len(), 16, "two rounds of eight");
}

#[tokio::test]
async fn a_pinned_hit_asks_the_cache_once() {
    let world = World::default();
    let resolver = world.resolver(Settings::default());
    let context = CallContext::default();
    let query = query(&[URL], Some(b"from the origin"));
    resolver.fetch(&context, query.clone()).await.unwrap();
    world.store.gets.lock().clear();
    let answer = resolver.fetch(&context, query).await.unwrap();
    assert_eq!(answer.outcome, Outcome::HitChecksum);
    assert_eq!(world.store.gets.lock().len(), 1);
}

#[tokio::test]
async fn another_thread_looks_up_in_its_own_store_and_fetches_in_the_shared_one() {
    let world = World::default();
    let own = Arc::new(FakeStore::default());
    let resolver = world.resolver(Settings::default());
    let resolver = resolver.on_thread(Arc::clone(&own), Arc::clone(&world.announce));
    let query = query(&[URL], None);
    resolver
        .fetch(&CallContext::default(), query)
        .await
        .unwrap();
    assert_eq!((own.gets.lock().len(), own.puts.lock().len()), (2, 0));
    assert_eq!(world.store.puts.lock().len(), 1);
}

#[tokio::test]
async fn only_verified_hashes_become_keys() {
    let world = World::default();
    world.fetcher.script(|request| {
        let mut fetched = content(request, b"from the origin");
        fetched.verified.clear();
        Ok(fetched)
    });
    let resolver = world.resolver(Settings::default());
    let query = query(&[URL], Some(b"from the origin"));
    resolver
        .fetch(&CallContext::default(), query)
        .await
        .unwrap();
    assert!(world.store.entries.lock().is_empty());
}

#[tokio::test]
async fn a_shutdown_that_ends_a_fetch_says_so() {
    let world = World::default();
    world
        .fetcher
        .hangs
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let asset_runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let resolver = super::Resolver::new(
        Arc::clone(&world.store),
        Arc::clone(&world.fetcher),
        Arc::clone(&world.announce),
        Settings::default(),
        world.drain.clone(),
        asset_runtime.handle().clone(),
    );
    let context = CallContext::default();
    let fetch = resolver.fetch(&context, query(&[URL], None));
    let stop = async {
        while world.fetcher.count() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        asset_runtime.shutdown_background();
    };
    let (answer, ()) = tokio::join!(fetch, stop);
    assert!(matches!(answer, Err(ResolveError::Stopped)), "{answer:?}");
}

#[tokio::test]
async fn p3_a_push_during_a_fetch_is_not_overwritten_by_it() {
    for pushed_after in [true, false] {
        let world = World::default();
        let query = query(&[URL], None);
        let key = AssetKey {
            scope: query.request.scope.clone(),
            kind: query.request.kind,
            space: exact(&query, URL),
        };
        let (store, at) = (Arc::clone(&world.store), key.clone());
        world.fetcher.script(move |request| {
            let mut fetched = content(request, b"from the origin");
            let mut entry = reference(b"pushed", Source::Push);
            let before = Duration::from_secs(60);
            if pushed_after {
                fetched.started_at -= before;
            } else {
                entry.content_time -= before;
            }
            store.entries.lock().insert(at.clone(), entry);
            Ok(fetched)
        });
        let resolver = world.resolver(Settings::default());
        let context = CallContext::default();
        let answer = resolver.fetch(&context, query).await.unwrap();
        assert_eq!(answer.outcome, Outcome::Fetched);
        // Whichever came first: what was fetched has a key of its own.
        let entries = world.store.entries.lock();
        assert_eq!((entries[&key].source, entries.len()), (Source::Push, 2));
    }
}

#[tokio::test]
async fn p4_validators_of_an_origin_that_saw_a_secret_are_not_kept() {
    let plain = "https://origin.example/a";
    for (uri, kept) in [(plain, true), ("https://user:pass@origin.example/a", false)] {
        let world = World::default();
        world.fetcher.script(|request| {
            let mut fetched = content(request, b"from the origin");
            fetched.validators.etag = Some("pass".to_owned());
            Ok(fetched)
        });
        let query = query(&[uri], Some(b"from the origin"));
        let resolver = world.resolver(Settings::default());
        let context = CallContext::default();
        resolver.fetch(&context, query).await.unwrap();
        let entries = world.store.entries.lock();
        assert_eq!(entries.len(), 1);
        let etags = entries
            .values()
            .map(|entry| entry.validators.etag.is_some());
        assert!(etags.eq([kept]), "{uri}");
    }
}
