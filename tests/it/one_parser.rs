//! A URL is read by one parser: what rules and keys are about is the host that
//! is asked.

use crate::support::answer::{says, violations};
use crate::support::{
    Code, Function, Origin, Proxy, Qualified as _, Reply, Upstream, digest_of, fetch_blob, hit,
    inline, push_blob, refused, sri,
};

#[tokio::test]
async fn u5_a_backslash_in_an_authority_is_refused_and_asks_nobody() {
    let rejected = Origin::new()
        .file("/@127.0.0.2/x", "rejected")
        .file("/x", "rejected");
    let rejected = rejected.start().await;
    let cache = Upstream::start();
    let config = format!(
        "[fetch]\nunpinned = [\"reject http://{}/\", \"ttl=1h http://127.0.0.2/\"]\n",
        rejected.address()
    );
    let (_proxy, client) = Proxy::new()
        .upstream(&cache)
        .config(config)
        .connected()
        .await;
    let bad = rejected.address();
    inline(
        client.fetch_blob(fetch_blob(&[rejected.url("/x")])).await,
        Code::PermissionDenied,
    );
    for uri in [
        format!("http://{bad}\\@127.0.0.2/x"),
        format!("HTTP://{bad}\\@127.0.0.2/x"),
        format!("http://{bad}\\x@127.0.0.2/x"),
        format!("http://u\\p@{bad}/x"),
        format!("http:\\\\{bad}\\@127.0.0.2/x"),
        format!("http:/\\{bad}/x"),
        format!("http://\\{bad}/x"),
    ] {
        let pinned = fetch_blob(&[&uri]).qualifier("checksum.sri", &sri(Function::Sha256, b"x"));
        for ask in [fetch_blob(&[&uri]), pinned] {
            let status = refused(client.fetch_blob(ask).await, Code::InvalidArgument);
            let said = violations(&status);
            assert_eq!(said[0].0, "uris[0]", "{uri}: {said:?}");
            says(&said[0].1, &["backslash"]);
        }
        let push = push_blob(&[&uri], digest_of(b""));
        refused(client.push_blob(push).await, Code::InvalidArgument);
    }
    assert_eq!(rejected.total(), 0);
    assert!(cache.entries().is_empty());
    // In a path, and where there is no authority, it is a character.
    for uri in ["https://h.example/a\\b", "urn:a\\b", "c:\\a"] {
        let push = push_blob(&[uri], digest_of(b""));
        client.push_blob(push).await.unwrap();
        let found = client.fetch_blob(fetch_blob(&[uri])).await;
        assert_eq!(hit(found), digest_of(b""), "{uri}");
    }
}

/// However a host is written, rules are about the one that is asked.
#[tokio::test]
async fn u5_every_spelling_of_a_host_is_judged_as_it_is_asked() {
    let origin = Origin::new().file("/x", "content").start().await;
    let port = origin.address().port();
    let config = format!("[fetch]\nunpinned = [\"reject http://127.0.0.1:{port}/\"]\n");
    let (_proxy, client) = Proxy::new().config(config).connected().await;
    for host in [
        "127.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "2130706433",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "u@127.0.0.1",
        "u:p@127.0.0.1",
        "a@b@127.0.0.1",
        "127.0.0.2:80@127.0.0.1",
        "127。0。0。1",
    ] {
        for scheme in ["http", "HTTP", "hTTp"] {
            let uri = format!("{scheme}://{host}:{port}/x");
            inline(
                client.fetch_blob(fetch_blob(&[&uri])).await,
                Code::PermissionDenied,
            );
        }
    }
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn u5_a_redirect_with_a_backslash_in_its_authority_is_not_followed() {
    let end = Origin::new()
        .ip("127.0.0.2")
        .file("/x", "content")
        .start()
        .await;
    let at = end.address();
    let locations = [
        format!("http://{at}\\@127.0.0.3/x"),
        format!("\\\\{at}/x"),
        format!("/\\{at}/x"),
        format!("http:\\\\{at}/x"),
        format!("ht\ttp://{at}/x"),
        format!("//127.0.0.\t2:{}/x", at.port()),
    ];
    let mut origin = Origin::new();
    for (index, location) in locations.iter().enumerate() {
        origin = origin.reply(&format!("/{index}"), Reply::redirect(location));
    }
    let origin = origin
        .reply("/good", Reply::redirect("/a?to=\\x"))
        .file("/a?to=\\x", "content");
    let origin = origin.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    for (index, location) in locations.iter().enumerate() {
        let uri = origin.url(&format!("/{index}"));
        let answer = client
            .tool("bazel", "9.0.0")
            .fetch_blob(fetch_blob(&[&uri]))
            .await;
        let said = match answer {
            Ok(answer) => answer.status.unwrap().message,
            Err(status) => status.message().to_owned(),
        };
        says(&said, &["redirect"]);
        assert_eq!(end.total(), 0, "{location}");
    }
}
