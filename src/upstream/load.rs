//! How much one upstream connection carries: calls in flight, free streams,
//! streams that nobody reads, downstream connections that own it.
//!
//! Not for: choosing a connection (`pool`).
//! Called by: `connection`, `pool`, the bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::TransportError;

/// A peer that allows this many streams does not limit us.
const UNLIMITED: usize = 1_000_000;

/// Load of one connection.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) address: Arc<str>,
    /// Calls sent and not ended.
    pub(super) in_flight: AtomicUsize,
    /// Calls that wait for a stream.
    pub(super) waiting: AtomicUsize,
    /// Downstream connections that send their calls here.
    pub(super) owners: AtomicUsize,
    /// Set for good: no new calls.
    pub(super) retired: AtomicBool,
    /// What the peer allows.
    limit: AtomicUsize,
    streams: Semaphore,
    /// Streams to take away as they end, since the peer lowered its limit.
    debt: Mutex<usize>,
    pub(super) stalls: Stalls,
}

impl Load {
    pub(super) fn new(address: Arc<str>, clock: Arc<AtomicU32>) -> Self {
        Self {
            address,
            in_flight: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            owners: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            limit: AtomicUsize::new(0),
            streams: Semaphore::new(0),
            debt: Mutex::new(0),
            stalls: Stalls::new(clock),
        }
    }

    /// Follows the peer's SETTINGS_MAX_CONCURRENT_STREAMS.
    pub(super) fn set_limit(&self, limit: usize) {
        let limit = limit.min(UNLIMITED);
        if self.limit.load(Relaxed) == limit {
            return;
        }
        let mut debt = self.debt.lock();
        let before = self.limit.swap(limit, Relaxed);
        if limit > before {
            let paid = (limit - before).min(*debt);
            *debt -= paid;
            self.streams.add_permits(limit - before - paid);
        } else {
            let less = before - limit;
            *debt += less - self.streams.forget_permits(less);
        }
    }

    /// Counts the call, if the peer allows one more stream now.
    pub(super) fn try_admit(self: &Arc<Self>) -> Option<Ticket> {
        let limited = self.limit.load(Relaxed) < UNLIMITED;
        if limited {
            self.streams.try_acquire().ok()?.forget();
        }
        Some(self.ticket(limited))
    }

    /// Waits until the peer allows one more stream, then counts the call.
    /// `None` when the connection takes no more calls.
    pub(super) async fn admit(
        self: &Arc<Self>,
        max_waiting: usize,
    ) -> Result<Option<Ticket>, TransportError> {
        if let Some(ticket) = self.try_admit() {
            return Ok(Some(ticket));
        }
        Ok(self.wait(max_waiting).await?.then(|| self.ticket(true)))
    }

    fn ticket(self: &Arc<Self>, limited: bool) -> Ticket {
        self.in_flight.fetch_add(1, Relaxed);
        Ticket {
            load: Arc::clone(self),
            limited,
            held: None,
        }
    }

    async fn wait(&self, max_waiting: usize) -> Result<bool, TransportError> {
        let waiting = self.waiting.fetch_add(1, Relaxed);
        let _waiting = Waiting(&self.waiting);
        if waiting >= max_waiting {
            return Err(TransportError::Busy {
                address: Arc::clone(&self.address),
                waiting,
            });
        }
        match self.streams.acquire().await {
            Ok(stream) => {
                stream.forget();
                Ok(true)
            }
            // The connection ended meanwhile.
            Err(_) => Ok(false),
        }
    }

    /// No new calls; those that wait go elsewhere.
    pub(super) fn retire(&self) {
        self.retired.store(true, Relaxed);
        self.streams.close();
    }

