//! What a crowd of clients cannot take from others: descriptors, connections,
//! the threads that log, look-ups, names of metrics. And what nobody learns
//! from an error: where the servers behind are.

use std::time::{Duration, Instant};

use assetgate::proto::health::HealthCheckRequest;
use assetgate::proto::health::health_client::HealthClient;
use assetgate::proto::rev2::{FindMissingBlobsRequest, GetCapabilitiesRequest};
use tokio::time::timeout;

use crate::support::logs::field;
use crate::support::{
    Client, Code, Gate, Origin, Proxy, RawCall, RawClient, RawUpstream, Reply, Running, Upstream,
    admin, bounded, digest_of, eventually, fetch_blob, hit, inline, refused,
};

/// Above what any of this takes on a busy machine.
const SOON: Duration = Duration::from_secs(15);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future)
        .await
        .unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}

/// A connection that carried a call, if it got in.
async fn visitor(proxy: &Running) -> Option<Client> {
    let url = format!("http://{}", proxy.address());
    let endpoint = tonic::transport::Endpoint::from_shared(url).unwrap();
    let channel = timeout(SOON, endpoint.connect()).await.ok()?.ok()?;
    let client = Client::over(channel);
    let asked = client.get_capabilities(GetCapabilitiesRequest::default());
    timeout(SOON, asked).await.ok()?.ok()?;
    Some(client)
}

#[tokio::test]
async fn more_clients_than_descriptors_leave_the_admin_port_and_the_cache_in_reach() {
    let cache = Upstream::start();
    let proxy = Proxy::new().descriptors(256).upstream(&cache).start().await;
    // They speak HTTP/2, so none is ended for its silence.
    let mut arriving = tokio::task::JoinSet::new();
    for _ in 0..260 {
        let socket = tokio::net::TcpStream::connect(proxy.address());
        let socket = soon("a connection", socket).await.unwrap();
        arriving.spawn(async move {
            let (mut send, connection) = h2::client::handshake(socket).await?;
            tokio::spawn(async move { connection.await.ok() });
            let call = http::Request::post("http://x/test.Echo/Echo");
            let call = call.header("content-type", "application/grpc");
            let (answer, _) = send.send_request(call.body(()).unwrap(), true)?;
            drop(timeout(Duration::from_secs(5), answer).await);
            Ok::<_, h2::Error>(send)
        });
    }
    let everybody = arriving.join_all().await;
    let alive = soon("livez", admin::get(proxy.admin(), "/livez")).await;
    assert_eq!(alive.0, 200);
    cache.hang_up();
    eventually("a new connection to the cache", async || {
        visitor(&proxy).await
    })
    .await;
    let used = proxy.descriptors();
    assert!(used < 240, "{used} descriptors of 256");
    drop(everybody);
    let told = eventually("the line about it", async || {
        let mut events = proxy.stderr().events();
        events.retain(|e| field(e, "listen.max_connections").is_some());
        events.pop()
    })
    .await;
    assert_eq!(field(&told, "descriptors").as_deref(), Some("256"));
}

#[tokio::test]
async fn a_connection_without_a_call_gives_way_to_a_newcomer() {
    let gate = Gate::new();
    let origin = Origin::new()
        .reply("/held", Reply::ok("held").gated(&gate))
        .start()
        .await;
    let proxy = Proxy::new().arg("--max-connections").arg("4").start().await;
    let busy = proxy.client().await;
    let held = tokio::spawn({
        let (busy, uri) = (busy.clone(), origin.url("/held"));
        async move { busy.fetch_blob(fetch_blob(&[uri])).await }
    });
    eventually("the call", async || (origin.total() == 1).then_some(())).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(visitor(&proxy).await.expect("there is room"));
    }
    for n in 0..6 {
        let newcomer = visitor(&proxy).await;
        idle.push(newcomer.unwrap_or_else(|| panic!("newcomer {n} was kept out")));
    }
    let metrics = proxy.metrics().await;
    let displaced = metrics.sum(
        "assetgate_connections_ended_total",
        &["reason=\"displaced\""],
    );
    assert_eq!(displaced, 6.0, "{}", metrics.0);
    gate.open();
    let content = soon("the held call", held).await.unwrap();
    assert_eq!(hit(content), digest_of(b"held"), "the busy one stayed");
}

