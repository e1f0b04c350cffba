//! L7, U5 and P4 where origins are reached through a company's proxy.

use crate::support::answer::says;
use crate::support::forward_proxy::NAME;
use crate::support::{
    Code, ForwardProxy, Origin, Pki, Proxy, Qualified as _, Reply, digest_of, fetch_blob, hit,
    inline, refused,
};

/// `user:S3CRET`
const BASIC: &str = "Basic dXNlcjpTM0NSRVQ=";

/// A configuration with a proxy and its credential, which has to outlive it.
fn with_credential(url: &str, pair: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{pair}\n")).unwrap();
    let path = file.path().display();
    let toml = format!("[fetch]\nproxy = \"{url}\"\nproxy_credential = \"{path}\"\n");
    (file, toml)
}

#[tokio::test]
async fn both_kinds_of_origin_are_reached_through_the_proxy() {
    let pki = Pki::new();
    let plain = Origin::new()
        .file("/a", "plain")
        .file("/b", "more")
        .start()
        .await;
    let secure = Origin::new().file("/a", "secure").tls(&pki).start().await;
    for tls in [false, true] {
        let company = ForwardProxy::new();
        let company = if tls { company.tls(&pki) } else { company };
        let company = company.start().await;
        let proxy = Proxy::new()
            .origin_ca(&pki.ca())
            .origin_proxy(&company.url());
        let (_proxy, client) = proxy.connected().await;
        // A name that only the proxy knows, twice over one connection.
        let port = plain.address().port();
        for (path, content) in [("a", "plain"), ("b", "more")] {
            let url = format!("http://{NAME}:{port}/{path}");
            let fetch = fetch_blob(&[url]).qualifier("http_header:Authorization", "for the origin");
            assert_eq!(
                hit(client.fetch_blob(fetch).await),
                digest_of(content.as_bytes())
            );
        }
        let fetch = fetch_blob(&[secure.url("/a")]);
        assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"secure"));
        assert_eq!(
            company.lines(),
            [
                format!("GET http://{NAME}:{port}/a HTTP/1.1"),
                format!("GET http://{NAME}:{port}/b HTTP/1.1"),
                format!("CONNECT {} HTTP/1.1", secure.address()),
            ]
        );
        assert!(!company.heads()[2].contains("for the origin"));
        assert_eq!(
            plain.seen().last().unwrap().header("authorization"),
            Some("for the origin")
        );
    }
}

#[tokio::test]
async fn the_credential_is_shown_to_the_proxy_only() {
    let pki = Pki::new();
    let plain = Origin::new().file("/a", "plain").start().await;
    let secure = Origin::new().file("/a", "secure").tls(&pki).start().await;
    let direct = Origin::new()
        .ip("127.0.0.2")
        .file("/a", "direct")
        .start()
        .await;
    let company = ForwardProxy::new().demanding(BASIC).start().await;
    let (_file, toml) = with_credential(&company.url(), "user:S3CRET");
    let proxy = Proxy::new().config(format!("{toml}no_proxy = [\"127.0.0.2\"]\n"));
    let (_proxy, client) = proxy.origin_ca(&pki.ca()).connected().await;
    for (origin, content) in [(&plain, "plain"), (&secure, "secure"), (&direct, "direct")] {
        let fetch = fetch_blob(&[origin.url("/a")]);
        assert_eq!(
            hit(client.fetch_blob(fetch).await),
            digest_of(content.as_bytes())
        );
        assert_eq!(origin.seen()[0].header("proxy-authorization"), None);
    }
    assert_eq!(company.heads().len(), 2, "one origin is reached without it");
}

