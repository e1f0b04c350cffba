//! How much one upstream connection carries: calls in flight, free streams,
//! streams that do not move, downstream connections that own it.
//!
//! Not for: choosing a connection (`pool`).
//! Called by: `connection`, `pool`, the bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::TransportError;
use super::stalls::{Clock, Stalls};
use super::watch::{Watch, Watches, Way};

/// A peer that allows this many streams does not limit us.
const UNLIMITED: usize = 1_000_000;

/// Answers that nobody reads, from which on a connection is congested: of a
/// window of 8 MiB they hold at most half.
const UNREAD: i32 = 16;

/// Request bodies that the upstream does not take, from which on it is. How
/// large the upstream's window is nobody knows; with many servers one body
/// fills it.
const UNTAKEN: i32 = 1;

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
    /// Set for good: it had several owners at a time.
    shared: AtomicBool,
    /// Set for good: no new calls.
    pub(super) retired: AtomicBool,
    /// What the peer allows.
    limit: AtomicUsize,
    streams: Semaphore,
    owed: Mutex<Owed>,
    clock: Arc<Clock>,
    answers: Stalls,
    requests: Stalls,
    pub(super) watches: Watches,
}

/// Streams that are fewer than the peer's limit says.
#[derive(Debug, Default)]
struct Owed {
    /// To be taken away as they end, since the peer lowered its limit.
    debt: usize,
    /// Not given out, since the peer refused a call below its limit.
    refused: usize,
}

impl Load {
    pub(super) fn new(address: Arc<str>, clock: Arc<Clock>) -> Self {
        Self {
            address,
            in_flight: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            owners: AtomicUsize::new(0),
            shared: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            limit: AtomicUsize::new(0),
            streams: Semaphore::new(0),
            owed: Mutex::default(),
            answers: Stalls::new(Arc::clone(&clock)),
            requests: Stalls::new(Arc::clone(&clock)),
            watches: Watches::default(),
            clock,
        }
    }

    /// Follows the peer's SETTINGS_MAX_CONCURRENT_STREAMS.
    pub(super) fn set_limit(&self, limit: usize) {
        let limit = limit.min(UNLIMITED);
        if self.limit.load(Relaxed) == limit {
            return;
        }
        let mut owed = self.owed.lock();
        let before = self.limit.swap(limit, Relaxed);
        // Now the peer has said what it takes.
        let mut more = std::mem::take(&mut owed.refused) + limit.saturating_sub(before);
        let paid = more.min(owed.debt);
        owed.debt -= paid;
        more -= paid;
        self.streams.add_permits(more);
        let less = before.saturating_sub(limit);
        owed.debt += less - self.streams.forget_permits(less);
    }

    /// The peer refused a call although its limit allowed it: for now one less
    /// is sent at a time. Consumes the refused call's own share.
    pub(super) fn hold_back(&self, mut ticket: Ticket) {
        if ticket.limited {
            ticket.limited = false;
            self.owed.lock().refused += 1;
        }
    }

    /// The end of one [`Load::hold_back`], unless the peer changed its limit
    /// since.
    pub(super) fn allow_again(&self) {
        let mut owed = self.owed.lock();
        if owed.refused > 0 {
            owed.refused -= 1;
            drop(owed);
            self.end_stream();
        }
    }

    /// A downstream connection sends its calls here from now on.
    pub(super) fn add_owner(&self) {
        if self.owners.fetch_add(1, Relaxed) > 0 {
            self.shared.store(true, Relaxed);
        }
    }

    /// Whether so much does not move that what else is sent here may wait for
    /// it.
    pub(super) fn congested(&self) -> bool {
        self.answers.stalled() >= UNREAD || self.requests.stalled() >= UNTAKEN
    }

    /// Whether what does not move is mostly calls of this owner's: for those
    /// another connection would only be the next to fill.
    pub(super) fn congested_by(&self, owner: usize) -> bool {
        let all = self.answers.stalled() + self.requests.stalled();
        let own = self.watches.stalled_of(owner, 2, self.clock.now());
        own * 2 >= usize::try_from(all).unwrap_or(0)
    }

    /// What a call fails with that was ended for not moving.
    pub(super) fn stalled(&self) -> TransportError {
        TransportError::Stalled {
            address: Arc::clone(&self.address),
        }
    }

    /// Makes room for the tick that begins.
    pub(super) fn prepare_tick(&self) {
        self.answers.prepare();
        self.requests.prepare();
        self.watches.tidy();
    }

