//! S1 to S3 and S5 to S11: which failure is told by which code, through which
//! channel, in which words.

use std::time::Duration;

use crate::support::answer::{retry_delay, says};
use crate::support::request::Fetching as _;
use crate::support::{
    Answer as _, Client, Code, Function, Origin, Proxy, Qualified as _, Reply, Upstream, bounded,
    digest_of, fetch_blob, fetch_directory, hit, inline, push_blob, refused, sri,
};

#[tokio::test]
async fn s01_what_is_nowhere_is_not_found() {
    let origin = Origin::new()
        .status("/404", 404)
        .status("/410", 410)
        .start()
        .await;
    let (_proxy, client) = Proxy::new().connected().await;
    for code in ["404", "410"] {
        let uri = origin.url(&format!("/{code}"));
        let answer = client.fetch_blob(fetch_blob(&[&uri])).await;
        assert_eq!(
            answer.as_ref().unwrap().uri(),
            uri,
            "uri is filled on failure too"
        );
        says(&inline(answer, Code::NotFound), &[&uri, code]);
    }
    let urn = "urn:s:unknown";
    says(
        &inline(client.fetch_blob(fetch_blob(&[urn])).await, Code::NotFound),
        &[urn],
    );
    let directory = client.fetch_directory(fetch_directory(&[urn])).await;
    says(&inline(directory, Code::NotFound), &[urn]);
}

#[tokio::test]
async fn s02_an_origin_that_refuses_is_permission_denied() {
    let origin = Origin::new()
        .status("/401", 401)
        .status("/403", 403)
        .start()
        .await;
    let (_proxy, client) = Proxy::new().connected().await;
    for code in ["401", "403"] {
        let uri = origin.url(&format!("/{code}"));
        let message = inline(
            client.fetch_blob(fetch_blob(&[&uri])).await,
            Code::PermissionDenied,
        );
        says(&message, &[&uri, code]);
    }
}

#[tokio::test]
async fn s03_wrong_and_truncated_content_is_aborted_and_leaves_nothing() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let large = crate::support::content::noise(3 << 20, 3);
    let origin = Origin::new()
        .file("/wrong", "served")
        .reply("/short", Reply::ok("served").declaring(60))
        .reply("/cut", Reply::ok(&large).cut_after(1 << 20))
        .reply("/chunked", Reply::ok(&large).chunked().cut_after(1 << 20))
        .start()
        .await;
    for path in ["/wrong", "/short", "/cut", "/chunked"] {
        let uri = origin.url(path);
        let pinned = fetch_blob(&[&uri]).qualifier("checksum.sri", &sri(Function::Sha256, b"x"));
        says(
            &inline(client.fetch_blob(pinned).await, Code::Aborted),
            &[&uri],
        );
    }
    for path in ["/short", "/cut", "/chunked"] {
        let uri = origin.url(path);
        let message = inline(client.fetch_blob(fetch_blob(&[&uri])).await, Code::Aborted);
        says(&message, &[&uri, "cut off"]);
    }
    assert_eq!(cache.entries(), []);
    assert!(!cache.has(&digest_of(b"served")));
}

#[tokio::test]
async fn s04_a_busy_origin_is_worth_another_try_and_a_huge_answer_is_not() {
    let busy = Reply::status(429).header("Retry-After", "7");
    let busy = Origin::new().reply("/429", busy).start().await;
    let origin = Origin::new()
        .file("/large", [0; 5000])
        .reply("/endless", Reply::ok([0; 5000]).chunked());
    let origin = origin.start().await;
    let proxy = Proxy::new().config("[fetch]\nattempts = 1\nmax_size = \"4KiB\"\n");
    let (_proxy, client) = proxy.connected().await;
    let busy = client.fetch_blob(fetch_blob(&[busy.url("/429")])).await;
    let status = refused(busy, Code::ResourceExhausted);
    assert_eq!(retry_delay(&status), Duration::from_secs(7));
    says(status.message(), &["429"]);
    for path in ["/large", "/endless"] {
        let uri = origin.url(path);
        let answer = client.fetch_blob(fetch_blob(&[&uri])).await;
        says(&inline(answer, Code::ResourceExhausted), &[&uri, "4"]);
    }
}

