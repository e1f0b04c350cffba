//! Clients that were accepted and have not said yet what they speak.
//!
//! They hold a slot of the listener's limit. When it is used up, the one that
//! has been silent longest makes room: sockets opened to say nothing keep
//! nobody out, unless as many as the limit come while an honest client greets.
//!
//! Not for: clients that speak HTTP/2, which stay.
//! Called by: `door`, `connection`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Who waits in it, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    guests: Mutex<Guests>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Guests {
    next: u64,
    waiting: BTreeMap<u64, (Instant, CancellationToken)>,
}

impl Lobby {
    pub(super) fn enter(self: &Arc<Self>) -> Guest {
        let shown_out = CancellationToken::new();
        let mut guests = self.guests.lock();
        let number = guests.next;
        guests.next += 1;
        guests
            .waiting
            .insert(number, (Instant::now(), shown_out.clone()));
        Guest {
            lobby: Arc::clone(self),
            number,
            shown_out,
        }
    }

    /// Since when the oldest has been there.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let guests = self.guests.lock();
        let (since, _) = guests.waiting.values().next()?;
        Some(*since)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.guests.lock().waiting.len()
    }

    /// Waits until one has left. For one who asks.
    pub(super) async fn left(&self) {
        self.left.notified().await;
    }

    /// Ends the longest wait; returns whether there was one.
    pub(super) fn show_out_oldest(&self) -> bool {
        let oldest = self.guests.lock().waiting.pop_first();
        oldest.is_some_and(|(_, (_, guest))| {
            guest.cancel();
            true
        })
    }
}

/// One of them, until dropped.
#[derive(Debug)]
pub(super) struct Guest {
    lobby: Arc<Lobby>,
    number: u64,
    shown_out: CancellationToken,
}

impl Guest {
    /// Waits until its room is needed.
    pub(super) async fn shown_out(&self) {
        self.shown_out.cancelled().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.lobby.guests.lock().waiting.remove(&self.number);
        self.lobby.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_goes_first_and_who_left_is_not_shown_out() {
        let lobby = Arc::new(Lobby::default());
        let [left, first, second] = [(); 3].map(|()| lobby.enter());
        drop(left);
        assert!(lobby.oldest().is_some());
        assert!(lobby.show_out_oldest());
        first.shown_out().await;
        assert!(!second.shown_out.is_cancelled());
        assert!(lobby.show_out_oldest());
        second.shown_out().await;
        assert!(!lobby.show_out_oldest(), "nobody is left");
        assert!(lobby.oldest().is_none());
    }
}
