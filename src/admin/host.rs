//! Refuses requests that a browser was tricked into sending: with DNS
//! rebinding, a web page's own name leads to our loopback port, and only the
//! `Host` header tells.
//!
//! Not for: authentication. A port bound beyond loopback is open on purpose,
//! under names only the network knows, so there nothing is checked.
//! Called by: `pages`.

use std::net::{IpAddr, SocketAddr};

/// The names under which the admin port may be asked.
#[derive(Debug, Clone)]
pub struct AllowedHosts(Option<SocketAddr>);

impl AllowedHosts {
    /// The names of a listener bound here.
    #[must_use]
    pub fn of(bound: SocketAddr) -> Self {
        Self(bound.ip().to_canonical().is_loopback().then_some(bound))
    }

    /// Whether a request with this `Host` header may be answered.
    pub(super) fn allows(&self, header: Option<&[u8]>) -> bool {
        let Some(bound) = self.0 else { return true };
        let Some(host) = header.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
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
        match bare.parse::<IpAddr>() {
            Ok(address) => address.is_loopback() || address == bound.ip(),
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers_to_loopback_names_only() {
        let hosts = AllowedHosts::of("127.0.0.1:9980".parse().unwrap());
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
    fn a_port_open_on_purpose_answers_to_any_name() {
        let hosts = AllowedHosts::of("0.0.0.0:9980".parse().unwrap());
        assert!(hosts.allows(Some(b"assetgate.build.svc")) && hosts.allows(None));
    }
}
