//! Fetches as tasks of their own, away from the threads that forward.
//!
//! Today a flight carries one caller and ends with it (conformance T3). This
//! is the place of single flight: joining identical requests, outliving a
//! deadline, remembering a failure for a few seconds.
//! Called by: `resolver` only.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::ResolveError;
use crate::drain::Drain;

/// Where fetches run.
pub(super) struct Flights {
    drain: Drain,
    runtime: Handle,
}

impl Flights {
    pub(super) fn new(drain: Drain, runtime: Handle) -> Self {
        Self { drain, runtime }
    }

    /// Runs `task` on the asset runtime. It is dropped when the caller is.
    pub(super) async fn run<T>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ResolveError>
    where
        T: Send + 'static,
    {
        let handle = self.drain.spawn_on(task.in_current_span(), &self.runtime);
        let mut guard = AbortOnDrop(handle);
        match (&mut guard.0).await {
            Ok(done) => Ok(done),
            Err(error) if error.is_panic() => {
                metrics::counter!("assetgate_panics_total").increment(1);
                tracing::error!("a fetch panicked; only its own call is affected");
                Err(ResolveError::Panicked)
            }
            Err(_) => Err(ResolveError::Stopped),
        }
    }
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
