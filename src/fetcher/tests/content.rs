//! What arrives in the cache, and what is refused to.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::origin::{Origin, Step, answer, ok, raw};
use super::*;

fn body(path: &str) -> Vec<Step> {
    match path {
        "/length" => ok(b"content"),
        "/chunked" => raw(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\ncon\r\n4\r\ntent\r\n0\r\n\r\n",
        ),
        "/close" => raw("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ncontent"),
        "/empty" => ok(b""),
        "/empty-chunked" => raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        "/gzip" => answer(
            "200 OK",
            "content-encoding: gzip\r\n",
            b"\x1f\x8bnot really",
        ),
        "/large" => ok(&vec![b'x'; 3 << 20]),
        "/close-large" => {
            let mut steps = raw("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
            steps.push(Step::Repeat(vec![b'x'; 64 << 10], 48));
            steps
        }
        "/validators" => answer(
            "200 OK",
            "etag: \"e\"\r\nlast-modified: yesterday\r\n",
            b"v",
        ),
        "/part" => answer("206 Partial Content", "", b"tent"),
        "/204" => raw("HTTP/1.1 204 No Content\r\n\r\n"),
        "/cut" => raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ncontent")
            .into_iter()
            .chain([Step::Reset])
            .collect(),
        "/close-cut" => raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ncontent"),
        "/close-chunked-cut" => {
            raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\ncontent")
        }
        "/stall" => {
            let mut steps = raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ncontent");
            steps.push(Step::Hang);
            steps
        }
        "/hang" => vec![Step::Hang],
        "/reset" => vec![Step::Reset],
        "/garbage" => raw("\x00\x01 this is not HTTP\r\n\r\n"),
        "/slow" => vec![
            Step::Send(b"HTTP/1.1 200 OK\r\ncontent-".to_vec()),
            Step::Sleep(Duration::from_millis(50)),
            Step::Send(b"length: 7\r\n\r\ncon".to_vec()),
            Step::Sleep(Duration::from_millis(50)),
            Step::Send(b"tent".to_vec()),
        ],
        "/endless" => {
            let mut steps = raw("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
            steps.push(Step::Repeat(vec![0; 64 << 10], usize::MAX));
            steps
        }
        _ => answer("404 Not Found", "", b""),
    }
}

#[tokio::test]
async fn h3_bodies_of_every_framing_arrive_with_the_right_digest() {
    let (origin, rig) = (Origin::start(body).await, Rig::new());
    for path in ["/length", "/chunked", "/close", "/slow"] {
        let fetched = rig.get(&[&origin.url(path)]).await.unwrap();
        assert_eq!(fetched.digest, digest(b"content"), "{path}");
        assert_eq!((fetched.origin_bytes, fetched.attempts), (7, 1), "{path}");
        assert_eq!(rig.cache.get(&fetched.digest).unwrap(), "content");
    }
    assert_eq!(rig.cache.small.load(Ordering::SeqCst), 1, "uploaded once");
}

#[tokio::test]
async fn h3_an_empty_body_is_content_and_needs_no_upload() {
    let (origin, rig) = (Origin::start(body).await, Rig::new());
    for path in ["/empty", "/empty-chunked"] {
        let fetched = rig.fetch(&pinned(&[&origin.url(path)], b"")).await.unwrap();
        assert_eq!(fetched.digest, digest(b""), "{path}");
        assert_eq!(fetched.verified.len(), 1);
    }
    assert_eq!(rig.cache.small.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn h3_large_bodies_pass_through_a_file_that_is_gone_afterwards() {
    let (origin, rig) = (Origin::start(body).await, Rig::new());
    for path in ["/large", "/close-large"] {
        let fetched = rig.get(&[&origin.url(path)]).await.unwrap();
        assert_eq!(fetched.digest, digest(&vec![b'x'; 3 << 20]), "{path}");
        assert_eq!(
            rig.cache
                .blobs
                .lock()
                .remove(&fetched.digest)
                .unwrap()
                .len(),
            3 << 20
        );
    }
    assert_eq!(rig.cache.streamed.load(Ordering::SeqCst), 2);
    assert_eq!(rig.open_files(), 0);
    assert_eq!(std::fs::read_dir(rig.dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn v9_digest_function_and_checksum_algorithm_are_independent() {
    let (origin, rig) = (Origin::start(body).await, Rig::new());
    for function in DigestFunction::all() {
        if !function.is_computable() || *function == DigestFunction::Md5 {
            continue;
        }
        let mut request = pinned(&[&origin.url("/length")], b"content");
        request.scope.function = *function;
        let fetched = rig.fetch(&request).await.unwrap();
        assert_eq!(
            Some(&fetched.digest),
            Digest::of(*function, b"content").as_ref()
        );
        assert!(rig.cache.get(&fetched.digest).is_some());
    }
    let mut request = request(&[&origin.url("/length")]);
    let asked = origin.requests();
    for function in [DigestFunction::GitSha1, DigestFunction::Md5] {
        request.scope.function = function;
        let error = rig.fetch(&request).await.unwrap_err();
        assert!(matches!(
            error,
            FetchError::Upstream(crate::upstream::Error::UnsupportedFunction(_))
        ));
    }
    assert_eq!(origin.requests(), asked, "V10: before the origin is asked");
}

#[tokio::test]
async fn content_encoding_is_left_alone() {
    let (origin, rig) = (Origin::start(body).await, Rig::new());
    let served = b"\x1f\x8bnot really";
    let fetched = rig.fetch(&pinned(&[&origin.url("/gzip")], served)).await;
    assert_eq!(fetched.unwrap().digest, digest(served));
    let head = origin.head(0).to_lowercase();
    assert!(!head.contains("accept-encoding"), "{head}");
    assert!(head.contains(concat!("user-agent: assetgate/", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn validators_are_handed_on() {
    let (origin, rig) = (Origin::start(body).await, Rig::new());
    let before = std::time::SystemTime::now();
    let fetched = rig.get(&[&origin.url("/validators")]).await.unwrap();
    assert_eq!(fetched.validators.etag.as_deref(), Some("\"e\""));
    assert_eq!(
        fetched.validators.last_modified.as_deref(),
        Some("yesterday")
    );
    assert!(fetched.started_at >= before);
}

#[tokio::test]
async fn part_of_a_file_is_content_only_to_who_asked_for_a_part() {
    let (origin, rig) = (Origin::start(body).await, Rig::new());
    let url = origin.url("/part");
    assert_eq!(rig.failure(&request(&[&url])).await.0, Failure::Unusable);
    let ranged = with_headers(&[&url], &[("http_header:Range", "bytes=3-")]);
    let fetched = rig.fetch(&ranged).await.unwrap();
    assert_eq!(fetched.digest, digest(b"tent"));
    assert!(!fetched.with_credentials);
    let none = rig.failure(&request(&[&origin.url("/204")])).await;
    assert_eq!(none.0, Failure::Unusable);
}

#[tokio::test]
async fn s3_cut_off_and_broken_answers() {
    let (origin, rig) = (
        Origin::start(body).await,
        Rig::with(
            |s| s.stall_timeout = Duration::from_millis(200),
            FakeCache::default(),
        ),
    );
    let unavailable = Failure::Unavailable { retry_after: None };
    for (path, want, text) in [
        (
            "/close-cut",
            Failure::Truncated,
            "cut off after 7 of 100 bytes",
        ),
        (
            "/close-chunked-cut",
            Failure::Truncated,
            "cut off after 7 bytes",
        ),
        ("/cut", unavailable.clone(), "cut off after"),
        ("/stall", unavailable.clone(), "nothing more after 7 bytes"),
        ("/reset", unavailable.clone(), "no usable answer"),
        ("/garbage", unavailable, "no usable answer"),
    ] {
        let (failure, _, message) = rig.failure(&request(&[&origin.url(path)])).await;
        assert_eq!(failure, want, "{path}: {message}");
        assert!(message.contains(text), "{path}: {message}");
    }
    assert!(rig.cache.blobs.lock().is_empty());
    assert_eq!(rig.open_files(), 0);
}

#[tokio::test]
async fn s4_size_limits_by_announcement_and_by_count() {
    let origin = Origin::start(body).await;
    let small = |s: &mut Settings| s.max_size = 1 << 20;
    let rig = Rig::with(small, FakeCache::default());
    let cache = FakeCache {
        limit: 1000,
        ..FakeCache::default()
    };
    let limited = Rig::with(|_| {}, cache);
    for rig in [rig, limited] {
        for path in ["/large", "/endless"] {
            let (failure, _, message) = rig.failure(&request(&[&origin.url(path)])).await;
            assert_eq!(failure, Failure::TooLarge, "{message}");
            assert!(message.contains("more than the limit of"), "{message}");
        }
        assert_eq!(rig.open_files(), 0);
    }
}

#[tokio::test]
async fn s5_the_time_is_one_budget_for_all_mirrors() {
    let (origin, rig) = (Origin::start(body).await, Rig::new());
    let mut request = request(&[&origin.url("/hang"), &origin.url("/length")]);
    request.timeout = Some(Duration::from_millis(150));
    let (failure, index, message) = rig.failure(&request).await;
    assert_eq!((failure, index), (Failure::TimedOut, 0));
    assert!(
        message.contains("(1 of 2): no complete answer within 150ms"),
        "{message}"
    );
    assert_eq!(origin.requests(), 1, "the second mirror is not asked");
}

#[tokio::test]
async fn t1_t4_default_and_longest_time() {
    let origin = Origin::start(body).await;
    let short = |s: &mut Settings| {
        s.timeout = Duration::from_millis(100);
        s.max_timeout = Duration::from_millis(200);
    };
    let rig = Rig::with(short, FakeCache::default());
    for (asked, told) in [(None, "100ms"), (Some(Duration::from_secs(3600)), "200ms")] {
        let mut request = request(&[&origin.url("/stall")]);
        request.timeout = asked;
        let (failure, _, message) = rig.failure(&request).await;
        assert_eq!(failure, Failure::TimedOut);
        assert!(message.ends_with(told), "{message}");
    }
}

#[tokio::test]
async fn known_content_is_not_downloaded_again() {
    let origin = Origin::start(body).await;
    let rig = Rig::new();
    rig.cache.insert(digest(b"content"), b"content");
    let fetched = rig
        .fetch(&pinned(&[&origin.url("/length")], b"content"))
        .await
        .unwrap();
    assert_eq!((fetched.origin_bytes, fetched.verified.len()), (0, 1));
    assert_eq!(fetched.digest, digest(b"content"));
    // Without a length the digest is not known before the body.
    let fetched = rig
        .fetch(&pinned(&[&origin.url("/chunked")], b"content"))
        .await
        .unwrap();
    assert_eq!(fetched.origin_bytes, 7);
}

#[tokio::test]
async fn a_cache_that_ignores_sizes_is_not_believed() {
    // The origin answers another length than the content has: the digest made
    // of checksum and length is wrong, and this cache would claim to have it.
    let origin = Origin::start(|_| ok(b"<html>please log in</html>")).await;
    let cache = FakeCache {
        ignores_size: true,
        ..FakeCache::default()
    };
    cache.insert(digest(b"content"), b"content");
    let rig = Rig::with(|_| {}, cache);
    let (failure, _, _) = rig
        .failure(&pinned(&[&origin.url("/length")], b"content"))
        .await;
    assert_eq!(failure, Failure::Mismatch);
}
