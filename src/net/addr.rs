//! Where to listen: `HOST:PORT` or `unix:PATH`.
//!
//! Not for: upstream URLs (`upstream::Endpoint`).
//! Called by: `config`, `server::listener`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A listening address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// A host name or IP address, and a port; 0 picks a free one.
    Tcp {
        /// Name or address, an IPv6 one without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Why a text is no address, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddrError(String);

/// Any free port that only this machine can reach.
impl Default for ListenAddr {
    fn default() -> Self {
        Self::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 0,
        }
    }
}

impl ListenAddr {
    /// Whether only this machine can reach it. A name counts as reachable
    /// unless it is `localhost`: what it resolves to may change.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host.eq_ignore_ascii_case("localhost")
                    || host
                        .parse::<std::net::IpAddr>()
                        .is_ok_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }
}

impl From<std::net::SocketAddr> for ListenAddr {
    fn from(addr: std::net::SocketAddr) -> Self {
        Self::Tcp {
            host: addr.ip().to_string(),
            port: addr.port(),
        }
    }
}

impl FromStr for ListenAddr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        match text.strip_prefix("unix:") {
            Some(path) => socket_path(path).map(Self::Unix),
            None => host_port(text).map(|(host, port)| Self::Tcp { host, port }),
        }
    }
}

/// Splits `HOST:PORT`; an IPv6 address stands in brackets and loses them.
///
/// # Errors
/// Says what is missing or wrong.
pub fn host_port(text: &str) -> Result<(String, u16), AddrError> {
    let wrong = |what: &str| Err(AddrError(format!("`{text}` {what}; write HOST:PORT")));
    let Some((host, port)) = text.rsplit_once(':') else {
        return wrong("has no port");
    };
    let Ok(port) = port.parse::<u16>() else {
        return wrong("has a port that is not a number up to 65535");
    };
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    match bracketed {
        Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => Ok((inner.to_owned(), port)),
        Some(_) => wrong("has no IPv6 address in its brackets"),
        None if host.is_empty() => wrong("has no host"),
        None if host.contains(':') => wrong("has an IPv6 address without brackets"),
        None if !host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) =>
        {
            wrong("has a host that is neither a name nor an address")
        }
        None => Ok((host.to_owned(), port)),
    }
}

/// What follows `unix:`; `unix:///p` and `unix:/p` are the same to Bazel.
///
/// # Errors
/// When there is no path, or one that no socket can have.
pub fn socket_path(text: &str) -> Result<PathBuf, AddrError> {
    let path = text.strip_prefix("//").unwrap_or(text);
    if path.is_empty() {
        let text = "`unix:` must be followed by the path of a socket";
        return Err(AddrError(text.to_owned()));
    }
    // sun_path of the smaller system, less the final NUL.
    if path.len() > 103 {
        return Err(AddrError(format!(
            "a socket's path may have 103 bytes, this has {}",
            path.len()
        )));
    }
    Ok(PathBuf::from(path))
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Removes a Unix socket that a dead process left behind. One on which
/// somebody still accepts stays, so that binding it fails.
///
/// # Errors
/// When something is there that is not a dead socket, or cannot be removed.
pub fn remove_stale_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;

    let kind = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is not a socket has this name",
        ));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there",
        )),
        Err(_) => std::fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_parse_and_print_alike() {
        for text in [
            "127.0.0.1:8980",
            "localhost:0",
            "[::1]:443",
            "unix:/run/assetgate.sock",
            "unix:relative.sock",
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), text);
        }
        assert_eq!(
            "unix:///p".parse(),
            Ok(ListenAddr::Unix(PathBuf::from("/p")))
        );
    }

    #[test]
    fn other_texts_are_refused_with_the_forms() {
        for text in ["", "8980", "::1:80", "unix:", ":80", "http://a:80"] {
            let error = text.parse::<ListenAddr>().unwrap_err();
            let says = ["HOST:PORT", "path of a socket"];
            let says = says.iter().any(|what| error.to_string().contains(what));
            assert!(says, "{text}: {error}");
        }
        let error = "a:65536".parse::<ListenAddr>().unwrap_err();
        assert!(error.to_string().contains("65535"), "{error}");
        let long = format!("unix:/{}", "x".repeat(103));
        assert!(long.parse::<ListenAddr>().is_err());
    }

    #[test]
    fn only_loopback_and_sockets_are_local() {
        for (text, local) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("LocalHost:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("unix:/p", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("cache.example:1", false),
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().is_local(), local);
        }
    }

    #[test]
    fn a_dead_socket_is_removed_and_a_live_one_or_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        remove_stale_socket(&path).unwrap();

        let live = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = remove_stale_socket(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(live);
        remove_stale_socket(&path).unwrap();
        assert!(!path.exists());

        std::fs::write(&path, "data").unwrap();
        assert!(remove_stale_socket(&path).is_err());
        assert!(path.exists());
    }
}
