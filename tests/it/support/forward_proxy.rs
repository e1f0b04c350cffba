//! A company proxy: CONNECT, and whole URLs for plain HTTP. It knows names that
//! nobody else does.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, copy_bidirectional,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::Pki;

/// A name that this proxy takes for loopback.
pub const NAME: &str = "origin.corp.example";

/// How to start one.
#[derive(Default)]
pub struct ForwardProxy {
    demands: Option<&'static str>,
    refuses: Option<u16>,
    tls: Option<TlsAcceptor>,
}

impl ForwardProxy {
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers 407 unless `Proxy-Authorization` has this value.
    pub fn demanding(mut self, authorization: &'static str) -> Self {
        self.demands = Some(authorization);
        self
    }

    /// Answers everything with this status.
    pub fn refusing(mut self, status: u16) -> Self {
        self.refuses = Some(status);
        self
    }

    /// Speaks TLS with its clients.
    pub fn tls(mut self, pki: &Pki) -> Self {
        self.tls = Some(pki.acceptor("proxy"));
        self
    }

    pub async fn start(self) -> Proxying {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let heads = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, Arc::new(self), heads.clone()));
        Proxying {
            address,
            scheme,
            heads,
            task,
        }
    }
}

/// A running one; it ends with the value.
pub struct Proxying {
    address: SocketAddr,
    scheme: &'static str,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Proxying {
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Every request head so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The request lines.
    pub fn lines(&self) -> Vec<String> {
        let line = |head: &String| head.lines().next().unwrap().to_owned();
        self.heads().iter().map(line).collect()
    }
}

impl Drop for Proxying {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, proxy: Arc<ForwardProxy>, heads: Arc<Mutex<Vec<String>>>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (proxy, heads) = (proxy.clone(), heads.clone());
        connections.spawn(async move {
            match &proxy.tls {
                None => converse(tcp, &proxy, &heads).await.ok(),
                Some(tls) => match tls.accept(tcp).await {
                    Ok(tls) => converse(tls, &proxy, &heads).await.ok(),
                    Err(_) => None,
                },
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(
    client: impl AsyncRead + AsyncWrite + Unpin,
    proxy: &ForwardProxy,
    heads: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut client = BufReader::new(client);
    loop {
        let head = read_head(&mut client).await?;
        if head.is_empty() {
            return Ok(());
        }
        heads.lock().unwrap().push(head.clone());
        let authorization = header(&head, "proxy-authorization");
        let refusal = match (proxy.demands, proxy.refuses) {
            (Some(demanded), _) if authorization.as_deref() != Some(demanded) => Some(407),
            (_, other) => other,
        };
        if let Some(status) = refusal {
            let answer = format!(
                "HTTP/1.1 {status} No\r\nX-Squid-Error: S3CRET\r\nContent-Length: 6\r\n\r\nS3CRET"
            );
            client.write_all(answer.as_bytes()).await?;
            client.flush().await?;
            continue;
        }
        let target = head.split(' ').nth(1).unwrap().to_owned();
        if head.starts_with("CONNECT ") {
            let mut origin = dial(&target).await?;
            client
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await?;
            client.flush().await?;
            copy_bidirectional(&mut client, &mut origin).await?;
            return Ok(());
        }
        relay(&mut client, &head, &target).await?;
    }
}

/// Sends one request on, in the form origins want, and its answer back.
async fn relay(client: &mut (impl AsyncWrite + Unpin), head: &str, target: &str) -> io::Result<()> {
    let rest = target.strip_prefix("http://").expect("a whole URL");
    let (authority, path) = rest.split_once('/').unwrap();
    let mut origin = BufReader::new(dial(authority).await?);
    let method = head.split(' ').next().unwrap();
    let mut forwarded = format!("{method} /{path} HTTP/1.1\r\n");
    for line in head.lines().skip(1).filter(|line| !line.is_empty()) {
        if !line
            .to_ascii_lowercase()
            .starts_with("proxy-authorization:")
        {
            forwarded.push_str(&format!("{line}\r\n"));
        }
    }
    forwarded.push_str("Via: 1.1 proxy\r\n\r\n");
    origin.write_all(forwarded.as_bytes()).await?;
    let answer = read_head(&mut origin).await?;
    let length = header(&answer, "content-length").unwrap().parse().unwrap();
    let mut body = vec![0; length];
    tokio::io::AsyncReadExt::read_exact(&mut origin, &mut body).await?;
    client.write_all(answer.as_bytes()).await?;
    client.write_all(&body).await?;
    client.flush().await
}

async fn dial(authority: &str) -> io::Result<TcpStream> {
    TcpStream::connect(authority.replace(NAME, "127.0.0.1")).await
}

/// A head with the empty line behind it; nothing at the end of the stream.
async fn read_head(from: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut head = String::new();
    while from.read_line(&mut head).await? > 0 && !head.ends_with("\r\n\r\n") {}
    Ok(head)
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(n, _)| n.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim().to_owned())
}
