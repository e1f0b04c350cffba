//! What is allowed and still worth saying: settings that open something to
//! more than the operator may have in mind.
//!
//! Not for: what is wrong (`checks`).
//! Called by: `cli`, for `serve` and `config check`.

use super::settings::Config;

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
