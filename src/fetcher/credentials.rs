//! Credentials of this service for origins, by host: `fetch.netrc` and
//! `fetch.credentials`. Looked up anew for every hop of a redirect chain.
//!
//! Not for: what clients send along (`asset::OriginHeaders`); who may borrow
//! these (`config::checks`).
//! Called by: `client`, `config` (validation).

mod header_file;
mod host_pattern;
mod netrc;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderMap, header};
use parking_lot::Mutex;
use url::Url;

pub use header_file::HeaderFile;
pub use host_pattern::{HostPattern, OriginCredential};
pub use netrc::Netrc;

use super::{SettingsError, host};
use crate::net::Reloading;

/// Most hosts of one [`Noted`]: clients name them.
const MAX_NOTED: usize = 100;

/// What this service shows to origins.
#[derive(Default)]
pub(super) struct Credentials {
    /// The most specific first.
    files: Vec<(HostPattern, Arc<Reloading<HeaderFile>>)>,
    netrc: Option<Arc<Reloading<Netrc>>>,
    /// Hosts it was logged for that a credential goes there in the clear.
    plain: Noted,
    /// Hosts it was logged for that none goes there.
    withheld: Noted,
}

/// Hosts that something was logged for.
#[derive(Default)]
struct Noted(Mutex<BTreeSet<String>>);

impl Noted {
    fn is_new(&self, host: &str) -> bool {
        let mut noted = self.0.lock();
        noted.len() < MAX_NOTED && noted.insert(host.to_owned())
    }
}

impl Credentials {
    pub(super) fn new(
        netrc: Option<PathBuf>,
        files: &[OriginCredential],
    ) -> Result<Self, Vec<SettingsError>> {
        let mut errors = Vec::new();
        let mut note = |key, problem| errors.push(SettingsError { key, problem });
        let opened = netrc
            .map(|path| Reloading::new("netrc", vec![path.clone()], move || Netrc::read(&path)));
        let netrc = opened.and_then(|opened| {
            opened
                .map_err(|error| note("netrc", error.to_string()))
                .ok()
        });
        let mut opened = Vec::new();
        for OriginCredential { host, file } in files {
            let path = file.clone();
            let read = move || HeaderFile::read(&path);
            match Reloading::new("credentials for an origin", vec![file.clone()], read) {
                Ok(file) => opened.push((host.clone(), file)),
                Err(error) => note("credentials", format!("the file for {host}: {error}")),
            }
        }
        opened.sort_by_key(|(host, _)| Reverse(host.rank()));
        let made = Self {
            files: opened,
            netrc,
            plain: Noted::default(),
            withheld: Noted::default(),
        };
        errors.is_empty().then_some(made).ok_or(errors)
    }

    /// Reads again what changed.
    pub(super) fn reload_if_changed(&self) {
        if let Some(netrc) = &self.netrc {
            netrc.reload_if_changed();
        }
        for (_, file) in &self.files {
            file.reload_if_changed();
        }
    }

    /// What goes to this URL: the headers of the most specific file for it, and
    /// of `netrc` if that has no `Authorization`.
    pub(super) fn for_url(&self, url: &Url) -> HeaderMap {
        let host = host::of(url);
        let file = self.files.iter().find(|(pattern, _)| pattern.is_for(url));
        let mut headers = file.map_or_else(HeaderMap::new, |(_, file)| file.current().headers());
        let netrc = self.netrc.as_ref().map(|netrc| netrc.current());
        if let Some(netrc) = &netrc
            && !headers.contains_key(header::AUTHORIZATION)
            && let Some(basic) = netrc.authorization(url)
        {
            headers.insert(header::AUTHORIZATION, basic);
        }
        if headers.is_empty() {
            let in_file = self.files.iter().any(|(pattern, _)| pattern.names(host));
            if in_file || netrc.is_some_and(|netrc| netrc.names(host)) {
                self.note_withheld(url);
            }
        } else if url.scheme() == "http" {
            self.note_plain(host);
        }
        headers
    }

    fn note_plain(&self, host: &str) {
        if self.plain.is_new(host) {
            tracing::warn!(
                origin.host = host,
                "credentials of this server go over plain http, which anyone on the way can read"
            );
        }
    }

    fn note_withheld(&self, url: &Url) {
        let host = host::of(url);
        if self.withheld.is_new(host) {
            tracing::warn!(
                origin.host = host,
                origin.scheme = url.scheme(),
                origin.port = url.port_or_known_default(),
                "credentials of this server for this host are not shown to it: they go over https \
                 and to ports 80 and 443, unless their entry names this scheme and port, as \
                 http://HOST:PORT or HOST:PORT do"
            );
        }
    }
}
