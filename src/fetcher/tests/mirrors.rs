//! Several URIs: order, precedence, and what cannot be fetched at all.

use std::time::Duration;

use super::origin::{Origin, Step, answer, ok, status};
use super::*;

fn script(path: &str) -> Vec<Step> {
    match path {
        "/ok" => ok(b"good"),
        "/bad" => ok(b"evil"),
        "/400" => status("400 Bad Request"),
        "/403" => status("403 Forbidden"),
        "/408" => status("408 Request Timeout"),
        "/429" => answer("429 Too Many Requests", "retry-after: 7\r\n", b""),
        "/503" => answer("503 Service Unavailable", "retry-after: 3\r\n", b""),
        "/reset" => vec![Step::Reset],
        "/close-cut" => vec![Step::Send(
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ngo".to_vec(),
        )],
        _ => status("404 Gone Fishing"),
    }
}

#[tokio::test]
async fn u4_whatever_is_wrong_with_a_mirror_the_next_is_tried() {
    let (origin, rig) = (Origin::start(script).await, Rig::new());
    let other = Origin::start(script).await;
    let good = other.url("/ok");
    for first in [
        "/404",
        "/403",
        "/400",
        "/408",
        "/503",
        "/reset",
        "/bad",
        "/close-cut",
        // The last, as its origin is left alone after it.
        "/429",
    ] {
        let fetched = rig
            .fetch(&pinned(&[&origin.url(first), &good], b"good"))
            .await;
        let fetched = fetched.unwrap_or_else(|e| panic!("{first}: {e}"));
        assert_eq!((fetched.uri_index, fetched.attempts), (1, 2), "{first}");
        rig.cache.blobs.lock().clear();
    }
    for first in [
        "http://nonexistent.invalid/x",
        "http://127.0.0.1:1/x",
        "ftp://h/x",
        "urn:a",
        "",
    ] {
        let fetched = rig.get(&[first, &good]).await.unwrap();
        assert_eq!(fetched.uri_index, 1, "{first}");
        let asked = if first.starts_with("http") { 2 } else { 1 };
        assert_eq!(fetched.attempts, asked, "{first}");
    }
    let first = rig.get(&[&good, &origin.url("/bad")]).await.unwrap();
    assert_eq!(
        first.digest,
        digest(b"good"),
        "U8: the first success counts"
    );
}

#[tokio::test]
async fn u4_s1_to_s7_the_gravest_failure_decides() {
    let origin = Origin::start(script).await;
    let rig = Rig::with(|s| s.attempts = 1, FakeCache::default());
    let retry = |s: Option<u64>| s.map(Duration::from_secs);
    for (paths, want, index) in [
        (["/404", "/404"], Failure::NotFound, 0),
        (["/404", "/403"], Failure::Refused, 1),
        (["/400", "/403"], Failure::Unusable, 0),
        (
            ["/503", "/404"],
            Failure::Unavailable {
                retry_after: retry(Some(3)),
            },
            0,
        ),
        (
            ["/404", "/408"],
            Failure::Unavailable { retry_after: None },
            1,
        ),
        // The last, as the origin is left alone after it.
        (
            ["/404", "/429"],
            Failure::TooManyRequests {
                retry_after: retry(Some(7)),
            },
            1,
        ),
    ] {
        let urls = paths.map(|p| origin.url(p));
        let got = rig.failure(&request(&[&urls[0], &urls[1]])).await;
        assert_eq!((got.0, got.1), (want, index), "{paths:?}");
    }
}

