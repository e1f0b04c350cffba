//! The TLS client configuration for origins, and for the proxy before them.
//!
//! Not for: listeners and upstreams, which have their own certificates.
//! Called by: `HttpFetcher::new`.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::TlsConnector;

/// The same as a connector.
pub(super) fn connector(ca: Option<&Path>, http2: bool) -> Result<TlsConnector, String> {
    client_config(ca, http2).map(|config| TlsConnector::from(Arc::new(config)))
}

/// System roots (Mozilla's where the system has none), and those of `ca`.
///
/// HTTP/1.1 is offered first: a download of its own connection shares no
/// flow-control window with others. Origins that insist may choose HTTP/2.
fn client_config(ca: Option<&Path>, http2: bool) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = ca {
        add_file(&mut roots, path)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if http2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    Ok(config)
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let shown = path.display();
    let mut count = 0;
    let certificates = CertificateDer::pem_file_iter(path).map_err(|e| format!("{shown}: {e}"))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| format!("{shown}: {e}"))?;
        let added = roots.add(certificate);
        added.map_err(|e| format!("{shown}: {e}"))?;
        count += 1;
    }
    if count == 0 {
        return Err(format!("{shown} holds no PEM certificate"));
    }
    Ok(())
}
