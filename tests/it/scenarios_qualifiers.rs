//! Scenarios 23 to 30, as far as the conformance list has no case for them:
//! 25 and 26 are L7's (`qualifiers`), 27 is V3 and Q1, 30 is V1 (`validation`).

use crate::support::{
    Code, Function, Origin, Proxy, Qualified as _, Upstream, digest_of, fetch_blob, hit, inline,
    refused, sri,
};

#[tokio::test]
async fn scenario_23_headers_go_to_every_url_or_to_one() {
    let origin = Origin::new()
        .status("/first", 404)
        .file("/second", "content");
    let origin = origin.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let ask = fetch_blob(&[origin.url("/first"), origin.url("/second")]).qualifiers(&[
        ("http_header:X-Every", "every"),
        ("http_header:X-Both", "general"),
        ("http_header_url:1:X-Both", "specific"),
        ("http_header_url:1:X-One", "one"),
        ("http_header_url:1:X-Many", "a"),
        ("http_header_url:1:X-Many", "b"),
    ]);
    hit(client.fetch_blob(ask).await);
    let of = |path: &str, name: &str| {
        let seen = &origin.seen_at(path)[0];
        seen.header(name).map(str::to_owned)
    };
    for (name, first, second) in [
        ("x-every", Some("every"), Some("every")),
        ("x-both", Some("general"), Some("specific")),
        ("x-one", None, Some("one")),
        ("x-many", None, Some("a, b")),
    ] {
        assert_eq!(of("/first", name).as_deref(), first, "{name}");
        assert_eq!(of("/second", name).as_deref(), second, "{name}");
    }
}

#[tokio::test]
async fn scenario_24_a_header_in_another_case_is_the_same_header() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let ask = fetch_blob(&[origin.url("/a")]).qualifiers(&[
        ("http_header:X-TOKEN", "general"),
        ("http_header:authorization", "Basic general"),
        ("http_header_url:0:x-token", "specific"),
        ("http_header_url:0:Authorization", "Bearer specific"),
    ]);
    hit(client.fetch_blob(ask).await);
    // `header` fails if there are several.
    let seen = &origin.seen_at("/a")[0];
    assert_eq!(seen.header("x-token"), Some("specific"));
    assert_eq!(seen.header("authorization"), Some("Bearer specific"));
}

#[tokio::test]
async fn scenario_28_credentials_are_no_part_of_pinned_content_and_the_canonical_id_is() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let uri = origin.url("/a");
    let ask = |id: &str, token: &str| {
        let json = format!(r#"{{"{uri}":{{"Authorization":"{token}"}}}}"#);
        fetch_blob(&[&uri])
            .qualifier("checksum.sri", &sri(Function::Sha256, b"content"))
            .qualifier("bazel.canonical_id", id)
            .qualifier("bazel.auth_headers", &json)
            .qualifier("http_header_url:0:X-Token", token)
    };
    for (id, token, requests) in [
        ("one", "first", 1),
        ("one", "second", 1),
        ("two", "second", 2),
        ("two", "third", 2),
        ("one", "third", 2),
    ] {
        assert_eq!(
            hit(client.fetch_blob(ask(id, token)).await),
            digest_of(b"content")
        );
        assert_eq!(origin.count("/a"), requests, "{id}, {token}");
    }
}

#[tokio::test]
async fn scenario_30_no_uri_needs_a_checksum_that_names_content() {
    const NONE: [&str; 0] = [];
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let bare = client.fetch_blob(fetch_blob(&NONE)).await;
    refused(bare, Code::InvalidArgument);
    let ask =
        |content| fetch_blob(&NONE).qualifier("checksum.sri", &sri(Function::Sha256, content));
    inline(client.fetch_blob(ask(b"content")).await, Code::NotFound);
    let known = fetch_blob(&[origin.url("/a")])
        .qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    hit(client.fetch_blob(known).await);
    let digest = hit(client.fetch_blob(ask(b"content")).await);
    assert_eq!(digest, digest_of(b"content"), "with its size");
    inline(client.fetch_blob(ask(b"unknown")).await, Code::NotFound);
    assert_eq!(origin.total(), 1);
}
