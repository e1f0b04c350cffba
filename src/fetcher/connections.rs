//! How many connections to origins are open, idle ones included.
//!
//! The pool of the HTTP client keeps idle connections and knows no bound over
//! all hosts. So each connection holds one of a fixed number of places for its
//! life, and when none is free the one that has been idle longest is told that
//! its peer is gone: the client drops it then, and its place is free. If none
//! is idle, the next to become so goes the same way.
//! Not for: how many requests there are (`hosts`).
//! Called by: `connector` (opening), `stream` (being told), `exchange` (which
//! connection is in use).

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// How long a new connection is spared: it is dialled for a request, which is
/// about to use it.
const FRESH: Duration = Duration::from_secs(1);

/// The places of all connections.
pub(super) struct Connections {
    places: Arc<Semaphore>,
    total: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Entry>,
    /// Who waits for a place.
    waiting: usize,
}

struct Entry {
    signal: Arc<Signal>,
    requests: usize,
    /// Idle since then; of a new one, when it stops being spared.
    since: Instant,
}

/// Tells a connection to end.
#[derive(Default)]
struct Signal {
    ending: AtomicBool,
    waker: AtomicWaker,
}

impl Table {
    /// Ends the connection that has been idle longest.
    fn end_idle(&mut self) {
        let now = Instant::now();
        let idle = self
            .open
            .values()
            .filter(|entry| entry.requests == 0 && entry.since <= now && !entry.signal.is_ending());
        if let Some(entry) = idle.min_by_key(|entry| entry.since) {
            entry.signal.end();
        }
    }
}

impl Signal {
    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    fn end(&self) {
        metrics::counter!("assetgate_origin_connections_displaced_total").increment(1);
        self.ending.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// One connection's place; held by its stream.
pub(super) struct Place {
    handle: Handle,
    _permit: OwnedSemaphorePermit,
}

/// Which connection a request runs on.
#[derive(Clone)]
pub(super) struct Handle {
    all: Arc<Connections>,
    id: u64,
    signal: Arc<Signal>,
}

/// A connection in use, until this is dropped.
pub(super) struct InUse(Handle);

impl Connections {
    pub(super) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(total)),
            total,
            table: Mutex::default(),
        })
    }

    /// How many there may be.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// A place for a new connection, as soon as there is one.
    pub(super) async fn place(self: &Arc<Self>) -> Option<Place> {
        let places = Arc::clone(&self.places);
        let permit = match Arc::clone(&places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::new(self);
                let mut free = pin!(places.acquire_owned());
                loop {
                    match timeout(FRESH, &mut free).await {
                        Ok(permit) => break permit.ok()?,
                        // Some that were new may not be so any more.
                        Err(_) => self.table.lock().end_idle(),
                    }
                }
            }
        };
        let signal = Arc::new(Signal::default());
        let mut table = self.table.lock();
        let id = table.next;
        table.next += 1;
        let entry = Entry {
            signal: Arc::clone(&signal),
            requests: 0,
            since: Instant::now() + FRESH,
        };
        table.open.insert(id, entry);
        metrics::gauge!("assetgate_origin_connections").increment(1.0);
        let handle = Handle {
            all: Arc::clone(self),
            id,
            signal,
        };
        Some(Place {
            handle,
            _permit: permit,
        })
    }
}

impl Place {
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether the connection has to end. If not, the task is woken when it has to.
    pub(super) fn poll_ending(&self, cx: &Context<'_>) -> bool {
        let signal = &self.handle.signal;
        signal.waker.register(cx.waker());
        signal.is_ending()
    }

    pub(super) fn is_ending(&self) -> bool {
        self.handle.signal.is_ending()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handle.all.table.lock().open.remove(&self.handle.id);
        metrics::gauge!("assetgate_origin_connections").decrement(1.0);
    }
}

impl Handle {
    /// Notes that a request runs on this connection.
    pub(super) fn enter(self) -> InUse {
        if let Some(entry) = self.all.table.lock().open.get_mut(&self.id) {
            entry.requests += 1;
        }
        InUse(self)
    }
}

impl InUse {
    /// Whether the connection was chosen to end before this request came: then
    /// the request is as good as not sent.
    pub(super) fn is_ending(&self) -> bool {
        self.0.signal.is_ending()
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut table = self.0.all.table.lock();
        let Some(entry) = table.open.get_mut(&self.0.id) else {
            return;
        };
        entry.requests -= 1;
        if entry.requests > 0 {
            return;
        }
        entry.since = Instant::now();
        if table.waiting > 0 {
            table.end_idle();
        }
    }
}

/// One who waits for a place.
struct Waiting<'a>(&'a Connections);

impl<'a> Waiting<'a> {
    fn new(all: &'a Connections) -> Self {
        metrics::counter!("assetgate_origin_requests_delayed_total", "by" => "max_connections")
            .increment(1);
        let mut table = all.table.lock();
        table.waiting += 1;
        table.end_idle();
        Self(all)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.table.lock().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    async fn used(all: &Arc<Connections>) -> Place {
        let place = all.place().await.unwrap();
        drop(place.handle().enter());
        tokio::time::sleep(Duration::from_millis(1)).await;
        place
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_idle_longest_gives_way() {
        let all = Connections::new(3);
        let (first, second, third) = (used(&all).await, used(&all).await, used(&all).await);
        drop(first.handle().enter());
        let in_use = second.handle().enter();
        let mut fourth = pin!(all.place());
        assert!((&mut fourth).now_or_never().is_none());
        let ending = [&first, &second, &third].map(Place::is_ending);
        assert_eq!(ending, [false, false, true]);
        drop(third);
        let fourth = fourth.await.unwrap();
        assert!(!first.is_ending() && !in_use.is_ending() && !fourth.is_ending());
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_to_become_idle_gives_way_if_none_is() {
        let all = Connections::new(1);
        let busy = used(&all).await;
        let (one, another) = (busy.handle().enter(), busy.handle().enter());
        let mut second = pin!(all.place());
        assert!((&mut second).now_or_never().is_none());
        drop(one);
        assert!(!busy.is_ending(), "another request runs on it");
        drop(another);
        assert!(busy.is_ending());
        drop(busy);
        second.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_one_is_spared_but_not_for_ever() {
        let all = Connections::new(1);
        let new = all.place().await.unwrap();
        let mut second = pin!(all.place());
        assert!((&mut second).now_or_never().is_none());
        assert!(!new.is_ending(), "it is about to be used");
        let waited = timeout(FRESH * 3, &mut second).await;
        assert!(waited.is_err() && new.is_ending(), "it never was");
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_ends_no_connection() {
        let all = Connections::new(1);
        let busy = used(&all).await;
        let in_use = busy.handle().enter();
        assert!(all.place().now_or_never().is_none());
        drop(in_use);
        assert!(!busy.is_ending());
    }
}
