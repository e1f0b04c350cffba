//! Serves connections in memory the way a listener thread serves sockets.
//!
//! Not for: anything that can be configured.
//! Called by: benchmarks and tests.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::{self, Accepted, Shared};
use super::crowd::Crowd;
use super::lobby::Lobby;
use super::{ConnectionSettings, Dispatch};
use crate::drain::Drain;
use crate::net::{MemoryStream, RawStream};

/// A listener thread without a listener; its connections live on the runtime
/// they are served on.
pub struct MemoryServer {
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    lobby: Arc<Lobby>,
}

impl std::fmt::Debug for MemoryServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryServer")
    }
}

impl MemoryServer {
    /// Serves with `dispatch`. Connections end gracefully when `drain` starts.
    #[must_use]
    pub fn new(dispatch: Dispatch, settings: ConnectionSettings, drain: Drain) -> Self {
        Self {
            shared: Arc::new(Shared {
                dispatch,
                settings,
                tls: None,
                drain,
            }),
            slots: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            lobby: Arc::default(),
        }
    }

    /// Starts serving a connection on the current runtime.
    pub fn serve(&self, stream: MemoryStream) {
        let Some(slot) = self.slot() else { return };
        let accepted = Accepted {
            // Nobody asks these to leave.
            member: Arc::new(Crowd::default()).enter(None, slot),
            address: None,
            guest: self.lobby.enter(),
        };
        let shared = Arc::clone(&self.shared);
        let serve = connection::serve(RawStream::Memory(stream), accepted, shared);
        self.shared.drain.spawn(serve);
    }

    fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }
}
