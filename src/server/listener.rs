//! Binding a listening socket.
//!
//! Not for: what happens to accepted connections (`accept`).
//! Called by: `server::assembly`.

use std::fs::Permissions;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::Mode;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::{ClientLimit, ConnectionSettings};
use crate::net::tls::ServerTls;
use crate::net::{ListenAddr, RawStream, remove_stale_socket};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// What a listener can be told.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Where to listen.
    pub address: ListenAddr,
    /// Certificate, and for mTLS the clients' authorities.
    pub tls: Option<Arc<ServerTls>>,
    /// Who may connect to a Unix socket: the mode of its file.
    pub socket_mode: u32,
    /// Connections served at a time. Beyond, one without a call gives way;
    /// where there is none, further ones are closed at once.
    pub max_connections: usize,
    /// Of these, of one client.
    pub client_limit: ClientLimit,
    /// What each connection may do.
    pub connection: ConnectionSettings,
}

impl ListenerSettings {
    /// A plain listener with the measured settings.
    #[must_use]
    pub fn new(address: ListenAddr) -> Self {
        Self {
            address,
            tls: None,
            socket_mode: 0o600,
            max_connections: 10_000,
            client_limit: ClientLimit {
                connections: 5000,
                fronts: Vec::new(),
                loopback: false,
            },
            connection: ConnectionSettings::default(),
        }
    }
}

/// A listener that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct BindError {
    /// Where.
    pub address: ListenAddr,
    /// Why not.
    pub reason: io::Error,
}

/// Binds listeners.
#[derive(Debug, Clone, Copy)]
pub struct Listener;

/// A socket that listens but is not served yet.
#[derive(Debug)]
pub struct Bound {
    /// Where it really listens: with the port that was picked for port 0.
    pub local_addr: ListenAddr,
    pub(super) settings: ListenerSettings,
    pub(super) socket: BoundSocket,
}

#[derive(Debug)]
pub(super) enum BoundSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

impl Listener {
    /// Binds the address. Connections are taken from here on, and wait until
    /// they are served.
    ///
    /// # Errors
    /// When the address is taken, unknown or not allowed.
    pub fn bind(settings: ListenerSettings) -> Result<Bound, BindError> {
        let bound = match &settings.address {
            ListenAddr::Tcp { host, port } => bind_tcp(host, *port),
            ListenAddr::Unix(path) => bind_unix(path.clone(), settings.socket_mode),
        };
        let (socket, local_addr) = bound.map_err(|reason| BindError {
            address: settings.address.clone(),
            reason,
        })?;
        Ok(Bound {
            local_addr,
            settings,
            socket,
        })
    }
}

fn bind_tcp(host: &str, port: u16) -> io::Result<(BoundSocket, ListenAddr)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match bind_one(address) {
            Ok(listener) => {
                let local = listener.local_addr()?.into();
                return Ok((BoundSocket::Tcp(listener), local));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_one(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_unix(path: PathBuf, mode: u32) -> io::Result<(BoundSocket, ListenAddr)> {
    remove_stale_socket(&path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // The file gets the mode of the socket, less what the umask takes.
    rustix::fs::fchmod(&socket, Mode::from_bits_truncate(mode))?;
    socket.bind(&SockAddr::unix(&path)?)?;
    let file = SocketFile(path.clone());
    // Nobody connects to a socket that does not listen yet.
    std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((
        BoundSocket::Unix(socket.into(), file),
        ListenAddr::Unix(path),
    ))
}

/// Removes the file of a Unix socket with the listener.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it before us.
        drop(std::fs::remove_file(&self.0));
    }
}

/// A listening socket on a runtime.
#[derive(Debug)]
pub(super) enum Acceptor {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removed when this is dropped.
        _file: SocketFile,
    },
}

impl Acceptor {
    /// Must be called on the runtime that accepts.
    pub(super) fn new(socket: BoundSocket) -> io::Result<Self> {
        Ok(match socket {
            BoundSocket::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            BoundSocket::Unix(listener, file) => {
                let listener = UnixListener::from_std(listener)?;
                Self::Unix {
                    listener,
                    _file: file,
                }
            }
        })
    }

    pub(super) async fn accept(&self) -> io::Result<(RawStream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, address) = listener.accept().await?;
                Ok((RawStream::Tcp(socket), Some(address)))
            }
            Self::Unix { listener, .. } => {
                let (socket, _) = listener.accept().await?;
                Ok((RawStream::Unix(socket), None))
            }
        }
    }
}
