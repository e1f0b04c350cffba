//! R0, R2 and R4: a forwarded call is the upstream's call.

use std::time::Duration;

use assetgate::proto::bytestream::WriteRequest;
use bytes::Bytes;
use http::HeaderMap;

use crate::support::client::{upload_name, write_messages};
use crate::support::content::noise;
use crate::support::raw::{frame, receive};
use crate::support::{
    Code, Proxy, RawCall, RawClient, RawUpstream, Upstream, digest_of, eventually,
};

#[tokio::test]
async fn r0_unknown_methods_and_fields_pass_unchanged() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    // Field 99 of a message nobody here has a definition of.
    let message = [0x9a, 0x06, 0x03, b'n', b'e', b'w'];
    for path in [
        "/build.bazel.remote.execution.v2.Execution/Execute",
        "/build.bazel.remote.execution.v2.ActionCache/GetActionResult",
        "/google.longrunning.Operations/GetOperation",
        "/some.future.Service/Method",
    ] {
        let answer = raw.call(RawCall::new(path).message(&message)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.grpc_status(), Some("0"), "{path}: {answer:?}");
        assert_eq!(answer.body, frame(&message));
        let method = path.rsplit('/').next().unwrap();
        let seen = &cache.exchanges(method)[0];
        assert_eq!((&*seen.method, &*seen.path), ("POST", path));
        assert_eq!(seen.body, frame(&message));
        assert!(seen.ended);
    }
}

#[tokio::test]
async fn r0_metadata_passes_both_ways_and_nothing_is_added() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    let call = RawCall::new("/test.Echo/Echo")
        .header("user-agent", "grpc-java/1.2")
        .header("x-several", "one")
        .header("x-several", "two")
        .header("x-raw-bin", "AAEC/w")
        .header("authorization", "Bearer token")
        .header("grpc-timeout", "90000m")
        .header("grpc-accept-encoding", "gzip");
    let answer = raw.call(call.message(b"hello")).await;
    let seen = cache.exchanges("Echo").remove(0);
    let mut got: Vec<(String, String)> = seen
        .headers
        .iter()
        .map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()))
        .collect();
    got.sort();
    let want = [
        ("authorization", "Bearer token"),
        ("content-type", "application/grpc"),
        ("grpc-accept-encoding", "gzip"),
        ("grpc-timeout", "90000m"),
        ("te", "trailers"),
        ("user-agent", "grpc-java/1.2"),
        ("x-raw-bin", "AAEC/w"),
        ("x-several", "one"),
        ("x-several", "two"),
    ];
    assert_eq!(got, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
    assert_eq!(seen.authority, cache.address().to_string());
    let several: Vec<_> = answer.headers.get_all("x-several").iter().collect();
    assert_eq!(several, ["one", "two"]);
    assert_eq!(answer.headers["x-raw-bin"], "AAEC/w");
    assert!(!answer.headers.contains_key("content-length"));
    let trailers = answer.trailers.unwrap();
    assert_eq!(
        trailers.get_all("x-trailer").iter().collect::<Vec<_>>(),
        ["one", "two"]
    );
    assert_eq!(trailers["x-trailer-bin"], "AAEC/w");
    assert_eq!(trailers.len(), 4);
}

#[tokio::test]
async fn r0_the_authority_can_be_set() {
    let cache = RawUpstream::start().await;
    let proxy = Proxy::new()
        .upstream_at(&cache.url())
        .arg("--upstream-authority")
        .arg("cache.example:1234");
    let proxy = proxy.start().await;
    let mut raw = RawClient::connect(proxy.address()).await;
    raw.call(RawCall::new("/test.Echo/Echo").message(b"")).await;
    assert_eq!(cache.exchanges("Echo")[0].authority, "cache.example:1234");
}

#[tokio::test]
async fn r0_an_answer_of_trailers_only_stays_one() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    let answer = raw
        .call(RawCall::new("/test.Echo/TrailersOnly").message(b""))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["grpc-status"], "5");
    assert_eq!(
        answer.headers["grpc-message"],
        "no such %25 thing: %E2%82%AC"
    );
    assert_eq!(answer.headers["grpc-status-details-bin"], "CAUSBW5vIQ");
    assert_eq!(answer.headers["x-more-bin"], "AAEC/w");
    assert!(answer.body.is_empty());
    assert_eq!(answer.trailers, None);
}

#[tokio::test]
async fn r0_both_directions_of_a_stream_are_open_at_once() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    let call = RawCall::new("/test.Echo/Hang");
    let (response, mut body) = raw.open(call, false);
    for i in 0..3_u8 {
        body.send_data(frame(&[i]), false).unwrap();
        let whole = 6 * (usize::from(i) + 1);
        eventually("the message at the upstream", async || {
            let seen = cache.exchanges("Hang");
            seen.first().filter(|s| s.body.len() == whole).map(drop)
        })
        .await;
    }
    assert!(!cache.exchanges("Hang")[0].ended);
    body.send_data(Bytes::new(), true).unwrap();
    eventually("half-close", async || {
        cache.exchanges("Hang")[0].ended.then_some(())
    })
    .await;
    drop(response);
}

