//! Which of several pushes answers: subsets, checksums, mirrors, several URIs.

use super::*;
use crate::asset::AssetKind;
use crate::resolver::{Answer, Missed, Push};

fn qualifiers(pairs: &[(&str, &str)]) -> Qualifiers {
    let owned = pairs.iter().map(|(n, v)| (n.to_string(), v.to_string()));
    Qualifiers::new(owned).unwrap()
}

fn push(uris: &[&str], pairs: &[(&str, &str)], content: &[u8]) -> Push {
    Push {
        kind: AssetKind::Blob,
        instance: InstanceName::default(),
        function: None,
        uris: uris.iter().map(|u| Uri::new(u.to_string())).collect(),
        qualifiers: qualifiers(pairs),
        digest: Digest::of(DigestFunction::Sha256, content).unwrap(),
        expire_at: None,
        referenced_blobs: Vec::new(),
        referenced_directories: Vec::new(),
    }
}

fn asking(uris: &[&str], pairs: &[(&str, &str)]) -> Query {
    let mut query = query(uris, None);
    query.request.qualifiers = qualifiers(pairs);
    query
}

struct Replica(World, crate::resolver::testing::TestResolver);

impl Replica {
    fn new() -> Self {
        let world = World::default();
        let resolver = world.resolver(Settings::default());
        Self(world, resolver)
    }

    async fn push(&self, push: Push) {
        let context = CallContext::default();
        self.1.push(&context, push).await.unwrap();
    }

