//! TLS for both sides: rustls with aws-lc-rs, from PEM files, re-read when
//! they change.
//!
//! Not for: handshakes (`server::accept`, `upstream::dial`), origins of fetched
//! content (the fetcher has a client of its own).
//! Called by: `config` (validation), `server`, `upstream`.

mod files;

use std::path::PathBuf;
use std::sync::Arc;

use super::Reloading;
pub use files::{ClientFiles, MAX_KEY, ServerFiles};

const FILES: &str = "TLS files";

/// The listener's certificate, as it is on disk now.
pub type ServerTls = Reloading<rustls::ServerConfig>;

/// What the upstream is shown and checked with, as it is on disk now.
pub type ClientTls = Reloading<rustls::ClientConfig>;

impl Reloading<rustls::ServerConfig> {
    /// Reads a listener's files.
    ///
    /// # Errors
    /// When they are missing, malformed or do not belong together.
    pub fn server(files: ServerFiles) -> Result<Arc<Self>, TlsError> {
        Self::new(FILES, files.paths(), move || files.read())
    }
}

impl Reloading<rustls::ClientConfig> {
    /// Reads the files for dialling an upstream.
    ///
    /// # Errors
    /// When they are missing, malformed or do not belong together.
    pub fn client(files: ClientFiles) -> Result<Arc<Self>, TlsError> {
        Self::new(FILES, files.paths(), move || files.read())
    }
}

/// Why TLS cannot be set up; every text names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("cannot read {what} {}: {reason}", path.display())]
    Unreadable {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A PEM file without the section that was looked for.
    #[error("{what} {} holds no {wanted} in PEM form", path.display())]
    Empty {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// Certificate and key that rustls does not accept together.
    #[error("certificate {} and key {} cannot be used: {reason}", cert.display(), key.display())]
    Pair {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What went wrong.
        reason: rustls::Error,
    },
    /// Authorities that rustls does not accept.
    #[error("the certificate authorities in {} cannot be used: {reason}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A server name that no certificate can carry.
    #[error("`{0}` is not a server name or an IP address")]
    ServerName(String),
    /// rustls itself cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

#[cfg(test)]
#[path = "tls/tests.rs"]
mod tests;
