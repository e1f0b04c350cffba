//! Settings that contradict each other, and files that are not what they
//! should be.
//!
//! Not for: single values (`values`).
//! Called by: `config`.

use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret as _;

use super::layers::{Layers, Raw};
use super::problem::{Place, Problems};
use super::settings::{Config, Fetch, ReferencesUpstream};
use crate::fetcher::{HeaderFile, Netrc, OriginCredential, UrlRules, read_proxy_credential};
use crate::net::read_secret;
use crate::net::tls::MAX_KEY;
use crate::store::MacKeys;
use crate::upstream::{Credential, Endpoint};

/// Notes everything that does not go together.
pub(super) fn check(config: &Config, layers: &Layers, problems: &mut Problems) {
    let mut check = Check { layers, problems };
    check.data_directory(config);
    check.listener_tls();
    check.upstream_tls(config);
    check.borrowed_identity(config);
    check.credential(config);
    check.credential_in_clear(config);
    check.fetch(config);
    check.origin_files(config);
    check.references(config);
    check.probe(config);
    for key in [
        "listen.tls.cert",
        "listen.tls.client_ca",
        "upstream.ca",
        "upstream.client_cert",
        "fetch.ca",
    ] {
        check.pem(key, "certificate", |path| {
            CertificateDer::pem_file_iter(path)
                .map(|mut found| found.next().is_some_and(|certificate| certificate.is_ok()))
        });
    }
    for key in ["listen.tls.key", "upstream.client_key"] {
        check.private_key(key);
    }
}

/// Which setting has this service show origins something of its own.
fn lent_to_origins(fetch: &Fetch) -> Option<&'static str> {
    let rules = || UrlRules::read(fetch.rules.as_deref()?).ok();
    let in_rules = || rules().is_some_and(|rules| rules.hold_credentials());
    match () {
        () if fetch.netrc.is_some() => Some("fetch.netrc"),
        () if !fetch.credentials.is_empty() => Some("fetch.credentials"),
        () if in_rules() => Some("fetch.rules"),
        () => None,
    }
}

struct Check<'a> {
    layers: &'a Layers,
    problems: &'a mut Problems,
}