    async fn fetch(&self, query: Query) -> Result<Answer, Missed> {
        match self.1.fetch(&CallContext::default(), query).await {
            Ok(answer) => Ok(answer),
            Err(ResolveError::NotFound { missed, .. }) => Err(missed),
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn is(answer: &Result<Answer, Missed>, content: &[u8], outcome: Outcome) -> bool {
    let digest = Digest::of(DigestFunction::Sha256, content).unwrap();
    matches!(answer, Ok(a) if a.digest == digest && a.outcome == outcome)
}

const ABC: [(&str, &str); 3] = [("a", "1"), ("b", "2"), ("c", "3")];

#[tokio::test]
async fn p3_a_push_is_found_with_any_of_its_qualifiers() {
    let replica = Replica::new();
    replica.push(push(&["urn:x", "urn:y"], &ABC, b"x")).await;
    for set in 0..8u8 {
        let chosen = (0..3).filter(|i| set >> i & 1 == 1).map(|i| ABC[i]);
        let chosen: Vec<_> = chosen.collect();
        let outcome = match chosen.len() {
            3 => Outcome::HitExact,
            _ => Outcome::HitSubset,
        };
        for uri in ["urn:x", "urn:y"] {
            let answer = replica.fetch(asking(&[uri], &chosen)).await;
            assert!(is(&answer, b"x", outcome), "{chosen:?}: {answer:?}");
            assert_eq!(answer.unwrap().qualifiers, qualifiers(&ABC));
        }
    }
}

#[tokio::test]
async fn p2_other_values_and_more_qualifiers_do_not_match() {
    let replica = Replica::new();
    replica.push(push(&["urn:x"], &ABC[..2], b"x")).await;
    for other in [
        &ABC[..],
        &[("a", "2")],
        &[("c", "3")],
        &[("a", "1"), ("c", "3")],
    ] {
        let answer = replica.fetch(asking(&["urn:x"], other)).await;
        assert_eq!(answer.unwrap_err(), Missed::Absent);
    }
}

#[tokio::test]
async fn an_exact_push_beats_one_with_more_and_the_latest_of_those_wins() {
    let replica = Replica::new();
    replica.push(push(&["urn:x"], &ABC[..1], b"exact")).await;
    replica.push(push(&["urn:x"], &ABC, b"more")).await;
    let answer = replica.fetch(asking(&["urn:x"], &ABC[..1])).await;
    assert!(is(&answer, b"exact", Outcome::HitExact), "{answer:?}");
    let answer = replica.fetch(asking(&["urn:x"], &[])).await;
    assert!(is(&answer, b"more", Outcome::HitSubset), "{answer:?}");
    replica.push(push(&["urn:x"], &ABC[..2], b"latest")).await;
    let answer = replica.fetch(asking(&["urn:x"], &[])).await;
    assert!(is(&answer, b"latest", Outcome::HitSubset), "{answer:?}");
}

#[tokio::test]
async fn n8_a_withdrawn_push_is_found_by_no_subset_and_hides_nobody_else() {
    let replica = Replica::new();
    replica.push(push(&["urn:x"], &ABC, b"x")).await;
    let withdrawal = Push {
        expire_at: Some(SystemTime::UNIX_EPOCH),
        ..push(&["urn:x"], &ABC, b"x")
    };
    replica.push(withdrawal.clone()).await;
    for pairs in [&ABC[..], &ABC[..1], &[]] {
        let answer = replica.fetch(asking(&["urn:x"], pairs)).await;
        assert_eq!(answer.unwrap_err(), Missed::Expired);
    }
    replica.push(push(&["urn:x"], &ABC[..2], b"other")).await;
    replica.push(withdrawal).await;
    let answer = replica.fetch(asking(&["urn:x"], &ABC[..1])).await;
    assert!(is(&answer, b"other", Outcome::HitSubset), "{answer:?}");
}

#[tokio::test]
async fn a_later_exact_push_answers_for_an_older_subset_entry() {
    let replica = Replica::new();
    replica.push(push(&["urn:x"], &ABC, b"old")).await;
    // As another replica that writes no subsets would push.
    let mut settings = Settings::default();
    settings.subsets.max = 0;
    let other = replica.0.resolver(settings);
    let newer = push(&["urn:x"], &ABC, b"new");
    other.push(&CallContext::default(), newer).await.unwrap();
    let answer = replica.fetch(asking(&["urn:x"], &ABC[..1])).await;
    assert!(is(&answer, b"new", Outcome::HitSubset), "{answer:?}");
}

#[tokio::test]
async fn a_push_of_four_qualifiers_and_two_uris_writes_32_entries() {
    let replica = Replica::new();
    let four = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")];
    replica.push(push(&["urn:x", "urn:y"], &four, b"x")).await;
    let puts = replica.0.store.puts.lock().clone();
    assert_eq!((puts.len(), puts[0].len()), (1, 32));
    replica.push(push(&["urn:x"], &[], b"x")).await;
    assert_eq!(replica.0.store.puts.lock()[1].len(), 1, "BuildStream's");
}

#[tokio::test]
async fn p2_a_push_without_checksum_answers_for_the_checksum_of_its_bytes() {
    let replica = Replica::new();
    replica.push(push(&["urn:x"], &[], b"content")).await;
    let pinned = |algorithm: DigestFunction, content: &[u8]| {
        use base64::Engine as _;
        let raw = Digest::of(algorithm, content).unwrap().raw();
        let raw = base64::engine::general_purpose::STANDARD.encode(raw);
        let name = algorithm.name().to_ascii_lowercase();
        let sri = format!("{name}-{raw}");
        let mut query = asking(&["urn:x"], &[(CHECKSUM_SRI, &sri)]);
        query.request.integrity = Some(Integrity::parse(&sri).unwrap());
        query
    };
    let answer = replica
        .fetch(pinned(DigestFunction::Sha256, b"content"))
        .await;
    assert!(is(&answer, b"content", Outcome::HitExact), "{answer:?}");
    let answer = replica
        .fetch(pinned(DigestFunction::Sha256, b"other"))
        .await;
    assert_eq!(answer.unwrap_err(), Missed::Contradicted);
    // Of another function nothing is proved.
    let answer = replica
        .fetch(pinned(DigestFunction::Sha512, b"content"))
        .await;
    assert_eq!(answer.unwrap_err(), Missed::Contradicted);
}

#[tokio::test]
async fn u2_every_uri_of_a_push_finds_it_and_a_half_written_one_is_not_done() {
    let replica = Replica::new();
    replica
        .push(push(&["urn:strong", "urn:weak"], &[], b"x"))
        .await;
    let ask = |uris: &[&str]| replica.fetch(asking(uris, &[]));
    for uris in [&["urn:strong"][..], &["urn:weak"], &["urn:weak", "urn:z"]] {
        assert!(is(&ask(uris).await, b"x", Outcome::HitExact));
    }
    // As if the write of the first URI had failed.
    let entries = &replica.0.store.entries;
    let is_first = |key: &AssetKey| key.space.uri() == Some(&Uri::new("urn:strong"));
    entries.lock().retain(|key, _| !is_first(key));
    let before_push = ask(&["urn:strong", "urn:weak"]).await;
    assert_eq!(before_push.unwrap_err(), Missed::HalfPushed);
    assert!(is(&ask(&["urn:weak"]).await, b"x", Outcome::HitExact));
    // Pushed for the second alone, it is no half of anything.
    replica.push(push(&["urn:weak"], &[], b"y")).await;
    let answer = ask(&["urn:strong", "urn:weak"]).await;
    assert!(is(&answer, b"y", Outcome::HitExact), "{answer:?}");
}

#[tokio::test]
async fn u2_an_entry_of_before_does_not_make_a_half_written_push_whole() {
    let replica = Replica::new();
    let ask = || replica.fetch(asking(&["urn:strong", "urn:weak"], &[]));
    let entries = &replica.0.store.entries;
    let is_first = |key: &AssetKey| key.space.uri() == Some(&Uri::new("urn:strong"));
    let withdrawal = || Push {
        expire_at: Some(SystemTime::UNIX_EPOCH),
        ..push(&["urn:strong"], &[], b"w")
    };
    replica.push(withdrawal()).await;
    let before = entries.lock().clone();
    replica
        .push(push(&["urn:strong", "urn:weak"], &[], b"x"))
        .await;
    // As if the write of the first URI had failed.
    entries.lock().retain(|key, _| !is_first(key));
    entries.lock().extend(before);
    assert_eq!(ask().await.unwrap_err(), Missed::Expired);
    // Withdrawn after a push that was whole, the other URI still answers.
    replica.push(withdrawal()).await;
    assert!(is(&ask().await, b"x", Outcome::HitExact));
}

#[tokio::test]
async fn what_an_origin_served_before_is_asked_for_only_where_it_matters() {
    let world = World::default();
    let resolver = world.resolver(Settings::default());
    let context = CallContext::default();
    let spaces = || {
        let keys = std::mem::take(&mut *world.store.gets.lock());
        keys.iter().map(|k| k.space.name()).collect::<Vec<_>>()
    };
    // Last, and for the origin's sake.
    resolver.fetch(&context, query(&[URL], None)).await.unwrap();
    assert_eq!(spaces(), ["exact", "subset", "fetched"]);
    let mut limited = query(&[URL], None);
    limited.request.oldest = Some(SystemTime::UNIX_EPOCH);
    let answer = resolver.fetch(&context, limited).await.unwrap();
    assert_eq!(answer.outcome, Outcome::HitExact);
    assert_eq!(spaces(), ["exact", "fetched"]);
    let urn = resolver.fetch(&context, query(&["urn:x"], None)).await;
    urn.unwrap_err();
    assert_eq!(spaces(), ["exact", "subset"]);
    let pinned = query(&[URL], Some(b"from the origin"));
    resolver.fetch(&context, pinned).await.unwrap();
    assert_eq!(spaces(), ["checksum", "exact", "exact", "subset"]);
}
