//! One download for all who want the same bytes.

use std::sync::atomic::Ordering;

use super::origin::{Origin, Step, ok, status};
use super::*;
use tonic::metadata::MetadataMap;

/// Answers after a while, so that others can come along.
fn slowly(path: &str) -> Vec<Step> {
    let mut steps = vec![Step::Sleep(Duration::from_millis(300))];
    steps.extend(match path {
        "/503" => status("503 Down"),
        _ => ok(b"content"),
    });
    steps
}

fn caller(token: &str) -> CallContext {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", token.parse().unwrap());
    CallContext::from_caller(&metadata)
}

/// Both at once; the second a little later.
async fn both(
    rig: &Rig,
    first: (&CallContext, &FetchRequest),
    second: (&CallContext, &FetchRequest),
) -> [Result<Fetched, FetchError>; 2] {
    let later = async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        rig.fetcher.fetch(second.0, second.1).await
    };
    let (first, second) = tokio::join!(rig.fetcher.fetch(first.0, first.1), later);
    [first, second]
}

fn sri(algorithm: crate::asset::Algorithm, content: &[u8]) -> Option<Integrity> {
    let raw = Digest::of(algorithm.function(), content).unwrap().raw();
    let checksum = crate::asset::Checksum::new(algorithm, &raw).unwrap();
    Some(Integrity::parse(&checksum.to_string()).unwrap())
}

fn with_integrity(uris: &[&str], integrity: Option<Integrity>) -> FetchRequest {
    FetchRequest {
        integrity,
        ..request(uris)
    }
}

#[tokio::test]
async fn scenario_21_the_same_bytes_are_downloaded_once() {
    use crate::asset::Algorithm::{Sha256, Sha512};
    let (origin, elsewhere) = (Origin::start(slowly).await, Origin::start(slowly).await);
    let (url, bad) = (origin.url("/x"), "urn:not:fetchable");
    let (one, other) = (caller("one"), caller("other"));
    let sha256 = with_integrity(&[&url], sri(Sha256, b"content"));
    let sha512 = with_integrity(&[&url], sri(Sha512, b"content"));
    let second_mirror = with_integrity(&[bad, &url], sri(Sha256, b"content"));
    let plain = request(&[&url]);
    for (first, second) in [
        ((&one, &sha256), (&one, &sha256)),
        ((&one, &sha256), (&other, &sha256)),
        ((&one, &sha256), (&one, &second_mirror)),
        ((&one, &sha256), (&one, &sha512)),
        ((&one, &sha512), (&other, &sha256)),
        ((&one, &plain), (&other, &plain)),
    ] {
        let rig = Rig::new();
        let before = origin.requests();
        let got = both(&rig, first, second).await.map(Result::unwrap);
        assert_eq!(origin.requests() - before, 1);
        assert_eq!(got[0].digest, got[1].digest);
        assert_eq!((got[0].joined, got[1].joined), (false, true));
        assert_eq!((got[0].origin_bytes, got[1].origin_bytes), (7, 0));
        let wanted = second.1.integrity.as_ref();
        let fits = |c| wanted.is_some_and(|w| w.checksums().contains(c));
        assert_eq!(got[1].verified.iter().any(fits), wanted.is_some());
    }
    assert_eq!(elsewhere.requests(), 0);
}

#[tokio::test]
async fn scenario_21_other_bytes_are_not() {
    let origin = Origin::start(slowly).await;
    let url = origin.url("/x");
    let first = with_headers(&[&url], &[("http_header:X-Token", "a")]);
    let other_value = with_headers(&[&url], &[("http_header:X-Token", "b")]);
    let no_header = request(&[&url]);
    let other_url = with_headers(&[&origin.url("/y")], &[("http_header:X-Token", "a")]);
    let mut other_id = first.clone();
    let id = ("bazel.canonical_id".to_owned(), "2".to_owned());
    other_id.qualifiers = Qualifiers::new([id]).unwrap();
    let mut other_instance = first.clone();
    let tenant = InstanceName::new("tenant").unwrap();
    other_instance.scope = Scope::new(tenant, DigestFunction::Sha256);
    let pinned = with_integrity(&[&url], sri(crate::asset::Algorithm::Sha256, b"content"));
    for second in [
        &other_value,
        &no_header,
        &other_url,
        &other_id,
        &other_instance,
        &pinned,
    ] {
        let (rig, before) = (Rig::new(), origin.requests());
        let who = CallContext::default();
        let got = both(&rig, (&who, &first), (&who, second)).await;
        assert!(got.iter().all(Result::is_ok));
        assert_eq!(origin.requests() - before, 2, "{second:?}");
    }
}