#[tokio::test]
async fn connections_with_calls_stay_and_newcomers_are_told_at_once() {
    let gate = Gate::new();
    let origin = Origin::new()
        .reply("/a", Reply::ok("a").gated(&gate))
        .reply("/b", Reply::ok("b").gated(&gate))
        .start()
        .await;
    let proxy = Proxy::new().arg("--max-connections").arg("2").start().await;
    let mut held = Vec::new();
    for path in ["/a", "/b"] {
        let (client, uri) = (proxy.client().await, origin.url(path));
        held.push(tokio::spawn(async move {
            client.fetch_blob(fetch_blob(&[uri])).await
        }));
    }
    eventually("the calls", async || (origin.total() == 2).then_some(())).await;
    let started = Instant::now();
    assert!(visitor(&proxy).await.is_none(), "a third one got in");
    assert!(started.elapsed() < SOON);
    gate.open();
    for (call, content) in held.into_iter().zip([b"a", b"b"]) {
        assert_eq!(hit(call.await.unwrap()), digest_of(content));
    }
}

#[tokio::test]
async fn logs_that_nobody_reads_stop_nothing_and_say_later_what_was_dropped() {
    let proxy = Proxy::new().unread_logs().start().await;
    let client = proxy.client().await;
    let uri = format!("urn:o:{}", "x".repeat(12_000));
    let dropped = async || {
        let metrics = soon("metrics", proxy.metrics()).await;
        metrics.sum("assetgate_log_lines_dropped_total", &[])
    };
    // A pipe takes 64 KiB, the queue a few MiB.
    let mut calls = 0;
    while dropped().await == 0.0 {
        assert!(
            calls < 20_000,
            "nothing is dropped: this waits for somebody"
        );
        for _ in 0..200 {
            let answer = timeout(SOON, client.fetch_blob(fetch_blob(&[&uri]))).await;
            let answer = answer.unwrap_or_else(|_| panic!("call {calls} hangs"));
            inline(answer, Code::NotFound);
            calls += 1;
        }
    }
    let another = soon("a new connection", proxy.client()).await;
    let call = another.fetch_blob(fetch_blob(&["urn:o:after"]));
    inline(soon("its call", call).await, Code::NotFound);
    let dropped = dropped().await;
    let lines = proxy.read_logs();
    let told = eventually("the line about it", async || {
        let mut events = lines.events();
        events.retain(|e| field(e, "dropped").is_some());
        events.pop()
    })
    .await;
    assert_eq!(field(&told, "dropped"), Some(format!("{dropped}")));
}

