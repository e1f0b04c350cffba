//! Refuses requests that a browser was tricked into sending: with DNS
//! rebinding, a web page's own name leads to our port, on loopback or in a
//! network the browser is in, and only the `Host` header tells.
//!
//! No name leads to an address by itself, so one in place of a name is what
//! whoever asked meant; so is no `Host` at all, as HTTP/1.0 may have it and no
//! browser does.
//! Not for: authentication.
//! Called by: `pages`; `config` reads the names.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::uri::Authority;
use http::{HeaderValue, Request, Version, header};

/// Where the name of this machine stands.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// A name the admin port may be asked under, of `admin.hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    /// `*`: every one.
    Any,
    /// This one, in lower case.
    Name(String),
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_address = text.parse::<IpAddr>().is_ok();
        if text.is_empty() || !(is_address || text.chars().all(fits)) {
            return Err(format!(
                "`{text}` is no name of a host; write it without scheme and port, as in \
                 `assetgate.example`, or `*` for any"
            ));
        }
        Ok(Self::Name(normal(text)))
    }
}

/// The names under which the admin port may be asked.
#[derive(Debug, Clone)]
pub struct AllowedHosts {
    bound: SocketAddr,
    any: bool,
    names: Vec<String>,
}

impl AllowedHosts {
    /// The names of a listener bound here: `localhost`, this machine's, and
    /// these.
    #[must_use]
    pub fn of(bound: SocketAddr, names: &[HostName]) -> Self {
        let named = names.iter().filter_map(|name| match name {
            HostName::Any => None,
            HostName::Name(name) => Some(name.clone()),
        });
        let own = std::fs::read_to_string(HOSTNAME).ok();
        let own = own.map(|name| normal(name.trim()));
        let all = std::iter::once("localhost".to_owned()).chain(own);
        Self {
            bound,
            any: names.contains(&HostName::Any),
            names: all.chain(named).filter(|name| !name.is_empty()).collect(),
        }
    }

    /// Whether a request with this `Host` header may be answered.
    pub(super) fn allows(&self, header: Option<&[u8]>) -> bool {
        let local = self.bound.ip().to_canonical().is_loopback();
        if self.any {
            return true;
        }
        let Some(header) = header else {
            return !local;
        };
        let Ok(host) = std::str::from_utf8(header) else {
            return false;
        };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name
            .strip_prefix('[')
            .and_then(|n| n.strip_suffix(']'))
            .unwrap_or(name);
        let address = bare.parse::<IpAddr>();
        let own = |address: &IpAddr| address.is_loopback() || *address == self.bound.ip();
        address.is_ok_and(|address| !local || own(&address)) || self.names.contains(&normal(bare))
    }
}

/// A request that names two hosts, or none where it has to: which of them were
/// checked would be chance (RFC 9112, section 3.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ambiguous;

/// The host that a request names in its `Host` header, and nowhere another.
pub(super) fn named<B>(request: &Request<B>) -> Result<Option<&[u8]>, Ambiguous> {
    let mut all = request.headers().get_all(header::HOST).iter();
    let host = all.next().map(HeaderValue::as_bytes);
    let needed = request.version() >= Version::HTTP_11;
    if all.next().is_some() || (needed && host.is_none()) {
        return Err(Ambiguous);
    }
    match request.uri().authority().map(Authority::as_str) {
        // Of a whole URL as the target.
        Some(target) if host.is_some_and(|h| !h.eq_ignore_ascii_case(target.as_bytes())) => {
            Err(Ambiguous)
        }
        Some(target) => Ok(Some(target.as_bytes())),
        None => Ok(host),
    }
}

/// In lower case, without a dot at the end.
fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers_to_loopback_names_only() {
        let hosts = AllowedHosts::of("127.0.0.1:9980".parse().unwrap(), &[]);
        for good in [
            "localhost",
            "LOCALHOST:9980",
            "127.0.0.1:9980",
            "[::1]:9980",
            "[::1]",
        ] {
            assert!(hosts.allows(Some(good.as_bytes())), "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:9980",
            "localhost.evil.example",
            "10.0.0.1",
            "",
        ] {
            assert!(!hosts.allows(Some(bad.as_bytes())), "{bad}");
        }
        assert!(!hosts.allows(None));
        assert!(!hosts.allows(Some(b"\xff")));
    }

    #[test]
    fn beyond_loopback_addresses_and_names_that_were_given() {
        let bound = "0.0.0.0:9980".parse().unwrap();
        let names = ["Assetgate.build.svc".parse().unwrap()];
        let hosts = AllowedHosts::of(bound, &names);
        for good in [
            "assetgate.build.svc:80",
            "10.0.0.1",
            "[fd00::1]:1",
            "LOCALHOST.",
        ] {
            assert!(hosts.allows(Some(good.as_bytes())), "{good}");
        }
        for bad in ["evil.example", "", "10.0.0.1.evil.example", "build.svc"] {
            assert!(!hosts.allows(Some(bad.as_bytes())), "{bad}");
        }
        assert!(hosts.allows(None) && !hosts.allows(Some(b"\xff")));
        let any = AllowedHosts::of(bound, &[HostName::Any]);
        assert!(any.allows(Some(b"any.example")) && any.allows(Some(b"\xff")));
    }

    #[test]
    fn a_request_names_one_host() {
        let of = |target: &str, hosts: &[&str], version| {
            let mut request = Request::get(target).version(version);
            for host in hosts {
                request = request.header("host", *host);
            }
            let request = request.body(()).unwrap();
            named(&request).map(|host| host.map(<[u8]>::to_vec))
        };
        let v1_1 = Version::HTTP_11;
        assert_eq!(of("/", &["h"], v1_1), Ok(Some(b"h".to_vec())));
        assert_eq!(of("http://h:1/", &["H:1"], v1_1), Ok(Some(b"h:1".to_vec())));
        assert_eq!(
            of("http://h/", &[], Version::HTTP_10),
            Ok(Some(b"h".to_vec()))
        );
        assert_eq!(of("/", &[], Version::HTTP_10), Ok(None));
        for (target, hosts) in [
            ("/", &[][..]),
            ("http://h/", &[]),
            ("/", &["h", "h"]),
            ("http://h/", &["i"]),
            ("http://h/", &["h:80"]),
        ] {
            assert_eq!(
                of(target, hosts, v1_1),
                Err(Ambiguous),
                "{target} {hosts:?}"
            );
        }
    }

    #[test]
    fn names_have_neither_scheme_nor_port() {
        for bad in ["", "h:1", "http://h", "a b", "[::1]", "*.h"] {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
        assert_eq!("H.".parse(), Ok(HostName::Name("h".to_owned())));
        assert_eq!("::1".parse(), Ok(HostName::Name("::1".to_owned())));
    }
}
