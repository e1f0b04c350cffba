//! Spawns hyper's tasks on the current runtime: those of one HTTP connection,
//! which end with it.
//!
//! Not for: tasks that must be waited for at a stop (`drain::Drain`).
//! Called by: `server::connection`, `upstream`.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};

use super::coalesce::{Coalesced, Flushed};

/// Spawns on the runtime the caller runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Executor;

impl Executor {
    /// Starts a task that nobody waits for.
    #[allow(
        clippy::disallowed_methods,
        reason = "tasks of one HTTP connection end with that connection, whose own task the drain tracks"
    )]
    pub fn spawn<F>(task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(task);
    }
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        Self::spawn(task);
    }
}

/// The executor of one client connection.
///
/// hyper hands the future that drives the socket to its executor, as the first
/// one. That one must be wrapped to flush the collected writes: wrapping the
/// future which `handshake` returns instead hangs every call.
#[derive(Debug)]
pub struct ClientExecutor<S> {
    stream: Coalesced<S>,
    driver_started: Arc<AtomicBool>,
}

impl<S> ClientExecutor<S> {
    /// The executor for the connection over `stream`.
    pub fn new(stream: Coalesced<S>) -> Self {
        Self {
            stream,
            driver_started: Arc::default(),
        }
    }
}

impl<S> Clone for ClientExecutor<S> {
    fn clone(&self) -> Self {
        Self {
            stream: self.stream.clone(),
            driver_started: Arc::clone(&self.driver_started),
        }
    }
}

impl<F, S> hyper::rt::Executor<F> for ClientExecutor<S>
where
    F: Future<Output = ()> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn execute(&self, task: F) {
        // Only the load on the common path: a swap would dirty the cache line.
        if self.driver_started.load(Ordering::Relaxed)
            || self.driver_started.swap(true, Ordering::Relaxed)
        {
            Executor::spawn(task);
        } else {
            Executor::spawn(Flushed::new(task, self.stream.clone()));
        }
    }
}
