//! The only way out to origins: resolves, vets every address, dials exactly a
//! vetted one, speaks TLS. Behind a proxy it dials that: then addresses in
//! URLs are vetted, and names are the proxy's to resolve and to judge.
//!
//! As it sits below the connection pool, a redirect, a rebinding name and an
//! IP literal all pass through it; a pooled connection was vetted when it was
//! dialled.
//! Not for: URLs, headers and redirects (`client`).
//! Called by: the HTTP client in `exchange`.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{StatusCode, Uri};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connections::{Connections, Place};
use super::policy::AddressPolicy;
use super::proxy::Proxy;
use super::stream::{BoxIo, Stream};
use super::tunnel::{TunnelError, tunnel};

/// Head start of one address before the next is tried beside it (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one host dialled at the same time: a name may have any number.
const ABREAST: usize = 4;

/// Why there is no connection. Texts are for callers: they hold the host as it
/// was asked for, not what it resolves to, nor where a proxy is.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Every address of the host is one that may not be dialled.
    #[error(
        "{host} is {reason}, which is not allowed (the operator can allow it: fetch.allow_cidr, --origin-allow-cidr)"
    )]
    Disallowed {
        host: String,
        address: IpAddr,
        reason: &'static str,
    },
    #[error("the name {0} cannot be resolved: {1}")]
    Dns(String, String),
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    #[error("TLS with {0} failed: {1}")]
    Tls(String, String),
    /// It will be the same the next time.
    #[error("TLS with {0} failed: {1}")]
    Certificate(String, String),
    #[error("no connection to {0} within {1:?} (fetch.connect_timeout)")]
    TimedOut(String, Duration),
    #[error(
        "no connection to {0} within {1:?} (fetch.connect_timeout), as {2} others are open and in use (fetch.max_connections)"
    )]
    Crowded(String, Duration, usize),
    /// The proxy cannot be reached, or does not speak as a proxy does.
    #[error("the proxy cannot be used (fetch.proxy): {}", for_callers(.1))]
    Proxy(String, String),
    /// 407
    #[error("{0}")]
    ProxyCredential(String),
    #[error("the proxy refused to connect to {host}: {status}")]
    ProxyRefused {
        proxy: String,
        host: String,
        status: StatusCode,
    },
    #[error("the URL has no host")]
    NoHost,
}

impl ConnectError {
    /// What the log says besides.
    pub(super) fn detail(&self) -> Option<String> {
        match self {
            Self::Disallowed { host, address, .. } => Some(format!("{host} is at {address}")),
            Self::Proxy(proxy, reason) => Some(format!("{proxy}: {reason}")),
            Self::ProxyRefused { proxy, .. } => Some(proxy.clone()),
            _ => None,
        }
    }
}

/// A reason without the names that a certificate holds.
fn for_callers(reason: &str) -> &str {
    match reason.contains("certificate") {
        true => "its certificate is not accepted",
        false => reason,
    }
}

/// Where addresses of names come from.
#[derive(Debug, Clone, Default)]
pub(super) enum Resolver {
    #[default]
    System,
    /// Answers given by a test, one after another (the last one stays); if
    /// there are none, it never answers.
    #[cfg(test)]
    Scripted(Arc<parking_lot::Mutex<Vec<Vec<IpAddr>>>>),
}

impl Resolver {
    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => Ok(tokio::net::lookup_host((host, port)).await?.collect()),
            #[cfg(test)]
            Self::Scripted(answers) if answers.lock().is_empty() => std::future::pending().await,
            #[cfg(test)]
            Self::Scripted(answers) => {
                let mut answers = answers.lock();
                let rest = answers.len() > 1;
                let now = if rest {
                    answers.remove(0)
                } else {
                    answers[0].clone()
                };
                Ok(now
                    .into_iter()
                    .map(|ip| SocketAddr::new(ip, port))
                    .collect())
            }
        }
    }
}

/// A tower service from URI to connection.
#[derive(Clone)]
pub(super) struct Connector(Arc<Way>);

/// How origins are reached.
pub(super) struct Way {
    pub(super) policy: AddressPolicy,
    pub(super) tls: TlsConnector,
    pub(super) resolver: Resolver,
    pub(super) timeout: Duration,
    pub(super) connections: Arc<Connections>,
    pub(super) proxy: Option<Arc<Proxy>>,
}

impl Connector {
    pub(super) fn new(way: Way) -> Self {
        Self(Arc::new(way))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let way = Arc::clone(&self.0);
        Box::pin(async move {
            let host = uri.host().ok_or(ConnectError::NoHost)?;
            let deadline = Instant::now() + way.timeout;
            let connection = timeout_at(deadline, way.connect(&uri, host, deadline)).await;
            connection.unwrap_or_else(|_| {
                let proxy = way.proxy_for(host).map(|proxy| proxy.address.to_string());
                let through = proxy.map(|proxy| format!(" through the proxy {proxy}"));
                let host = format!("{host}{}", through.unwrap_or_default());
                Err(ConnectError::TimedOut(host, way.timeout))
            })
        })
    }
}

impl Way {
    async fn connect(
        &self,
        uri: &Uri,
        host: &str,
        deadline: Instant,
    ) -> Result<Stream, ConnectError> {
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let (io, place, proxied) = match self.proxy_for(host) {
            None => {
                let addresses = self.vetted(host, port).await?;
                let place = self.place(host, deadline).await?;
                let failed = |e: io::Error| ConnectError::Connect(host.to_owned(), e.to_string());
                (dial(&addresses).await.map_err(failed)?, place, false)
            }
            Some(proxy) => {
                self.vet_literal(host)?;
                let place = self.place(host, deadline).await?;
                let io = self.dial_proxy(proxy).await?;
                if https {
                    (through(proxy, io, host, port).await?, place, true)
                } else {
                    (io, place, true)
                }
            }
        };
        if !https {
            return Ok(Stream::plain(io, proxied, place));
        }
        let tls = handshake(&self.tls, bare(host), io).await;
        tls.map(|tls| Stream::tls(tls, place))
            .map_err(|error| match is_certificate(&error) {
                true => ConnectError::Certificate(host.to_owned(), error.to_string()),
                false => ConnectError::Tls(host.to_owned(), error.to_string()),
            })
    }

