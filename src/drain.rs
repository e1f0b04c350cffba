//! Tracks tasks and tells them to stop: the only way to start a task that
//! outlives its caller.
//!
//! Not for: tasks of one HTTP connection (`net::Executor` spawns these).
//! Called by: `server`, `resolver`, `upstream`.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Handle to the process-wide (or, in tests, server-wide) graceful stop.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    started: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// A drain that has not started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for the tasks of one thread. To ask whether draining has begun
    /// is to take a lock, which is this thread's own then.
    #[must_use]
    pub fn for_thread(&self) -> Self {
        Self {
            started: self.started.child_token(),
            tasks: self.tasks.clone(),
        }
    }

    /// Starts a tracked task on the current runtime.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that spawns"
    )]
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.tasks.track_future(task))
    }

    /// Starts a tracked task on the given runtime.
    pub fn spawn_on<F>(
        &self,
        task: F,
        runtime: &tokio::runtime::Handle,
    ) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        runtime.spawn(self.tasks.track_future(task))
    }

    /// Tells every holder that draining has begun.
    pub fn start(&self) {
        self.started.cancel();
        self.tasks.close();
    }

    /// True once [`Drain::start`] was called.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.started.is_cancelled()
    }

    /// Completes when draining begins.
    pub async fn started(&self) {
        self.started.cancelled().await;
    }

    /// Starts draining and waits for tracked tasks, at most `grace`.
    /// Returns whether all of them ended.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.start();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_tracked_tasks_and_no_longer_than_the_grace() {
        let drain = Drain::new();
        let stop = drain.clone();
        drain.spawn(async move { stop.started().await });
        assert!(!drain.is_started());
        assert!(drain.finish(Duration::from_secs(5)).await);

        let drain = Drain::new();
        drain.spawn(std::future::pending::<()>());
        assert!(!drain.finish(Duration::from_millis(20)).await);
    }
}
