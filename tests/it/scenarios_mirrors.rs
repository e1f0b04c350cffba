//! Scenarios 13 to 19 and 22: mirrors, retries, redirects and time.

use std::time::{Duration, Instant};

use assetgate::proto::asset::FetchBlobResponse;
use tonic::Status;

use crate::support::answer::{retry_delay, says};
use crate::support::origin::Serving;
use crate::support::{
    Answer as _, Client, Code, Fetching as _, Function, Gate, Origin, Pending, Pki, Proxy,
    Qualified as _, RawCall, RawClient, Reply, Running, digest_of, eventually, fetch_blob, hit,
    inline, refused, sri,
};

/// Three tries, a moment apart.
const QUICK: &str = "[fetch]\nattempts = 3\nretry_delay = \"10ms\"\n";

async fn quick() -> (Running, Client) {
    Proxy::new().config(QUICK).connected().await
}

async fn statuses() -> Serving {
    Origin::new()
        .status("/400", 400)
        .status("/403", 403)
        .status("/404", 404)
        .status("/408", 408)
        .status("/429", 429)
        .status("/503", 503)
        .reply("/reset", Reply::hang_up())
        .file("/good", "content")
        .start()
        .await
}

type Answered = Result<FetchBlobResponse, Status>;

/// Fetches from these paths in this order; `id` keeps one fetch from another.
async fn fetch(client: &Client, origin: &Serving, paths: &[&str], id: &str) -> Answered {
    let uris: Vec<String> = paths.iter().map(|path| origin.url(path)).collect();
    let ask = fetch_blob(&uris).qualifier("bazel.canonical_id", id);
    client.fetch_blob(ask).await
}

#[tokio::test]
async fn scenario_13_what_will_not_change_is_final() {
    let origin = statuses().await;
    let (_proxy, client) = quick().await;
    for (paths, code, told) in [
        (&["/404", "/none"][..], Code::NotFound, "/404"),
        (&["/403"], Code::PermissionDenied, "/403"),
        (&["/400"], Code::NotFound, "/400"),
        (&["/404", "/403"], Code::PermissionDenied, "/403"),
    ] {
        let before = origin.total();
        let answer = fetch(&client, &origin, paths, &format!("{paths:?}")).await;
        assert_eq!(answer.as_ref().unwrap().uri(), origin.url(told));
        let message = inline(answer, code);
        says(&message, &[&origin.url(paths[0])]);
        assert_eq!(origin.total() - before, paths.len(), "no second request");
    }
}

#[tokio::test]
async fn scenario_14_what_may_pass_is_worth_another_call() {
    let origin = statuses().await;
    let (_proxy, client) = quick().await;
    for (paths, code) in [
        (&["/503"][..], Code::Unavailable),
        (&["/408"], Code::Unavailable),
        (&["/reset"], Code::Unavailable),
        (&["/429"], Code::ResourceExhausted),
        (&["/503", "/404"], Code::Unavailable),
        (&["/404", "/503"], Code::Unavailable),
        (&["/403", "/reset"], Code::Unavailable),
    ] {
        let answer = fetch(&client, &origin, paths, &format!("{paths:?}")).await;
        let status = refused(answer, code);
        retry_delay(&status);
        for path in paths {
            says(status.message(), &[&origin.url(path)]);
        }
    }
}

