//! T1, T3 and T4: how long a fetch may take, and who waits for it.

use std::time::Duration;

use crate::support::answer::says;
use crate::support::{
    Code, Fetching as _, Gate, Origin, Proxy, Reply, digest_of, eventually, fetch_blob, hit, inline,
};

#[tokio::test]
async fn t1_without_timeout_the_configured_one_applies() {
    let origin = Origin::new()
        .reply("/silent", Reply::silence())
        .start()
        .await;
    let proxy = Proxy::new().config("[fetch]\ntimeout = \"300ms\"\n");
    let (_proxy, client) = proxy.connected().await;
    let uri = origin.url("/silent");
    let message = inline(
        client.fetch_blob(fetch_blob(&[&uri])).await,
        Code::DeadlineExceeded,
    );
    says(&message, &[&uri]);
}

#[tokio::test]
async fn t3_a_caller_who_leaves_harms_nobody() {
    let gate = Gate::new();
    let origin = Origin::new()
        .reply("/a", Reply::ok("content").gated(&gate))
        .start()
        .await;
    let (_proxy, client) = Proxy::new().connected().await;
    let ask = || fetch_blob(&[origin.url("/a")]).timeout(Duration::from_secs(30));
    let leaving = tokio::spawn({
        let (client, ask) = (client.clone(), ask());
        async move { client.fetch_blob(ask).await }
    });
    eventually("the request", async || {
        (origin.count("/a") == 1).then_some(())
    })
    .await;
    let staying = tokio::spawn({
        let (client, ask) = (client.clone(), ask());
        async move { client.fetch_blob(ask).await }
    });
    leaving.abort();
    gate.open();
    assert_eq!(hit(staying.await.unwrap()), digest_of(b"content"));
    assert_eq!(hit(client.fetch_blob(ask()).await), digest_of(b"content"));
}

#[tokio::test]
async fn t4_a_timeout_outside_the_limits_is_clamped() {
    let origin = Origin::new()
        .reply("/silent", Reply::silence())
        .file("/a", "content");
    let origin = origin.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let ask = |path| fetch_blob(&[origin.url(path)]);
    let years = ask("/a").timeout(Duration::from_secs(300_000_000_000));
    assert_eq!(hit(client.fetch_blob(years).await), digest_of(b"content"));
    let nothing = ask("/silent").timeout(Duration::from_nanos(1));
    inline(client.fetch_blob(nothing).await, Code::DeadlineExceeded);
}