#[tokio::test]
async fn l2_s3_a_mismatch_is_told_with_both_hashes_and_nothing_is_stored() {
    let (origin, rig) = (Origin::start(script).await, Rig::new());
    let missing = origin.url("/404");
    let (failure, index, message) = rig
        .failure(&pinned(&[&missing, &origin.url("/bad")], b"good"))
        .await;
    assert_eq!((failure, index), (Failure::Mismatch, 1));
    let addr = origin.addr;
    let sri = |content: &[u8]| pinned(&[], content).integrity.unwrap().to_string();
    let (expected, got) = (sri(b"good"), sri(b"evil"));
    assert_eq!(
        message,
        format!(
            "http://{addr}/404 (1 of 2): 404 Not Found; http://{addr}/bad (2 of 2): checksum \
             mismatch: expected {expected}, got {got}"
        )
    );
    assert!(rig.cache.blobs.lock().is_empty());
    let one = rig
        .failure(&request(&[&origin.url("/404?sig=x&q=y")]))
        .await
        .2;
    assert_eq!(
        one,
        format!("http://{addr}/404?...: 404 Not Found"),
        "no body, no phrase of the origin"
    );
}

#[tokio::test]
async fn v15_scenario_17_what_cannot_be_fetched_is_not_found() {
    let rig = Rig::new();
    for uri in [
        "ftp://h/x",
        "file:///etc/passwd",
        "relative",
        "http:///p",
        "https:t",
        "urn:a:b",
        "",
    ] {
        let (failure, _, message) = rig.failure(&request(&[uri])).await;
        assert_eq!(failure, Failure::NotFound, "{uri}");
        assert!(message.contains("cannot be fetched"), "{message}");
        assert!(!rig.fetcher.is_fetchable(AssetKind::Blob, &Uri::new(uri)));
    }
    let url = Uri::new("https://h/x");
    assert!(rig.fetcher.is_fetchable(AssetKind::Blob, &url));
    assert!(!rig.fetcher.is_fetchable(AssetKind::Directory, &url));
    let mut directory = request(&["https://h/x"]);
    directory.kind = AssetKind::Directory;
    assert_eq!(rig.failure(&directory).await.0, Failure::NotFound);
    assert!(matches!(rig.get(&[]).await, Err(FetchError::Internal(_))));
}

#[tokio::test]
async fn s7_no_connection_and_no_name_are_transient() {
    let rig = Rig::new();
    for uri in ["http://nonexistent.invalid/x", "http://127.0.0.1:1/x"] {
        let (failure, _, message) = rig.failure(&request(&[uri])).await;
        assert_eq!(
            failure,
            Failure::Unavailable { retry_after: None },
            "{message}"
        );
    }
}

#[tokio::test]
async fn s11_a_caller_the_cache_refuses_learns_so_before_the_origin_is_asked() {
    let origin = Origin::start(script).await;
    let cache = FakeCache {
        refuses: true,
        ..FakeCache::default()
    };
    let rig = Rig::with(|_| {}, cache);
    let error = rig.get(&[&origin.url("/ok")]).await.unwrap_err();
    assert!(
        matches!(error, FetchError::Upstream(e) if e.code() == Some(tonic::Code::PermissionDenied))
    );
    assert_eq!(origin.requests(), 0);
}

#[test]
fn q1_q6_q7_qualifiers_a_fetch_cannot_honour() {
    let rig = Rig::new();
    let unsupported = |pairs: &[(&str, &str)]| {
        let mut request = pinned(&["https://h/x"], b"");
        let pairs = pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        request.qualifiers = Qualifiers::new(pairs).unwrap();
        rig.fetcher.unsupported(&request)
    };
    let none: [&str; 0] = [];
    assert_eq!(
        unsupported(&[
            ("checksum.sri", "x"),
            ("bazel.canonical_id", "x"),
            ("resource_type", "application/x-tar; v=1"),
        ]),
        none
    );
    assert_eq!(
        unsupported(&[
            ("Checksum.SRI", "x"),
            ("directory", "d"),
            ("foo", ""),
            ("vcs.commit", "c")
        ]),
        ["Checksum.SRI", "directory", "foo", "vcs.commit"]
    );
    for value in [
        "application/x-git",
        "APPLICATION/X-GIT",
        "git",
        "",
        "a/",
        "a/b/c",
    ] {
        assert_eq!(
            unsupported(&[("resource_type", value)]),
            ["resource_type"],
            "{value}"
        );
    }
}