#[tokio::test]
async fn scenario_14_the_next_mirror_does_not_wait_for_the_first() {
    let origin = statuses().await;
    let slow = "[fetch]\nretry_delay = \"20s\"\n";
    let (_proxy, client) = Proxy::new().config(slow).connected().await;
    let began = Instant::now();
    for first in ["/503", "/429", "/408", "/reset"] {
        let answer = fetch(&client, &origin, &[first, "/good"], first).await;
        assert_eq!(answer.as_ref().unwrap().uri(), origin.url("/good"));
        assert_eq!(hit(answer), digest_of(b"content"));
        assert_eq!(origin.count(first), 1);
    }
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn scenario_15_what_passes_is_tried_again() {
    let good = || Reply::ok("content");
    let busy = Reply::status;
    let table = [
        ("/twice", vec![busy(503), good()], 2),
        ("/thrice", vec![busy(502), busy(503), good()], 3),
        ("/reset", vec![Reply::hang_up(), good()], 2),
        ("/cut", vec![good().cut_after(3), good()], 2),
        ("/429", vec![busy(429), good()], 2),
    ];
    let mut origin = Origin::new();
    for (path, replies, _) in &table {
        origin = origin.replies(path, replies.clone());
    }
    let origin = origin.start().await;
    let (_proxy, client) = quick().await;
    for (path, _, tries) in table {
        let ask = fetch_blob(&[origin.url(path)])
            .qualifier("http_header:Authorization", "Bearer each-time");
        assert_eq!(hit(client.fetch_blob(ask).await), digest_of(b"content"));
        let seen = origin.seen_at(path);
        assert_eq!(seen.len(), tries, "{path}");
        for request in seen {
            let shown = request.header("authorization");
            assert_eq!(shown, Some("Bearer each-time"), "{path}");
        }
    }
}

#[tokio::test]
async fn scenario_15_tries_end_and_a_404_is_not_tried_again() {
    let origin = statuses().await;
    let (_proxy, client) = quick().await;
    let answer = fetch(&client, &origin, &["/503"], "").await;
    let status = refused(answer, Code::Unavailable);
    says(status.message(), &["503", "3 tries"]);
    assert_eq!(origin.count("/503"), 3);
    inline(fetch(&client, &origin, &["/404"], "").await, Code::NotFound);
    assert_eq!(origin.count("/404"), 1);
}

#[tokio::test]
async fn scenario_15_the_body_of_a_failure_is_not_waited_for() {
    let never = Gate::new();
    let failure = Reply::status(503).gated_after(3, &never);
    let origin = Origin::new()
        .replies("/a", vec![failure, Reply::ok("content")])
        .start()
        .await;
    let (_proxy, client) = quick().await;
    assert_eq!(
        hit(client.fetch_blob(fetch_blob(&[origin.url("/a")])).await),
        digest_of(b"content")
    );
    eventually("the end of the failed request", async || {
        (origin.left("/a") == 1).then_some(())
    })
    .await;
}

/// DNS timeouts cannot be had on loopback: the fetcher's own tests have one.
#[tokio::test]
async fn scenario_16_failures_to_connect() {
    let pki = Pki::new();
    // Takes connections and says nothing, so TLS never begins.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gone = Origin::new().start().await;
    gone.stop().await;
    let config = format!("{QUICK}connect_timeout = \"300ms\"\ndeny_cidr = [\"127.0.0.9/32\"]\n");
    let proxy = Proxy::new().config(config).origin_ca(&pki.ca());
    let (_proxy, client) = proxy.connected().await;
    for (uri, says_so) in [
        (gone.url("/a"), "refused"),
        ("http://no-such-host.invalid/a".to_owned(), "no-such-host"),
        (format!("https://{}/a", mute.local_addr().unwrap()), "300ms"),
    ] {
        let answer = client.fetch_blob(fetch_blob(&[&uri])).await;
        let status = refused(answer, Code::Unavailable);
        says(status.message(), &[&uri, says_so]);
        retry_delay(&status);
    }
    let began = Instant::now();
    let blocked = fetch_blob(&["http://127.0.0.9:1/a"]);
    let message = inline(client.fetch_blob(blocked).await, Code::PermissionDenied);
    says(&message, &["127.0.0.9"]);
    assert!(!message.contains("tries"), "{message}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn scenario_17_what_cannot_be_fetched_means_the_next_mirror() {
    let origin = statuses().await;
    let (_proxy, client) = quick().await;
    for bad in [
        "ftp://127.0.0.1/a",
        "file:///etc/passwd",
        "relative/path",
        "http:///path",
        "https:token",
        "urn:nobody:pushed",
    ] {
        let alone = client.fetch_blob(fetch_blob(&[bad])).await.unwrap();
        let code = Code::from_i32(alone.status().code);
        let is_final = matches!(code, Code::NotFound | Code::PermissionDenied);
        assert!(is_final, "{bad}: {alone:?}");
        assert_eq!(alone.digest(), None);
        let good = origin.url("/good");
        for uris in [[bad, &good], [&good, bad]] {
            let answer = client.fetch_blob(fetch_blob(&uris)).await;
            assert_eq!(answer.as_ref().unwrap().uri(), good, "{bad}");
            assert_eq!(hit(answer), digest_of(b"content"));
        }
    }
}

#[tokio::test]
async fn scenario_18_redirects_that_lead_nowhere_and_up_to_https() {
    let pki = Pki::new();
    let far = Origin::new().ip("127.0.0.2").tls(&pki);
    let far = far.file("/a", "content").start().await;
    let origin = Origin::new()
        .reply("/loop", Reply::redirect("/loop"))
        .reply("/circle", Reply::redirect("/back"))
        .reply("/back", Reply::redirect("/circle"))
        .reply("/ftp", Reply::redirect("ftp://127.0.0.1/a"))
        .reply("/up", Reply::redirect(&far.url("/a")))
        .file("/good", "content")
        .start()
        .await;
    let proxy = Proxy::new().config(QUICK).origin_ca(&pki.ca());
    let (_proxy, client) = proxy.connected().await;
    for path in ["/loop", "/circle", "/ftp"] {
        let alone = fetch(&client, &origin, &[path], "").await.unwrap();
        let code = Code::from_i32(alone.status().code);
        let is_final = matches!(code, Code::NotFound | Code::PermissionDenied);
        assert!(is_final, "{path}: {alone:?}");
        assert!(origin.total() < 60, "each hop once");
        let answer = fetch(&client, &origin, &[path, "/good"], "").await;
        assert_eq!(answer.as_ref().unwrap().uri(), origin.url("/good"));
    }
    let ask = fetch_blob(&[origin.url("/up")])
        .qualifier("http_header:Authorization", "Bearer near")
        .qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    assert_eq!(hit(client.fetch_blob(ask).await), digest_of(b"content"));
    let near = &origin.seen_at("/up")[0];
    assert_eq!(near.header("authorization"), Some("Bearer near"));
    assert_eq!(far.seen_at("/a")[0].header("authorization"), None);
}

#[tokio::test]
async fn scenario_19_time_that_is_over_is_told_by_its_kind() {
    let origin = Origin::new()
        .reply("/hung", Reply::silence())
        .file("/good", "content")
        .start()
        .await;
    let (proxy, client) = quick().await;
    let uris = [origin.url("/hung"), origin.url("/good")];
    let short = fetch_blob(&uris).timeout(Duration::from_millis(100));
    let message = inline(client.fetch_blob(short).await, Code::DeadlineExceeded);
    says(&message, &[&uris[0], "1 of 2"]);
    assert_eq!(origin.count("/good"), 0, "one budget for all mirrors");

    let mut raw = RawClient::connect(proxy.address()).await;
    let ask = prost::Message::encode_to_vec(&fetch_blob(&uris));
    let call = RawCall::new("/build.bazel.remote.asset.v1.Fetch/FetchBlob");
    let call = call.header("grpc-timeout", "200m").message(&ask);
    assert_eq!(raw.call(call).await.grpc_status(), Some("4"));
}

#[tokio::test]
async fn scenario_19_a_cancelled_call_is_counted_as_that_and_an_expired_one_asks_nobody() {
    let origin = Origin::new().reply("/hung", Reply::silence());
    let origin = origin.start().await;
    let (proxy, client) = quick().await;
    let call = Pending::call(&client, fetch_blob(&[origin.url("/hung")]));
    proxy.waiting(1).await;
    call.cancel();
    eventually("the end of the call", async || {
        let labels = [r#"grpc_method="FetchBlob""#, r#"grpc_code="Canceled""#];
        let metrics = proxy.metrics().await;
        (metrics.sum("grpc_server_handled_total", &labels) == 1.0).then_some(())
    })
    .await;

    let before = origin.total();
    let mut raw = RawClient::connect(proxy.address()).await;
    let ask = fetch_blob(&[origin.url("/hung?another")]);
    let call = RawCall::new("/build.bazel.remote.asset.v1.Fetch/FetchBlob");
    let call = call.header("grpc-timeout", "0n");
    let call = call.message(&prost::Message::encode_to_vec(&ask));
    assert_eq!(raw.call(call).await.grpc_status(), Some("4"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(origin.total(), before);
}

#[tokio::test]
async fn scenario_22_no_failure_names_any_content() {
    let origin = statuses().await;
    let proxy = Proxy::new().config(QUICK).arg("--errors").arg("inline");
    let (_proxy, client) = proxy.connected().await;
    let wrong = sri(Function::Sha256, b"other");
    for client in [client.tool("bazel", "7.0.0"), client] {
        for path in ["/400", "/403", "/404", "/503", "/429", "/reset", "/good"] {
            let ask = fetch_blob(&[origin.url(path)]).qualifier("checksum.sri", &wrong);
            if let Ok(answer) = client.fetch_blob(ask).await {
                assert_ne!(answer.status().code, 0, "{path}");
                assert_eq!(answer.digest(), None, "{path}");
            }
        }
    }
}