    /// Ends the calls that do not move for so many ticks, if others may be
    /// waiting for them. Says how many.
    pub(super) fn end_stalled(&self, ticks: u32) -> usize {
        if !self.shared.load(Relaxed) || !self.congested() {
            return 0;
        }
        self.watches.end_stalled(ticks, self.clock.now())
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
        let watched = self.clock.running.load(Relaxed);
        Ticket {
            load: Arc::clone(self),
            limited,
            held: None,
            watch: watched.then(|| self.watches.begin()),
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
        let mut owed = self.owed.lock();
        if owed.debt > 0 {
            owed.debt -= 1;
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
    /// Where connections are shared.
    pub(super) watch: Option<Arc<Watch>>,
}

impl Ticket {
    /// The reader of the response asks for more.
    pub(super) fn asked(&mut self) {
        if let Some(since) = self.held.take() {
            self.load.answers.leave(since);
            if let Some(watch) = &self.watch {
                watch.moved(Way::Answer);
            }
        }
    }

    /// The reader was given a piece, and has to come back for the next.
    pub(super) fn gave(&mut self) {
        let now = self.load.answers.enter();
        self.held = Some(now);
        if let Some(watch) = &self.watch {
            watch.held(Way::Answer, now);
        }
    }

    /// The same watch for the request body.
    pub(super) fn hold(&self) -> Hold {
        Hold {
            load: Arc::clone(&self.load),
            held: None,
            watch: self.watch.clone(),
        }
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

/// What [`Ticket`] is for the answer, for a request body: the rest of one may be
/// sent while the answer comes.
#[derive(Debug)]
pub(super) struct Hold {
    load: Arc<Load>,
    held: Option<u32>,
    watch: Option<Arc<Watch>>,
}

impl Hold {
    pub(super) fn asked(&mut self) {
        if let Some(since) = self.held.take() {
            self.load.requests.leave(since);
            if let Some(watch) = &self.watch {
                watch.moved(Way::Request);
            }
        }
    }

    /// A piece of so many bytes is on its way.
    pub(super) fn passes(&self, bytes: usize) {
        if let Some(watch) = &self.watch {
            watch.sent(bytes, self.load.clock.now());
        }
    }

    pub(super) fn gave(&mut self) {
        let now = self.load.requests.enter();
        self.held = Some(now);
        if let Some(watch) = &self.watch {
            watch.held(Way::Request, now);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.asked();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Arc<Load> {
        Arc::new(Load::new("test".into(), Arc::default()))
    }

    fn tick(load: &Load) {
        load.prepare_tick();
        load.clock.advance();
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
    async fn a_refusal_below_the_limit_lowers_it_until_allowed_again_or_restated() {
        let load = load();
        load.set_limit(2);
        let one = load.admit(0).await.unwrap().unwrap();
        let refused = load.admit(0).await.unwrap().unwrap();
        load.hold_back(refused);
        assert!(load.admit(0).await.is_err(), "one at a time for now");
        drop(one);
        let one = load.admit(0).await.unwrap().unwrap();
        load.allow_again();
        let two = load.admit(0).await.unwrap().unwrap();

        load.hold_back(two);
        load.set_limit(1);
        assert!(load.admit(0).await.is_err(), "one is still open");
        drop(one);
        let one = load.admit(0).await.unwrap().unwrap();
        load.allow_again();
        assert!(load.admit(0).await.is_err(), "the peer's own word counts");
        drop(one);
        assert_eq!(load.in_flight.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn only_what_another_owner_may_wait_for_is_ended() {
        let load = load();
        load.set_limit(usize::MAX);
        load.clock.running.store(true, Relaxed);
        let mut held: Vec<_> = Vec::new();
        for _ in 0..UNREAD {
            let mut ticket = load.admit(0).await.unwrap().unwrap();
            ticket.gave();
            ticket.watch.as_ref().unwrap().belongs_to(7);
            held.push(ticket);
        }
        let mut busy = load.admit(0).await.unwrap().unwrap();
        load.add_owner();
        for _ in 0..10 {
            busy.asked();
            busy.gave();
            tick(&load);
        }
        assert!(load.congested() && load.congested_by(7) && !load.congested_by(8));
        assert_eq!(load.end_stalled(5), 0, "it is nobody else's");
        load.add_owner();
        assert_eq!(load.end_stalled(20), 0, "not yet");
        assert_eq!(load.end_stalled(5), 16);
        assert_eq!(load.end_stalled(5), 0, "once");
        drop(held);
        assert!(!load.congested());
        load.prepare_tick();
        drop(busy);
    }

    #[tokio::test]
    async fn one_request_body_that_the_upstream_does_not_take_congests() {
        let load = load();
        load.set_limit(usize::MAX);
        let ticket = load.admit(0).await.unwrap().unwrap();
        let mut hold = ticket.hold();
        hold.gave();
        for _ in 0..3 {
            assert!(!load.congested());
            tick(&load);
        }
        assert!(load.congested());
        hold.asked();
        assert!(!load.congested());
    }
}
