//! What an origin said it does not have is not asked for again at once
//! (conformance C5).

use std::time::{Duration, SystemTime};

use crate::support::answer::says;
use crate::support::{
    Code, Fetching as _, Origin, Proxy, Qualified as _, Reply, digest_of, eventually, fetch_blob,
    hit, inline, push_blob,
};

#[tokio::test]
async fn a_404_is_repeated_without_the_origin() {
    let origin = Origin::new().status("/a", 404).status("/b", 410);
    let origin = origin.status("/c", 500).start().await;
    let (proxy, client) = Proxy::new().connected().await;
    for path in ["/a", "/b"] {
        let ask = || client.fetch_blob(fetch_blob(&[origin.url(path)]));
        let first = inline(ask().await, Code::NotFound);
        assert!(!first.contains("remembered"), "{first}");
        let second = inline(ask().await, Code::NotFound);
        let what = if path == "/a" { "404" } else { "410" };
        says(&second, &[what, &origin.url(path), "remembered for 10 s"]);
        assert_eq!(origin.count(path), 1);
    }
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("assetgate_negative_hits_total", &[]), 2.0);
    // What may pass is remembered only until it is due.
    let down = || client.fetch_blob(fetch_blob(&[origin.url("/c")]));
    assert_eq!(down().await.unwrap_err().code(), Code::Unavailable);
    let before = origin.count("/c");
    eventually("another request", async || {
        assert_eq!(down().await.unwrap_err().code(), Code::Unavailable);
        (origin.count("/c") > before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn whoever_may_know_more_asks_again() {
    let origin = Origin::new().status("/a", 404).start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let ask = || fetch_blob(&[origin.url("/a")]);
    let other = client.with("authorization", "Bearer of-another");
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    inline(client.fetch_blob(ask()).await, Code::NotFound);
    inline(other.fetch_blob(ask()).await, Code::NotFound);
    assert_eq!(origin.total(), 2);
    let header = ask().qualifier("http_header:X-Token", "s3cret-value");
    let text = inline(client.fetch_blob(header).await, Code::NotFound);
    assert!(!text.contains("s3cret-value"), "{text}");
    assert_eq!(origin.total(), 3);
    inline(
        client.fetch_blob(ask().oldest(long_ago)).await,
        Code::NotFound,
    );
    assert_eq!(origin.total(), 4);
    inline(client.fetch_blob(ask()).await, Code::NotFound);
    assert_eq!(origin.total(), 4);
}

#[tokio::test]
async fn a_push_ends_it() {
    let replies = vec![Reply::status(404), Reply::ok("content")];
    let origin = Origin::new().replies("/a", replies).start().await;
    let (_proxy, client) = Proxy::new()
        .config("[references]\nsubset_max = 0\n")
        .connected()
        .await;
    let ask = || fetch_blob(&[origin.url("/a")]);
    for _ in 0..2 {
        inline(client.fetch_blob(ask()).await, Code::NotFound);
    }
    let digest = client.upload(b"pushed").await;
    let push = || push_blob(&[origin.url("/a")], digest.clone());
    // Found by its qualifiers only, so the origin is asked again for others.
    let qualified = push().qualifier("vcs.branch", "x");
    client.push_blob(qualified).await.unwrap();
    assert_eq!(hit(client.fetch_blob(ask()).await), digest_of(b"content"));
    client.push_blob(push()).await.unwrap();
    assert_eq!(hit(client.fetch_blob(ask()).await), digest);
    assert_eq!(origin.total(), 2);
}