#[tokio::test]
async fn a_proxy_that_wants_another_credential_is_told_as_that() {
    let origin = Origin::new().file("/a", "plain").start().await;
    let company = ForwardProxy::new().demanding(BASIC).start().await;
    let (_file, wrong) = with_credential(&company.url(), "user:WR0NG");
    let none = format!("[fetch]\nproxy = \"{}\"\n", company.url());
    for (toml, text) in [
        (wrong, "does not accept the credential (407"),
        (none, "demands a credential (407"),
    ] {
        let (proxy, client) = Proxy::new().config(toml).connected().await;
        for url in [
            origin.url("/a"),
            origin.url("/a").replace("http:", "https:"),
        ] {
            let answer = client.fetch_blob(fetch_blob(&[url])).await;
            let message = inline(answer, Code::PermissionDenied);
            says(&message, &[text, "fetch.proxy_credential"]);
            assert!(!message.contains(&company.url()), "{message}");
            let logs = proxy.stderr().text();
            for secret in ["S3CRET", "WR0NG", "dXNlcjp"] {
                assert!(!message.contains(secret), "{message}");
                assert!(!logs.contains(secret), "{logs}");
            }
        }
    }
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_not_there_is_told_as_that() {
    let origin = Origin::new().file("/a", "plain").start().await;
    let https = origin.url("/a").replace("http:", "https:");
    let address = origin.address().to_string();
    let forbidding = ForwardProxy::new().refusing(403).start().await;
    let (_proxy, client) = Proxy::new()
        .origin_proxy(&forbidding.url())
        .connected()
        .await;
    let message = inline(
        client.fetch_blob(fetch_blob(&[&https])).await,
        Code::PermissionDenied,
    );
    let refusal = format!("the proxy refused to connect to {address}");
    says(&message, &[&format!("{refusal}: 403 Forbidden")]);
    let failing = ForwardProxy::new().refusing(502).start().await;
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let no_proxy = Origin::new().start().await;
    let no_proxy = no_proxy.url("").replace("http:", "https:");
    for (url, asked, text) in [
        (failing.url(), &https, "502 Bad Gateway"),
        (gone.clone(), &https, "cannot be used (fetch.proxy)"),
        (gone, &origin.url("/a"), "cannot be used (fetch.proxy)"),
        (no_proxy, &https, "cannot be used (fetch.proxy)"),
    ] {
        let proxy = Proxy::new().origin_proxy(&url);
        let (_proxy, client) = proxy.connected().await;
        let status = refused(
            client.fetch_blob(fetch_blob(&[asked])).await,
            Code::Unavailable,
        );
        says(status.message(), &["the proxy", text]);
        assert!(!status.message().contains(&url), "{status:?}");
        assert!(!status.message().contains("S3CRET"), "{status:?}");
    }
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn u5_the_proxy_may_be_anywhere_and_addresses_in_urls_are_judged_all_the_same() {
    let target = Origin::new().file("/a", "inside").start().await;
    let port = target.address().port();
    let to_address = Reply::redirect(&target.url("/a"));
    let named = Origin::new()
        .reply("/to-address", to_address)
        .file("/a", "named");
    let named = named.start().await;
    let company = ForwardProxy::new().start().await;
    let proxy = Proxy::new()
        .public_origins_only()
        .origin_proxy(&company.url());
    let (_proxy, client) = proxy.connected().await;
    let through = |path: &str| format!("http://{NAME}:{}{path}", named.address().port());
    assert_eq!(
        hit(client.fetch_blob(fetch_blob(&[through("/a")])).await),
        digest_of(b"named")
    );
    for url in [
        target.url("/a"),
        target.url("/a").replace("http:", "https:"),
        format!("http://localhost:{port}/a"),
        format!("http://a.LOCALHOST.:{port}/a"),
        format!("http://[::ffff:127.0.0.1]:{port}/a"),
        format!("http://2130706433:{port}/a"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        through("/to-address"),
    ] {
        let answer = client.fetch_blob(fetch_blob(&[&url])).await;
        let message = inline(answer, Code::PermissionDenied);
        says(&message, &["not allowed", "--origin-allow-cidr"]);
    }
    assert_eq!(target.total(), 0);
    let asked = company.lines();
    assert!(asked.iter().all(|line| line.contains(NAME)), "{asked:?}");
}

#[tokio::test]
async fn hosts_without_the_proxy_are_judged_as_without_one() {
    let origin = Origin::new().file("/a", "content").start().await;
    let company = ForwardProxy::new().start().await;
    let toml = format!(
        "[fetch]\nproxy = \"{}\"\nno_proxy = [\"*\"]\n",
        company.url()
    );
    let (_proxy, client) = Proxy::new().config(&toml).connected().await;
    let fetch = || fetch_blob(&[origin.url("/a")]);
    assert_eq!(hit(client.fetch_blob(fetch()).await), digest_of(b"content"));
    let closed = Proxy::new().config(&toml).public_origins_only();
    let (_proxy, client) = closed.connected().await;
    inline(client.fetch_blob(fetch()).await, Code::PermissionDenied);
    assert_eq!((origin.total(), company.heads().len()), (1, 0));
}

#[tokio::test]
async fn variables_of_the_environment_choose_no_proxy() {
    let origin = Origin::new().file("/a", "content").start().await;
    let mut proxy = Proxy::new();
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ] {
        proxy = proxy.variable(name, "http://127.0.0.1:1");
    }
    let (_proxy, client) = proxy.connected().await;
    let fetch = fetch_blob(&[origin.url("/a")]);
    assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"content"));
}
