//! Everything a pool of upstream connections can be told.
//!
//! Not for: parsing these from files or flags (`config`).
//! Called by: `config`, `server::assembly`.

use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use rustls_pki_types::ServerName;

use super::{Board, Endpoint};
use crate::net::tls::{ClientTls, TlsError};

/// Settings of a [`super::Pool`]; start from [`PoolSettings::new`].
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// The upstreams: equal replicas of one cache.
    pub endpoints: Vec<Endpoint>,
    /// TLS files; needed for `grpcs://` endpoints.
    pub tls: Option<Arc<ClientTls>>,
    /// The name the certificate must have; that of the endpoint by default.
    pub server_name: Option<ServerName<'static>>,
    /// `:authority` of every call; that of the endpoint by default.
    pub authority: Option<Authority>,
    /// Connections up to here belong to one downstream connection each;
    /// beyond, they are shared.
    pub soft_cap: usize,
    /// Connections up to here are opened when shared ones are stuck.
    pub hard_cap: usize,
    /// How long opening a connection may take, TLS and HTTP/2 settings included.
    pub connect_timeout: Duration,
    /// Pause between two attempts to reach an upstream that is down: the first
    /// one, and the longest when no other upstream is up.
    pub backoff: (Duration, Duration),
    /// Window of one stream: 256 KiB carries 256 MB/s at 1 ms round-trip time.
    pub stream_window: u32,
    /// Window of one connection. Below 8 MiB, streams of tiny messages make h2
    /// itself close the connection (`too_many_data_frames`).
    pub connection_window: u32,
    /// Idle time after which the kernel probes the connection; see
    /// `net::keep_alive` for why there are no HTTP/2 pings.
    pub keep_alive: Duration,
    /// Calls that may wait for a free stream of one connection.
    pub max_waiting: usize,
    /// How long a call may stand still on a connection that clients share and
    /// that is congested. Long enough for a client that pauses, short against
    /// the minute that build tools give a call.
    pub stall_limit: Duration,
    /// Where all pools of this upstream report how it is.
    pub board: Board,
}

impl PoolSettings {
    /// The settings that were measured, for these endpoints.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            endpoints,
            tls: None,
            server_name: None,
            authority: None,
            soft_cap: 64,
            hard_cap: 128,
            connect_timeout: Duration::from_secs(5),
            backoff: (Duration::from_millis(50), Duration::from_secs(1)),
            stream_window: 256 * 1024,
            connection_window: 8 * 1024 * 1024,
            keep_alive: Duration::from_secs(30),
            max_waiting: 10_000,
            stall_limit: Duration::from_secs(15),
            board: Board::default(),
        }
    }

    /// Demands this name of the upstream's certificate.
    ///
    /// # Errors
    /// When it is no name that a certificate can carry.
    pub fn with_server_name(mut self, name: &str) -> Result<Self, TlsError> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsError::ServerName(name.to_owned()))?;
        self.server_name = Some(name);
        Ok(self)
    }
}
