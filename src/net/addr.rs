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

/// Why a text is no listening address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Neither form.
    #[error("`{0}` is not a listening address: write HOST:PORT (127.0.0.1:8980) or unix:PATH")]
    Form(String),
    /// The port is not a number below 65536.
    #[error("`{0}` has no valid port: it is a number from 0 (any free port) to 65535")]
    Port(String),
}

impl ListenAddr {
    /// Whether only this machine can reach it. A name counts as reachable
    /// unless it is `localhost`: what it resolves to may change.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost"
                    || host
                        .parse::<std::net::IpAddr>()
                        .is_ok_and(|ip| ip.is_loopback())
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
        let form = || AddrError::Form(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            // Both spellings of an absolute path: unix:/p and unix:///p.
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(form());
            }
            return Ok(Self::Unix(path.into()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let bracketed = bare.is_some();
        let host = bare.unwrap_or(host);
        if host.is_empty() || host.contains('/') || (host.contains(':') && !bracketed) {
            return Err(form());
        }
        let port = port.parse().map_err(|_| AddrError::Port(text.to_owned()))?;
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
        })
    }
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
            assert!(error.to_string().contains("HOST:PORT"), "{text}: {error}");
        }
        assert_eq!(
            "a:65536".parse::<ListenAddr>(),
            Err(AddrError::Port("a:65536".into()))
        );
    }

    #[test]
    fn only_loopback_and_sockets_are_local() {
        for (text, local) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("localhost:1", true),
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
