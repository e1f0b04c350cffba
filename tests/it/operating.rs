//! What an operator relies on: health, reflection, the admin port, stopping,
//! starting and logs.

use std::time::Duration;

use assetgate::proto::health::HealthCheckRequest;
use assetgate::proto::health::health_check_response::ServingStatus;
use assetgate::proto::health::health_client::HealthClient;
use serde_json::Value;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::answer::says;
use crate::support::logs::field;
use crate::support::{
    Client, Code, Function, Gate, Origin, Proxy, Qualified as _, RawUpstream, Reply, Running,
    Upstream, admin, bounded, digest_of, eventually, fetch_blob, hit, inline, push_blob, refused,
    sri,
};

async fn health(client: &Client, service: &str) -> Result<ServingStatus, tonic::Status> {
    let request = HealthCheckRequest {
        service: service.into(),
    };
    let mut health = HealthClient::new(client.channel());
    let answer = bounded("health", health.check(request)).await?;
    Ok(answer.into_inner().status())
}

#[tokio::test]
async fn health_is_told_per_service() {
    let cache = RawUpstream::start().await;
    let (_proxy, client) = Proxy::new().upstream_at(&cache.url()).connected().await;
    for ours in [
        "",
        "build.bazel.remote.asset.v1.Fetch",
        "build.bazel.remote.asset.v1.Push",
    ] {
        let status = health(&client, ours).await.unwrap();
        assert_eq!(status, ServingStatus::Serving, "{ours}");
    }
    assert!(cache.exchanges("Check").is_empty());
    health(&client, "build.bazel.remote.execution.v2.Execution")
        .await
        .ok();
    assert_eq!(
        cache.exchanges("Check").len(),
        1,
        "other names are the cache's"
    );
}

#[tokio::test]
async fn reflection_lists_what_is_served() {
    let (_proxy, client) = Proxy::new().connected().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(client.channel());
    let stream = tokio_stream::iter([request]);
    let call = async {
        let mut answers = reflection
            .server_reflection_info(stream)
            .await
            .unwrap()
            .into_inner();
        answers.message().await.unwrap().unwrap()
    };
    let answer = bounded("the list", call).await;
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
    for service in [
        "build.bazel.remote.asset.v1.Fetch",
        "build.bazel.remote.asset.v1.Push",
        "build.bazel.remote.execution.v2.ActionCache",
        "build.bazel.remote.execution.v2.Capabilities",
        "build.bazel.remote.execution.v2.ContentAddressableStorage",
        "google.bytestream.ByteStream",
        "grpc.health.v1.Health",
    ] {
        assert!(
            names.iter().any(|n| n == service),
            "{service} is not in {names:?}"
        );
    }
}

#[tokio::test]
async fn metrics_count_asset_calls_and_forwarded_ones() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let pinned = fetch_blob(&[origin.url("/a")])
        .qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    for _ in 0..2 {
        hit(client.fetch_blob(pinned.clone()).await);
    }
    inline(
        client.fetch_blob(fetch_blob(&["urn:o:none"])).await,
        Code::NotFound,
    );
    client.upload(b"blob").await;
    crate::support::RawClient::connect(proxy.address())
        .await
        .call(crate::support::RawCall::new("/made.Up/Method").message(b""))
        .await;
    let metrics = proxy.metrics().await;
    let calls = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        metrics.sum("assetgate_asset_requests_total", &[&outcome])
    };
    let got = ["fetched", "hit_checksum", "miss"].map(calls);
    assert_eq!(got, [1.0, 1.0, 1.0], "{}", metrics.0);
    let handled = |method: &str| {
        let method = format!("grpc_method=\"{method}\"");
        metrics.sum("grpc_server_handled_total", &[&method])
    };
    assert_eq!(handled("FetchBlob"), 3.0, "{}", metrics.0);
    assert_eq!(handled("BatchUpdateBlobs"), 1.0, "{}", metrics.0);
    assert_eq!(handled("other"), 1.0, "{}", metrics.0);
    assert!(
        !metrics.0.contains("made.Up"),
        "no label comes from a client"
    );
}

