//! Connections that are no sockets: somebody in this process plays the peer.
//!
//! The whole path of a call can so be run on one thread without the kernel,
//! in the same order each time, which is what makes its instructions countable.
//!
//! Not for: anything that can be configured.
//! Called by: benchmarks and tests, through `server::MemoryServer` and
//! `upstream::Endpoint::Memory`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

/// What a connection in memory needs to be.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// One end of a connection in memory.
pub struct MemoryStream(pub(super) Box<dyn Wire>);

impl MemoryStream {
    /// The end that the server or the pool holds.
    pub fn new(wire: impl Wire + 'static) -> Self {
        Self(Box::new(wire))
    }
}

impl fmt::Debug for MemoryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStream")
    }
}

/// Makes connections in memory. Clones are the same place to connect to.
#[derive(Clone)]
pub struct MemoryDialer(Arc<dyn Fn() -> MemoryStream + Send + Sync>);

impl MemoryDialer {
    /// `connect` is called for every connection that is opened.
    pub fn new(connect: impl Fn() -> MemoryStream + Send + Sync + 'static) -> Self {
        Self(Arc::new(connect))
    }

    /// A new connection.
    #[must_use]
    pub fn dial(&self) -> MemoryStream {
        (self.0)()
    }

    fn place(&self) -> *const () {
        Arc::as_ptr(&self.0).cast()
    }
}

impl fmt::Debug for MemoryDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryDialer")
    }
}

impl PartialEq for MemoryDialer {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for MemoryDialer {}

impl Hash for MemoryDialer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place().hash(state);
    }
}