#[tokio::test]
async fn scenario_21_who_leaves_or_is_wrong_harms_nobody_else() {
    use crate::asset::Algorithm::Sha256;
    let origin = Origin::start(slowly).await;
    let (url, who) = (origin.url("/x"), CallContext::default());
    let right = with_integrity(&[&url], sri(Sha256, b"content"));
    let wrong = with_integrity(&[&url], sri(Sha256, b"other"));
    let mut hasty = right.clone();
    hasty.timeout = Some(Duration::from_millis(120));

    let (rig, before) = (Rig::new(), origin.requests());
    let got = both(&rig, (&who, &hasty), (&who, &right)).await;
    let timed_out = |e: &FetchError| {
        matches!(
            e,
            FetchError::Origin {
                failure: Failure::TimedOut,
                ..
            }
        )
    };
    assert!(got[0].as_ref().is_err_and(timed_out), "the first times out");
    assert!(got[1].is_ok(), "the other goes on");
    assert_eq!(origin.requests() - before, 1);

    let (rig, before) = (Rig::new(), origin.requests());
    let got = both(&rig, (&who, &right), (&who, &hasty)).await;
    assert!(got[0].is_ok() && got[1].as_ref().is_err_and(timed_out));
    assert_eq!(origin.requests() - before, 1);

    let mismatch = |e: &FetchError| {
        matches!(
            e,
            FetchError::Origin {
                failure: Failure::Mismatch,
                ..
            }
        )
    };
    let (rig, before) = (Rig::new(), origin.requests());
    let got = both(&rig, (&who, &right), (&who, &wrong)).await;
    assert!(got[0].is_ok() && got[1].as_ref().is_err_and(mismatch));
    assert_eq!(origin.requests() - before, 1, "the bytes had come");

    let (rig, before) = (Rig::new(), origin.requests());
    let got = both(&rig, (&who, &wrong), (&who, &right)).await;
    assert!(got[0].as_ref().is_err_and(mismatch) && got[1].is_ok());
    assert_eq!(origin.requests() - before, 2, "nothing was stored");

    let (rig, before) = (Rig::new(), origin.requests());
    let got = both(&rig, (&who, &wrong), (&who, &wrong)).await;
    assert!(got.iter().all(|g| g.as_ref().is_err_and(mismatch)));
    assert_eq!(
        origin.requests() - before,
        1,
        "the same wish, the same answer"
    );
}

#[tokio::test]
async fn scenario_21_a_shared_failure_sends_each_to_its_own_next_mirror() {
    let origin = Origin::start(slowly).await;
    let rig = Rig::with(|s| s.attempts = 1, FakeCache::default());
    let (bad, who) = (origin.url("/503"), CallContext::default());
    let first = request(&[&bad, &origin.url("/a")]);
    let second = request(&[&bad, &origin.url("/b")]);
    let got = both(&rig, (&who, &first), (&who, &second)).await;
    for one in got {
        assert_eq!(one.unwrap().uri_index, 1);
    }
    assert_eq!(origin.requests(), 3);
}

#[tokio::test]
async fn scenario_21_when_all_have_left_the_origin_is_left_too() {
    let origin = Origin::start(|path| match path {
        "/hang" => vec![Step::Hang],
        _ => ok(b"content"),
    });
    let origin = origin.await;
    let rig = Rig::new();
    let request = request(&[&origin.url("/hang")]);
    let both = async { tokio::join!(rig.fetch(&request), rig.fetch(&request)) };
    let left = tokio::time::timeout(Duration::from_millis(200), both).await;
    assert!(left.is_err());
    for _ in 0..200 {
        if origin.open.load(Ordering::SeqCst) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(origin.open.load(Ordering::SeqCst), 0);
    assert_eq!(origin.requests(), 1);
    rig.get(&[&origin.url("/x")]).await.unwrap();
}

#[tokio::test]
async fn one_after_another_cannot_keep_a_download_alive_for_ever() {
    let origin = Origin::start(|_| vec![Step::Hang]).await;
    let longest = Duration::from_millis(400);
    let settings = |s: &mut Settings| {
        s.timeout = longest;
        s.max_timeout = longest;
    };
    let rig = Rig::with(settings, FakeCache::default());
    let request = request(&[&origin.url("/x")]);
    let later = |by| {
        let (rig, request) = (&rig, &request);
        async move {
            tokio::time::sleep(Duration::from_millis(by)).await;
            rig.failure(request).await
        }
    };
    let since = tokio::time::Instant::now();
    let (first, second) = tokio::join!(later(0), later(300));
    assert_eq!((first.0, second.0), (Failure::TimedOut, Failure::TimedOut));
    assert!(
        since.elapsed() < Duration::from_millis(650),
        "not its own 700"
    );
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn t5_what_just_landed_is_not_downloaded_again_unless_it_is_gone() {
    let origin = Origin::start(|_| ok(b"content")).await;
    let rig = Rig::new();
    let pinned = pinned(&[&origin.url("/x")], b"content");
    rig.fetch(&pinned).await.unwrap();
    assert!(rig.fetch(&pinned).await.unwrap().joined);
    assert_eq!(origin.requests(), 1);
    rig.cache.blobs.lock().clear();
    assert!(!rig.fetch(&pinned).await.unwrap().joined);
    assert_eq!(origin.requests(), 2);
    let mut later = pinned.clone();
    later.oldest = Some(std::time::SystemTime::now());
    rig.cache.blobs.lock().clear();
    rig.fetch(&later).await.unwrap();
    assert_eq!(origin.requests(), 3, "it is older than that");
}

#[tokio::test]
async fn n4_who_states_a_time_joins_only_what_began_after_it() {
    let origin = Origin::start(slowly).await;
    let (rig, who) = (Rig::new(), CallContext::default());
    let plain = request(&[&origin.url("/x")]);
    let future = std::time::SystemTime::now() + Duration::from_secs(3600);
    let of = |oldest| FetchRequest {
        oldest: Some(oldest),
        ..plain.clone()
    };
    let (same, later) = (of(future), of(future + Duration::from_secs(1)));
    let past = of(std::time::SystemTime::now() - Duration::from_secs(5));
    for (first, second, requests) in [
        (&same, &same, 1),
        (&same, &later, 2),
        (&plain, &past, 1),
        (&plain, &same, 2),
        (&same, &plain, 1),
    ] {
        let before = origin.requests();
        let got = both(&rig, (&who, first), (&who, second)).await;
        assert!(got.iter().all(Result::is_ok));
        assert_eq!(origin.requests() - before, requests);
    }
}
