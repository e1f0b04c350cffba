//! Fetches as tasks of their own, away from the threads that forward, which
//! identical requests share.
//!
//! A flight is detached: it goes on when its caller leaves, as the caller's
//! deadline is often shorter than a fetch takes, and whoever asks for the same
//! then joins it (conformance T2, T5, N4). Only if none of those who left would
//! have had to come back, as their calls had all the time they gave the fetch,
//! does it end with the last of them (T3).
//! Only the same caller joins: credentials towards origins and cache are part
//! of what has to be the same (`key.rs`).
//! Bounds: `table.rs` has how many flights there are, how many of them without
//! a caller, and what is remembered; the fetcher bounds how long one takes. A
//! stop of the process waits for no flight that nobody waits for.
//! Called by: `resolver` only.

mod key;
mod table;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::{Answer, Outcome, ResolveError};
use crate::drain::Drain;
use crate::fetcher::Waiters;
pub(super) use key::{Fingerprint, Fingerprints, Same, Wanted};
use table::{Departure, Seat, Table, UNATTENDED};

/// How a fetch ended.
pub(super) type Landing = Result<Answer, ResolveError>;

/// Where fetches run.
#[derive(Clone)]
pub(super) struct Flights {
    drain: Drain,
    runtime: Handle,
    table: Arc<Mutex<Table>>,
}

impl Flights {
    pub(super) fn new(drain: Drain, runtime: Handle) -> Self {
        Self {
            drain,
            runtime,
            table: Arc::new(Mutex::new(Table::new())),
        }
    }

    /// Begins `task` on the asset runtime. It ends with the guard.
    pub(super) fn guarded<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDrop<T> {
        AbortOnDrop(self.drain.spawn_on(task.in_current_span(), &self.runtime))
    }

    /// Begins `task` on the asset runtime and leaves it to itself.
    pub(super) fn detached(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.drain.spawn_on(task.in_current_span(), &self.runtime));
    }

    /// Runs `task` on the asset runtime. It is dropped when the caller is.
    pub(super) async fn attached<T>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ResolveError>
    where
        T: Send + 'static,
    {
        let mut guard = self.guarded(task);
        match (&mut guard.0).await {
            Ok(done) => Ok(done),
            Err(error) if error.is_panic() => Err(panicked()),
            Err(_) => Err(ResolveError::Stopped),
        }
    }

    /// Waits for a flight that serves `wanted`: one that is under way, else a
    /// new one that runs `task`, which is told who waits.
    pub(super) async fn fly<T>(
        &self,
        wanted: Wanted,
        comes_back: bool,
        now: SystemTime,
        task: impl FnOnce(Waiters) -> T,
    ) -> Landing
    where
        T: Future<Output = Landing> + Send + 'static,
    {
        let seat = self.table.lock().board(wanted, now);
        match seat {
            Seat::Joined(id, outcome) => {
                joined("running");
                let answer = self.wait(id, comes_back, outcome).await?;
                Ok(Answer {
                    outcome: Outcome::Joined,
                    ..answer
                })
            }
            Seat::New(id, outcome, departure) => {
                let task = task(departure.waiters.clone());
                let flying = Flying {
                    flights: self.clone(),
                    id,
                    departure,
                };
                let flight = flying.run(task).in_current_span();
                // Without the handle it is detached.
                drop(self.drain.spawn_on(flight, &self.runtime));
                self.wait(id, comes_back, outcome).await
            }
            Seat::None => {
                let waiters = Waiters::default();
                waiters.set(1);
                self.attached(task(waiters)).await?
            }
        }
    }

    /// What a flight brought that was begun for exactly this time.
    pub(super) fn landed(&self, wanted: Wanted) -> Option<Answer> {
        self.table.lock().landed(wanted)
    }

    /// Forgets that: the content is gone.
    pub(super) fn forget(&self, wanted: Wanted) {
        self.table.lock().forget(wanted);
    }

    async fn wait(
        &self,
        id: u64,
        comes_back: bool,
        mut outcome: watch::Receiver<table::Outcome>,
    ) -> Landing {
        let _waiting = Waiting {
            flights: self,
            id,
            comes_back,
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(landing) => landing.clone().unwrap_or(Err(ResolveError::Stopped)),
            // The runtime is gone.
            Err(_) => Err(ResolveError::Stopped),
        }
    }

    /// How many flights may go on without a caller at the moment.
    fn cap(&self) -> usize {
        if self.drain.is_started() {
            0
        } else {
            UNATTENDED
        }
    }
}

/// Counts an answer that needed no request of its own.
pub(super) fn joined(how: &'static str) {
    metrics::counter!("assetgate_fetches_joined_total", "how" => how).increment(1);
}

fn panicked() -> ResolveError {
    metrics::counter!("assetgate_panics_total").increment(1);
    tracing::error!("a fetch panicked; only those who wait for it are affected");
    ResolveError::Panicked
}

/// A flight from its start to its end, whatever that is.
struct Flying {
    flights: Flights,
    id: u64,
    departure: Departure,
}

impl Flying {
    async fn run(self, task: impl Future<Output = Landing>) {
        let task = AssertUnwindSafe(task).catch_unwind();
        let landing = tokio::select! {
            biased;
            landing = task => landing.unwrap_or_else(|_| Err(panicked())),
            () = self.departure.stop.cancelled() => return,
            () = self.drained() => return,
        };
        self.flights.table.lock().land(self.id, Some(&landing));
        // Nobody may be left to hear it.
        self.departure.outcome.send_replace(Some(landing));
    }

    /// Ends what nobody waits for once the process is to stop. Never returns.
    async fn drained(&self) {
        self.flights.drain.started().await;
        self.flights.table.lock().trim(self.flights.cap());
        std::future::pending().await
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        self.flights.table.lock().land(self.id, None);
    }
}

struct Waiting<'a> {
    flights: &'a Flights,
    id: u64,
    comes_back: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let cap = self.flights.cap();
        let mut table = self.flights.table.lock();
        table.leave(self.id, self.comes_back, cap);
    }
}

/// A task that ends with this.
pub(super) struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
