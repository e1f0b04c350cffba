//! Where it listens and whom it trusts: unix sockets, TLS, client certificates,
//! and P5 of the design: it never lends anybody its own rights.

use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::support::answer::says;
use crate::support::{
    Client, Code, Origin, Pki, Proxy, bounded, digest_of, fetch_blob, hit, inline, push_blob,
    refused,
};

async fn unix_client(path: &Path) -> Client {
    let path = path.to_owned();
    let connect = tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://unix");
    let channel = bounded("a connection", endpoint.connect_with_connector(connect));
    Client::over(channel.await.unwrap())
}

#[tokio::test]
async fn it_listens_on_a_unix_socket() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("assetgate.sock");
    let address = format!("unix:{}", path.display());
    let proxy = Proxy::new().listen(&address).start().await;
    assert_eq!(proxy.ports()["grpc"].as_str(), Some(&*address));
    let client = unix_client(&path).await;
    let digest = client.upload(b"blob").await;
    client
        .push_blob(push_blob(&["urn:o:a"], digest.clone()))
        .await
        .unwrap();
    assert_eq!(
        hit(client.fetch_blob(fetch_blob(&["urn:o:a"])).await),
        digest
    );
    let behind = Proxy::new().upstream_at(&address).connected().await;
    assert_eq!(
        hit(behind.1.fetch_blob(fetch_blob(&["urn:o:a"])).await),
        digest
    );
}

fn tls_proxy(pki: &Pki) -> Proxy {
    let server = pki.issue("server");
    let proxy = Proxy::new().arg("--tls-cert").arg(&server.cert);
    proxy.arg("--tls-key").arg(&server.key)
}

fn trusting(pki: &Pki) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pki.ca_pem()))
        .domain_name("localhost")
}

async fn assert_works(client: &Client) {
    inline(
        client.fetch_blob(fetch_blob(&["urn:o:none"])).await,
        Code::NotFound,
    );
    client.upload(b"blob").await;
}

#[tokio::test]
async fn it_listens_with_tls() {
    let pki = Pki::new();
    let proxy = tls_proxy(&pki).start().await;
    assert_works(&proxy.tls_client(trusting(&pki)).await.unwrap()).await;
    assert!(proxy.tls_client(trusting(&Pki::new())).await.is_err());
}

#[tokio::test]
async fn it_demands_client_certificates() {
    let pki = Pki::new();
    let proxy = tls_proxy(&pki)
        .arg("--tls-client-ca")
        .arg(pki.ca())
        .start()
        .await;
    let known = pki.issue("client");
    let identity = Identity::from_pem(&known.cert_pem, &known.key_pem);
    let client = proxy
        .tls_client(trusting(&pki).identity(identity))
        .await
        .unwrap();
    assert_works(&client).await;
    let stranger = Pki::new().issue("stranger");
    let identity = Identity::from_pem(&stranger.cert_pem, &stranger.key_pem);
    for tls in [trusting(&pki), trusting(&pki).identity(identity)] {
        if let Ok(client) = proxy.tls_client(tls).await {
            let answer = client.fetch_blob(fetch_blob(&["urn:o:none"])).await;
            assert!(answer.is_err(), "served without a known certificate");
        }
    }
}

#[tokio::test]
async fn it_reaches_a_cache_over_tls_with_a_certificate_of_its_own() {
    let pki = Pki::new();
    let cache = tls_proxy(&pki)
        .arg("--tls-client-ca")
        .arg(pki.ca())
        .start()
        .await;
    let own = pki.issue("own");
    let to_cache = |ca: &Path, name: &str| {
        let proxy = Proxy::new().upstream_at(&format!("grpcs://{}", cache.address()));
        let proxy = proxy.arg("--upstream-ca").arg(ca);
        let proxy = proxy.arg("--upstream-server-name").arg(name);
        let proxy = proxy.arg("--upstream-client-cert").arg(&own.cert);
        proxy.arg("--upstream-client-key").arg(&own.key)
    };
    let (_proxy, client) = to_cache(&pki.ca(), "localhost").connected().await;
    assert_works(&client).await;
    for (ca, name) in [(pki.ca(), "other.example"), (Pki::new().ca(), "localhost")] {
        let (_proxy, client) = to_cache(&ca, name).connected().await;
        let status = client.fetch_blob(fetch_blob(&["urn:o:none"])).await;
        let status = refused(status, Code::Unavailable);
        says(status.message(), &["certificate"]);
    }
}

#[tokio::test]
async fn it_fetches_over_tls_from_origins_it_trusts() {
    let pki = Pki::new();
    let origin = Origin::new().tls(&pki).file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().origin_ca(&pki.ca()).connected().await;
    let uri = origin.url("/a");
    assert_eq!(
        hit(client.fetch_blob(fetch_blob(&[&uri])).await),
        digest_of(b"content")
    );
    let (_proxy, client) = Proxy::new().origin_ca(&Pki::new().ca()).connected().await;
    let status = refused(
        client.fetch_blob(fetch_blob(&[&uri])).await,
        Code::Unavailable,
    );
    says(status.message(), &[&uri, "certificate"]);
}

#[tokio::test]
async fn p5_it_lends_nobody_its_own_certificate() {
    let pki = Pki::new();
    let own = pki.issue("proxy");
    let open = || {
        Proxy::new()
            .listen("0.0.0.0:0")
            .upstream_at("grpcs://127.0.0.1:1")
            .arg("--upstream-client-cert")
            .arg(&own.cert)
            .arg("--upstream-client-key")
            .arg(&own.key)
    };
    let (status, printed) = open().start_to_end().await;
    assert_eq!(status.code(), Some(64), "{printed}");
    says(&printed, &["allow_anonymous"]);
    open().config("allow_anonymous = true\n").start().await;
    let mutual = open()
        .arg("--tls-cert")
        .arg(&own.cert)
        .arg("--tls-key")
        .arg(&own.key);
    mutual.arg("--tls-client-ca").arg(pki.ca()).start().await;
}
