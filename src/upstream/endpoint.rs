//! Upstream URLs: Bazel's `grpc://`, `grpcs://` and `unix:`.
//!
//! Not for: listening addresses (`net::ListenAddr`), origins of fetched content.
//! Called by: `config`, `upstream::pool`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::Authority;

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
}

/// Why a text is no upstream URL. None repeats the text: it may hold a
/// password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No scheme, or another one.
    #[error(
        "an upstream needs a scheme: grpc://HOST:PORT (plain), grpcs://HOST:PORT (TLS) or unix:/PATH"
    )]
    Scheme,
    /// The rest is no host and port.
    #[error(
        "an upstream is written grpc://HOST:PORT: the part behind the scheme is no host and port"
    )]
    Host,
    /// Something behind host and port.
    #[error("an upstream URL has no path, query or fragment: instance names come from the client")]
    Path,
    /// `user:password@host`.
    #[error("an upstream URL has no user or password: credentials come from the client")]
    UserInfo,
}

impl Endpoint {
    /// What `:authority` is when nothing overrides it.
    pub(super) fn authority(&self) -> String {
        match self {
            // What gRPC clients send for Unix sockets.
            Self::Unix(_) => "localhost".to_owned(),
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
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:") {
            // Both spellings of an absolute path: unix:/p and unix:///p.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" | "/" => Err(EndpointError::Host),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let (scheme, rest) = text.split_once("://").ok_or(EndpointError::Scheme)?;
        let tls = match scheme {
            "grpc" => false,
            "grpcs" => true,
            _ => return Err(EndpointError::Scheme),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(EndpointError::UserInfo);
        }
        if rest.contains(['/', '?', '#']) {
            return Err(EndpointError::Path);
        }
        let authority: Authority = rest.parse().map_err(|_| EndpointError::Host)?;
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        // A port that is no port number is none to `Authority`.
        let written = authority.host().len() < rest.len();
        let port = match authority.port_u16() {
            Some(port) if port > 0 => port,
            None if !written && tls => 443,
            None if !written => 80,
            _ => return Err(EndpointError::Host),
        };
        if host.is_empty() {
            return Err(EndpointError::Host);
        }
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
            tls,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
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
            assert_eq!(error, EndpointError::Scheme, "{text}");
            for choice in ["grpc://", "grpcs://", "unix:"] {
                assert!(error.to_string().contains(choice));
            }
        }
    }

    #[test]
    fn other_mistakes_are_told_apart_and_never_repeat_the_text() {
        for (text, wanted) in [
            ("grpc://", EndpointError::Host),
            ("grpc://:80", EndpointError::Host),
            ("grpc://a:", EndpointError::Host),
            ("grpc://a:70000", EndpointError::Host),
            ("grpc://a b:1", EndpointError::Host),
            ("grpc://a:1/instance", EndpointError::Path),
            ("grpc://user:secret@a:1", EndpointError::UserInfo),
            ("unix:", EndpointError::Host),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error, wanted, "{text}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
