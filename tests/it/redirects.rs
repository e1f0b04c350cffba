//! U4, U5 and L7 where redirects are involved, and URLs of schemes that are not
//! fetched.

use crate::support::{
    Answer as _, Code, Origin, Proxy, Qualified as _, Reply, digest_of, fetch_blob, hit, inline,
};

/// An origin where `/0` leads to `/1` and so on, `hops` times.
fn chain(hops: usize) -> Origin {
    let origin = Origin::new().file(&format!("/{hops}"), "content");
    (0..hops).fold(origin, |origin, i| {
        let next = Reply::redirect(&format!("/{}", i + 1));
        origin.reply(&format!("/{i}"), next)
    })
}

#[tokio::test]
async fn u4_scenario_18_redirects_are_followed_up_to_a_limit() {
    let (_proxy, client) = Proxy::new().connected().await;
    let origin = chain(10).start().await;
    let uri = origin.url("/0");
    let answer = client.fetch_blob(fetch_blob(&[&uri])).await.unwrap();
    assert_eq!(
        answer.uri(),
        uri,
        "the URI of the request, not where it led"
    );
    assert_eq!(hit(Ok(answer)), digest_of(b"content"));
    let origin = chain(50).start().await;
    let answer = client.fetch_blob(fetch_blob(&[origin.url("/0")])).await;
    inline(answer, Code::NotFound);
    assert!(origin.total() < 30);
}

#[tokio::test]
async fn u4_every_kind_of_redirect_works() {
    let mut origin = Origin::new().file("/good", "content");
    for status in [301, 302, 303, 307, 308] {
        let reply = Reply::status(status).header("Location", "/good");
        origin = origin.reply(&format!("/{status}"), reply);
    }
    let origin = origin
        .reply("/no-location", Reply::status(302))
        .reply("/bad-location", Reply::redirect("http://[oops/"))
        .start()
        .await;
    let (_proxy, client) = Proxy::new().connected().await;
    for status in [301, 302, 303, 307, 308] {
        let fetch = fetch_blob(&[origin.url(&format!("/{status}"))]);
        assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"content"));
    }
    for path in ["/no-location", "/bad-location"] {
        let answer = client
            .fetch_blob(fetch_blob(&[origin.url(path)]))
            .await
            .unwrap();
        assert_ne!(answer.status().code, 0);
        assert_eq!(answer.digest(), None);
    }
}

#[tokio::test]
async fn l7_headers_stay_behind_when_a_redirect_changes_port() {
    let far = Origin::new().file("/far", "content").start().await;
    let near = Origin::new().reply("/a", Reply::redirect(&far.url("/far")));
    let near = near.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let fetch = fetch_blob(&[near.url("/a")]).qualifier("http_header:Authorization", "secret");
    hit(client.fetch_blob(fetch).await);
    assert_eq!(
        near.seen_at("/a")[0].header("authorization"),
        Some("secret")
    );
    assert_eq!(far.seen_at("/far")[0].header("authorization"), None);
}

#[tokio::test]
async fn l7_user_info_becomes_basic_authentication_and_stays_with_its_host() {
    let far = Origin::new()
        .ip("127.0.0.2")
        .file("/far", "content")
        .start()
        .await;
    let near = Origin::new().reply("/a", Reply::redirect(&far.url("/far")));
    let near = near.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let uri = near.url("/a").replace("http://", "http://user:pass@");
    hit(client.fetch_blob(fetch_blob(&[uri])).await);
    let basic = near.seen_at("/a")[0]
        .header("authorization")
        .map(str::to_owned);
    assert_eq!(basic.as_deref(), Some("Basic dXNlcjpwYXNz"));
    assert_eq!(far.seen_at("/far")[0].header("authorization"), None);
}

#[tokio::test]
async fn u5_other_schemes_are_never_fetched() {
    let origin = Origin::new().file("/good", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    for uri in [
        "file:///etc/passwd",
        "file:/etc/passwd",
        "ftp://127.0.0.1/a",
        "gopher://127.0.0.1/a",
        "data:text/plain,hello",
        "https:token",
        "/etc/passwd",
    ] {
        let answer = client.fetch_blob(fetch_blob(&[uri])).await.unwrap();
        let code = Code::from_i32(answer.status().code);
        assert!(
            matches!(code, Code::NotFound | Code::PermissionDenied),
            "{uri}: {answer:?}"
        );
        assert_eq!(answer.digest(), None);
        let fetch = fetch_blob(&[uri, &origin.url("/good")]);
        assert_eq!(
            hit(client.fetch_blob(fetch).await),
            digest_of(b"content"),
            "{uri}"
        );
    }
}
