//! `HOST=FILE` of `fetch.credentials`: for which origins a file is meant.
//!
//! Called by: `credentials`, `config`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use crate::fetcher::host;

const FORM: &str = "is HOST=FILE or HOST:PORT=FILE, where HOST is the name or address of an \
                    origin, or `*.` and what its name ends in, as in `*.example.org=/etc/token`; \
                    with `http://` before it for one that is asked without TLS, too";

/// The ports of origins that none is named for.
const USUAL: [u16; 2] = [80, 443];

/// The origins a credential is meant for: over https to the usual ports,
/// unless it says otherwise. Clients choose URLs, and over another scheme or at
/// another port somebody else may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// It may go over plain http, too.
    plain: bool,
    host: String,
    /// The hosts below, and not this one.
    below: bool,
    port: Option<u16>,
}

/// A file of headers and whom it is meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginCredential {
    /// The origins.
    pub host: HostPattern,
    /// The file.
    pub file: PathBuf,
}

impl HostPattern {
    /// Whether a request to this URL is shown the credential.
    pub(super) fn is_for(&self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        let at_port = match self.port {
            Some(own) => port == Some(own),
            None => port.is_some_and(|port| USUAL.contains(&port)),
        };
        at_port && (self.plain || url.scheme() == "https") && self.names(host::of(url))
    }

    /// Whether a host, as in [`host::of`], is meant, at whatever port.
    pub(super) fn names(&self, host: &str) -> bool {
        match self.below {
            false => host == self.host,
            true => host::with_parents(host).skip(1).any(|h| h == self.host),
        }
    }

    /// The host that is meant, if it is one.
    pub(super) fn host(&self) -> Option<&str> {
        (!self.below).then_some(&self.host)
    }

    /// The larger the more specific.
    pub(super) fn rank(&self) -> (bool, usize, bool, bool) {
        (
            !self.below,
            self.host.len(),
            self.port.is_some(),
            !self.plain,
        )
    }
}

impl FromStr for HostPattern {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (plain, text) = match text.strip_prefix("http://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("https://").unwrap_or(text)),
        };
        let (below, text) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (name, port) = match text.rsplit_once(':') {
            // Within the brackets of an IPv6 address.
            Some((_, after)) if after.ends_with(']') => (text, None),
            Some((name, port)) => (name, Some(port.parse().map_err(drop)?)),
            None => (text, None),
        };
        let is_address = name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
        let host = host::normal(name).filter(|_| !(name.contains('*') || below && is_address));
        Ok(Self {
            plain,
            host: host.ok_or(())?,
            below,
            port,
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = if self.plain { "http://" } else { "" };
        let below = if self.below { "*." } else { "" };
        write!(f, "{plain}{below}{}", self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl FromStr for OriginCredential {
    type Err = String;

    /// What is no path is not quoted: it may be the secret.
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, file) = text.split_once('=').ok_or(FORM)?;
        let host = host.parse().map_err(|()| FORM)?;
        if file.is_empty() || file.contains(['\n', '\0']) {
            return Err(FORM.to_owned());
        }
        let file = PathBuf::from(file);
        Ok(Self { host, file })
    }
}