#[tokio::test]
async fn s05_a_fetch_that_takes_longer_than_its_timeout() {
    let large = [0; 100_000];
    let stalled = Reply::ok(large).gated_after(50_000, &crate::support::Gate::new());
    let origin = Origin::new()
        .reply("/silent", Reply::silence())
        .reply("/stalled", stalled)
        .file("/good", "content");
    let origin = origin.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    for path in ["/silent", "/stalled"] {
        let uri = origin.url(path);
        let fetch = fetch_blob(&[&uri, &origin.url("/good")]).timeout(Duration::from_millis(300));
        let message = inline(client.fetch_blob(fetch).await, Code::DeadlineExceeded);
        says(&message, &[&uri]);
    }
    assert_eq!(origin.count("/good"), 0, "one budget for all mirrors");
}

#[tokio::test]
async fn s06_the_deadline_is_enforced_by_the_server() {
    let origin = Origin::new()
        .reply("/silent", Reply::silence())
        .start()
        .await;
    let proxy = Proxy::new().start().await;
    let mut raw = crate::support::RawClient::connect(proxy.address()).await;
    let fetch = prost::Message::encode_to_vec(&fetch_blob(&[origin.url("/silent")]));
    let call = crate::support::RawCall::new("/build.bazel.remote.asset.v1.Fetch/FetchBlob");
    let answer = raw
        .call(call.header("grpc-timeout", "300m").message(&fetch))
        .await;
    assert_eq!(answer.grpc_status(), Some("4"), "{answer:?}");
}

#[tokio::test]
async fn s07_a_failing_origin_is_worth_another_try() {
    let mut gone = Origin::new().start().await;
    gone.stop().await;
    let origin = Origin::new()
        .status("/500", 500)
        .status("/503", 503)
        .status("/408", 408)
        .start()
        .await;
    let (_proxy, client) = Proxy::new().connected().await;
    for (uri, reason) in [
        (origin.url("/500"), "500"),
        (origin.url("/503"), "503"),
        (origin.url("/408"), "408"),
        (gone.url("/a"), "refused"),
        (
            "http://no-such-host.invalid/a".to_owned(),
            "no-such-host.invalid",
        ),
    ] {
        let status = refused(
            client.fetch_blob(fetch_blob(&[&uri])).await,
            Code::Unavailable,
        );
        says(status.message(), &[&uri, reason]);
        assert!(retry_delay(&status) <= Duration::from_secs(60));
    }
}

#[tokio::test]
async fn s08_a_cache_that_is_down_is_unavailable_and_named() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    hit(client.fetch_blob(fetch_blob(&[origin.url("/a")])).await);
    cache.stop().await;
    let digest = digest_of(b"content");
    for answer in [
        client
            .fetch_blob(fetch_blob(&[origin.url("/a")]))
            .await
            .map(drop),
        client
            .push_blob(push_blob(&["urn:s:a"], digest))
            .await
            .map(drop),
    ] {
        let status = refused(answer, Code::Unavailable);
        says(status.message(), &["the cache"]);
        retry_delay(&status);
    }
    assert_eq!(origin.total(), 1, "a cache that cannot be asked is no miss");
}

#[tokio::test]
async fn s08_other_failures_of_the_cache_keep_their_code() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    for (code, words) in [
        (Code::ResourceExhausted, "no space left"),
        (Code::Internal, "a bug in the cache"),
    ] {
        for method in ["BatchUpdateBlobs", "Write"] {
            cache.fail(method, tonic::Status::new(code, words));
        }
        let status = refused(
            client.fetch_blob(fetch_blob(&[origin.url("/a")])).await,
            code,
        );
        says(status.message(), &[words]);
    }
}

async fn not_found(client: &Client) -> Result<(), tonic::Status> {
    let answer = client.fetch_blob(fetch_blob(&["urn:s:none"])).await?;
    assert_eq!(answer.status().code, Code::NotFound as i32);
    assert_eq!(answer.digest(), None);
    Ok(())
}