impl Check<'_> {
    fn has(&self, key: &str) -> bool {
        self.layers.effective(key).is_some()
    }

    /// `key` is set and means nothing without `other`.
    fn needs(&mut self, key: &str, other: &str, why: &str) {
        if self.has(key) && !self.has(other) {
            let place = self.layers.place(&[key]);
            self.problems
                .add(place, format!("`{key}` needs `{other}`{why}"));
        }
    }

    fn probe(&mut self, config: &Config) {
        if config.probe.enabled || config.probe.require.is_empty() {
            return;
        }
        let place = self.layers.place(&["probe.require"]);
        let text = "`probe.require` means nothing with `probe.enabled = false`";
        self.problems.add(place, text.to_owned());
    }

    fn listener_tls(&mut self) {
        self.needs("listen.tls.cert", "listen.tls.key", "");
        self.needs("listen.tls.key", "listen.tls.cert", "");
        let why = ": only a TLS listener sees client certificates";
        self.needs("listen.tls.client_ca", "listen.tls.cert", why);
    }

    fn upstream_tls(&mut self, config: &Config) {
        self.needs("upstream.client_cert", "upstream.client_key", "");
        self.needs("upstream.client_key", "upstream.client_cert", "");
        const TLS: [&str; 4] = [
            "upstream.ca",
            "upstream.client_cert",
            "upstream.client_key",
            "upstream.server_name",
        ];
        // A URL that could not be read was reported, and might be the TLS one.
        let (stated, read) = (
            self.url_count(),
            config.upstream.as_ref().map_or(0, |u| u.urls.len()),
        );
        let tls = config
            .upstream
            .iter()
            .flat_map(|upstream| &upstream.urls)
            .chain(config.routes.iter().map(|route| &route.url))
            .any(Endpoint::tls);
        for key in TLS.into_iter().chain(["upstream.authority"]) {
            let place = self.layers.place(&[key]);
            if stated == 0 && config.routes.is_empty() && self.has(key) {
                let text =
                    format!("`{key}` needs `upstream.url`: the embedded cache has no use for it");
                self.problems.add(place, text);
            } else if stated == read && !tls && key != "upstream.authority" && self.has(key) {
                self.problems.add(
                    place,
                    format!("`{key}` needs a `grpcs://` URL in `upstream.url` or `route`"),
                );
            }
        }
    }

    /// Only the embedded cache needs one.
    fn data_directory(&mut self, config: &Config) {
        if config.uses_embedded() && self.layers.effective("embedded.dir").is_none() {
            let text = "`embedded.dir`: there is no directory for the embedded cache, as neither \
                        HOME nor XDG_CACHE_HOME is set to an absolute path; \
                        set `--data-dir` to one that only this service writes";
            self.problems.add(Place::Whole, text);
        }
    }

    fn fetch(&mut self, config: &Config) {
        let fetch = &config.fetch;
        // Zero is the placeholder of a time that could not be read.
        if fetch.timeout > fetch.max_timeout && !fetch.max_timeout.is_zero() {
            let place = self.later("fetch.timeout", "fetch.max_timeout");
            let text = "`fetch.timeout` must not be longer than `fetch.max_timeout`";
            self.problems.add(place, text);
        }
        if let Some(dir) = fetch.spool_dir.as_deref().filter(|dir| !dir.is_dir()) {
            let place = self.layers.place(&["fetch.spool_dir"]);
            let text = format!("`fetch.spool_dir`: {} is not a directory", dir.display());
            self.problems.add(place, text);
        }
        self.needs("fetch.proxy_credential", "fetch.proxy", "");
        self.needs("fetch.no_proxy", "fetch.proxy", "");
        let credential = fetch.proxy_credential.as_deref().map(read_proxy_credential);
        if let Some(Err(error)) = credential {
            let place = self.layers.place(&["fetch.proxy_credential"]);
            let text = format!(
                "`fetch.proxy_credential` is the path of a file with the credential: {error}"
            );
            self.problems.add(place, text);
        }
    }

    fn references(&mut self, config: &Config) {
        let embedded = Some(ReferencesUpstream::Embedded);
        if config.upstream.is_none() && config.references.upstream.is_some() {
            let place = self.layers.place(&["references.upstream"]);
            let text = "`references.upstream` needs `upstream.url`: \
                        the embedded cache keeps its references itself";
            if config.references.upstream == embedded || self.url_count() == 0 {
                self.problems.add(place, text);
            }
        }
        if !config.compat.bb_remote_asset && !config.compat.platform.is_empty() {
            let place = self.layers.place(&["compat.bb_remote_asset_platform"]);
            let text = "`compat.bb_remote_asset_platform` needs `compat.bb_remote_asset = true`";
            self.problems.add(place, text);
        }
        self.signing(config);
    }

    fn signing(&mut self, config: &Config) {
        let why = ": what is not signed has no time that could be believed";
        self.needs("references.max_age", "references.mac_key", why);
        let compat = &config.compat;
        if compat.trust_unsigned && !compat.bb_remote_asset {
            let place = self.layers.place(&["compat.trust_unsigned"]);
            let text = "`compat.trust_unsigned` needs `compat.bb_remote_asset = true`";
            self.problems.add(place, text);
        }
        let Some(path) = &config.references.mac_key else {
            return;
        };
        if compat.bb_remote_asset && !compat.trust_unsigned {
            let place = self.later("compat.bb_remote_asset", "references.mac_key");
            let text = "`references.mac_key` says that nobody else may issue references, and \
                        `compat.bb_remote_asset` takes over what anybody may have written to the \
                        Action Cache; set `compat.trust_unsigned = true` if all who may are \
                        trusted, until what is there was taken over";
            self.problems.add(place, text);
        }
        if let Err(error) = MacKeys::open(path.clone()) {
            let place = self.layers.place(&["references.mac_key"]);
            let text = format!("`references.mac_key`: {}: {error}", path.display());
            self.problems.add(place, text);
        }
    }

    /// Of two keys, the place that was written on top: a default is never it.
    fn later(&self, a: &str, b: &str) -> Place {
        self.layers.place(&[a]).max(self.layers.place(&[b]))
    }

    fn url_count(&self) -> usize {
        match self.layers.effective("upstream.url") {
            Some((Raw::List(urls), _)) => urls.len(),
            Some((Raw::One(_), _)) => 1,
            None => 0,
        }
    }

    /// Promise P5: nobody gets more rights than their own credentials have,
    /// unless the operator says so.
    fn borrowed_identity(&mut self, config: &Config) {
        const LENT: [&str; 3] = [
            "upstream.client_cert",
            "upstream.client_key",
            "upstream.credential",
        ];
        let lent = LENT.into_iter().find(|key| self.has(key));
        let Some(lent) = lent.or_else(|| lent_to_origins(&config.fetch)) else {
            return;
        };
        let lent = lent.replace("client_key", "client_cert");
        let demands_mtls = self.has("listen.tls.client_ca");
        let open = !config.listen.address.is_local() && !demands_mtls;
        if open && !config.allow_anonymous {
            let place = self.layers.place(&["listen.address"]);
            self.problems.add(
                place,
                format!(
                    "`listen.address` {} can be reached from other machines, and \
                     `{lent}` would lend this service's rights to all who call. \
                     Demand client certificates with `listen.tls.client_ca`, listen on loopback, \
                     or accept it with `allow_anonymous = true`",
                    config.listen.address
                ),
            );
        }
    }

    /// Rules and credentials for origins. The path of a credential is not
    /// quoted: some will write the credential itself.
    fn origin_files(&mut self, config: &Config) {
        let fetch = &config.fetch;
        if fetch.rules_report_only && !self.has("fetch.rules") {
            let place = self.layers.place(&["fetch.rules_report_only"]);
            let text = "`fetch.rules_report_only` needs `fetch.rules`";
            self.problems.add(place, text);
        }
        if let Some(path) = &fetch.rules
            && let Err(error) = UrlRules::read(path)
        {
            let place = self.layers.place(&["fetch.rules"]);
            let text = format!("`fetch.rules`: {}: {error}", path.display());
            self.problems.add(place, text);
        }
        if let Some(Err(error)) = fetch.netrc.as_deref().map(Netrc::read) {
            let place = self.layers.place(&["fetch.netrc"]);
            let text = format!("`fetch.netrc` is the path of a netrc file: {error}");
            self.problems.add(place, text);
        }
        for (index, OriginCredential { host, file }) in fetch.credentials.iter().enumerate() {
            let place = self.layers.place(&["fetch.credentials"]);
            if fetch.credentials[..index].iter().any(|c| c.host == *host) {
                let text = format!("`fetch.credentials` names {host} twice; one file per host");
                self.problems.add(place.clone(), text);
            }
            if let Err(error) = HeaderFile::read(file) {
                let text = format!("`fetch.credentials`: the file for {host}: {error}");
                self.problems.add(place, text);
            }
        }
    }

    /// The service's credential: a usable file, a cache to show it to, and
    /// somebody who decided who may push with it (conformance C6).
    fn credential(&mut self, config: &Config) {
        const KEY: &str = "upstream.credential";
        let Some((Raw::One(path), place)) = self.one(KEY) else {
            return;
        };
        if self.url_count() == 0 {
            let text =
                format!("`{KEY}` needs `upstream.url`: the embedded cache has no use for it");
            self.problems.add(place.clone(), text);
        }
        // The value is not quoted: some will write the credential itself.
        if super::values::path(&path).is_ok()
            && let Err(error) = Credential::read(Path::new(&path))
        {
            let text = format!("`{KEY}` is the path of a file with the credential: {error}");
            self.problems.add(place.clone(), text);
        }
        let decided = self.layers.place(&["push.instances"]) != Place::Default;
        if config.push.enabled && !decided {
            let text = format!(
                "`{KEY}` lets all who may call push with this service's rights: say where they \
                 may with `push.instances`, as in `push.instances = [\"main\", \"team/*\"]` \
                 (`[\"\"]` is the empty instance, `[\"*\"]` every one), or switch pushing off \
                 with `push.enabled = false`"
            );
            self.problems.add(place, text);
        }
    }

    /// Promise P4: what stands for this service is shown to the cache alone.
    fn credential_in_clear(&mut self, config: &Config) {
        const KEY: &str = "upstream.credential_in_clear";
        if !self.has("upstream.credential") {
            if matches!(self.one(KEY), Some((Raw::One(text), _)) if text == "true") {
                let text = format!("`{KEY}` needs `upstream.credential`");
                self.problems.add(self.layers.place(&[KEY]), text);
            }
            return;
        }
        let allowed = config.upstream.as_ref();
        let allowed = allowed.is_some_and(|upstream| upstream.credential_in_clear);
        let urls = config.upstream.iter().flat_map(|upstream| &upstream.urls);
        let references = match &config.references.upstream {
            Some(ReferencesUpstream::Url(url)) => Some(url),
            _ => None,
        };
        let exposed = urls
            .chain(references)
            .find(|url| url.is_plain_beyond_loopback());
        if let Some(url) = exposed.filter(|_| !allowed) {
            let text = format!(
                "`upstream.credential` would go to {url} without TLS, where anyone on the way can \
                 read it: write `grpcs://`, or accept it with `{KEY} = true`"
            );
            let place = self.layers.place(&["upstream.credential"]);
            self.problems.add(place, text);
        }
    }

    fn pem<E: std::fmt::Display>(
        &mut self,
        key: &str,
        what: &str,
        holds: impl Fn(&Path) -> Result<bool, E>,
    ) {
        let Some((Raw::One(path), place)) = self.one(key) else {
            return;
        };
        let text = match std::fs::File::open(&path) {
            // What is not a path was reported, and may be a secret.
            Err(_) if super::values::path(&path).is_err() => return,
            Err(error) => format!("`{key}`: {path} cannot be read: {error}"),
            Ok(_) => match holds(Path::new(&path)) {
                Ok(true) => return,
                Ok(false) | Err(_) => format!("`{key}`: {path} holds no {what} in PEM form"),
            },
        };
        self.problems.add(place, text);
    }

    /// As `pem`, of a file that is a secret.
    fn private_key(&mut self, key: &str) {
        let Some((Raw::One(path), place)) = self.one(key) else {
            return;
        };
        // What is not a path was reported, and may be a secret.
        if super::values::path(&path).is_err() {
            return;
        }
        let text = match read_secret(Path::new(&path), MAX_KEY) {
            Err(error) => format!("`{key}`: {path}: {error}"),
            Ok(pem) => match PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()) {
                Ok(_) => return,
                Err(_) => format!("`{key}`: {path} holds no private key in PEM form"),
            },
        };
        self.problems.add(place, text);
    }

    fn one(&self, key: &str) -> Option<(Raw, Place)> {
        let (raw, place) = self.layers.effective(key)?;
        let raw = match raw {
            Raw::List(texts) => Raw::One(texts.first()?.clone()),
            Raw::One(_) => raw.clone(),
        };
        Some((raw, place.clone()))
    }
}
