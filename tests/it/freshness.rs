//! N1 to N5 and N7 to N10: how old an answer may be, and until when.

use std::time::{Duration, SystemTime};

use assetgate::proto::asset::FetchBlobRequest;

use crate::support::{
    Answer as _, Code, Fetching as _, Function, Gate, Origin, Proxy, Pushing as _, Qualified as _,
    Reply, Upstream, digest_of, eventually, fetch_blob, hit, inline, push_blob, sri,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn n01_what_is_older_than_accepted_is_not_returned() {
    let origin = Origin::new().file("/a", "fresh").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"pushed").await;
    let uris = [origin.url("/a"), "urn:n:a".to_owned()];
    client
        .push_blob(push_blob(&uris, digest.clone()))
        .await
        .unwrap();
    let later = SystemTime::now() + SECOND;
    let url = fetch_blob(&uris[..1]).oldest(later);
    assert_eq!(hit(client.fetch_blob(url).await), digest_of(b"fresh"));
    let urn = fetch_blob(&uris[1..]).oldest(later);
    inline(client.fetch_blob(urn).await, Code::NotFound);
    assert_eq!(hit(client.fetch_blob(fetch_blob(&uris[1..])).await), digest);
}

#[tokio::test]
async fn n02_what_is_young_enough_is_returned() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let before = SystemTime::now() - SECOND;
    let digest = client.upload(b"pushed").await;
    client
        .push_blob(push_blob(&["urn:n:a"], digest.clone()))
        .await
        .unwrap();
    let urn = fetch_blob(&["urn:n:a"]).oldest(before);
    assert_eq!(hit(client.fetch_blob(urn).await), digest);
    let url = || fetch_blob(&[origin.url("/a")]).oldest(before);
    for _ in 0..2 {
        hit(client.fetch_blob(url()).await);
        assert_eq!(origin.total(), 1);
    }
}

#[tokio::test]
async fn n02_the_age_of_fetched_content_counts_from_the_start_of_its_retrieval() {
    let gate = Gate::new();
    let slow = Reply::ok("content").gated(&gate);
    let origin = Origin::new().reply("/a", slow).start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let first = tokio::spawn({
        let (client, uri) = (client.clone(), origin.url("/a"));
        async move { client.fetch_blob(fetch_blob(&[uri])).await }
    });
    eventually("the request", async || (origin.total() == 1).then_some(())).await;
    let during = SystemTime::now();
    gate.open();
    hit(first.await.unwrap());
    hit(client
        .fetch_blob(fetch_blob(&[origin.url("/a")]).oldest(during))
        .await);
    assert_eq!(origin.total(), 2);
}

#[tokio::test]
async fn n03_a_time_in_the_future_means_not_from_the_cache() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    for requests in 1..4 {
        let fetch = fetch_blob(&[origin.url("/a")])
            .oldest(SystemTime::now() + HOUR)
            .qualifier("bazel.canonical_id", "x");
        assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"content"));
        assert_eq!(origin.total(), requests);
    }
}

/// What Bazel does with an unpinned download that takes longer than its
/// deadline: the same request once more.
#[tokio::test]
async fn n04_a_retry_of_the_same_request_gets_what_the_first_began() {
    let gate = Gate::new();
    let slow = Reply::ok("content").gated(&gate);
    let origin = Origin::new().reply("/a", slow).start().await;
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let client = client.tool("bazel", "9.0.0");
    let request = fetch_blob(&[origin.url("/a")])
        .qualifier("bazel.canonical_id", &origin.url("/a"))
        .oldest(SystemTime::now() + HOUR);
    let in_vain = async || {
        let deadline = Duration::from_millis(300);
        client.fetch_blob_in_vain(request.clone(), deadline).await;
    };
    eventually("the request", async || {
        in_vain().await;
        (origin.total() == 1).then_some(())
    })
    .await;
    in_vain().await;
    assert_eq!(origin.total(), 1);
    let joined = async || {
        let metrics = proxy.metrics().await;
        metrics.sum("assetgate_fetches_joined_total", &[])
    };
    let before = joined().await;
    let third = tokio::spawn({
        let (client, request) = (client.clone(), request.clone());
        async move { client.fetch_blob(request).await }
    });
    eventually("the third to join", async || {
        (joined().await > before).then_some(())
    })
    .await;
    gate.open();
    let digest = hit(third.await.unwrap());
    assert_eq!(digest, digest_of(b"content"));
    assert_eq!(hit(client.fetch_blob(request.clone()).await), digest);
    assert_eq!(origin.total(), 1);
    // Only for whom it was made, and only while the content is there.
    let other = client.with("authorization", "Bearer of-another");
    assert_eq!(hit(other.fetch_blob(request.clone()).await), digest);
    assert_eq!(origin.total(), 2);
    cache.drop_blob(&digest);
    assert_eq!(hit(client.fetch_blob(request).await), digest);
    assert!(cache.has(&digest));
    assert_eq!(origin.total(), 3);
}

