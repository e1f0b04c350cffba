//! The proxy origins are reached through, and which are reached without it.
//!
//! Its address is the operator's choice and not judged by the address policy.
//! It resolves the names of origins, so of these only IP literals can be.
//! Environment variables are not read: whoever sets them would decide which
//! addresses are dialled.
//! Not for: speaking with it (`connector`, `tunnel`).
//! Called by: `connector`, `exchange`; `config` reads the values.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use ipnet::IpNet;
use secrecy::ExposeSecret as _;
use tokio_rustls::TlsConnector;
use url::Url;

use super::host;
use crate::net::{Reloading, read_secret};

/// Longest credential file.
const MAX_CREDENTIAL: u64 = 4 << 10;

/// Where the proxy is: `http://HOST:PORT`, or `https://` to speak TLS with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAddress {
    pub(super) tls: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl FromStr for ProxyAddress {
    type Err = String;

    /// No error quotes the text: a URL may hold a password.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "is not a proxy's URL; write it as in `http://proxy.example:3128`".to_owned();
        let url = Url::parse(text).map_err(|_| form())?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(form()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            let text = "must not hold user and password: these belong into the file of \
                        `fetch.proxy_credential`";
            return Err(text.to_owned());
        }
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let host = url.host_str().filter(|_| bare).ok_or_else(form)?;
        let port = url.port_or_known_default().ok_or_else(form)?;
        Ok(Self {
            tls,
            host: host.trim_matches(&['[', ']'][..]).to_owned(),
            port,
        })
    }
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let (host, port) = (&self.host, self.port);
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

/// Origins that are reached without the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoProxy {
    /// `*`: all.
    All,
    /// Addresses in URLs; names are not looked up for this.
    Network(IpNet),
    /// `NAME`: this host and all below it.
    Host(String),
    /// `.NAME`: all below it.
    Below(String),
}

impl NoProxy {
    fn takes(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::Network(network) => address.is_some_and(|a| network.contains(&a)),
            Self::Host(name) => host == name || below(host, name),
            Self::Below(name) => below(host, name),
        }
    }
}

fn below(host: &str, name: &str) -> bool {
    let rest = host.strip_suffix(name).and_then(|r| r.strip_suffix('.'));
    rest.is_some_and(|rest| !rest.is_empty())
}

impl FromStr for NoProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        let network = text.parse::<IpNet>();
        let address = || text.trim_matches(&['[', ']'][..]).parse::<IpAddr>();
        if let Ok(network) = network.or_else(|_| address().map(IpNet::from)) {
            return Ok(Self::Network(network.trunc()));
        }
        let (name, is_below) = match text.strip_prefix('.') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let fits = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        let plain = name.chars().all(fits) && !name.starts_with('.');
        let Some(name) = host::normal(name).filter(|_| plain) else {
            return Err(format!(
                "`{text}` is not a host; write `host.example`, `.example`, `10.0.0.0/8` or `*`, without ports"
            ));
        };
        // Another way to write an IPv4 address.
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        Ok(if is_below {
            Self::Below(name)
        } else {
            Self::Host(name)
        })
    }
}

