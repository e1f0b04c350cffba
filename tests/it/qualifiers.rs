//! Q1 to Q7, L2 and L7: which qualifiers are understood, which are labels, and
//! which are credentials.

use base64::Engine as _;

use crate::support::answer::says;
use crate::support::{
    Answer as _, Code, Function, Origin, Proxy, Qualified as _, Reply, Upstream, digest_of,
    fetch_blob, fetch_directory, hit, inline, push_blob, refused, sri, violations,
};

fn unsupported(names: &[&str]) -> Vec<(String, String)> {
    let all = names.iter().map(|name| {
        let description = format!("\"{name}\" not supported");
        ("qualifiers.name".to_owned(), description)
    });
    all.collect()
}

#[tokio::test]
async fn q1_scenario_27_each_unsupported_qualifier_is_a_field_violation() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let both = [("foo", "1"), ("bar", "2"), ("bazel.canonical_id", "x")];
    let fetch = fetch_blob(&[origin.url("/a")]).qualifiers(&both);
    let status = refused(client.fetch_blob(fetch).await, Code::InvalidArgument);
    let mut found = violations(&status);
    found.sort();
    assert_eq!(found, unsupported(&["bar", "foo"]));
    says(status.message(), &["foo", "bar"]);
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn q2_without_push_a_label_can_match_nothing() {
    let origin = Origin::new().file("/a", "content").start().await;
    let proxy = Proxy::new().config("[push]\nenabled = false\n");
    let (_proxy, client) = proxy.connected().await;
    for uri in [origin.url("/a"), "urn:q:a".to_owned()] {
        let fetch = fetch_blob(&[uri]).qualifier("foo", "1");
        let status = refused(client.fetch_blob(fetch).await, Code::InvalidArgument);
        assert_eq!(violations(&status), unsupported(&["foo"]));
    }
    assert_eq!(origin.total(), 0);
    let digest = client.upload(b"blob").await;
    let push = client.push_blob(push_blob(&["urn:q:a"], digest)).await;
    refused(push, Code::PermissionDenied);
}

#[tokio::test]
async fn q3_a_pushed_qualifier_is_a_label() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"pushed").await;
    let uri = [origin.url("/a")];
    let push = push_blob(&uri, digest.clone()).qualifier("foo", "1");
    client.push_blob(push).await.unwrap();
    let fetch = fetch_blob(&uri).qualifier("foo", "1");
    assert_eq!(hit(client.fetch_blob(fetch).await), digest);
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn q4_a_label_on_what_cannot_be_fetched_is_a_miss() {
    let (_proxy, client) = Proxy::new().connected().await;
    let fetch = fetch_blob(&["urn:q:a"]).qualifier("foo", "1");
    let message = inline(client.fetch_blob(fetch).await, Code::NotFound);
    says(&message, &["urn:q:a"]);
}

