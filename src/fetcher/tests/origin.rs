//! A misbehaving origin on loopback: every answer is a script of raw steps,
//! so that it can stall, cut, reset and lie about lengths.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A path with one of these has its connection closed after the answer.
const CLOSING: [&str; 2] = ["/close", "/endless"];

/// One thing an origin does.
#[derive(Clone)]
pub(super) enum Step {
    Send(Vec<u8>),
    /// Sends the same bytes so many times.
    Repeat(Vec<u8>, usize),
    Sleep(Duration),
    /// Says nothing until the client goes away.
    Hang,
    /// Closes with a reset.
    Reset,
}

/// An origin; it ends with the value.
pub(super) struct Origin {
    pub(super) addr: SocketAddr,
    /// Request heads as received.
    pub(super) heads: Arc<Mutex<Vec<String>>>,
    /// Connections open now, and most at once.
    pub(super) open: Arc<AtomicUsize>,
    pub(super) most: Arc<AtomicUsize>,
    task: tokio::task::AbortHandle,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    /// An origin that answers each request with what `script` says to its path.
    pub(super) async fn start(script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::by_head(move |head| script(path(head))).await
    }

    /// The same, by the whole head of a request.
    pub(super) async fn by_head(
        script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let script = Arc::new(script);
        let state = (Arc::clone(&heads), Arc::clone(&open), Arc::clone(&most));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (heads, open, most) = state.clone();
                let script = Arc::clone(&script);
                tokio::spawn(async move {
                    let now = open.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    serve(stream, &heads, &*script).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            addr,
            heads,
            open,
            most,
            task: task.abort_handle(),
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(super) fn requests(&self) -> usize {
        self.heads.lock().len()
    }

    pub(super) fn head(&self, index: usize) -> String {
        self.heads.lock()[index].clone()
    }
}

fn path(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

async fn serve(
    mut stream: TcpStream,
    heads: &Mutex<Vec<String>>,
    script: &(dyn Fn(&str) -> Vec<Step> + Send + Sync),
) {
    let mut buffer = Vec::new();
    loop {
        while !buffer.windows(4).any(|w| w == b"\r\n\r\n") {
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk).await {
                Ok(n) if n > 0 => buffer.extend_from_slice(&chunk[..n]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&buffer).into_owned();
        buffer.clear();
        let path = path(&head).to_owned();
        heads.lock().push(head.clone());
        for step in script(&head) {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Step::Repeat(bytes, times) => {
                    for _ in 0..times {
                        if stream.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                }
                Step::Sleep(time) => tokio::time::sleep(time).await,
                Step::Hang => {
                    let mut chunk = [0; 64];
                    while stream.read(&mut chunk).await.is_ok_and(|n| n > 0) {}
                    return;
                }
                Step::Reset => {
                    socket2::SockRef::from(&stream)
                        .set_linger(Some(Duration::ZERO))
                        .unwrap();
                    return;
                }
            }
        }
        if CLOSING.iter().any(|part| path.contains(part)) {
            return;
        }
    }
}

/// An answer with the right length.
pub(super) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<Step> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n");
    vec![Step::Send([head.as_bytes(), body].concat())]
}

pub(super) fn ok(body: &[u8]) -> Vec<Step> {
    answer("200 OK", "", body)
}

pub(super) fn status(status: &str) -> Vec<Step> {
    answer(status, "", b"a body that must not be shown")
}

pub(super) fn redirect(to: &str) -> Vec<Step> {
    answer("302 Found", &format!("location: {to}\r\n"), b"")
}

/// An answer as it is.
pub(super) fn raw(text: &str) -> Vec<Step> {
    vec![Step::Send(text.as_bytes().to_vec())]
}

/// A TLS origin for `localhost` that says hello in HTTP/1.1 or HTTP/2.
pub(super) struct TlsOrigin {
    pub(super) port: u16,
    /// PEM of the certificate.
    pub(super) ca: PathBuf,
    /// ALPN of each connection.
    pub(super) spoken: Arc<Mutex<Vec<String>>>,
    task: tokio::task::AbortHandle,
    _dir: tempfile::TempDir,
}

impl Drop for TlsOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TlsOrigin {
    pub(super) async fn start(alpn: &[&str], location: Option<String>, size: usize) -> Self {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, made.cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let spoken = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&spoken);
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, location, log) = (acceptor.clone(), location.clone(), log.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let alpn = tls.get_ref().1.alpn_protocol().unwrap_or(b"none");
                    log.lock().push(String::from_utf8_lossy(alpn).into_owned());
                    let service = hyper::service::service_fn(move |_| {
                        let location = location.clone();
                        async move { Ok::<_, std::convert::Infallible>(hello(location, size)) }
                    });
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Self {
            port,
            ca,
            spoken,
            task: task.abort_handle(),
            _dir: dir,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("https://localhost:{}/x", self.port)
    }
}

fn hello(location: Option<String>, size: usize) -> http::Response<Full<Bytes>> {
    let builder = http::Response::builder();
    let body = Full::new(Bytes::from(vec![b'h'; size]));
    match location {
        Some(to) => builder.status(302).header("location", to).body(body),
        None => builder.body(body),
    }
    .unwrap()
}
