//! R0, when something fails: an upstream that is down, lost, draining or slow,
//! and clients that must not feel each other.

use std::time::Duration;

use assetgate::proto::bytestream::ReadRequest;
use assetgate::proto::rev2::FindMissingBlobsRequest;

use crate::support::answer::says;
use crate::support::content::noise;
use crate::support::raw::frame;
use crate::support::{Code, Proxy, RawCall, RawClient, RawUpstream, Upstream, bounded, eventually};

#[tokio::test]
async fn r0_an_upstream_that_is_down_is_unavailable() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    client.upload(b"blob").await;
    cache.stop().await;
    let request = FindMissingBlobsRequest::default();
    let status = client
        .find_missing_blobs(request.clone())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    says(status.message(), &["the cache"]);
    cache.restart();
    eventually("the upstream's return", async || {
        client.find_missing_blobs(request.clone()).await.ok()
    })
    .await;
}

#[tokio::test]
async fn r0_an_upstream_lost_in_mid_answer_ends_the_call_with_trailers() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    let answer = raw.call(RawCall::new("/test.Echo/Die").message(b"")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, frame(b"half an answer"));
    assert_eq!(answer.grpc_status(), Some("14"), "{answer:?}");
    says(answer.value("grpc-message").unwrap(), &["the%20cache"]);
    let next = raw
        .call(RawCall::new("/test.Echo/Echo").message(b"hello"))
        .await;
    assert_eq!(next.grpc_status(), Some("0"), "{next:?}");
}

#[tokio::test]
async fn r0_a_refused_stream_goes_to_the_upstream_again() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    let answer = raw
        .call(RawCall::new("/test.Echo/Refuse").message(b"hello"))
        .await;
    // Refused twice: once more than a call is retried, or it succeeds.
    assert!(
        matches!(answer.grpc_status(), Some("0" | "14")),
        "{answer:?}"
    );
    assert!(cache.exchanges("Refuse").len() >= 2, "never retried");
    let answer = raw
        .call(RawCall::new("/test.Echo/Refuse").message(b"hello"))
        .await;
    assert_eq!(answer.body, frame(b"hello"));
}

#[tokio::test]
async fn r0_a_draining_upstream_is_left_without_a_failure() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    for i in 0..10_u8 {
        for method in ["GoAway", "Echo"] {
            let call = RawCall::new(&format!("/test.Echo/{method}"));
            let answer = raw.call(call.message(&[i])).await;
            assert_eq!(answer.grpc_status(), Some("0"), "{method} {i}: {answer:?}");
            assert_eq!(answer.body, frame(&[i]));
        }
    }
    assert!(cache.connections() > 5);
}

#[tokio::test]
async fn r0_clients_do_not_share_an_upstream_connection() {
    let cache = RawUpstream::start().await;
    let (proxy, mut one) = RawClient::around(&cache).await;
    let mut two = RawClient::connect(proxy.address()).await;
    one.call(RawCall::new("/test.Echo/Echo").message(b"")).await;
    two.call(RawCall::new("/test.Echo/Echo").message(b"")).await;
    let seen = cache.exchanges("Echo");
    assert_ne!(seen[0].connection, seen[1].connection);
}

#[tokio::test]
async fn r0_nothing_that_may_have_been_processed_is_sent_twice() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    cache.delay("UpdateActionResult", Duration::from_secs(60));
    let update = tokio::spawn({
        let client = client.clone();
        async move { client.update_action_result(Default::default()).await }
    });
    let sent = || cache.calls_of("UpdateActionResult").len();
    eventually("the call", async || (sent() > 0).then_some(())).await;
    let before = sent();
    cache.hang_up();
    let status = bounded("the failure", update).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(sent(), before);
}

#[tokio::test]
async fn r0_a_slow_reader_harms_nobody_else() {
    let cache = Upstream::start();
    let digest = cache.put(&noise(16 << 20, 16));
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let name = format!("blobs/{}/{}", digest.hash, digest.size_bytes);
    let mut held = Vec::new();
    for _ in 0..100 {
        let request = client.request(ReadRequest {
            resource_name: name.clone(),
            ..Default::default()
        });
        held.push(
            client
                .bytestream()
                .read(request)
                .await
                .unwrap()
                .into_inner(),
        );
    }
    let other = proxy.client().await;
    assert_eq!(other.read(&name).await.unwrap().len(), 16 << 20);
    assert!(
        proxy.resident() < 200 << 20,
        "{} bytes resident",
        proxy.resident()
    );
}
