//! One address that can be dialled, and what calls sent there look like.
//!
//! Not for: which of them are up (`health`).
//! Called by: `pool`, `dial`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use rustls_pki_types::ServerName;

use super::health::Place;
use super::{Endpoint, PoolSettings};
use crate::net::MemoryDialer;

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Memory(MemoryDialer),
}

/// One resolved address of one endpoint.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) address: Address,
    /// Name for TLS, if TLS is spoken.
    pub(super) tls_name: Option<ServerName<'static>>,
    /// For errors: `grpc://cache:9092 (10.0.0.1:9092)`.
    pub(super) label: Arc<str>,
    scheme: Scheme,
    authority: Authority,
}

impl Target {
    /// The target for one address of an endpoint, or why there is none.
    pub(super) fn new(
        endpoint: &Endpoint,
        address: Address,
        settings: &PoolSettings,
    ) -> Result<Self, String> {
        let authority = match &settings.authority {
            Some(authority) => authority.to_string(),
            None => endpoint.authority(),
        };
        // A copy of its own: the calls of all threads would count references
        // to the same memory otherwise.
        let authority = authority.parse().map_err(|_| "no valid authority")?;
        let tls_name = match (endpoint, &settings.server_name) {
            (Endpoint::Tcp { tls: true, .. }, Some(name)) => Some(name.clone()),
            (
                Endpoint::Tcp {
                    tls: true, host, ..
                },
                None,
            ) => Some(ServerName::try_from(host.clone()).map_err(|_| "no valid server name")?),
            _ => None,
        };
        let shown = endpoint.to_string();
        let label = match &address {
            Address::Tcp(address) if !shown.ends_with(&format!("//{address}")) => {
                format!("{shown} ({address})")
            }
            _ => shown,
        };
        Ok(Self {
            scheme: if endpoint.tls() {
                Scheme::HTTPS
            } else {
                Scheme::HTTP
            },
            address,
            tls_name,
            label: label.into(),
            authority,
        })
    }

    /// Under which the pool notes whether it is down.
    pub(super) fn place(&self) -> Place {
        Place::Address(self.address.clone())
    }

    /// The URI of a call sent here: the path stays, byte by byte.
    pub(super) fn direct(&self, uri: &Uri) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(
            uri.path_and_query()
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
        );
        // Complete parts always make a URI.
        Uri::from_parts(parts).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str, address: &str) -> Target {
        let endpoint: Endpoint = url.parse().unwrap();
        let settings = PoolSettings::new(vec![endpoint.clone()]);
        Target::new(&endpoint, Address::Tcp(address.parse().unwrap()), &settings).unwrap()
    }

    #[test]
    fn a_call_keeps_its_path_and_gets_scheme_and_authority() {
        let target = target("grpcs://cache:9092", "10.0.0.1:9092");
        assert_eq!(&*target.label, "grpcs://cache:9092 (10.0.0.1:9092)");
        let uri = target.direct(&"/a.B/C%20d?e=f".parse().unwrap());
        assert_eq!(uri.to_string(), "https://cache:9092/a.B/C%20d?e=f");
    }

    #[test]
    fn the_authority_can_be_overridden_and_literals_are_named_once() {
        let endpoint: Endpoint = "grpc://10.0.0.1:1".parse().unwrap();
        let mut settings = PoolSettings::new(vec![endpoint.clone()]);
        settings.authority = Some(Authority::from_static("cache.example"));
        let address = Address::Tcp("10.0.0.1:1".parse().unwrap());
        let target = Target::new(&endpoint, address, &settings).unwrap();
        assert_eq!(&*target.label, "grpc://10.0.0.1:1");
        let uri = target.direct(&"http://front/x".parse().unwrap());
        assert_eq!(uri.to_string(), "http://cache.example/x");
    }
}