#[tokio::test]
async fn logs_that_nobody_reads_hold_up_no_stop() {
    let proxy = Proxy::new().unread_logs().start().await;
    let client = proxy.client().await;
    let uri = format!("urn:o:{}", "x".repeat(12_000));
    for _ in 0..20 {
        let call = client.fetch_blob(fetch_blob(&[&uri]));
        inline(soon("a call", call).await, Code::NotFound);
    }
    proxy.terminate();
    let ended = soon("the end", proxy.ended()).await;
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn what_was_logged_last_comes_out_before_the_end() {
    let (proxy, client) = Proxy::new().connected().await;
    inline(
        client.fetch_blob(fetch_blob(&["urn:o:last"])).await,
        Code::NotFound,
    );
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(0));
    eventually("the last events", async || {
        let text = proxy.stderr().text();
        (text.contains("urn:o:last") && text.contains("stopping")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn watches_of_foreign_names_hold_up_no_look_up() {
    let cache = Upstream::start();
    cache.delay("Watch", Duration::from_secs(600));
    let (proxy, client) = Proxy::new()
        .arg("--threads")
        .arg("1")
        .upstream(&cache)
        .connected()
        .await;
    let mut watches = tokio::task::JoinSet::new();
    // The cache takes 200 calls at a time over one connection.
    for _ in 0..220 {
        let mut health = HealthClient::new(client.channel());
        let request = HealthCheckRequest {
            service: "build.bazel.remote.execution.v2.Execution".into(),
        };
        watches.spawn(async move { health.watch(request).await.map(drop) });
    }
    eventually("the watches", async || {
        (cache.calls_of("Watch").len() >= 60).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let call = client.fetch_blob(fetch_blob(&["urn:o:none"]));
    inline(soon("a fetch", call).await, Code::NotFound);
    let other = proxy.client().await;
    let call = other.fetch_blob(fetch_blob(&["urn:o:none"]));
    inline(soon("another's fetch", call).await, Code::NotFound);
    let call = other.find_missing_blobs(FindMissingBlobsRequest::default());
    soon("a forwarded call", call).await.unwrap();
    // What is too much is refused, not kept.
    let first = soon("a refusal", watches.join_next()).await.unwrap();
    let code = first.unwrap().unwrap_err().code();
    assert_eq!(code, Code::ResourceExhausted);
}

#[tokio::test]
async fn hosts_that_never_answered_take_no_names_of_metrics() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (proxy, client) = Proxy::new()
        .config("[fetch]\nattempts = 1\n")
        .connected()
        .await;
    for block in 0..7 {
        let nobody: Vec<String> = (1..=10)
            .map(|n| format!("http://127.0.{}.{n}:1/x", block + 10))
            .collect();
        client.fetch_blob(fetch_blob(&nobody)).await.unwrap_err();
    }
    hit(client.fetch_blob(fetch_blob(&[origin.url("/a")])).await);
    let metrics = proxy.metrics().await;
    let requests = "assetgate_origin_requests_total";
    let named = metrics.sum(requests, &["host=\"127.0.0.1\"", "class=\"ok\""]);
    assert_eq!(named, 1.0, "{}", metrics.0);
    let others = metrics.sum(requests, &["host=\"other\""]);
    assert_eq!(others, 70.0, "{}", metrics.0);
}

#[tokio::test]
async fn errors_do_not_say_where_the_cache_is_and_the_log_does() {
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    client.upload(b"blob").await;
    cache.stop().await;
    let address = cache.address().to_string();
    let port = cache.address().port().to_string();
    for _ in 0..3 {
        let request = FindMissingBlobsRequest::default();
        let status = client.find_missing_blobs(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(!status.message().contains(&port), "{status:?}");
        assert!(status.message().contains("the cache"), "{status:?}");
        let call = client.fetch_blob(fetch_blob(&["urn:o:a"])).await;
        let status = refused(call, Code::Unavailable);
        assert!(!status.message().contains(&port), "{status:?}");
        assert!(status.message().contains("the cache"), "{status:?}");
        let request = HealthCheckRequest {
            service: "other.Service".into(),
        };
        let mut health = HealthClient::new(client.channel());
        let status = bounded("health", health.check(request)).await.unwrap_err();
        assert!(!status.message().contains(&port), "{status:?}");
    }
    eventually("the address in the log, with the call's id", async || {
        let mut events = proxy.stderr().events();
        events.retain(|e| {
            field(e, "rpc").is_some()
                && field(e, "request_id").is_some()
                && field(e, "error").is_some_and(|error| error.contains(&address))
        });
        events.pop()
    })
    .await;
}

#[tokio::test]
async fn a_cache_lost_in_mid_answer_is_not_named() {
    let cache = RawUpstream::start().await;
    let (_proxy, mut raw) = RawClient::around(&cache).await;
    let answer = raw.call(RawCall::new("/test.Echo/Die").message(b"")).await;
    assert_eq!(answer.grpc_status(), Some("14"), "{answer:?}");
    let said = answer.value("grpc-message").unwrap();
    assert!(
        !said.contains(&cache.address().port().to_string()),
        "{said}"
    );
}

#[tokio::test]
async fn errors_do_not_say_what_an_origin_resolves_to_nor_which_proxy_there_is() {
    let (proxy, client) = Proxy::new().public_origins_only().connected().await;
    let uri = "http://localhost:9/x";
    let message = inline(
        client.fetch_blob(fetch_blob(&[uri])).await,
        Code::PermissionDenied,
    );
    let names = |text: &str| text.contains("127.0.0.1") || text.contains("::1");
    assert!(!names(&message), "{message}");
    assert!(message.contains("localhost"), "{message}");
    eventually("the address in the log", async || {
        let mut events = proxy.stderr().events();
        events.retain(|e| {
            field(e, "request_id").is_some() && field(e, "error").is_some_and(|e| names(&e))
        });
        events.pop()
    })
    .await;

    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = nobody.local_addr().unwrap().port().to_string();
    drop(nobody);
    let (proxy, client) = Proxy::new()
        .config("[fetch]\nattempts = 1\n")
        .origin_proxy(&format!("http://127.0.0.1:{port}"))
        .connected()
        .await;
    for uri in ["http://origin.example/x", "https://origin.example/x"] {
        let call = client.fetch_blob(fetch_blob(&[uri])).await;
        let status = refused(call, Code::Unavailable);
        assert!(!status.message().contains(&port), "{status:?}");
        assert!(status.message().contains("proxy"), "{status:?}");
    }
    eventually("the proxy in the log", async || {
        let mut events = proxy.stderr().events();
        events.retain(|e| {
            field(e, "request_id").is_some() && field(e, "error").is_some_and(|e| e.contains(&port))
        });
        (events.len() >= 2).then_some(())
    })
    .await;
}
