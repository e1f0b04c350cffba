//! PEM files to rustls configurations.
//!
//! Not for: noticing that the files changed (`net::reload`).
//! Called by: `net::reload`, `config` through [`crate::net::Reloading`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use secrecy::ExposeSecret as _;

use super::super::read_secret;
use super::TlsError;

/// Bytes of a file with a private key; more than any has.
pub const MAX_KEY: u64 = 1 << 20;

/// The files of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of client certificates; demanding one makes it mTLS.
    pub client_ca: Option<PathBuf>,
}

/// The files for dialling an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Authorities of the upstream's certificate; the system's by default.
    pub ca: Option<PathBuf>,
    /// Certificate chain and private key to show when asked.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ServerFiles {
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.cert.clone(), self.key.clone()];
        paths.extend(self.client_ca.clone());
        paths
    }

    pub(super) fn read(&self) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .build()
                    .map_err(|reason| TlsError::Authorities {
                        path: path.clone(),
                        reason: reason.to_string(),
                    })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(chain(&self.cert)?, key(&self.key)?)
            .map_err(|reason| pair(&self.cert, &self.key, reason))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

impl ClientFiles {
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = self.ca.clone().into_iter().collect();
        if let Some((cert, key)) = &self.identity {
            paths.extend([cert.clone(), key.clone()]);
        }
        paths
    }

    pub(super) fn read(&self) -> Result<ClientConfig, TlsError> {
        let roots = match &self.ca {
            Some(path) => authorities(path)?,
            None => system_roots(),
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert_path, key_path)) => builder
                .with_client_auth_cert(chain(cert_path)?, key(key_path)?)
                .map_err(|reason| pair(cert_path, key_path, reason))?,
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// Named explicitly everywhere: a process default would have to be installed
/// before anything else runs, and whoever forgets gets a panic.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn pair(cert: &Path, key: &Path, reason: rustls::Error) -> TlsError {
    TlsError::Pair {
        cert: cert.to_owned(),
        key: key.to_owned(),
        reason,
    }
}

fn unreadable(what: &'static str, path: &Path, reason: impl ToString) -> TlsError {
    TlsError::Unreadable {
        what,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|reason| unreadable(what, path, reason))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty {
            what,
            path: path.to_owned(),
            wanted: "certificate",
        });
    }
    Ok(certificates)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates("certificate file", path)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let what = "key file";
    let text = read_secret(path, MAX_KEY).map_err(|reason| unreadable(what, path, reason))?;
    let pem = text.expose_secret().as_bytes();
    PrivateKeyDer::from_pem_slice(pem).map_err(|reason| match reason {
        pem::Error::NoItemsFound => TlsError::Empty {
            what,
            path: path.to_owned(),
            wanted: "private key",
        },
        reason => unreadable(what, path, reason),
    })
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("certificate authority file", path)? {
        roots
            .add(certificate)
            .map_err(|reason| TlsError::Authorities {
                path: path.to_owned(),
                reason: reason.to_string(),
            })?;
    }
    Ok(roots)
}

/// The system's authorities, so that a company's own are trusted; Mozilla's
/// when there are none, as in a minimal container.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some system certificate authorities cannot be read");
    }
    // Those that cannot be parsed are skipped: one odd certificate in a system
    // store is no reason not to start.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}