#[tokio::test]
async fn r0_trailers_of_a_request_pass() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    let mut call = RawCall::new("/test.Echo/Echo").message(b"hello");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-late", "value".parse().unwrap());
    call.trailers = Some(trailers.clone());
    raw.call(call).await;
    assert_eq!(cache.exchanges("Echo")[0].trailers, Some(trailers));
}

#[tokio::test]
async fn r0_a_cancelled_call_is_cancelled_upstream() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    for end in [true, false] {
        let (response, body) = raw.open(RawCall::new("/test.Echo/Hang"), end);
        let seen = if end { 1 } else { 2 };
        eventually("the call", async || {
            (cache.exchanges("Hang").len() == seen).then_some(())
        })
        .await;
        drop((response, body));
        eventually("the cancellation", async || {
            cache.exchanges("Hang")[seen - 1].reset
        })
        .await;
    }
}

#[tokio::test]
async fn r0_the_upstream_enforces_deadlines_and_not_the_forwarder() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    let call = RawCall::new("/test.Echo/Hang").header("grpc-timeout", "1m");
    let (response, _body) = raw.open(call, true);
    let mut response = Box::pin(receive(response));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut response).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(cache.exchanges("Hang")[0].headers["grpc-timeout"], "1m");
}

#[tokio::test]
async fn r0_messages_of_64_mib_pass() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let large = noise(64 << 20, 7);
    let digest = client.upload(&large).await;
    assert!(cache.get(&digest).unwrap() == large);
    let request = assetgate::proto::rev2::BatchReadBlobsRequest {
        digests: vec![digest],
        ..Default::default()
    };
    let answer = client.batch_read_blobs(request).await.unwrap();
    assert!(answer.responses[0].data == large);
}

#[tokio::test]
async fn r0_what_is_not_grpc_stays_outside() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    for content_type in ["application/json", "text/html", "application/gr"] {
        let call = RawCall::new("/test.Echo/Echo").instead("content-type", content_type);
        assert_eq!(
            raw.call(call.data("{}")).await.status,
            415,
            "{content_type}"
        );
    }
    let get = RawCall::new("/test.Echo/Echo").method(http::Method::GET);
    raw.call(get.instead("content-type", "text/html")).await;
    assert!(cache.exchanges("Echo").is_empty());
    let variant = RawCall::new("/test.Echo/Echo").instead("content-type", "application/grpc+proto");
    assert_eq!(
        raw.call(variant.message(b"")).await.grpc_status(),
        Some("0")
    );
}

#[tokio::test]
async fn r0_the_short_cut_and_the_router_answer_alike() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    let ask = |path: &str| RawCall::new(path).header("x-a", "1").message(b"hello");
    // Of the asset package, so that the router decides; of neither service.
    let routed = raw
        .call(ask("/build.bazel.remote.asset.v1.Other/Echo"))
        .await;
    let direct = raw.call(ask("/test.Echo/Echo")).await;
    assert_eq!(routed.body, direct.body);
    assert_eq!(routed.headers, direct.headers);
    assert_eq!(routed.trailers, direct.trailers);
    let seen = cache.exchanges("Echo");
    assert_eq!(seen[0].headers, seen[1].headers);
}

#[tokio::test]
async fn r2_an_early_answer_to_a_write_arrives_at_once() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    let body: Vec<Bytes> = (0..12).map(|_| frame(&vec![7; 1 << 20])).collect();
    for method in ["Early", "EarlyReset"] {
        let mut call = RawCall::new(&format!("/google.bytestream.ByteStream/{method}"));
        call.body = body.clone();
        let answer = raw.call(call).await;
        assert_eq!(answer.status, 200, "{method}: {answer:?}");
        assert_eq!(answer.grpc_status(), Some("0"), "{method}: {answer:?}");
        assert_eq!(answer.body, frame(&[8, 0x80, 0x80, 0x80, 0x06]), "{method}");
        let received = cache.exchanges(method)[0].body.len();
        assert!(
            received < 2 << 20,
            "{received} bytes were sent after the answer"
        );
    }
    // The connection is as good as before.
    let answer = raw
        .call(RawCall::new("/test.Echo/Echo").message(b"hello"))
        .await;
    assert_eq!(answer.grpc_status(), Some("0"));
}

#[tokio::test]
async fn r2_a_real_client_survives_an_early_answer() {
    let (_proxy, client) = Proxy::new().connected().await;
    let content = noise(12 << 20, 12);
    let digest = digest_of(&content);
    let name = upload_name(&digest);
    let messages = || write_messages(&name, &content, 1 << 20);
    for _ in 0..3 {
        let answer = client.write(messages()).await.unwrap();
        assert_eq!(answer.committed_size, content.len() as i64);
    }
}

#[tokio::test]
async fn r4_split_and_splice_are_the_upstreams() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    for method in ["SplitBlob", "SpliceBlob"] {
        let path = format!("/build.bazel.remote.execution.v2.ContentAddressableStorage/{method}");
        let answer = raw.call(RawCall::new(&path).message(b"anything")).await;
        assert_eq!(answer.body, frame(b"anything"));
    }
}

#[tokio::test]
async fn r2_write_errors_of_the_upstream_pass() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let name = upload_name(&digest_of(b"abc"));
    let message = WriteRequest {
        resource_name: name,
        data: Bytes::from_static(b"xyz"),
        finish_write: true,
        ..Default::default()
    };
    let status = client.write(vec![message]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "the content has another digest");
}
