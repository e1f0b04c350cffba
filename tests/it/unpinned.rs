//! What an operator decides of content that no checksum pins (`fetch.unpinned`),
//! of headers that select it (`fetch.key_headers`), and of content that took
//! credentials (`fetch.share_private`).

use std::time::{Duration, SystemTime};

use crate::support::logs::field;
use crate::support::{
    Code, Fetching as _, Function, Origin, Proxy, Qualified as _, Reply, Upstream, digest_of,
    eventually, fetch_blob, hit, inline, push_blob, sri,
};

const HOUR: Duration = Duration::from_secs(3600);

fn named(content: &str) -> Reply {
    Reply::ok(content).header("ETag", "\"1\"").conditional()
}

async fn origin() -> crate::support::origin::Serving {
    let origin = Origin::new().reply("/kept/a", named("content"));
    origin.reply("/a", named("content")).start().await
}

fn rules(rules: &[String]) -> String {
    format!("[fetch]\nunpinned = {rules:?}\n")
}

#[tokio::test]
async fn n6_ttl_answers_without_asking() {
    let origin = origin().await;
    let config = rules(&[format!("ttl=2s {}*", origin.url("/kept/"))]);
    let (_proxy, client) = Proxy::new().config(config).connected().await;
    let ask = |path: &str| fetch_blob(&[origin.url(path)]);
    hit(client.fetch_blob(ask("/kept/a")).await);
    hit(client.fetch_blob(ask("/kept/a")).await);
    assert_eq!(origin.count("/kept/a"), 1);
    // Not where the client says otherwise, nor elsewhere.
    let now = ask("/kept/a").oldest(SystemTime::now());
    hit(client.fetch_blob(now).await);
    assert_eq!(origin.count("/kept/a"), 2);
    hit(client.fetch_blob(ask("/a")).await);
    hit(client.fetch_blob(ask("/a")).await);
    assert_eq!(origin.count("/a"), 2);
    eventually("the end of its time", async || {
        hit(client.fetch_blob(ask("/kept/a")).await);
        (origin.count("/kept/a") == 3).then_some(())
    })
    .await;
    let last = origin.seen_at("/kept/a").pop().unwrap();
    assert_eq!(last.header("if-none-match"), Some("\"1\""));
}

#[tokio::test]
async fn n6_refetch_asks_for_all_of_it() {
    let origin = origin().await;
    let config = rules(&["refetch *".to_owned()]);
    let (proxy, client) = Proxy::new().config(config).connected().await;
    for requests in 1..4 {
        let mut ask = fetch_blob(&[origin.url("/a")]);
        if requests == 3 {
            ask = ask.oldest(SystemTime::now() - HOUR);
        }
        assert_eq!(hit(client.fetch_blob(ask).await), digest_of(b"content"));
        assert_eq!(origin.total(), requests);
    }
    let bytes = proxy.metrics().await;
    assert_eq!(bytes.sum("assetgate_origin_bytes_total", &[]), 21.0);
}

#[tokio::test]
async fn n6_reject_says_what_to_do() {
    let origin = origin().await;
    let kept = format!("revalidate {}", origin.url("/kept/"));
    let config = rules(&[kept, "reject *".to_owned()]);
    let (proxy, client) = Proxy::new().config(config).connected().await;
    let ask = |path: &str| fetch_blob(&[origin.url(path)]);
    let text = inline(client.fetch_blob(ask("/a")).await, Code::PermissionDenied);
    for part in [&origin.url("/a"), "checksum.sri", "fetch.unpinned"] {
        assert!(text.contains(part), "{text}");
    }
    // Another spelling is no way around, and neither is a mirror.
    let shouted = origin.url("/a").replace("http://", "HTTP://");
    let mirrored = [origin.url("/kept/a"), origin.url("/a")];
    for uris in [&[shouted][..], &mirrored] {
        let answer = client.fetch_blob(fetch_blob(uris)).await;
        inline(answer, Code::PermissionDenied);
    }
    assert_eq!(origin.total(), 0);
    hit(client.fetch_blob(ask("/kept/a")).await);
    let pinned = ask("/a").qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    hit(client.fetch_blob(pinned).await);
    let digest = client.upload(b"pushed").await;
    let push = push_blob(&[origin.url("/a")], digest.clone());
    client.push_blob(push).await.unwrap();
    assert_eq!(hit(client.fetch_blob(ask("/a")).await), digest);
    let event = eventually("the event", async || {
        let mut events = proxy.stderr().events().into_iter();
        let is = |e: &serde_json::Value| field(e, "outcome").as_deref() == Some("refused");
        events.rfind(is)
    });
    event.await;
}

