//! Counts what passes over one connection and does not move on, by age.
//!
//! The age is in ticks of a clock that the pool advances only while
//! connections are shared or soon will be, so that the common path reads no
//! time. A reader that waits for the other side asked last, and does not
//! count: only one that holds a piece and does not ask is stalled.
//!
//! Not for: which calls these are (`watch`).
//! Called by: `load`; `upkeep` advances the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Two of these, at least, are how long a piece must be held to count as
/// stalled.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// The clock of a pool.
#[derive(Debug, Default)]
pub(super) struct Clock {
    tick: AtomicU32,
    /// Whether it advances: clients share connections, or the next one will.
    pub(super) running: AtomicBool,
}

impl Clock {
    pub(super) fn now(&self) -> u32 {
        self.tick.load(Relaxed)
    }

    pub(super) fn advance(&self) {
        self.tick.fetch_add(1, Relaxed);
    }
}

/// Bodies whose reader took a piece and did not come back.
#[derive(Debug)]
pub(super) struct Stalls {
    clock: Arc<Clock>,
    total: AtomicI32,
    /// Of these, the ones that began to hold in each of the last ticks.
    recent: [AtomicI32; 4],
}

impl Stalls {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        Self {
            clock,
            total: AtomicI32::new(0),
            recent: Default::default(),
        }
    }

    fn slot(&self, tick: u32) -> &AtomicI32 {
        &self.recent[(tick & 3) as usize]
    }

    pub(super) fn enter(&self) -> u32 {
        let now = self.clock.now();
        self.total.fetch_add(1, Relaxed);
        self.slot(now).fetch_add(1, Relaxed);
        now
    }

    pub(super) fn leave(&self, since: u32) {
        self.total.fetch_sub(1, Relaxed);
        if self.clock.now().wrapping_sub(since) < 3 {
            self.slot(since).fetch_sub(1, Relaxed);
        }
    }

    /// Makes room for the tick that begins; the pool then advances the clock.
    pub(super) fn prepare(&self) {
        let next = self.clock.now().wrapping_add(1);
        self.slot(next).store(0, Relaxed);
    }

    /// Bodies held for at least two whole ticks.
    pub(super) fn stalled(&self) -> i32 {
        let now = self.clock.now();
        let recent: i32 = (0..3)
            .map(|age| self.slot(now.wrapping_sub(age)).load(Relaxed))
            .sum();
        self.total.load(Relaxed) - recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_held_for_two_ticks_is_stalled() {
        let clock = Arc::<Clock>::default();
        let stalls = Stalls::new(Arc::clone(&clock));
        let held = stalls.enter();
        let mut busy = stalls.enter();
        for _ in 0..10 {
            stalls.leave(busy);
            busy = stalls.enter();
            stalls.prepare();
            clock.advance();
        }
        assert_eq!(stalls.stalled(), 1, "the one that took and never asked");
        stalls.leave(held);
        assert_eq!(stalls.stalled(), 0);
        stalls.leave(busy);
        assert_eq!(stalls.total.load(Relaxed), 0);
    }
}
