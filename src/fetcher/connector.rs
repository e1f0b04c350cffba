//! The only way out to origins: resolves, vets every address, dials exactly a
//! vetted one, speaks TLS.
//!
//! As it sits below the connection pool, a redirect, a rebinding name and an
//! IP literal all pass through it; a pooled connection was vetted when it was
//! dialled. Company proxies will be dialled from here too.
//! Not for: URLs, headers and redirects (`client`).
//! Called by: the HTTP client in `client`.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::policy::AddressPolicy;
use super::stream::Stream;

/// Head start of one address before the next is tried beside it (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);

/// Why there is no connection. Texts hold hosts and addresses, nothing else.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Every address of the host is one that may not be dialled.
    #[error(
        "{host} is {reason} ({address}), which is not allowed (the operator can allow it: fetch.allow_cidr, --origin-allow-cidr)"
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
    #[error("no connection to {0} within {1:?}")]
    TimedOut(String, Duration),
    #[error("the URL has no host")]
    NoHost,
}

/// Where addresses of names come from.
#[derive(Debug, Clone, Default)]
pub(super) enum Resolver {
    #[default]
    System,
    /// Answers given by a test, one after another (the last one stays).
    #[cfg(test)]
    Scripted(Arc<parking_lot::Mutex<Vec<Vec<IpAddr>>>>),
}

impl Resolver {
    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => Ok(tokio::net::lookup_host((host, port)).await?.collect()),
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
pub(super) struct Connector(Arc<Shared>);

struct Shared {
    policy: AddressPolicy,
    tls: TlsConnector,
    resolver: Resolver,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(
        policy: AddressPolicy,
        tls: rustls::ClientConfig,
        resolver: Resolver,
        timeout: Duration,
    ) -> Self {
        Self(Arc::new(Shared {
            policy,
            tls: TlsConnector::from(Arc::new(tls)),
            resolver,
            timeout,
        }))
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
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let host = uri.host().ok_or(ConnectError::NoHost)?.to_owned();
            let connection = tokio::time::timeout(shared.timeout, shared.connect(&uri, &host));
            connection
                .await
                .unwrap_or_else(|_| Err(ConnectError::TimedOut(host, shared.timeout)))
        })
    }
}

impl Shared {
    async fn connect(&self, uri: &Uri, host: &str) -> Result<Stream, ConnectError> {
        let tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let addresses = self.vetted(host, port).await?;
        let tcp = dial(&addresses)
            .await
            .map_err(|error| ConnectError::Connect(host.to_owned(), error.to_string()))?;
        if !tls {
            return Ok(Stream::plain(tcp));
        }
        let failed = |error: String| ConnectError::Tls(host.to_owned(), error);
        let name =
            ServerName::try_from(bare(host).to_owned()).map_err(|e| failed(e.to_string()))?;
        let connection = self.tls.connect(name, tcp).await;
        connection
            .map(Stream::tls)
            .map_err(|e| failed(e.to_string()))
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
async fn dial(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter();
    let mut running = FuturesUnordered::new();
    let mut last = io::Error::other("no address");
    loop {
        if let Some(next) = waiting.next() {
            running.push(TcpStream::connect(next));
        }
        let more = waiting.len() > 0;
        let outcome = tokio::select! {
            outcome = running.next() => outcome,
            () = tokio::time::sleep(STAGGER), if more => continue,
        };
        match outcome {
            Some(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Some(Err(error)) => last = error,
            None if more => {}
            None => return Err(last),
        }
    }
}