#[tokio::test]
async fn s09_clients_that_ignore_inline_failures_get_a_status() {
    let (_proxy, client) = Proxy::new().connected().await;
    for (tool, version) in [
        ("bazel", ""),
        ("bazel", "4.2.3"),
        ("bazel", "7.9.0"),
        ("bazel", "8.1.1"),
        ("bazel", "8.1.9-pre"),
        ("please", "17.0.0"),
    ] {
        let status = not_found(&client.tool(tool, version)).await;
        refused(status, Code::NotFound);
    }
    for (tool, version) in [
        ("bazel", "8.2.0"),
        ("bazel", "8.10.0"),
        ("bazel", "10.0.0"),
        ("buildstream", "2.8"),
        ("", ""),
    ] {
        not_found(&client.tool(tool, version)).await.unwrap();
    }
    not_found(&client).await.unwrap();
    let old = ["urn:fdc:buildstream.build:2020:v1:project/element/key"];
    refused(
        client.fetch_directory(fetch_directory(&old)).await,
        Code::NotFound,
    );
}

#[tokio::test]
async fn s09_the_channel_can_be_forced() {
    let (_proxy, client) = Proxy::new().arg("--errors").arg("grpc").connected().await;
    refused(not_found(&client).await, Code::NotFound);
    let (_proxy, client) = Proxy::new()
        .config("errors = \"inline\"\n")
        .connected()
        .await;
    not_found(&client.tool("bazel", "4.2.3")).await.unwrap();
}

#[tokio::test]
async fn s10_success_has_a_status_too() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"blob").await;
    client
        .push_blob(push_blob(&["urn:s:a"], digest))
        .await
        .unwrap();
    let answer = client.fetch_blob(fetch_blob(&["urn:s:a"])).await.unwrap();
    assert_eq!(answer.status.map(|s| s.code), Some(0));
}

#[tokio::test]
async fn s11_a_caller_the_cache_refuses_learns_so_before_the_origin_is_asked() {
    let origin = Origin::new().file("/a", "content").start().await;
    for code in [Code::Unauthenticated, Code::PermissionDenied] {
        let cache = Upstream::start();
        cache.demand_token("Bearer good", code);
        let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
        let pinned = fetch_blob(&[origin.url("/a")])
            .qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
        for fetch in [fetch_blob(&[origin.url("/a")]), pinned] {
            let status = refused(client.fetch_blob(fetch).await, code);
            says(status.message(), &["wants a token"]);
        }
        let push = push_blob(&["urn:s:a"], digest_of(b"content"));
        refused(client.push_blob(push).await, code);
    }
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn s11_our_own_calls_carry_the_callers_credentials() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    cache.demand_token("Bearer good", Code::Unauthenticated);
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let known = client
        .with("authorization", "Bearer good")
        .with("x-extra-bin", [0, 255]);
    let known = known.tool("bazel", "8.4.0");
    hit(known.fetch_blob(fetch_blob(&[origin.url("/a")])).await);
    let write = &cache.calls_of("UpdateActionResult")[0];
    assert_eq!(write.value("authorization"), Some("Bearer good"));
    assert!(write.metadata.contains_key("x-extra-bin"));
    assert_eq!(write.tool(), "assetgate");
    let status = client.fetch_blob(fetch_blob(&[origin.url("/a")])).await;
    refused(status, Code::Unauthenticated);
}

#[tokio::test]
async fn s11_a_reference_that_cannot_be_recorded_spoils_no_fetch() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let denied = tonic::Status::permission_denied("the action cache is read-only");
    cache.fail("UpdateActionResult", denied);
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    for requests in 1..3 {
        let digest = hit(client.fetch_blob(fetch_blob(&[origin.url("/a")])).await);
        assert_eq!(digest, digest_of(b"content"));
        assert_eq!(origin.count("/a"), requests);
    }
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("assetgate_reference_write_failures_total", &[]) >= 2.0);
    let push = push_blob(&["urn:s:a"], digest_of(b"content"));
    refused(client.push_blob(push).await, Code::PermissionDenied);
}

#[tokio::test]
async fn s11_a_caller_who_may_read_but_not_write_learns_so_before_the_origin_is_asked() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    for method in ["BatchUpdateBlobs", "Write"] {
        cache.fail(
            method,
            tonic::Status::permission_denied("you may not write"),
        );
    }
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let call = client.fetch_blob(fetch_blob(&[origin.url("/a")]));
    let status = refused(bounded("an answer", call).await, Code::PermissionDenied);
    says(status.message(), &["you may not write"]);
    assert_eq!(origin.total(), 0);
}