#[tokio::test]
async fn q5_nothing_is_fetched_past_a_qualifier() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"pushed").await;
    let uris = ["urn:q:a".to_owned(), origin.url("/a")];
    let push = push_blob(&uris, digest).qualifier("foo", "1");
    client.push_blob(push).await.unwrap();
    let fetch = fetch_blob(&uris)
        .qualifier("foo", "2")
        .qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    refused(client.fetch_blob(fetch).await, Code::InvalidArgument);
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn q6_known_names_in_the_wrong_place_are_unsupported() {
    let origin = Origin::new().file("/a.tar", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    for (name, value) in [
        ("vcs.commit", "0123456789012345678901234567890123456789"),
        ("vcs.branch", "main"),
        ("directory", "src"),
        ("resource_type", "application/x-git"),
    ] {
        let fetch = fetch_blob(&[origin.url("/a.tar")]).qualifier(name, value);
        let status = refused(client.fetch_blob(fetch).await, Code::InvalidArgument);
        assert_eq!(violations(&status), unsupported(&[name]));
    }
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn q7_names_differ_by_case() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let checksum = sri(Function::Sha256, b"content");
    let fetch = fetch_blob(&[origin.url("/a")]).qualifier("Checksum.SRI", &checksum);
    let status = refused(client.fetch_blob(fetch).await, Code::InvalidArgument);
    assert_eq!(violations(&status), unsupported(&["Checksum.SRI"]));
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn l2_scenario_7_any_matching_hash_satisfies() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let good = |f| sri(f, b"content");
    let bad = sri(Function::Sha256, b"something else");
    let sha256 = good(Function::Sha256);
    let url_safe = good(Function::Sha512).replace('+', "-").replace('/', "_");
    let values = [
        good(Function::Sha1),
        good(Function::Sha384),
        good(Function::Sha512),
        good(Function::Blake3),
        url_safe.replacen("sha512_", "sha512-", 1),
        format!("{bad} {sha256}"),
        format!("{sha256}\n{bad}"),
        format!("{bad}\t{}", good(Function::Sha512)),
        format!("sha999-AAAA {sha256}"),
        format!("{sha256} sha999-AAAA"),
        format!("{bad} {bad}\t\n {sha256}"),
        format!("{sha256}?option=x"),
        sha256.trim_end_matches('=').to_owned(),
    ];
    for (i, value) in values.iter().enumerate() {
        let id = format!("{i}");
        let fetch = fetch_blob(&[origin.url("/a")])
            .qualifier("checksum.sri", value)
            .qualifier("bazel.canonical_id", &id);
        assert_eq!(
            hit(client.fetch_blob(fetch).await),
            digest_of(b"content"),
            "{value}"
        );
    }
    let neither = format!("{bad} {} sha999-AAAA", sri(Function::Sha512, b"another"));
    let fetch = fetch_blob(&[origin.url("/a")]).qualifier("checksum.sri", &neither);
    inline(client.fetch_blob(fetch).await, Code::Aborted);
}

#[tokio::test]
async fn l2_a_mismatch_is_told_inline_and_leaves_nothing_behind() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let origin = Origin::new()
        .file("/a", "served")
        .reply("/chunked", Reply::ok("served").chunked())
        .start()
        .await;
    for function in [Function::Sha256, Function::Sha512] {
        for path in ["/a", "/chunked"] {
            let uri = origin.url(path);
            let wanted = sri(function, b"wanted");
            let fetch = fetch_blob(&[&uri]).qualifier("checksum.sri", &wanted);
            let message = inline(client.fetch_blob(fetch).await, Code::Aborted);
            says(&message, &[&uri, &wanted]);
        }
    }
    assert!(!cache.has(&digest_of(b"served")));
    assert!(!cache.has(&digest_of(b"wanted")));
    assert_eq!(cache.entries(), []);
}

#[tokio::test]
async fn l2_a_mirror_that_does_not_match_means_the_next_one() {
    let origin = Origin::new().file("/bad", "other").file("/good", "content");
    let origin = origin.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let fetch = fetch_blob(&[origin.url("/bad"), origin.url("/good")])
        .qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    let answer = client.fetch_blob(fetch).await.unwrap();
    assert_eq!(answer.uri(), origin.url("/good"));
    assert_eq!(answer.digest(), Some(&digest_of(b"content")));
}

#[tokio::test]
async fn l2_scenario_8_a_malformed_value_is_invalid_and_asks_no_origin() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let sha256 = sri(Function::Sha256, b"content");
    let base64 = |raw: &[u8]| base64::engine::general_purpose::STANDARD.encode(raw);
    let (short, long) = (base64(&[7; 31]), base64(&[7; 33]));
    let (short, long) = (format!("sha256-{short}"), format!("sha256-{long}"));
    for bad in [
        "",
        "   ",
        "sha256",
        "sha256-",
        "sha256-!!!!",
        "sha256-AAAA",
        "sha999-AAAA",
        "-AAAA",
        "notahash",
        &short,
        &long,
        &format!("{sha256} sha256-AAAA"),
    ] {
        let fetch = fetch_blob(&[origin.url("/a")]).qualifier("checksum.sri", bad);
        let status = refused(client.fetch_blob(fetch).await, Code::InvalidArgument);
        says(&violations(&status)[0].0, &["qualifiers"]);
        says(status.message(), &["checksum.sri"]);
    }
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn l7_a_new_canonical_id_causes_a_new_download() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let ask = |id: &str| {
        fetch_blob(&[origin.url("/a")])
            .qualifier("checksum.sri", &sri(Function::Sha256, b"content"))
            .qualifier("bazel.canonical_id", id)
    };
    for (id, requests) in [("one", 1), ("one", 1), ("two", 2), ("one", 2)] {
        hit(client.fetch_blob(ask(id)).await);
        assert_eq!(origin.count("/a"), requests, "{id}");
    }
}

