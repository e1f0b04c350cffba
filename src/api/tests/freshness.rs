//! Part A, section 6, and what may be kept of unpinned content.

use super::*;
use crate::asset::Source;
use crate::resolver::testing::content;

fn since(mut message: FetchBlobRequest, seconds: i64) -> FetchBlobRequest {
    message.oldest_content_accepted = from_now(seconds);
    message
}

fn until(mut message: PushBlobRequest, seconds: i64) -> PushBlobRequest {
    message.expire_at = from_now(seconds);
    message
}

/// Makes every reference older.
fn age(server: &Server, seconds: u64) {
    for entry in server.world.store.entries.lock().values_mut() {
        entry.content_time -= Duration::from_secs(seconds);
        if let Some(at) = &mut entry.expire_at {
            *at -= Duration::from_secs(seconds);
        }
    }
}

#[tokio::test]
async fn n1_n2_age_counts_from_the_push() {
    let server = Server::new();
    server.push(push(&[URN, HTTP], &[], b"x")).await.unwrap();
    age(&server, 10);
    assert_eq!(
        digest(server.fetch(since(blob(&[URN], &[]), -11)).await),
        sha256(b"x")
    );
    let (code, text) = inline(server.fetch(since(blob(&[URN], &[]), -9)).await);
    assert_eq!(code, Code::NotFound);
    assert!(
        text.contains("older than oldest_content_accepted"),
        "{text}"
    );
    let answer = server.fetch(since(blob(&[HTTP], &[]), -9)).await;
    assert_eq!(digest(answer), sha256(b"from the origin"));
}

#[tokio::test]
async fn n2_age_of_fetched_content_counts_from_its_start() {
    let server = Server::new();
    server.world.fetcher.script(|request| {
        let mut fetched = content(request, b"slow");
        fetched.started_at -= Duration::from_secs(100);
        Ok(fetched)
    });
    digest(server.fetch(blob(&[HTTP], &[])).await);
    digest(server.fetch(since(blob(&[HTTP], &[]), -50)).await);
    assert_eq!(server.world.fetcher.count(), 2);
    digest(server.fetch(since(blob(&[HTTP], &[]), -150)).await);
    assert_eq!(server.world.fetcher.count(), 2);
}

#[tokio::test]
async fn n3_a_future_limit_means_not_from_cache() {
    let server = Server::new();
    for fetches in [1, 2] {
        let answer = server.fetch(since(blob(&[HTTP], &[]), 3600)).await;
        assert_eq!(digest(answer), sha256(b"from the origin"));
        assert_eq!(server.world.fetcher.count(), fetches);
    }
    // Even where another replica's clock is ahead.
    for entry in server.world.store.entries.lock().values_mut() {
        entry.content_time += Duration::from_secs(7200);
    }
    digest(server.fetch(since(blob(&[HTTP], &[]), 3600)).await);
    assert_eq!(server.world.fetcher.count(), 3);
}

#[tokio::test]
async fn n5_a_lost_blob_is_fetched_again() {
    let server = Server::new();
    let pinned = sri(DigestFunction::Sha256, b"from the origin");
    let message = blob(&[HTTP], &[("checksum.sri", &pinned)]);
    digest(server.fetch(message.clone()).await);
    server
        .world
        .store
        .gone
        .lock()
        .insert(domain(b"from the origin"));
    digest(server.fetch(message).await);
    assert_eq!(server.world.fetcher.count(), 2);
}

#[tokio::test]
async fn n6_unpinned_fetched_content_is_never_stale() {
    let server = Server::new();
    digest(server.fetch(blob(&[HTTP], &[])).await);
    server
        .world
        .fetcher
        .script(|request| Ok(content(request, b"changed")));
    assert_eq!(
        digest(server.fetch(blob(&[HTTP], &[])).await),
        sha256(b"changed")
    );
    // A caller who states a limit takes what is within it.
    assert_eq!(
        digest(server.fetch(since(blob(&[HTTP], &[]), -60)).await),
        sha256(b"changed")
    );
    assert_eq!(server.world.fetcher.count(), 2);
    // What somebody pushed under a URL is served.
    server.push(push(&[MIRROR], &[], b"pushed")).await.unwrap();
    assert_eq!(
        digest(server.fetch(blob(&[MIRROR], &[])).await),
        sha256(b"pushed")
    );
    assert_eq!(server.world.fetcher.count(), 2);
}

