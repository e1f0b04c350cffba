//! Content read back from the cache to be hashed, once for all who wait for it.
//!
//! On the asset runtime, over its connections, as long as somebody waits. Who
//! joins has been told by the cache, asked with their own credentials, that the
//! content is there; that the cache refused another caller, or failed for it,
//! is no news for them, so they read themselves.
//! Not for: what the hashes are held against (`proof.rs`), nor what reading
//! takes at most (there as well).
//! Called by: `proof.rs`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::flight::{AbortOnDrop, Fingerprint};
use super::{ResolveError, Shared};
use crate::asset::{Algorithm, Checksum};
use crate::budget::Share;
use crate::digest::{Digest, Scope};
use crate::fetcher::Fetcher;
use crate::store::{self, AssetStore};
use crate::upstream::CallContext;

/// Blobs read at once: each has one message of at most 4 MiB in memory. Large
/// ones take turns of their own, so that none of the others waits for them. Of
/// both kinds one connection has half at most.
const PARALLEL: usize = 16;
const PARALLEL_LARGE: usize = 4;
const LARGE: u64 = 16 << 20;

/// How often somebody waits for what turns out to be of no use.
const JOINS: usize = 3;

/// What reading came to; `None` is that the content is gone.
type Hashes = Result<Option<Vec<Checksum>>, store::Error>;

/// Readings under way.
pub(super) struct Readings {
    under_way: Mutex<HashMap<(Scope, Digest), Weak<Reading>>>,
    turns: Turns,
    large: Turns,
}

/// How many blobs of one kind are read at once.
struct Turns {
    all: Semaphore,
    /// What one connection may have, and the connections that have any.
    each: usize,
    own: Mutex<HashMap<u64, Weak<Semaphore>>>,
}

impl Turns {
    fn new(parallel: usize) -> Self {
        Self {
            all: Semaphore::new(parallel),
            each: parallel / 2,
            own: Mutex::default(),
        }
    }

    fn of(&self, connection: u64) -> Arc<Semaphore> {
        let mut own = self.own.lock();
        if let Some(turns) = own.get(&connection).and_then(Weak::upgrade) {
            return turns;
        }
        if own.len().is_power_of_two() {
            own.retain(|_, turns| turns.strong_count() > 0);
        }
        let turns = Arc::new(Semaphore::new(self.each));
        own.insert(connection, Arc::downgrade(&turns));
        turns
    }

    /// Reads once it is the turn of the connection.
    async fn take<T>(&self, connection: Option<u64>, read: impl Future<Output = T>) -> T {
        // Never closed; were they, there would merely be more at once.
        let own = connection.map(|connection| self.of(connection));
        let _own = match &own {
            Some(own) => own.acquire().await.ok(),
            None => None,
        };
        let _turn = self.all.acquire().await.ok();
        read.await
    }
}

/// One blob being read. Whoever holds it waits for it; without holders it ends.
struct Reading {
    caller: Fingerprint,
    connection: Option<u64>,
    has_begun: Arc<AtomicBool>,
    outcome: watch::Receiver<Option<Hashes>>,
    _task: AbortOnDrop<()>,
}

impl Readings {
    pub(super) fn new() -> Self {
        Self {
            under_way: Mutex::default(),
            turns: Turns::new(PARALLEL),
            large: Turns::new(PARALLEL_LARGE),
        }
    }

    /// One under way, else a new one; and whether it is new. Nobody waits for
    /// the turn of another connection.
    fn board(
        &self,
        of: (Scope, Digest),
        connection: Option<u64>,
        start: impl FnOnce() -> Reading,
    ) -> (Arc<Reading>, bool) {
        let mut under_way = self.under_way.lock();
        let running = under_way.get(&of).and_then(Weak::upgrade);
        let joins = |r: &Arc<Reading>| {
            let is_soon = r.connection == connection || r.has_begun.load(Relaxed);
            is_soon && r.outcome.borrow().is_none()
        };
        if let Some(running) = running.filter(joins) {
            return (running, false);
        }
        let reading = Arc::new(start());
        if under_way.len().is_power_of_two() {
            under_way.retain(|_, reading| reading.strong_count() > 0);
        }
        under_way.insert(of, Arc::downgrade(&reading));
        (reading, true)
    }
}

impl Reading {
    async fn ended(&self) -> Result<Hashes, ResolveError> {
        let mut outcome = self.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        let hashes = ended.ok().and_then(|hashes| hashes.clone());
        hashes.ok_or(ResolveError::Stopped)
    }
}

impl<S: AssetStore, F: Fetcher> Shared<S, F> {
    /// The hashes of a blob by these algorithms; `None` if it is gone.
    pub(super) async fn hashes(
        self: &Arc<Self>,
        context: &CallContext,
        scope: &Scope,
        digest: &Digest,
        algorithms: Vec<Algorithm>,
    ) -> Result<Option<Vec<Checksum>>, ResolveError> {
        let caller = self.fingerprints.caller(context);
        let connection = context.connection().map(Share::number);
        let start = || self.start(caller, context, scope, digest, algorithms.clone());
        for _ in 0..JOINS {
            let of = (scope.clone(), digest.clone());
            let (reading, is_new) = self.proofs.readings.board(of, connection, start);
            let own = is_new || reading.caller == caller;
            let covers = |hashes: &[Checksum]| {
                let has = |a: &Algorithm| hashes.iter().any(|c| c.algorithm() == *a);
                algorithms.iter().all(has)
            };
            match reading.ended().await {
                Ok(Ok(Some(hashes))) if covers(&hashes) => return Ok(Some(hashes)),
                Ok(Ok(Some(_))) => {}
                Ok(hashes) if own => return told(hashes, scope),
                Err(error) if is_new => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        told(start().ended().await?, scope)
    }

    fn start(
        self: &Arc<Self>,
        caller: Fingerprint,
        context: &CallContext,
        scope: &Scope,
        digest: &Digest,
        algorithms: Vec<Algorithm>,
    ) -> Reading {
        let (sender, outcome) = watch::channel(None);
        let connection = context.connection().map(Share::number);
        let has_begun = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&has_begun);
        let (shared, context) = (Arc::clone(self), context.clone());
        let (scope, digest) = (scope.clone(), digest.clone());
        let task = async move {
            let readings = &shared.proofs.readings;
            let turns = match digest.size() > LARGE {
                true => &readings.large,
                false => &readings.turns,
            };
            let read = async {
                begun.store(true, Relaxed);
                let known = shared.proofs.known(&scope, &digest, &algorithms);
                if known.is_some() {
                    return Ok(known);
                }
                let hashes = shared.store.hashes(&context, &scope, &digest, &algorithms);
                hashes.await
            };
            let hashes = turns.take(connection, read).await;
            if let Ok(Some(hashes)) = &hashes {
                shared.proofs.learn(&scope, &digest, hashes);
            }
            sender.send_replace(Some(hashes));
        };
        Reading {
            caller,
            connection,
            has_begun,
            outcome,
            _task: self.flights.guarded(task),
        }
    }
}

fn told(hashes: Hashes, scope: &Scope) -> Result<Option<Vec<Checksum>>, ResolveError> {
    hashes.map_err(|error| ResolveError::from_store(error, scope.function))
}