#[tokio::test]
async fn h3_declared_headers_select_what_is_kept() {
    let origin = origin().await;
    let config = "[fetch]\nkey_headers = [\"X-Variant\"]\n";
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new()
        .upstream(&cache)
        .config(config)
        .connected()
        .await;
    let ask = |variant: &str| {
        fetch_blob(&[origin.url("/a")])
            .qualifier("http_header:X-Variant", variant)
            .oldest(SystemTime::now() - HOUR)
    };
    for (variant, requests) in [("a", 1), ("b", 2), ("a", 2), ("b", 2)] {
        hit(client.fetch_blob(ask(variant)).await);
        assert_eq!(origin.total(), requests, "{variant}");
    }
    assert_eq!(origin.seen()[0].header("x-variant"), Some("a"));
    // Beside a credential nothing is kept, as ever.
    for requests in [3, 4] {
        let private = ask("c").qualifier("http_header:Authorization", "Bearer x");
        hit(client.fetch_blob(private).await);
        assert_eq!(origin.total(), requests);
    }
}

/// A mirror that a rule puts in the place of the origin is shown what selects
/// a representation, asked about what it named itself, and by no date.
#[tokio::test]
async fn h3_declared_headers_go_to_where_a_rule_leads() {
    let origin = Origin::new().start().await;
    let dated = Reply::ok("dated").header("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT");
    let mirror = Origin::new()
        .ip("127.0.0.2")
        .reply("/m/a", named("content"));
    let mirror = mirror.reply("/m/b", dated.conditional()).start().await;
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    let from = origin.address().to_string().replace('.', r"\.");
    let to = mirror.address();
    std::fs::write(&rules, format!("rewrite {from}/(.*) {to}/m/$1\n")).unwrap();
    let config = "[fetch]\nkey_headers = [\"X-Variant\"]\n";
    let proxy = Proxy::new()
        .config(config)
        .arg("--origin-rules")
        .arg(&rules);
    let (_proxy, client) = proxy.connected().await;
    for path in ["/a", "/a", "/b", "/b"] {
        let ask = fetch_blob(&[origin.url(path)]).qualifier("http_header:X-Variant", "x");
        hit(client.fetch_blob(ask).await);
    }
    let seen = mirror.seen();
    assert!(seen.iter().all(|s| s.header("x-variant") == Some("x")));
    let asked: Vec<_> = seen.iter().map(|s| s.header("if-none-match")).collect();
    assert_eq!(asked, [None, Some("\"1\""), None, None]);
    assert!(seen.iter().all(|s| s.header("if-modified-since").is_none()));
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn l7_private_content_is_shared_by_its_checksum_only_if_the_operator_lets_it() {
    for (share, requests) in [(true, [1, 1, 1]), (false, [1, 2, 3])] {
        let origin = origin().await;
        let config = format!("[fetch]\nshare_private = {share}\n");
        let (_proxy, client) = Proxy::new().config(config).connected().await;
        let sri = sri(Function::Sha256, b"content");
        let public = || fetch_blob(&[origin.url("/a")]).qualifier("checksum.sri", &sri);
        // What came a moment ago answers the very same request again.
        let private = |token| public().qualifier("http_header:Authorization", token);
        let asked = [private("Bearer x"), public(), private("Bearer y")];
        for (ask, expected) in asked.into_iter().zip(requests) {
            assert_eq!(hit(client.fetch_blob(ask).await), digest_of(b"content"));
            assert_eq!(origin.total(), expected, "share_private = {share}");
        }
        let last = origin.seen().pop().unwrap();
        let token = ["Bearer y", "Bearer x"][usize::from(share)];
        assert_eq!(last.header("authorization"), Some(token));
        hit(client.fetch_blob(public()).await);
        assert_eq!(origin.total(), requests[2]);
    }
}

#[tokio::test]
async fn every_mistake_in_the_rules_is_told_at_once() {
    let config = "[fetch]\nunpinned = [\"forget *\", \"ttl=soon *\", \"reject https://h.example\"]\n\
                  key_headers = [\"Cookie\", \"authorization\", \"a b\"]\nshare_private = \"no\"\n";
    let (status, text) = Proxy::new().config(config).start_to_end().await;
    assert_eq!(status.code(), Some(64), "{text}");
    for part in [
        "write POLICY PATTERN",
        "`soon` is not a duration",
        "write `https://h.example/`",
        "`cookie` may hold credentials",
        "`authorization` may hold credentials",
        "no name of a header",
        "`fetch.share_private`",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
