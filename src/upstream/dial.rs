//! From an endpoint to a connected stream: resolve, connect, TLS.
//!
//! Not for: HTTP/2 on it (`connection`), choosing among addresses (`pool`).
//! Called by: `pool`.

use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::target::{Address, Target};
use super::{Endpoint, PoolSettings};
use crate::net::{Buffered, RawStream, Stream, keep_alive};

/// All addresses of an endpoint, by the system's resolver (which knows hosts
/// files and search lists).
pub(super) async fn resolve(endpoint: &Endpoint) -> Result<Vec<Address>, String> {
    match endpoint {
        Endpoint::Unix(path) => Ok(vec![Address::Unix(path.clone())]),
        Endpoint::Memory(dialer) => Ok(vec![Address::Memory(dialer.clone())]),
        Endpoint::Tcp { host, port, .. } => {
            if let Ok(ip) = host.parse::<IpAddr>() {
                return Ok(vec![Address::Tcp(SocketAddr::new(ip, *port))]);
            }
            let mut addresses = Vec::new();
            let found = tokio::net::lookup_host((host.as_str(), *port))
                .await
                .map_err(|error| format!("the name cannot be resolved: {error}"))?;
            for address in found.map(Address::Tcp) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            if addresses.is_empty() {
                return Err("the name has no address".to_owned());
            }
            Ok(addresses)
        }
    }
}

/// A stream to the target, ready for HTTP/2.
pub(super) async fn dial(target: &Target, settings: &PoolSettings) -> Result<Stream, String> {
    let raw = match &target.address {
        Address::Unix(path) => RawStream::Unix(connected(UnixStream::connect(path).await)?),
        Address::Memory(dialer) => RawStream::Memory(dialer.dial()),
        Address::Tcp(address) => {
            let socket = connected(TcpStream::connect(address).await)?;
            // Nagle would hold a call's last bytes for a round trip.
            socket
                .set_nodelay(true)
                .map_err(|error| error.to_string())?;
            keep_alive(&socket, settings.keep_alive).map_err(|error| error.to_string())?;
            RawStream::Tcp(socket)
        }
    };
    let Some(name) = &target.tls_name else {
        return Ok(Stream::Plain(raw));
    };
    let tls = settings
        .tls
        .as_ref()
        .ok_or("a grpcs:// upstream without TLS settings")?;
    let stream = TlsConnector::from(tls.current())
        .connect(name.clone(), Buffered::new(raw))
        .await
        .map_err(|error| format!("TLS: {error}"))?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err("TLS: the server does not speak HTTP/2 (ALPN h2)".to_owned());
    }
    Ok(Stream::Tls(Box::new(stream.into())))
}

fn connected<T>(result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}
