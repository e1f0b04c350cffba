//! TLS, mutual TLS and Unix sockets, on both sides.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::support::*;
use crate::net::tls::{ClientFiles, ClientTls, ServerFiles, ServerTls};
use crate::server::{Listener, ListenerSettings};

const PATH: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";

/// A directory with an authority, and certificates for a server and a client.
pub(crate) fn certificates() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    for name in ["localhost", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &ca).unwrap();
        std::fs::write(dir.path().join(format!("{name}.pem")), cert.pem()).unwrap();
        std::fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    dir
}

fn server_tls(dir: &Path, mutual: bool) -> Arc<ServerTls> {
    ServerTls::server(ServerFiles {
        cert: dir.join("localhost.pem"),
        key: dir.join("localhost.key"),
        client_ca: mutual.then(|| dir.join("ca.pem")),
    })
    .unwrap()
}

fn client_tls(dir: &Path, identity: bool) -> Arc<ClientTls> {
    ClientTls::client(ClientFiles {
        ca: Some(dir.join("ca.pem")),
        identity: identity.then(|| (dir.join("client.pem"), dir.join("client.key"))),
    })
    .unwrap()
}

async fn tls_client(
    address: std::net::SocketAddr,
    tls: &ClientTls,
) -> Result<Client, Box<dyn std::error::Error>> {
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost")?;
    let stream = TlsConnector::from(tls.current())
        .connect(name, socket)
        .await?;
    Ok(Client::try_over(stream).await?)
}

#[tokio::test]
async fn the_listener_speaks_tls_and_only_tls() {
    let dir = certificates();
    let stub = Stub::start(echo).await;
    let mut settings = listener_settings();
    settings.tls = Some(server_tls(dir.path(), false));
    let proxy = Proxy::with(settings, pool_settings(&[&stub.url()]));
    let client = tls_client(proxy.address, &client_tls(dir.path(), false))
        .await
        .unwrap();
    let large = vec![6; 3_000_000];
    assert_eq!(client.call(request(PATH), large.clone()).await.body, large);

    let plain = Client::try_over(TcpStream::connect(proxy.address).await.unwrap()).await;
    if let Ok(plain) = plain {
        soon(plain.try_call(request(PATH), "x")).await.unwrap_err();
    }
}

#[tokio::test]
async fn mutual_tls_admits_only_who_shows_a_certificate() {
    let dir = certificates();
    let stub = Stub::start(echo).await;
    let mut settings = listener_settings();
    settings.tls = Some(server_tls(dir.path(), true));
    let proxy = Proxy::with(settings, pool_settings(&[&stub.url()]));
    let known = tls_client(proxy.address, &client_tls(dir.path(), true))
        .await
        .unwrap();
    assert_eq!(known.call(request(PATH), "x").await.body, "x");

    let refused = async {
        let client = tls_client(proxy.address, &client_tls(dir.path(), false)).await?;
        Ok::<_, Box<dyn std::error::Error>>(client.try_call(request(PATH), "x").await?)
    };
    soon(refused).await.unwrap_err();
}

/// An upstream under TLS, which shows a client without certificate the door.
async fn tls_stub(tls: Arc<ServerTls>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(tls.current());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(socket).await {
                    serve(stream, h2_server(), echo, Arc::default()).await;
                }
            });
        }
    });
    format!("grpcs://{address}")
}

#[tokio::test]
async fn the_upstream_speaks_tls_and_gets_a_certificate() {
    let dir = certificates();
    let url = tls_stub(server_tls(dir.path(), true)).await;
    let mut settings = pool_settings(&[&url])
        .with_server_name("localhost")
        .unwrap();
    settings.tls = Some(client_tls(dir.path(), true));
    let proxy = Proxy::with(listener_settings(), settings);
    let client = Client::connect(proxy.address).await;
    let large = vec![6; 3_000_000];
    assert_eq!(client.call(request(PATH), large.clone()).await.body, large);
}

#[tokio::test]
async fn an_upstream_with_the_wrong_name_or_without_our_certificate_is_unavailable() {
    let dir = certificates();
    for (mutual, name) in [(false, None), (true, Some("localhost"))] {
        let url = tls_stub(server_tls(dir.path(), mutual)).await;
        let mut settings = pool_settings(&[&url]);
        if let Some(name) = name {
            settings = settings.with_server_name(name).unwrap();
        }
        settings.tls = Some(client_tls(dir.path(), false));
        let proxy = Proxy::with(listener_settings(), settings);
        let client = Client::connect(proxy.address).await;
        let (code, message) = client.call(request(PATH), "x").await.status();
        assert_eq!(code, "14", "{message}");
    }
}

#[tokio::test]
async fn unix_sockets_work_on_both_sides_and_leave_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (front, back) = (dir.path().join("front"), dir.path().join("back"));
    let listener = UnixListener::bind(&back).unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, h2_server(), echo, Arc::default()));
        }
    });
    let address = format!("unix:{}", front.display()).parse().unwrap();
    let upstream = format!("unix:{}", back.display());
    let proxy = Proxy::with(ListenerSettings::new(address), pool_settings(&[&upstream]));
    let client = Client::over(UnixStream::connect(&front).await.unwrap()).await;
    assert_eq!(client.call(request(PATH), "x").await.body, "x");
    drop(client);
    assert!(proxy.drain.finish(PATIENCE).await);
    eventually("the file is removed", || !front.exists()).await;
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = Listener::bind(listener_settings()).unwrap();
    let again = ListenerSettings::new(taken.local_addr.clone());
    let error = Listener::bind(again).unwrap_err().to_string();
    assert!(error.contains(&taken.local_addr.to_string()), "{error}");
}