#[tokio::test]
async fn readiness_follows_the_cache() {
    let cache = Upstream::start();
    let proxy = Proxy::new().upstream(&cache).start().await;
    let becomes = async |want: u16| {
        eventually("readiness", async || {
            let (status, body) = admin::get(proxy.admin(), "/readyz").await;
            (status == want).then_some(body)
        })
        .await
    };
    becomes(200).await;
    cache.stop().await;
    // Between the loss of a connection and the first failure to open another
    // one, no address is to blame.
    let address = cache.address().to_string();
    eventually("the reason", async || {
        let (status, body) = admin::get(proxy.admin(), "/readyz").await;
        (status == 503 && body.contains(&address)).then_some(())
    })
    .await;
    assert_eq!(admin::get(proxy.admin(), "/livez").await.0, 200);
    cache.restart();
    becomes(200).await;
    assert_eq!(admin::get(proxy.admin(), "/no/such/page").await.0, 404);
}

#[tokio::test]
async fn it_starts_while_the_cache_is_down() {
    let cache = Upstream::start();
    cache.stop().await;
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    assert_eq!(admin::get(proxy.admin(), "/readyz").await.0, 503);
    let status = refused(
        client.fetch_blob(fetch_blob(&["urn:o:a"])).await,
        Code::Unavailable,
    );
    says(status.message(), &["the cache"]);
    cache.restart();
    let digest = cache.put(b"blob");
    eventually("a push", async || {
        client
            .push_blob(push_blob(&["urn:o:a"], digest.clone()))
            .await
            .ok()
    })
    .await;
    assert_eq!(
        hit(client.fetch_blob(fetch_blob(&["urn:o:a"])).await),
        digest
    );
}

