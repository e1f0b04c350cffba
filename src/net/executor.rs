//! Spawns hyper's tasks on the current runtime: those of one HTTP connection,
//! which end with it.
//!
//! Not for: tasks that must be waited for at a stop (`drain::Drain`).
//! Called by: `server::connection`, `upstream`.

use std::future::Future;

use tokio_util::task::AbortOnDropHandle;

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

    /// Starts a task that ends when its handle is dropped.
    #[allow(
        clippy::disallowed_methods,
        reason = "the handle belongs to a call of a connection whose own task the drain tracks"
    )]
    pub fn spawn_owned<F>(task: F) -> AbortOnDropHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        AbortOnDropHandle::new(tokio::spawn(task))
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
