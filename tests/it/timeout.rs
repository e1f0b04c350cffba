//! T1 to T5: how long a fetch may take, and who waits for it.

use std::time::Duration;

use crate::support::answer::says;
use crate::support::{
    Code, Fetching as _, Function, Gate, Origin, Proxy, Qualified as _, Reply, digest_of,
    eventually, fetch_blob, hit, inline, sri,
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
async fn t2_a_fetch_goes_on_after_the_deadline_of_its_call() {
    let gate = Gate::new();
    let slow = Reply::ok("content").gated(&gate);
    let origin = Origin::new().reply("/a", slow).start().await;
    let (proxy, client) = Proxy::new().connected().await;
    let ask = || {
        fetch_blob(&[origin.url("/a")])
            .qualifier("checksum.sri", &sri(Function::Sha512, b"content"))
            .timeout(Duration::from_secs(60))
    };
    eventually("the request", async || {
        let deadline = Duration::from_millis(300);
        client.fetch_blob_in_vain(ask(), deadline).await;
        (origin.total() == 1).then_some(())
    })
    .await;
    eventually("the fetch without a caller", async || {
        let metrics = proxy.metrics().await;
        (metrics.sum("assetgate_fetches_unattended", &[]) == 1.0).then_some(())
    })
    .await;
    gate.open();
    eventually("the end of the fetch", async || {
        let metrics = proxy.metrics().await;
        (metrics.sum("assetgate_fetches_unattended", &[]) == 0.0).then_some(())
    })
    .await;
    assert_eq!(hit(client.fetch_blob(ask()).await), digest_of(b"content"));
    assert_eq!(origin.total(), 1);
}

#[tokio::test]
async fn t5_identical_calls_at_once_make_one_request() {
    let gate = Gate::new();
    let slow = Reply::ok("content").gated(&gate);
    let origin = Origin::new().reply("/a", slow).start().await;
    let (proxy, client) = Proxy::new().connected().await;
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let (client, ask) = (client.clone(), fetch_blob(&[origin.url("/a")]));
            tokio::spawn(async move { client.fetch_blob(ask).await })
        })
        .collect();
    eventually("two who join the first", async || {
        let metrics = proxy.metrics().await;
        (metrics.sum("assetgate_fetches_joined_total", &[]) == 2.0).then_some(())
    })
    .await;
    gate.open();
    for call in calls {
        assert_eq!(hit(call.await.unwrap()), digest_of(b"content"));
    }
    assert_eq!(origin.total(), 1);
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
