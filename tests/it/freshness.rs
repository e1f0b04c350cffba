//! N1 to N10: how old an answer may be, and until when. What an operator decides
//! of it is in `unpinned.rs`.

use std::time::{Duration, SystemTime};

use assetgate::proto::asset::FetchBlobRequest;

use crate::support::entries::is_reference;
use crate::support::logs::field;
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

/// An origin that says 304 to who has it already.
fn named(content: &str, header: &str, value: &str) -> Reply {
    Reply::ok(content).header(header, value).conditional()
}

#[tokio::test]
async fn n03_the_origin_may_confirm_what_the_cache_must_not_answer() {
    let origin = Origin::new().reply("/a", named("content", "ETag", "\"1\""));
    let origin = origin.start().await;
    let (proxy, client) = Proxy::new().connected().await;
    let ask = || {
        fetch_blob(&[origin.url("/a")])
            .oldest(SystemTime::now() + HOUR)
            .qualifier("bazel.canonical_id", "x")
    };
    for _ in 0..3 {
        assert_eq!(hit(client.fetch_blob(ask()).await), digest_of(b"content"));
    }
    let seen = origin.seen();
    let asked: Vec<_> = seen.iter().map(|s| s.header("if-none-match")).collect();
    assert_eq!(asked, [None, Some("\"1\""), Some("\"1\"")]);
    let bytes = proxy.metrics().await;
    let bytes = bytes.sum("assetgate_origin_bytes_total", &[]);
    assert_eq!(bytes, 7.0, "it came once");
    // N4: a retry with the same time asks nobody.
    let same = ask();
    hit(client.fetch_blob(same.clone()).await);
    hit(client.fetch_blob(same).await);
    assert_eq!(origin.total(), 4);
}

#[tokio::test]
async fn n06_without_a_time_unpinned_content_is_revalidated() {
    for (header, value, condition) in [
        ("ETag", "\"1\"", "if-none-match"),
        ("ETag", "W/\"weak\"", "if-none-match"),
        (
            "Last-Modified",
            "Wed, 01 Jan 2020 00:00:00 GMT",
            "if-modified-since",
        ),
    ] {
        let origin = Origin::new().reply("/a", named("content", header, value));
        let origin = origin.start().await;
        let cache = Upstream::start();
        let (_first, client) = Proxy::new().upstream(&cache).connected().await;
        let (second, other) = Proxy::new().upstream(&cache).connected().await;
        let ask = || fetch_blob(&[origin.url("/a")]);
        assert_eq!(hit(client.fetch_blob(ask()).await), digest_of(b"content"));
        // Another replica knows what the first one recorded.
        let asked_at = SystemTime::now();
        assert_eq!(hit(other.fetch_blob(ask()).await), digest_of(b"content"));
        let metrics = second.metrics().await;
        let outcome = ["outcome=\"revalidated\""];
        assert_eq!(metrics.sum("assetgate_asset_requests_total", &outcome), 1.0);
        assert_eq!(metrics.sum("assetgate_origin_bytes_total", &[]), 0.0);
        let seen = origin.seen();
        assert_eq!((seen.len(), seen[1].header(condition)), (2, Some(value)));
        // What was confirmed is as young as its confirmation.
        let since = ask().oldest(asked_at);
        assert_eq!(hit(client.fetch_blob(since).await), digest_of(b"content"));
        assert_eq!(origin.total(), 2);
    }
}

#[tokio::test]
async fn n06_content_without_a_name_is_fetched_each_time() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    for requests in 1..3 {
        hit(client.fetch_blob(fetch_blob(&[origin.url("/a")])).await);
        assert_eq!(origin.total(), requests);
    }
    let conditions = ["if-none-match", "if-modified-since"];
    let seen = origin.seen();
    let asked = seen
        .iter()
        .filter(|s| conditions.iter().any(|c| s.header(c).is_some()));
    assert_eq!(asked.count(), 0);
}

#[tokio::test]
async fn n06_a_date_is_no_name_for_where_a_redirect_leads() {
    let dated = |content, day| {
        let date = format!("{day} Jan 2020 00:00:00 GMT");
        named(content, "Last-Modified", &date)
    };
    let origin = Origin::new()
        .reply("/new", dated("new", "Thu, 02"))
        .reply("/old", dated("old", "Wed, 01"))
        .replies(
            "/latest",
            vec![Reply::redirect("/new"), Reply::redirect("/old")],
        );
    let origin = origin.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    for content in [b"new", b"old"] {
        let ask = fetch_blob(&[origin.url("/latest")]);
        assert_eq!(hit(client.fetch_blob(ask).await), digest_of(content));
    }
    let seen = origin.seen();
    assert!(seen.iter().all(|s| s.header("if-modified-since").is_none()));
}