    fn proxy_for(&self, host: &str) -> Option<&Proxy> {
        self.proxy.as_deref().filter(|proxy| proxy.takes(host))
    }

    async fn place(&self, host: &str, deadline: Instant) -> Result<Place, ConnectError> {
        let place = timeout_at(deadline, self.connections.place()).await;
        let crowded = || {
            let total = self.connections.total();
            ConnectError::Crowded(host.to_owned(), self.timeout, total)
        };
        place.ok().flatten().ok_or_else(crowded)
    }

    async fn dial_proxy(&self, proxy: &Proxy) -> Result<BoxIo, ConnectError> {
        let failed = |e: String| ConnectError::Proxy(proxy.address.to_string(), e);
        let (host, port) = (proxy.address.host.as_str(), proxy.address.port);
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => {
                let found = self.resolver.addresses(host, port).await;
                alternating(found.map_err(|e| failed(e.to_string()))?)
            }
        };
        let io = dial(&addresses).await.map_err(|e| failed(e.to_string()))?;
        if !proxy.address.tls {
            return Ok(io);
        }
        let tls = handshake(&proxy.tls, host, io).await;
        tls.map(|tls| Box::new(tls) as BoxIo)
            .map_err(|error| failed(error.to_string()))
    }

    /// Judges the address in a URL that a proxy will dial. `localhost` is one.
    fn vet_literal(&self, host: &str) -> Result<(), ConnectError> {
        let name = bare(host).trim_end_matches('.').to_ascii_lowercase();
        let local = name == "localhost" || name.ends_with(".localhost");
        let address = if local {
            Some(IpAddr::from([127, 0, 0, 1]))
        } else {
            name.parse().ok()
        };
        match address.and_then(|a| Some((a, self.policy.refusal(a)?))) {
            None => Ok(()),
            Some((address, reason)) => Err(ConnectError::Disallowed {
                host: host.to_owned(),
                address,
                reason,
            }),
        }
    }

    /// The addresses of `host` that may be dialled; at least one.
    async fn vetted(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        let dns = |error: String| ConnectError::Dns(host.to_owned(), error);
        let found = match bare(host).parse::<IpAddr>() {
            Ok(literal) => vec![SocketAddr::new(literal, port)],
            Err(_) => {
                let answer = self.resolver.addresses(host, port).await;
                answer.map_err(|e| dns(e.to_string()))?
            }
        };
        let mut refused = None;
        let mut good = Vec::new();
        for address in found {
            match self.policy.refusal(address.ip()) {
                Some(reason) => refused = Some((address.ip(), reason)),
                None => good.push(address),
            }
        }
        match (good.is_empty(), refused) {
            (false, _) => Ok(alternating(good)),
            (true, None) => Err(dns("no addresses".to_owned())),
            (true, Some((address, reason))) => Err(ConnectError::Disallowed {
                host: host.to_owned(),
                address,
                reason,
            }),
        }
    }
}

async fn handshake(
    connector: &TlsConnector,
    host: &str,
    io: BoxIo,
) -> io::Result<TlsStream<BoxIo>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    connector.connect(name, io).await
}

/// Whether a handshake failed because the server is not who it should be.
fn is_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|e| e.downcast_ref());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

/// A connection to an origin, over one to the proxy.
async fn through(proxy: &Proxy, io: BoxIo, host: &str, port: u16) -> Result<BoxIo, ConnectError> {
    let to = format!("{host}:{port}");
    let tunnel = tunnel(io, &to, proxy.authorization().as_ref()).await;
    tunnel.map_err(|error| match error {
        TunnelError::Status(StatusCode::PROXY_AUTHENTICATION_REQUIRED) => {
            ConnectError::ProxyCredential(proxy.refused_us())
        }
        TunnelError::Status(status) => ConnectError::ProxyRefused {
            proxy: proxy.address.to_string(),
            host: to,
            status,
        },
        TunnelError::Broken(why) => ConnectError::Proxy(proxy.address.to_string(), why),
    })
}

/// A host without the brackets of an IPv6 literal.
fn bare(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host)
}

/// The families in turn, beginning with the resolver's first choice.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv4() == first_is_v4);
    let mut second = second.into_iter();
    let mut mixed = Vec::new();
    for address in first {
        mixed.push(address);
        mixed.extend(second.next());
    }
    mixed.extend(second);
    mixed
}

/// Dials until one answers, each after a failure or the head start of the one
/// before. The losers are dropped.
async fn dial(addresses: &[SocketAddr]) -> io::Result<BoxIo> {
    let mut waiting = addresses.iter();
    let mut running = FuturesUnordered::new();
    let mut last = io::Error::other("no address");
    loop {
        if let Some(next) = waiting.next() {
            running.push(TcpStream::connect(next));
        }
        let more = waiting.len() > 0;
        let beside = more && running.len() < ABREAST;
        let outcome = tokio::select! {
            outcome = running.next() => outcome,
            () = tokio::time::sleep(STAGGER), if beside => continue,
        };
        match outcome {
            Some(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(Box::new(stream));
            }
            Some(Err(error)) => last = error,
            None if more => {}
            None => return Err(last),
        }
    }
}
