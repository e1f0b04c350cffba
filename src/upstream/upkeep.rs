//! What a pool does on its own: reach upstreams that were down, replace lost
//! connections, keep the clock by which stuck streams are found.
//!
//! Not for: what a call waits for (`open`).
//! Called by: `open`, `pool`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::health::Place;
use super::load::Load;
use super::open::Opener;

/// Longest pause between attempts at one address while others are up.
const OTHERS_UP: Duration = Duration::from_secs(10);

/// Two of these, at least, are how long a stream must be unread to count as
/// stalled.
const TICK: Duration = Duration::from_millis(50);

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

    /// Keeps time while connections are shared.
    pub(super) fn tick(&self) {
        if self.ticking.swap(true, Relaxed) {
            return;
        }
        let this = self.this.clone();
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                let Some(opener) = this.upgrade() else { return };
                let connections = opener.state.lock().usable();
                if !connections.iter().any(|c| c.load.owners.load(Relaxed) > 1) {
                    opener.ticking.store(false, Relaxed);
                    return;
                }
                let next = opener.clock.load(Relaxed).wrapping_add(1);
                for connection in &connections {
                    connection.load.stalls.prepare(next);
                }
                opener.clock.store(next, Relaxed);
            }
        });
    }
}
