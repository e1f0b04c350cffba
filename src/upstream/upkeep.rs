//! What a pool does on its own: reach upstreams that were down, replace lost
//! connections, spread them, keep the clock by which calls are found that stand
//! still, and end these.
//!
//! Not for: what a call waits for (`open`).
//! Called by: `open`, `pool`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::health::Place;
use super::load::{Load, Ticket};
use super::open::Opener;
use super::stalls::TICK;

/// Longest pause between attempts at one address while others are up.
const OTHERS_UP: Duration = Duration::from_secs(10);

/// How long a refusal counts against the limit that the upstream announced.
const HELD_BACK: Duration = Duration::from_secs(10);

/// The log is told no more often that calls were ended.
const QUIET: Duration = Duration::from_secs(10);

impl Opener {
    pub(super) fn keep_one(&self) {
        self.keep_one.store(true, Relaxed);
        self.refill();
    }

    /// A connection ended: clients that had it will want another.
    pub(super) fn lost(&self, load: &Load) {
        let wanted = load.owners.load(Relaxed) > 0;
        let idle = {
            let mut state = self.state.lock();
            // The name may stand for other addresses by now.
            state.resolved.clear();
            state.usable().is_empty()
        };
        if wanted || (idle && self.keep_one.load(Relaxed)) {
            self.refill();
        }
    }

    /// Opens a spare connection if there is none. Should that fail, the probe
    /// goes on trying.
    fn refill(&self) {
        if self.refilling.swap(true, Relaxed) {
            return;
        }
        let this = self.this.clone();
        self.runtime.spawn(async move {
            let Some(opener) = this.upgrade() else { return };
            let spare = opener
                .state
                .lock()
                .spares
                .iter()
                .any(|spare| spare.usable());
            // A claim that lost its connection is faster, and opens its own.
            if !spare
                && !opener.anybody_looks()
                && let Ok(opened) = opener.open().await
            {
                opener.keep_spare(opened);
            }
            opener.refilling.store(false, Relaxed);
        });
    }

    /// Tries what is down until nothing is.
    pub(super) fn probe(&self) {
        if self.probing.swap(true, Relaxed) {
            return;
        }
        let this = self.this.clone();
        let (mut pause, longest) = self.settings.backoff;
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let Some(opener) = this.upgrade() else { return };
                opener.try_all_down().await;
                let mut state = opener.state.lock();
                // Under the lock: what goes down from here on finds no probe
                // and starts one.
                if state.health.all_up() {
                    opener.probing.store(false, Relaxed);
                    return;
                }
                let others_up = !state.usable().is_empty();
                let longest = if others_up {
                    OTHERS_UP.max(longest)
                } else {
                    longest
                };
                pause = (pause * 2).min(longest);
            }
        });
    }

    async fn try_all_down(&self) {
        let targets = self.targets(true).await;
        self.state.lock().health.keep(|place| match place {
            Place::Name(_) => true,
            Place::Address(address) => targets.iter().any(|t| &t.address == address),
        });
        for target in targets {
            let down = self.state.lock().health.is_down(&target.place());
            if down && let Some(opened) = self.connect(target).await {
                self.keep_spare(opened);
            }
        }
    }

    /// An address is there again: connections are spread anew. Those too many
    /// elsewhere take no new calls; the ones they have are let finish.
    pub(super) fn rebalance(&self) {
        let connections = self.state.lock().usable();
        let mut places: HashMap<_, Vec<_>> = HashMap::new();
        for connection in &connections {
            let place = connection.target.place();
            places.entry(place).or_default().push(connection);
        }
        let fair = connections.len().div_ceil(places.len().max(1));
        for crowd in places.values() {
            for surplus in crowd.iter().skip(fair) {
                surplus.load.retire();
            }
        }
    }

    /// Counts a refused call against the upstream's limit for a while. Returns
    /// which share of its pause this call shall wait: calls that were refused
    /// together shall not come together again.
    pub(super) fn hold_back(&self, ticket: Ticket) -> f32 {
        let load = Arc::clone(&ticket.load);
        load.hold_back(ticket);
        self.runtime.spawn(async move {
            tokio::time::sleep(HELD_BACK).await;
            load.allow_again();
        });
        const SHARES: u8 = 32;
        f32::from(self.refusals.fetch_add(1, Relaxed) % SHARES) / f32::from(SHARES)
    }

    /// Keeps time while connections are shared, or the next client will share
    /// one.
    pub(super) fn tick(&self) {
        if self.clock.running.swap(true, Relaxed) {
            return;
        }
        let this = self.this.clone();
        let limit = self.settings.stall_limit.as_millis() / TICK.as_millis();
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        self.runtime.spawn(async move {
            let mut ended = Ended::default();
            loop {
                tokio::time::sleep(TICK).await;
                let Some(opener) = this.upgrade() else { return };
                let connections = opener.state.lock().all();
                let shared = connections
                    .iter()
                    .any(|connection| connection.load.owners.load(Relaxed) > 1);
                if !shared && connections.len() < opener.settings.soft_cap {
                    opener.clock.running.store(false, Relaxed);
                    return;
                }
                for connection in &connections {
                    connection.load.prepare_tick();
                }
                opener.clock.advance();
                for connection in &connections {
                    ended.note(&connection.load, connection.load.end_stalled(limit));
                }
            }
        });
    }
}

/// Counts the calls that were ended for standing still; the log hears of it
/// now and then.
#[derive(Default)]
struct Ended {
    calls: usize,
    told: Option<Instant>,
}

impl Ended {
    fn note(&mut self, load: &Load, calls: usize) {
        if calls == 0 {
            return;
        }
        metrics::counter!("assetgate_upstream_calls_stalled_total").increment(calls as u64);
        self.calls += calls;
        if self.told.is_none_or(|told| told.elapsed() > QUIET) {
            let calls = std::mem::take(&mut self.calls);
            self.told = Some(Instant::now());
            tracing::warn!(
                upstream.address = %load.address,
                calls,
                "calls that stood still on a shared upstream connection were ended; \
                 see upstream.max_connections"
            );
        }
    }
}