    fn end_stream(&self) {
        let mut debt = self.debt.lock();
        if *debt > 0 {
            *debt -= 1;
        } else {
            self.streams.add_permits(1);
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// One call on a connection; dropping it ends the call's share of the load.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) load: Arc<Load>,
    limited: bool,
    held: Option<u32>,
}

impl Ticket {
    /// The reader of the response asks for more.
    pub(super) fn asked(&mut self) {
        if let Some(since) = self.held.take() {
            self.load.stalls.leave(since);
        }
    }

    /// The reader was given a piece, and has to come back for the next.
    pub(super) fn gave(&mut self) {
        self.held = Some(self.load.stalls.enter());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.asked();
        self.load.in_flight.fetch_sub(1, Relaxed);
        if self.limited {
            self.load.end_stream();
        }
    }
}

/// The same watch for a request body, which outlives no ticket.
#[derive(Debug)]
pub(super) struct Hold {
    load: Arc<Load>,
    held: Option<u32>,
}

impl Hold {
    pub(super) fn new(load: Arc<Load>) -> Self {
        Self { load, held: None }
    }

    pub(super) fn asked(&mut self) {
        if let Some(since) = self.held.take() {
            self.load.stalls.leave(since);
        }
    }

    pub(super) fn gave(&mut self) {
        self.held = Some(self.load.stalls.enter());
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.asked();
    }
}

/// Counts bodies whose reader took a piece and did not come back, by age.
///
/// The age is in ticks of a clock that the pool advances only while
/// connections are shared, so that the common path reads no time. A reader
/// that waits for the upstream asked last, and does not count: only one that
/// holds a piece and does not ask is stuck.
#[derive(Debug)]
pub(super) struct Stalls {
    clock: Arc<AtomicU32>,
    total: AtomicI32,
    /// Of these, the ones that began to hold in each of the last ticks.
    recent: [AtomicI32; 4],
}

impl Stalls {
    fn new(clock: Arc<AtomicU32>) -> Self {
        Self {
            clock,
            total: AtomicI32::new(0),
            recent: Default::default(),
        }
    }

    fn slot(&self, tick: u32) -> &AtomicI32 {
        &self.recent[(tick & 3) as usize]
    }

    fn enter(&self) -> u32 {
        let now = self.clock.load(Relaxed);
        self.total.fetch_add(1, Relaxed);
        self.slot(now).fetch_add(1, Relaxed);
        now
    }

    fn leave(&self, since: u32) {
        self.total.fetch_sub(1, Relaxed);
        if self.clock.load(Relaxed).wrapping_sub(since) < 3 {
            self.slot(since).fetch_sub(1, Relaxed);
        }
    }

    /// Makes room for the tick that begins; the pool then advances the clock.
    pub(super) fn prepare(&self, next: u32) {
        self.slot(next).store(0, Relaxed);
    }

    /// Bodies held for at least two whole ticks.
    pub(super) fn stalled(&self) -> i32 {
        let now = self.clock.load(Relaxed);
        let recent: i32 = (0..3)
            .map(|age| self.slot(now.wrapping_sub(age)).load(Relaxed))
            .sum();
        self.total.load(Relaxed) - recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Arc<Load> {
        Arc::new(Load::new("test".into(), Arc::default()))
    }

    fn tick(load: &Load) {
        let next = load.stalls.clock.load(Relaxed) + 1;
        load.stalls.prepare(next);
        load.stalls.clock.store(next, Relaxed);
    }

    #[tokio::test]
    async fn a_lowered_limit_is_kept_as_streams_end() {
        let load = load();
        load.set_limit(3);
        let mut tickets = Vec::new();
        for _ in 0..3 {
            tickets.push(load.admit(0).await.unwrap().unwrap());
        }
        assert!(matches!(
            load.admit(0).await,
            Err(TransportError::Busy { .. })
        ));

        load.set_limit(1);
        tickets.truncate(1);
        assert!(load.admit(0).await.is_err(), "one is still open");
        tickets.clear();
        let one = load.admit(0).await.unwrap().unwrap();
        assert!(load.admit(0).await.is_err());

        load.set_limit(2);
        let _two = load.admit(0).await.unwrap().unwrap();
        assert!(load.admit(0).await.is_err());
        drop(one);
        assert_eq!(load.in_flight.load(Relaxed), 1);
        assert_eq!(load.waiting.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn only_what_is_held_for_two_ticks_is_stalled() {
        let load = load();
        load.set_limit(usize::MAX);
        let mut held = load.admit(0).await.unwrap().unwrap();
        let mut busy = load.admit(0).await.unwrap().unwrap();
        let mut waiting = load.admit(0).await.unwrap().unwrap();
        held.gave();
        waiting.gave();
        waiting.asked();
        for _ in 0..10 {
            busy.asked();
            busy.gave();
            tick(&load);
        }
        assert_eq!(
            load.stalls.stalled(),
            1,
            "the one that took and never asked"
        );
        held.asked();
        assert_eq!(load.stalls.stalled(), 0);
        drop((held, busy, waiting));
        assert_eq!(load.stalls.total.load(Relaxed), 0);
    }
}