#[tokio::test]
async fn a_stop_lets_running_calls_finish() {
    let gate = Gate::new();
    let origin = Origin::new()
        .reply("/a", Reply::ok("content").gated(&gate))
        .start()
        .await;
    let (proxy, client) = Proxy::new().connected().await;
    let running = tokio::spawn({
        let (client, uri) = (client.clone(), origin.url("/a"));
        async move { client.fetch_blob(fetch_blob(&[uri])).await }
    });
    eventually("the call", async || (origin.total() == 1).then_some(())).await;
    proxy.terminate();
    eventually("the listener's end", async || {
        tokio::net::TcpStream::connect(proxy.address()).await.err()
    })
    .await;
    assert!(!proxy.has_ended());
    gate.open();
    assert_eq!(hit(running.await.unwrap()), digest_of(b"content"));
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_stop_lets_forwarded_calls_finish() {
    let cache = Upstream::start();
    cache.delay("FindMissingBlobs", Duration::from_millis(700));
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    cache.forget_calls();
    let running = tokio::spawn({
        let client = client.clone();
        async move { client.missing(&[digest_of(b"x")]).await }
    });
    eventually("the call", async || {
        (!cache.calls_of("FindMissingBlobs").is_empty()).then_some(())
    })
    .await;
    proxy.terminate();
    assert_eq!(running.await.unwrap(), [digest_of(b"x")]);
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_server_stops_at_once_and_a_second_signal_ends_a_drain() {
    let proxy = Proxy::new().start().await;
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(0));
    let origin = Origin::new().reply("/a", Reply::silence()).start().await;
    let (proxy, client) = Proxy::new().connected().await;
    let running = tokio::spawn({
        let uri = origin.url("/a");
        async move { client.fetch_blob(fetch_blob(&[uri])).await }
    });
    eventually("the call", async || (origin.total() == 1).then_some(())).await;
    proxy.terminate();
    eventually("the listener's end", async || {
        tokio::net::TcpStream::connect(proxy.address()).await.err()
    })
    .await;
    proxy.terminate();
    proxy.ended().await;
    assert!(bounded("the call's end", running).await.unwrap().is_err());
}

#[tokio::test]
async fn the_port_file_says_where_it_serves() {
    let proxy = Proxy::new().start().await;
    for name in ["grpc", "admin"] {
        let address = proxy.ports()[name].as_str().unwrap();
        let address: std::net::SocketAddr = address.parse().unwrap();
        assert_ne!(address.port(), 0);
    }
    let proxy = Proxy::new().admin("off").start().await;
    assert_eq!(proxy.ports()["admin"], Value::Null);
}

/// The log events of asset calls.
fn asset_events(proxy: &Running) -> Vec<Value> {
    let mut events = proxy.stderr().events();
    events.retain(|e| field(e, "rpc").is_some());
    events
}

#[tokio::test]
async fn each_asset_call_is_one_log_event() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (proxy, client) = Proxy::new().connected().await;
    let tool = client.tool("bazel", "8.4.0");
    let uri = origin.url("/a");
    let pinned = fetch_blob(&[&uri]).qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    let full = tool.fetch_blob_in_full(pinned.clone()).await.unwrap();
    let id = full
        .metadata()
        .get("assetgate-request-id")
        .expect("a request id")
        .clone();
    hit(tool.fetch_blob(pinned).await);
    inline(
        client.fetch_blob(fetch_blob(&["urn:o:none"])).await,
        Code::NotFound,
    );
    let digest = client.upload(b"blob").await;
    client
        .push_blob(push_blob(&["urn:o:a"], digest))
        .await
        .unwrap();
    let events = eventually("four events", async || {
        Some(asset_events(&proxy)).filter(|events| events.len() >= 4)
    })
    .await;
    assert_eq!(events.len(), 4, "{events:#?}");
    let column = |name| events.iter().map(|e| field(e, name)).collect::<Vec<_>>();
    let outcomes = ["fetched", "hit_checksum", "miss", "pushed"];
    assert_eq!(column("outcome"), outcomes.map(|o| Some(o.to_owned())));
    for event in &events {
        for name in ["code", "kind", "uri", "bytes", "duration", "attempts"] {
            assert!(field(event, name).is_some(), "{name}: {event:#}");
        }
        for name in ["request_id", "tool", "invocation_id", "origin_host"] {
            assert!(field(event, name).is_some(), "{name}: {event:#}");
        }
    }
    let first = &events[0];
    assert_eq!(field(first, "origin_host").as_deref(), Some("127.0.0.1"));
    assert_eq!(field(first, "attempts").as_deref(), Some("1"));
    assert_eq!(field(first, "kind").as_deref(), Some("blob"));
    assert_eq!(field(first, "request_id").as_deref(), id.to_str().ok());
    says(&field(first, "tool").unwrap(), &["bazel", "8.4.0"]);
    assert_eq!(field(first, "uri"), Some(uri));
    assert_eq!(field(first, "bytes").as_deref(), Some("7"));
    assert!(
        field(&events[2], "inline_code").is_some(),
        "{:#?}",
        events[2]
    );
}

#[tokio::test]
async fn the_request_id_is_in_the_text_of_an_error() {
    let (_proxy, client) = Proxy::new().connected().await;
    let full = client
        .fetch_blob_in_full(fetch_blob(&["urn:o:none"]))
        .await
        .unwrap();
    let id = full
        .metadata()
        .get("assetgate-request-id")
        .expect("a request id")
        .clone();
    let message = inline(Ok(full.into_inner()), Code::NotFound);
    says(&message, &[id.to_str().unwrap()]);
    let none: [&str; 0] = [];
    let status = refused(
        client.fetch_blob(fetch_blob(&none)).await,
        Code::InvalidArgument,
    );
    let id = status
        .metadata()
        .get("assetgate-request-id")
        .expect("a request id");
    says(status.message(), &[id.to_str().unwrap()]);
}

#[tokio::test]
async fn the_start_says_where_and_how() {
    let cache = Upstream::start();
    let proxy = Proxy::new().upstream(&cache).start().await;
    let printed = eventually("the banner", async || {
        let all = format!("{}\n{}", proxy.stdout().text(), proxy.stderr().text());
        all.contains("--remote_cache=").then_some(all)
    })
    .await;
    let address = proxy.address().to_string();
    says(
        &printed,
        &[
            &format!("--remote_cache=grpc://{address}"),
            &format!("--experimental_remote_downloader=grpc://{address}"),
            &cache.address().to_string(),
        ],
    );
}
