//! What is in the air, who waits for it, and what landed a moment ago.
//!
//! Bookkeeping under one short lock; nothing in here waits.
//! Called by: `flight.rs`.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use lru::LruCache;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Landing;
use super::key::{FlightKey, Wanted};
use crate::fetcher::Waiters;
use crate::resolver::Answer;

/// Flights that others can join. One more than these flies alone and ends with
/// its caller, as there has to be a bound; each has a caller or is unattended.
pub(super) const FLIGHTS: usize = 4096;
/// Flights nobody waits for at the moment: as many as run at once if
/// `fetch.max_concurrent` is as it was made. What waits for a slot behind
/// these, without a caller, would hardly be done by the time of a retry.
pub(super) const UNATTENDED: usize = 64;
/// How long a landed flight answers those who would not take it from the cache
/// (N4): twice the minute after which Bazel asks again.
pub(super) const REMEMBERED: Duration = Duration::from_secs(120);
/// Landed flights kept for that.
pub(super) const LANDED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// What waiters see: nothing yet, or how it ended.
pub(super) type Outcome = Option<Landing>;

struct Flight {
    key: FlightKey,
    started: SystemTime,
    waiting: usize,
    /// Whether somebody who left may come back.
    missed: bool,
    /// The same, for the fetcher to show.
    waiters: Waiters,
    stop: CancellationToken,
    outcome: watch::Receiver<Outcome>,
}

struct Landed {
    at: Instant,
    answer: Answer,
}

/// A place in a flight.
pub(super) enum Seat {
    /// In one that was under way.
    Joined(u64, watch::Receiver<Outcome>),
    /// In one that is to be started now.
    New(u64, watch::Receiver<Outcome>, Departure),
    /// The table is full.
    None,
}

/// What the task of a new flight needs.
pub(super) struct Departure {
    pub(super) outcome: watch::Sender<Outcome>,
    pub(super) stop: CancellationToken,
    pub(super) waiters: Waiters,
}

pub(super) struct Table {
    next: u64,
    flights: HashMap<u64, Flight>,
    /// The latest flight of a key. An earlier one goes on for those in it.
    latest: HashMap<FlightKey, u64>,
    /// The first has been so for longest.
    unattended: VecDeque<u64>,
    landed: LruCache<FlightKey, Landed>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            flights: HashMap::new(),
            latest: HashMap::new(),
            unattended: VecDeque::new(),
            landed: LruCache::new(LANDED),
        }
    }

    /// A place in a flight that serves `wanted`, else in a new one.
    pub(super) fn board(&mut self, wanted: Wanted, now: SystemTime) -> Seat {
        if let Some(id) = self.joinable(wanted)
            && let Some(flight) = self.flights.get_mut(&id)
        {
            flight.waiting += 1;
            flight.waiters.set(flight.waiting);
            let outcome = flight.outcome.clone();
            self.unattended.retain(|other| *other != id);
            self.gauge();
            return Seat::Joined(id, outcome);
        }
        if self.flights.len() >= FLIGHTS {
            return Seat::None;
        }
        let (sender, outcome) = watch::channel(None);
        let stop = CancellationToken::new();
        let key = wanted.key(now);
        let waiters = Waiters::default();
        waiters.set(1);
        let flight = Flight {
            key,
            started: now,
            waiting: 1,
            missed: false,
            waiters: waiters.clone(),
            stop: stop.clone(),
            outcome: outcome.clone(),
        };
        self.next += 1;
        self.flights.insert(self.next, flight);
        self.latest.insert(key, self.next);
        let departure = Departure {
            outcome: sender,
            stop,
            waiters,
        };
        Seat::New(self.next, outcome, departure)
    }

    /// One begun for the same time, else one begun after it.
    fn joinable(&self, wanted: Wanted) -> Option<u64> {
        if let Some(id) = wanted.exact().and_then(|key| self.latest.get(&key)) {
            return Some(*id);
        }
        let id = self.latest.get(&wanted.plain())?;
        let flight = self.flights.get(id)?;
        let young = wanted.oldest.is_none_or(|t| flight.started >= t);
        young.then_some(*id)
    }

    /// One waiter less, who may come back or not. At most `cap` flights stay
    /// without any.
    pub(super) fn leave(&mut self, id: u64, comes_back: bool, cap: usize) {
        let Some(flight) = self.flights.get_mut(&id) else {
            return;
        };
        flight.waiting = flight.waiting.saturating_sub(1);
        flight.waiters.set(flight.waiting);
        flight.missed |= comes_back;
        if flight.waiting > 0 {
            return;
        }
        if flight.missed {
            self.unattended.push_back(id);
            self.trim(cap);
        } else {
            self.abandon(id);
        }
    }

    fn abandon(&mut self, id: u64) {
        metrics::counter!("assetgate_fetches_abandoned_total").increment(1);
        if let Some(flight) = self.remove(id) {
            flight.stop.cancel();
        }
    }

    /// Ends unattended flights beyond `cap`, those first that have been so for
    /// longest.
    pub(super) fn trim(&mut self, cap: usize) {
        while self.unattended.len() > cap
            && let Some(id) = self.unattended.pop_front()
        {
            self.abandon(id);
        }
        self.gauge();
    }

    /// Takes a flight out, however it ended, and remembers an answer that the
    /// cache must not give.
    pub(super) fn land(&mut self, id: u64, landing: Option<&Landing>) {
        let Some(flight) = self.remove(id) else {
            return;
        };
        if let Some(Ok(answer)) = landing
            && flight.key.not_from_cache.is_some()
        {
            let landed = Landed {
                at: Instant::now(),
                answer: answer.clone(),
            };
            self.landed.put(flight.key, landed);
        }
        self.gauge();
    }

    /// What a flight for exactly this time brought, not long ago.
    pub(super) fn landed(&mut self, wanted: Wanted) -> Option<Answer> {
        let key = wanted.exact()?;
        let landed = self.landed.get(&key)?;
        if landed.at.elapsed() < REMEMBERED {
            return Some(landed.answer.clone());
        }
        self.landed.pop(&key);
        None
    }

    /// That content is gone.
    pub(super) fn forget(&mut self, wanted: Wanted) {
        if let Some(key) = wanted.exact() {
            self.landed.pop(&key);
        }
    }

    fn remove(&mut self, id: u64) -> Option<Flight> {
        let flight = self.flights.remove(&id)?;
        if self.latest.get(&flight.key) == Some(&id) {
            self.latest.remove(&flight.key);
        }
        self.unattended.retain(|other| *other != id);
        Some(flight)
    }

    /// Flights, keys that lead to one, flights without a caller, and what is
    /// remembered.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize, usize) {
        let unattended = self.unattended.len();
        let landed = self.landed.len();
        (self.flights.len(), self.latest.len(), unattended, landed)
    }

    fn gauge(&self) {
        let count = u32::try_from(self.unattended.len()).unwrap_or(u32::MAX);
        metrics::gauge!("assetgate_fetches_unattended").set(f64::from(count));
    }
}