#[tokio::test]
async fn l7_headers_reach_the_origin_they_are_meant_for() {
    let origin = Origin::new()
        .status("/first", 404)
        .file("/second", "content");
    let origin = origin.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let fetch = fetch_blob(&[origin.url("/first"), origin.url("/second")])
        .qualifier("http_header:X-All", "general")
        .qualifier("http_header:X-Token", "general")
        .qualifier("http_header_url:1:x-token", "specific")
        .qualifier("http_header_url:0:X-First", "first");
    hit(client.fetch_blob(fetch).await);
    let first = &origin.seen_at("/first")[0];
    assert_eq!(first.header("x-all"), Some("general"));
    assert_eq!(first.header("x-token"), Some("general"));
    assert_eq!(first.header("x-first"), Some("first"));
    let second = &origin.seen_at("/second")[0];
    assert_eq!(second.header("x-all"), Some("general"));
    assert_eq!(second.header("x-token"), Some("specific"));
    assert_eq!(second.header("x-first"), None);
}

#[tokio::test]
async fn l7_scenario_26_the_old_json_form_works() {
    let origin = Origin::new()
        .file("/a", "one")
        .file("/b", "two")
        .start()
        .await;
    let (_proxy, client) = Proxy::new().connected().await;
    let (a, b) = (origin.url("/a"), origin.url("/b"));
    let json = format!(r#"{{"{a}":{{"Authorization":"Basic abc"}}}}"#);
    for uri in [&a, &b] {
        let fetch = fetch_blob(&[uri]).qualifier("bazel.auth_headers", &json);
        hit(client.fetch_blob(fetch).await);
    }
    assert_eq!(
        origin.seen_at("/a")[0].header("authorization"),
        Some("Basic abc")
    );
    assert_eq!(origin.seen_at("/b")[0].header("authorization"), None);
    let broken = fetch_blob(&[&a]).qualifier("bazel.auth_headers", "{secret");
    let status = refused(client.fetch_blob(broken).await, Code::InvalidArgument);
    assert!(!format!("{status:?}").contains("secret"), "{status:?}");
}

#[tokio::test]
async fn l7_headers_stay_behind_when_a_redirect_changes_host() {
    let far = Origin::new()
        .ip("127.0.0.2")
        .file("/far", "content")
        .start()
        .await;
    let near = Origin::new()
        .reply("/here", Reply::redirect("/there"))
        .reply("/there", Reply::redirect(&far.url("/far")))
        .start()
        .await;
    let (_proxy, client) = Proxy::new().connected().await;
    let fetch = fetch_blob(&[near.url("/here")])
        .qualifier("http_header:Authorization", "Bearer secret")
        .qualifier("http_header_url:0:X-Api-Key", "secret");
    assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"content"));
    for path in ["/here", "/there"] {
        let seen = &near.seen_at(path)[0];
        assert_eq!(
            seen.header("authorization"),
            Some("Bearer secret"),
            "{path}"
        );
        assert_eq!(seen.header("x-api-key"), Some("secret"), "{path}");
    }
    let seen = &far.seen_at("/far")[0];
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.header("x-api-key"), None);
}

#[tokio::test]
async fn l7_a_part_is_never_taken_for_the_whole() {
    let whole = Reply::ok("0123456789").ranged();
    let origin = Origin::new().reply("/a", whole).start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let uri = [origin.url("/a")];
    let part = fetch_blob(&uri).qualifier("http_header:Range", "bytes=2-4");
    for _ in 0..2 {
        assert_eq!(
            hit(client.fetch_blob(part.clone()).await),
            digest_of(b"234")
        );
        let whole = client.fetch_blob(fetch_blob(&uri)).await;
        assert_eq!(hit(whole), digest_of(b"0123456789"));
    }
}

#[tokio::test]
async fn l7_scenario_25_a_header_for_no_url_of_the_request_is_invalid() {
    let (_proxy, client) = Proxy::new().connected().await;
    for bad in [
        "http_header_url:1:X",
        "http_header_url:-1:X",
        "http_header_url:x:X",
        "http_header_url:0:",
        "http_header_url:X",
        "http_header:",
        "http_header:a b",
    ] {
        let fetch = fetch_blob(&["http://127.0.0.1:1/a"]).qualifier(bad, "secret");
        let status = refused(client.fetch_blob(fetch).await, Code::InvalidArgument);
        assert!(
            violations(&status)[0].0.starts_with("qualifiers"),
            "{status:?}"
        );
        says(status.message(), &[bad]);
        assert!(!format!("{status:?}").contains("secret"), "{status:?}");
    }
    let directory = fetch_directory(&["urn:q:a"]).qualifier("http_header_url:1:X", "x");
    refused(
        client.fetch_directory(directory).await,
        Code::InvalidArgument,
    );
}
