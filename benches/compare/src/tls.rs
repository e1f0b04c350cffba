//! TLS 1.3 with one cipher suite, so that whatever stands between the stub and
//! the load client does the same cryptography on both sides.
//!
//! Not for: checking that a proxy verifies certificates.
//! Called by: `stub` and `load`.

use std::sync::Arc;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::{
    ClientConfig, CommonState, RootCertStore, ServerConfig, version::TLS13,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The only cipher suite either end offers or takes.
pub const CIPHER: &str = "TLS_AES_128_GCM_SHA256";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    })
}

/// The stub's side, from PEM files.
///
/// # Panics
///
/// When a file cannot be used.
#[must_use]
pub fn acceptor(cert: &str, key: &str) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .unwrap_or_else(|e| panic!("certificate {cert}: {e}"));
    let private = PrivateKeyDer::from_pem_file(key).unwrap_or_else(|e| panic!("key {key}: {e}"));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, private))
        .unwrap_or_else(|e| panic!("TLS with {cert} and {key}: {e}"));
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// The load client's side: trusts the authorities in a PEM file.
///
/// # Panics
///
/// When the file cannot be used.
#[must_use]
pub fn connector(ca: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let certs = CertificateDer::pem_file_iter(ca)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .unwrap_or_else(|e| panic!("authorities {ca}: {e}"));
    roots.add_parsable_certificates(certs);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap_or_else(|e| panic!("TLS with {ca}: {e}"))
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// What a handshake settled on, as `VERSION/CIPHER/ALPN`.
#[must_use]
pub fn negotiated(state: &CommonState) -> String {
    format!(
        "{}/{}/{}",
        state
            .protocol_version()
            .map_or("?".into(), |v| format!("{v:?}")),
        state
            .negotiated_cipher_suite()
            .map_or("?".into(), |s| format!("{:?}", s.suite())),
        state
            .alpn_protocol()
            .map_or("none".into(), String::from_utf8_lossy)
    )
}
