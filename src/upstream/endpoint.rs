//! Upstream URLs: Bazel's `grpc://`, `grpcs://` and `unix:`.
//!
//! Not for: listening addresses (`net::ListenAddr`), origins of fetched content.
//! Called by: `config`, `upstream::pool`; benchmarks make the one in memory.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::net::{ListenAddr, MemoryDialer, host_port, socket_path};

/// One upstream, as configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// TCP: `grpc://HOST[:PORT]`, `grpcs://HOST[:PORT]`.
    Tcp {
        /// Name or address, an IPv6 one without brackets.
        host: String,
        /// Port; 80, or 443 under TLS, when the URL has none (as in Bazel).
        port: u16,
        /// Whether TLS is spoken.
        tls: bool,
    },
    /// `unix:PATH`, without TLS.
    Unix(PathBuf),
    /// Played by somebody in this process; no URL says this.
    Memory(MemoryDialer),
}

/// Why a text is no upstream URL, in words. A user or password in it is not
/// repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EndpointError(String);

const SCHEMES: &str = "begin with `grpc://` (plain), `grpcs://` (TLS) or `unix:` (a socket's path)";

impl Endpoint {
    /// What `:authority` is when nothing overrides it.
    pub(super) fn authority(&self) -> String {
        match self {
            // What gRPC clients send for Unix sockets.
            Self::Unix(_) | Self::Memory(_) => "localhost".to_owned(),
            Self::Tcp { host, port, .. } => {
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            }
        }
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. })
    }

    /// Whether what is said can be read on the way to another machine.
    #[must_use]
    pub fn is_plain_beyond_loopback(&self) -> bool {
        match self {
            Self::Tcp { host, port, tls } => {
                let (host, port) = (host.clone(), *port);
                !tls && !ListenAddr::Tcp { host, port }.is_local()
            }
            Self::Unix(_) | Self::Memory(_) => false,
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = socket_path(path).map_err(|error| EndpointError(error.to_string()))?;
            return Ok(Self::Unix(path));
        }
        if let Some(rest) = text.strip_prefix("grpc://") {
            return authority(rest, false);
        }
        if let Some(rest) = text.strip_prefix("grpcs://") {
            return authority(rest, true);
        }
        let host = text.rsplit('@').next().unwrap_or(text);
        Err(EndpointError(match host.split_once("://") {
            Some((scheme, _)) if host == text => {
                format!("`{scheme}://` is not a way to reach a cache; {SCHEMES}")
            }
            _ if host == text => format!("`{text}` has no scheme: a URL must {SCHEMES}"),
            _ => format!("a URL must {SCHEMES}"),
        }))
    }
}

/// `HOST[:PORT]`, with the port Bazel would take when there is none.
fn authority(text: &str, tls: bool) -> Result<Endpoint, EndpointError> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.contains('@') {
        let text = "a URL must not hold a user or password; these are visible to all";
        return Err(EndpointError(text.to_owned()));
    }
    if let Some((bare, _)) = text.split_once(['/', '?', '#']) {
        let text = format!("a URL ends after the port, as in `{bare}`");
        return Err(EndpointError(text));
    }
    let after_host = text.rsplit(']').next().unwrap_or(text);
    let found = match (after_host.contains(':'), tls) {
        (true, _) => host_port(text),
        (false, true) => host_port(&format!("{text}:443")),
        (false, false) => host_port(&format!("{text}:80")),
    };
    match found {
        Ok((_, 0)) => Err(EndpointError(format!(
            "`{text}` has port 0; write HOST:PORT"
        ))),
        Ok((host, port)) => Ok(Endpoint::Tcp { host, port, tls }),
        Err(error) => Err(EndpointError(error.to_string())),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Memory(_) => f.write_str("(in memory)"),
            Self::Tcp { tls, .. } => {
                let scheme = if *tls { "grpcs" } else { "grpc" };
                write!(f, "{scheme}://{}", self.authority())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Endpoint, EndpointError> {
        text.parse()
    }

    #[test]
    fn urls_parse_and_print_alike() {
        for text in [
            "grpc://cache:9092",
            "grpcs://cache.example:443",
            "grpc://[::1]:9092",
            "unix:/run/cache.sock",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("unix:///p"), Ok(Endpoint::Unix("/p".into())));
        assert_eq!(parse("grpc://cache:1/"), parse("grpc://cache:1"));
    }

    #[test]
    fn a_missing_port_is_that_of_the_scheme() {
        assert_eq!(
            parse("grpc://cache").unwrap().to_string(),
            "grpc://cache:80"
        );
        assert_eq!(
            parse("grpcs://cache").unwrap().to_string(),
            "grpcs://cache:443"
        );
    }

    #[test]
    fn a_url_without_a_scheme_is_refused_with_the_choices() {
        for text in ["cache:9092", "", "http://cache:1", "cache", "//cache:1"] {
            let error = parse(text).unwrap_err();
            for choice in ["grpc://", "grpcs://", "unix:"] {
                assert!(error.to_string().contains(choice));
            }
        }
    }

    #[test]
    fn other_mistakes_are_told_apart_and_never_repeat_the_text() {
        for (text, wanted) in [
            ("grpc://", "has no host"),
            ("grpc://:80", "has no host"),
            ("grpc://a:", "65535"),
            ("grpc://a:70000", "65535"),
            ("grpc://a:0", "port 0"),
            ("grpc://a b:1", "neither a name"),
            ("grpc://a:1/instance", "ends after the port"),
            ("grpc://user:secret@a:1", "user or password"),
            ("user:secret@a:1", "begin with"),
            ("unix:", "path of a socket"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains(wanted), "{text}: {error}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