#[tokio::test]
async fn n06_other_content_behind_a_url_is_drift() {
    let secret = "s3cret-in-the-query";
    let replies = [("one", "\"1\""), ("two", "\"2\"")];
    let replies = replies.map(|(content, tag)| named(content, "ETag", tag));
    let origin = Origin::new().replies("/a", replies.to_vec());
    let origin = origin.replies("/b", vec![Reply::ok("one"), Reply::ok("two")]);
    let origin = origin.start().await;
    let (proxy, client) = Proxy::new().connected().await;
    let drift = async || {
        let metrics = proxy.metrics().await;
        metrics.sum("assetgate_origin_drift_total", &[])
    };
    let ask = || fetch_blob(&[origin.url(&format!("/a?v={secret}"))]);
    assert_eq!(hit(client.fetch_blob(ask()).await), digest_of(b"one"));
    assert_eq!(drift().await, 0.0);
    assert_eq!(hit(client.fetch_blob(ask()).await), digest_of(b"two"));
    assert_eq!(hit(client.fetch_blob(ask()).await), digest_of(b"two"));
    assert_eq!(drift().await, 1.0);
    let event = eventually("the event", async || {
        let events = proxy.stderr().events().into_iter();
        let mut told = events.filter(|e| field(e, "old").is_some());
        told.next()
    })
    .await;
    let hash = |content: &[u8]| digest_of(content).hash;
    assert!(
        field(&event, "old").unwrap().contains(&hash(b"one")),
        "{event}"
    );
    assert!(
        field(&event, "new").unwrap().contains(&hash(b"two")),
        "{event}"
    );
    let uri = field(&event, "asset.uri").unwrap();
    assert!(uri.contains("/a") && !event.to_string().contains(secret));
    // Where a checksum pins it, other content is no drift but a mismatch.
    for content in [b"one", b"two"] {
        let pinned = fetch_blob(&[origin.url("/b")])
            .qualifier("checksum.sri", &sri(Function::Sha256, content))
            .qualifier("bazel.canonical_id", &String::from_utf8_lossy(content));
        assert_eq!(hit(client.fetch_blob(pinned).await), digest_of(content));
    }
    assert_eq!(drift().await, 1.0);
}

#[tokio::test]
async fn n06_what_went_from_the_cache_is_not_asked_about() {
    let origin = Origin::new().reply("/a", named("content", "ETag", "\"1\""));
    let origin = origin.start().await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let ask = || fetch_blob(&[origin.url("/a")]);
    let digest = hit(client.fetch_blob(ask()).await);
    cache.drop_blob(&digest);
    assert_eq!(hit(client.fetch_blob(ask()).await), digest);
    assert!(cache.has(&digest));
    assert_eq!(origin.seen()[1].header("if-none-match"), None);
}

#[tokio::test]
async fn n06_what_goes_while_the_origin_is_asked_is_fetched() {
    let gate = Gate::new();
    let reply = || named("content", "ETag", "\"1\"");
    let origin = Origin::new().replies("/a", vec![reply(), reply().gated(&gate), reply()]);
    let origin = origin.start().await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = hit(client.fetch_blob(fetch_blob(&[origin.url("/a")])).await);
    let second = tokio::spawn({
        let (client, uri) = (client.clone(), origin.url("/a"));
        async move { client.fetch_blob(fetch_blob(&[uri])).await }
    });
    eventually("the question", async || (origin.total() == 2).then_some(())).await;
    cache.drop_blob(&digest);
    gate.open();
    assert_eq!(hit(second.await.unwrap()), digest);
    assert!(cache.has(&digest));
    let seen = origin.seen();
    let asked: Vec<_> = seen.iter().map(|s| s.header("if-none-match")).collect();
    assert_eq!(asked, [None, Some("\"1\""), None]);
}

#[tokio::test]
async fn n06_a_304_to_no_question_is_a_failure() {
    let replies = vec![
        Reply::not_modified(),
        named("content", "ETag", "\"1\""),
        Reply::not_modified(),
    ];
    let origin = Origin::new().replies("/a", replies).start().await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let ask = || fetch_blob(&[origin.url("/a")]);
    let text = inline(client.fetch_blob(ask()).await, Code::NotFound);
    assert!(text.contains("304"), "{text}");
    let digest = hit(client.fetch_blob(ask()).await);
    cache.drop_blob(&digest);
    inline(client.fetch_blob(ask()).await, Code::NotFound);
    let pinned = ask().qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    inline(client.fetch_blob(pinned).await, Code::NotFound);
    // Nor is a question of the client's own one of ours.
    let own = ask().qualifier("http_header:If-None-Match", "\"1\"");
    inline(client.fetch_blob(own).await, Code::NotFound);
}

#[tokio::test]
async fn n06_nobody_is_asked_about_with_credentials() {
    let origin = Origin::new().reply("/a", named("content", "ETag", "\"1\""));
    let origin = origin.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let public = || fetch_blob(&[origin.url("/a")]);
    hit(client.fetch_blob(public()).await);
    for _ in 0..2 {
        let private = public().qualifier("http_header:Authorization", "Bearer x");
        hit(client.fetch_blob(private).await);
    }
    let seen = origin.seen();
    assert!(seen.iter().all(|s| s.header("if-none-match").is_none()));
    hit(client.fetch_blob(public()).await);
    assert_eq!(origin.seen()[3].header("if-none-match"), Some("\"1\""));
}

#[tokio::test]
async fn n05_t02_a_retry_without_a_time_downloads_nothing_again() {
    let gate = Gate::new();
    let reply = || named("content", "ETag", "\"1\"");
    let slow = reply().gated(&gate);
    let origin = Origin::new()
        .replies("/a", vec![slow, reply()])
        .start()
        .await;
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let ask = || fetch_blob(&[origin.url("/a")]);
    eventually("the request", async || {
        let deadline = Duration::from_millis(300);
        client.fetch_blob_in_vain(ask(), deadline).await;
        (origin.total() == 1).then_some(())
    })
    .await;
    gate.open();
    eventually("its record", async || {
        let mut entries = cache.entries().into_iter();
        entries.find(|(_, entry)| is_reference(entry))
    })
    .await;
    assert_eq!(hit(client.fetch_blob(ask()).await), digest_of(b"content"));
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("assetgate_origin_bytes_total", &[]), 7.0);
    assert_eq!(origin.total(), 2);
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
