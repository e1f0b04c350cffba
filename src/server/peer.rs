//! What is known of a client by its connection.
//!
//! Not for: deciding what it may do (`middleware`).
//! Called by: `connection` makes it; native services find it in the request's
//! extensions.

use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;

/// The other end of a connection. Cheap to clone only behind an `Arc`: the
/// extensions hold an `Arc<PeerInfo>`.
#[derive(Debug, Clone, Default)]
pub struct PeerInfo {
    /// Its address; none over a Unix socket.
    pub address: Option<SocketAddr>,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The certificate it showed, verified by the listener's authorities.
    pub certificate: Option<CertificateDer<'static>>,
}