#[tokio::test]
async fn n05_a_newer_time_causes_another_fetch() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let ask = || -> FetchBlobRequest {
        fetch_blob(&[origin.url("/a")])
            .qualifier("checksum.sri", &sri(Function::Sha256, b"content"))
            .oldest(SystemTime::now() + SECOND)
    };
    let digest = hit(client.fetch_blob(ask()).await);
    cache.drop_blob(&digest);
    assert_eq!(hit(client.fetch_blob(ask()).await), digest);
    assert!(cache.has(&digest));
    assert_eq!(origin.total(), 2);
}

/// Asks until the answer is a miss.
async fn until_gone(client: &crate::support::Client, uri: &str) {
    eventually("the end of the asset", async || {
        let answer = client.fetch_blob(fetch_blob(&[uri])).await.unwrap();
        let code = Code::from_i32(answer.status().code);
        assert!(matches!(code, Code::Ok | Code::NotFound), "{answer:?}");
        (code == Code::NotFound).then_some(())
    })
    .await;
}

#[tokio::test]
async fn n07_an_asset_ends_when_it_expires() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"blob").await;
    let end = SystemTime::now() + 2 * SECOND;
    let push = push_blob(&["urn:n:a"], digest.clone()).expire_at(end);
    client.push_blob(push).await.unwrap();
    assert_eq!(
        hit(client.fetch_blob(fetch_blob(&["urn:n:a"])).await),
        digest
    );
    until_gone(&client, "urn:n:a").await;
    assert!(SystemTime::now() >= end, "it ended early");
}

#[tokio::test]
async fn n08_the_last_push_decides_about_expiry() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"blob").await;
    let push = || push_blob(&["urn:n:a"], digest.clone());
    let fetch = || client.fetch_blob(fetch_blob(&["urn:n:a"]));
    let now = SystemTime::now();
    client
        .push_blob(push().expire_at(now + SECOND))
        .await
        .unwrap();
    client
        .push_blob(push().expire_at(now + HOUR))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(hit(fetch().await), digest, "extended");
    client.push_blob(push().expire_at(now)).await.unwrap();
    inline(fetch().await, Code::NotFound);
    client.push_blob(push()).await.unwrap();
    assert_eq!(hit(fetch().await), digest, "for good");
    client
        .push_blob(push().expire_at(SystemTime::now() + SECOND))
        .await
        .unwrap();
    until_gone(&client, "urn:n:a").await;
}

#[tokio::test]
async fn n09_content_may_go_before_its_reference_expires() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"blob");
    let push = push_blob(&["urn:n:a"], digest.clone()).expire_at(SystemTime::now() + HOUR);
    client.push_blob(push).await.unwrap();
    cache.drop_blob(&digest);
    inline(
        client.fetch_blob(fetch_blob(&["urn:n:a"])).await,
        Code::NotFound,
    );
}

#[tokio::test]
async fn n10_no_minimum_availability_is_promised() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"blob").await;
    let push = push_blob(&["urn:n:a"], digest).expire_at(SystemTime::now() + HOUR);
    client.push_blob(push).await.unwrap();
    let answer = client.fetch_blob(fetch_blob(&["urn:n:a"])).await.unwrap();
    assert_eq!(answer.status().code, 0);
    assert_eq!(answer.expires_at, None);
}