#[tokio::test]
async fn n7_n8_expiry_and_withdrawal() {
    let server = Server::new();
    server
        .push(until(push(&[URN], &[], b"x"), 20))
        .await
        .unwrap();
    digest(server.fetch(blob(&[URN], &[])).await);
    age(&server, 30);
    let (code, text) = inline(server.fetch(blob(&[URN], &[])).await);
    assert_eq!(code, Code::NotFound);
    assert!(text.contains("has expired or was withdrawn"), "{text}");
    server
        .push(until(push(&[URN], &[], b"x"), 60))
        .await
        .unwrap();
    digest(server.fetch(blob(&[URN], &[])).await);
    server
        .push(until(push(&[URN], &[], b"x"), -60))
        .await
        .unwrap();
    assert_eq!(
        inline(server.fetch(blob(&[URN], &[])).await).0,
        Code::NotFound
    );
    server.push(push(&[URN], &[], b"x")).await.unwrap();
    digest(server.fetch(blob(&[URN], &[])).await);
}

#[tokio::test]
async fn n9_n10_eviction_before_expiry_and_no_promise() {
    let server = Server::new();
    server
        .push(until(push(&[URN], &[], b"x"), 3600))
        .await
        .unwrap();
    let answer = server.fetch(blob(&[URN], &[])).await.unwrap();
    assert_eq!(answer.expires_at, None);
    server.world.store.gone.lock().insert(domain(b"x"));
    let (code, text) = inline(server.fetch(blob(&[URN], &[])).await);
    assert_eq!(code, Code::NotFound);
    assert!(text.contains("no longer in the cache"), "{text}");
}

#[tokio::test]
async fn unpinned_content_got_with_credentials_is_not_kept() {
    let server = Server::new();
    for message in [
        blob(&[HTTP], &[("http_header:Authorization", "Bearer x")]),
        blob(&["https://u:p@origin.example/a"], &[]),
        blob(&[HTTP], &[("bazel.canonical_id", "https://h/a?sig=x")]),
    ] {
        digest(server.fetch(message).await);
        assert!(server.world.store.entries.lock().is_empty());
    }
    // Pinned by a checksum it is: knowing the hash is the capability.
    let pinned = sri(DigestFunction::Sha256, b"from the origin");
    let with = [
        ("http_header:Authorization", "Bearer x"),
        ("checksum.sri", &pinned),
    ];
    digest(server.fetch(blob(&[HTTP], &with)).await);
    assert_eq!(server.world.store.entries.lock().len(), 1);
    digest(server.fetch(blob(&[HTTP], &with[1..])).await);
    assert_eq!(server.world.fetcher.count(), 4);
}

#[tokio::test]
async fn selecting_headers_are_part_of_the_key_of_unpinned_content() {
    let server = Server::new();
    server.world.fetcher.script(|request| {
        let selecting = request.headers.selecting(0, HTTP);
        Ok(content(request, format!("{selecting:?}").as_bytes()))
    });
    let with = |range| since(blob(&[HTTP], &[("http_header:Range", range)]), -60);
    let first = digest(server.fetch(with("bytes=0-1")).await);
    let second = digest(server.fetch(with("bytes=2-3")).await);
    let whole = digest(server.fetch(since(blob(&[HTTP], &[]), -60)).await);
    assert!(first != second && second != whole);
    assert_eq!(digest(server.fetch(with("bytes=0-1")).await), first);
    assert_eq!(server.world.fetcher.count(), 3);
    // The whole file is no answer to a part of it.
    assert_ne!(digest(server.fetch(with("bytes=4-5")).await), whole);
    assert_eq!(server.world.fetcher.count(), 4);
    // A push is matched whatever the headers.
    server.push(push(&[MIRROR], &[], b"pushed")).await.unwrap();
    let message = blob(&[MIRROR], &[("http_header:Accept", "text/plain")]);
    assert_eq!(digest(server.fetch(message).await), sha256(b"pushed"));
    let entries = server.world.store.entries.lock();
    assert_eq!(
        entries
            .values()
            .filter(|e| e.source == Source::Fetch)
            .count(),
        4
    );
}