/// Reads `user:password` from a file, as the value of `Proxy-Authorization`.
/// No error holds anything of it, nor the path: some will write the credential
/// itself in its place.
pub fn read_proxy_credential(path: &Path) -> Result<HeaderValue, String> {
    let form = || "the file does not hold one line `user:password`".to_owned();
    let text = read_secret(path, MAX_CREDENTIAL).map_err(|error| error.to_string())?;
    let pair = text.expose_secret().trim_end_matches(['\r', '\n']);
    let user = pair.split_once(':').map_or("", |(user, _)| user);
    if user.is_empty() || pair.chars().any(char::is_control) {
        return Err(form());
    }
    let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
    let mut value = value.map_err(|_| form())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The proxy in use.
pub(super) struct Proxy {
    pub(super) address: ProxyAddress,
    pub(super) credential: Option<Arc<Reloading<HeaderValue>>>,
    pub(super) direct: Vec<NoProxy>,
    /// For a proxy that speaks TLS; HTTP/1.1 only.
    pub(super) tls: TlsConnector,
}

impl Proxy {
    /// Whether this host, as it stands in a URL, is reached through the proxy.
    pub(super) fn takes(&self, host: &str) -> bool {
        let host = host.trim_matches(&['[', ']'][..]).to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let address = host.parse::<IpAddr>().ok().map(|a| a.to_canonical());
        !self.direct.iter().any(|rule| rule.takes(host, address))
    }

    /// What it is shown now.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        let credential = self.credential.as_ref()?.current();
        Some(HeaderValue::clone(&credential))
    }

    /// Reads the credential again if its file changed.
    pub(super) fn reload_if_changed(&self) {
        if let Some(credential) = &self.credential {
            credential.reload_if_changed();
        }
    }

    /// What is said when it answers 407.
    pub(super) fn refused_us(&self) -> String {
        match self.credential {
            Some(_) => "the proxy does not accept the credential (407 Proxy Authentication \
                 Required): the operator has to look at fetch.proxy_credential"
                .to_owned(),
            None => "the proxy demands a credential (407 Proxy Authentication Required): \
                 the operator has to set fetch.proxy_credential"
                .to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_and_their_passwords_not_repeated() {
        for (text, told) in [
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            ("http://proxy.example", "http://proxy.example:80"),
            ("https://proxy.example/", "https://proxy.example:443"),
            ("http://[::1]:3128", "http://[::1]:3128"),
        ] {
            assert_eq!(text.parse::<ProxyAddress>().unwrap().to_string(), told);
        }
        for text in [
            "proxy.example:3128",
            "socks5://proxy.example:1080",
            "http://user:S3CRET@proxy.example",
            "http://proxy.example/S3CRET",
            "http://proxy.example/?S3CRET",
            "",
        ] {
            let error = text.parse::<ProxyAddress>().unwrap_err();
            assert!(!error.contains("S3CRET"), "{error}");
        }
    }

    #[test]
    fn hosts_without_the_proxy() {
        let rules = [
            "Direct.Example",
            ".below.example",
            "10.0.0.0/8",
            "::1",
            "192.0.2.7",
        ];
        let proxy = Proxy {
            address: "http://proxy.example".parse().unwrap(),
            credential: None,
            direct: rules.map(|rule| rule.parse().unwrap()).into(),
            tls: crate::fetcher::tls::connector(None, false).unwrap(),
        };
        for direct in [
            "direct.example",
            "DIRECT.example.",
            "a.direct.example",
            "a.b.below.example",
            "10.1.2.3",
            "[::ffff:10.1.2.3]",
            "[::1]",
            "192.0.2.7",
        ] {
            assert!(!proxy.takes(direct), "{direct}");
        }
        for proxied in [
            "example",
            "indirect.example",
            "below.example",
            ".below.example",
            "11.0.0.1",
            "[::2]",
            "10.0.0.1.example",
        ] {
            assert!(proxy.takes(proxied), "{proxied}");
        }
        assert_eq!("*".parse(), Ok(NoProxy::All));
        for bad in [
            "",
            ".",
            "..a",
            "host:80",
            "http://h",
            "a b",
            "*.example",
            "10.0.0.0/99",
        ] {
            assert!(bad.parse::<NoProxy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_credential_is_one_line_of_user_and_password() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            read_proxy_credential(file.path())
        };
        let value = read("user:pa:ss\n").unwrap();
        assert_eq!(value, "Basic dXNlcjpwYTpzcw==");
        assert!(value.is_sensitive());
        for bad in [
            "",
            "S3CRET",
            ":S3CRET",
            "S3CRET:x\nS3CRET:y",
            &"S3CRET:".repeat(999),
        ] {
            let error = read(bad).unwrap_err();
            assert!(!error.contains("S3CRET"), "{error}");
        }
        let error = read_proxy_credential(Path::new("user:S3CRET")).unwrap_err();
        assert!(!error.contains("S3CRET"), "{error}");
    }
}
