//! What is allowed and still worth saying: settings that open something to
//! more than the operator may have in mind.
//!
//! Not for: what is wrong (`checks`).
//! Called by: `cli`, for `serve` and `config check`.

use std::path::PathBuf;

use super::settings::Config;
use crate::net::exposed_mode;

/// One sentence for each secret file that other users may read, beginning with
/// its key. `serve` says so when it reads them.
#[must_use]
pub fn exposed_files(config: &Config) -> Vec<String> {
    let Config {
        listen,
        upstream,
        fetch,
        references,
        ..
    } = config;
    let one = |key, path: Option<&PathBuf>| path.map(|path| (key, path.clone()));
    let tls = listen.tls.as_ref();
    let upstream = upstream.as_ref();
    let identity = upstream.and_then(|cache| cache.client_identity.as_ref());
    let credential = upstream.and_then(|cache| cache.credential.as_ref());
    let files = [
        one("listen.tls.key", tls.map(|tls| &tls.key)),
        one("upstream.client_key", identity.map(|(_, key)| key)),
        one("upstream.credential", credential),
        one("fetch.proxy_credential", fetch.proxy_credential.as_ref()),
        one("fetch.netrc", fetch.netrc.as_ref()),
        one("references.mac_key", references.mac_key.as_ref()),
    ];
    let origins = fetch.credentials.iter();
    let origins = origins.map(|origin| ("fetch.credentials", origin.file.clone()));
    let files = files.into_iter().flatten().chain(origins);
    let told = files.filter_map(|(key, path)| {
        let mode = exposed_mode(&path)?;
        Some(format!(
            "`{key}`: {} may be read by other users (mode {mode}); chmod 600 keeps it to this one",
            path.display()
        ))
    });
    told.collect()
}

/// One sentence for each thing that is open, beginning with its key.
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let address = &config.listen.address;
    let tls = config.listen.tls.as_ref();
    let demands_certificates = tls.is_some_and(|tls| tls.client_ca.is_some());
    let mut found = Vec::new();
    if !address.is_local() && !demands_certificates {
        let (lacks, set) = match tls {
            None => (
                "without TLS or client certificates",
                "`listen.tls.cert` and `listen.tls.client_ca`",
            ),
            Some(_) => ("without client certificates", "`listen.tls.client_ca`"),
        };
        found.push(format!(
            "`listen.address` {address} can be reached from other machines {lacks}: whoever \
             reaches it uses the cache and has things downloaded; set {set}, listen on loopback, \
             or let only a front with authentication reach it"
        ));
        if config.push.enabled && !config.push.instances.is_empty() {
            found.push(format!(
                "`push.enabled` lets all who reach `listen.address` {address} say what others get \
                 under a URI, as far as the cache takes their entries; set `push.enabled = false`, \
                 narrow it with `push.instances` and `push.allow_uris`, or demand client \
                 certificates with `listen.tls.client_ca`"
            ));
        }
    }
    if let Some(admin) = config.admin.as_ref().filter(|admin| !admin.is_local()) {
        found.push(format!(
            "`admin.address` {admin} can be reached from other machines, and its pages tell what \
             is downloaded and how the cache is set up; listen on loopback, or let only what \
             scrapes it reach it"
        ));
    }
    found
}
