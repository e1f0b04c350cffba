//! Where large messages are decoded: another runtime than the listener's, one
//! at a time, each connection in turn.
//!
//! Not for: work that waits; that holds up nobody wherever it runs.
//! Called by: `slow`; `server` makes one.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use crate::budget::Share;

/// A runtime, and who may keep a thread of it busy. Clones share the turns.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    runtime: Handle,
    turns: Arc<Semaphore>,
}

/// Leave to keep a thread busy.
pub(super) struct Turn {
    _turn: OwnedSemaphorePermit,
    _alone: OwnedSemaphorePermit,
}

impl Elsewhere {
    /// On this runtime.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            turns: Arc::new(Semaphore::new(1)),
        }
    }

    /// The output of `future`, run there. Ends if its caller does; a panic is
    /// the caller's.
    pub(super) async fn run<F>(&self, future: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = AbortOnDropHandle::new(self.runtime.spawn(future));
        match task.await {
            Ok(output) => output,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is going away, and the process with it.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until it is the turn of a connection, which stands in the row once.
    pub(super) async fn turn(&self, share: &Share) -> Turn {
        let alone = share.alone().await;
        let turns = Arc::clone(&self.turns);
        match turns.acquire_owned().await {
            Ok(turn) => Turn {
                _turn: turn,
                _alone: alone,
            },
            // Never closed.
            Err(_) => std::future::pending().await,
        }
    }
}
