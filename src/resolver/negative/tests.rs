//! What an origin said it does not have: for how long that holds, for whom, and
//! what ends it.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tonic::metadata::MetadataMap;

use super::*;
use crate::asset::{AssetKind, Qualifiers, Uri};
use crate::digest::{Digest, DigestFunction, InstanceName};
use crate::resolver::testing::{TestResolver, World, content, refused};
use crate::resolver::tests::{at, query};
use crate::resolver::{Outcome, Push, Query, Settings};
use crate::upstream::CallContext;

const URL: &str = "https://origin.example/a";
const SECOND: Duration = Duration::from_secs(1);

fn without(failure: Failure) -> (World, TestResolver) {
    let world = World::default();
    world.fetcher.fails(failure);
    // A push with more qualifiers than are asked for is a miss.
    let mut settings = Settings::default();
    settings.subsets.max = 0;
    let resolver = world.resolver(settings);
    (world, resolver)
}

async fn fetch(resolver: &TestResolver, query: &Query) -> Landing {
    resolver.fetch(&CallContext::default(), query.clone()).await
}

fn push(uri: &str, qualifier: Option<&str>) -> Push {
    let pairs = qualifier.map(|value| ("q".to_owned(), value.to_owned()));
    Push {
        kind: AssetKind::Blob,
        instance: InstanceName::default(),
        function: None,
        uris: vec![Uri::new(uri.to_owned())],
        qualifiers: Qualifiers::new(pairs).unwrap(),
        digest: Digest::of(DigestFunction::Sha256, b"pushed").unwrap(),
        expire_at: None,
        referenced_blobs: Vec::new(),
        referenced_directories: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_origin_is_not_asked_again_for_ten_seconds() {
    for pinned in [None, Some(&b"x"[..])] {
        let (world, resolver) = without(Failure::NotFound);
        let query = query(&[URL], pinned);
        let first = fetch(&resolver, &query).await.unwrap_err().to_string();
        tokio::time::advance(HELD - SECOND).await;
        let second = fetch(&resolver, &query).await.unwrap_err();
        let ResolveError::Fetch(FetchError::Origin {
            failure: Failure::NotFound,
            attempts: 0,
            message,
            ..
        }) = second
        else {
            panic!("{second:?}")
        };
        assert!(message.starts_with(&first), "{message}");
        assert!(message.contains("said 9 s ago"), "{message}");
        assert_eq!(world.fetcher.count(), 1);
        tokio::time::advance(SECOND).await;
        fetch(&resolver, &query).await.unwrap_err();
        assert_eq!(world.fetcher.count(), 2, "not prolonged by being used");
    }
}

#[tokio::test(start_paused = true)]
async fn only_an_origins_word_about_the_content_is_remembered() {
    for failure in [
        Failure::Refused,
        Failure::Unusable,
        Failure::TimedOut,
        Failure::Unavailable { retry_after: None },
    ] {
        let (world, resolver) = without(failure);
        for _ in 0..2 {
            fetch(&resolver, &query(&[URL], None)).await.unwrap_err();
        }
        assert_eq!(world.fetcher.count(), 2);
    }
    let (world, resolver) = without(Failure::NotFound);
    world.fetcher.script(|_| {
        Err(FetchError::Origin {
            failure: Failure::NotFound,
            uri_index: 0,
            message: "no URL that makes sense".into(),
            detail: None,
            attempts: 0,
        })
    });
    for _ in 0..2 {
        fetch(&resolver, &query(&[URL], None)).await.unwrap_err();
    }
    assert_eq!(world.fetcher.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_names_a_time_asks_and_its_success_counts() {
    let (world, resolver) = without(Failure::NotFound);
    let plain = query(&[URL], None);
    for (seconds, requests) in [(None, 1), (None, 1), (Some(3600), 2), (Some(0), 3)] {
        let from_now = |s| SystemTime::now() + Duration::from_secs(s);
        let query = at(plain.clone(), seconds.map(from_now));
        fetch(&resolver, &query).await.unwrap_err();
        assert_eq!(world.fetcher.count(), requests);
    }
    world.fetcher.script(|request| Ok(content(request, b"new")));
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    let timed = at(plain.clone(), in_an_hour);
    fetch(&resolver, &timed).await.unwrap();
    let answer = fetch(&resolver, &plain).await.unwrap();
    assert_eq!(answer.outcome, Outcome::Fetched);
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_what_an_origin_told_others() {
    let (world, resolver) = without(Failure::NotFound);
    let caller = |name: &str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", name.parse().unwrap());
        CallContext::from_caller(&metadata)
    };
    let with_header = |value: &str| {
        let mut query = query(&[URL], None);
        let headers = &mut query.request.headers;
        headers.insert("http_header:X-Token", value, 1).unwrap();
        query
    };
    let others = [
        (CallContext::default(), query(&[URL], None)),
        (CallContext::default(), with_header("a")),
        (CallContext::default(), with_header("b")),
        (caller("a"), query(&[URL], None)),
        (caller("b"), query(&[URL], None)),
    ];
    for _ in 0..2 {
        for (context, query) in &others {
            resolver.fetch(context, query.clone()).await.unwrap_err();
        }
        assert_eq!(world.fetcher.count(), others.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_of_one_of_the_uris_ends_it() {
    let (world, resolver) = without(Failure::NotFound);
    let context = CallContext::default();
    let mirror = "https://mirror.example/a";
    let query = query(&[URL, mirror], None);
    fetch(&resolver, &query).await.unwrap_err();
    for (pushed, requests) in [
        (push("https://origin.example/b", None), 1),
        (
            Push {
                kind: AssetKind::Directory,
                ..push(URL, None)
            },
            1,
        ),
        // Of another asset, so that the look-up misses still.
        (push(mirror, Some("1")), 2),
    ] {
        tokio::time::advance(Duration::from_millis(1)).await;
        resolver.push(&context, pushed).await.unwrap();
        fetch(&resolver, &query).await.unwrap_err();
        assert_eq!(world.fetcher.count(), requests);
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_during_the_fetch_counts_too() {
    let (world, resolver) = without(Failure::NotFound);
    *world.fetcher.takes.lock() = SECOND * 2;
    let query = query(&[URL], None);
    let context = CallContext::default();
    let (answer, ()) = tokio::join!(fetch(&resolver, &query), async {
        tokio::time::sleep(SECOND).await;
        resolver.push(&context, push(URL, Some("1"))).await.unwrap();
    });
    answer.unwrap_err();
    fetch(&resolver, &query).await.unwrap_err();
    assert_eq!(world.fetcher.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_cache_is_asked_first() {
    let (world, resolver) = without(Failure::NotFound);
    let query = query(&[URL], None);
    fetch(&resolver, &query).await.unwrap_err();
    // As another replica would have recorded it.
    let replica = world.resolver(Settings::default());
    let context = CallContext::default();
    replica.push(&context, push(URL, None)).await.unwrap();
    let answer = fetch(&resolver, &query).await.unwrap();
    assert_eq!(answer.outcome, Outcome::HitExact);
    world.store.entries.lock().clear();
    *world.store.get_error.lock() = Some(refused(tonic::Code::Unauthenticated).into());
    let answer = fetch(&resolver, &query).await;
    assert!(
        matches!(answer, Err(ResolveError::Upstream(_))),
        "{answer:?}"
    );
    assert_eq!(world.fetcher.count(), 1);
    assert_eq!(world.store.checks.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn both_lists_are_bounded_and_forgetting_a_push_is_safe() {
    let (world, resolver) = without(Failure::NotFound);
    let first = query(&[URL], None);
    fetch(&resolver, &first).await.unwrap_err();
    for i in 0..ENTRIES.get() {
        let url = format!("{URL}{i}");
        fetch(&resolver, &query(&[&url], None)).await.unwrap_err();
    }
    let negatives = &resolver.inner.shared.negatives;
    assert_eq!(negatives.held.lock().negatives.len(), ENTRIES.get());
    let before = world.fetcher.count();
    fetch(&resolver, &first).await.unwrap_err();
    assert_eq!(world.fetcher.count(), before + 1, "it had to go");

    tokio::time::advance(SECOND).await;
    let fingerprints = &resolver.inner.shared.fingerprints;
    negatives.pushed(&fingerprints.pushed(&push(URL, None)));
    for i in 0..PUSHES.get() {
        let uri = format!("urn:x:{i}");
        negatives.pushed(&fingerprints.pushed(&push(&uri, None)));
    }
    assert_eq!(negatives.held.lock().pushes.len(), PUSHES.get());
    fetch(&resolver, &first).await.unwrap_err();
    assert_eq!(world.fetcher.count(), before + 2, "ended by the push");
}
