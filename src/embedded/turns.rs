//! Turns to go beyond the room that uploads share: one upload at a time may,
//! and beside it one of those that are small, so that these need not wait for
//! large ones.
//!
//! Connections that had no turn lately come first. Among these the small turn
//! goes to who needs least, the other one to who has waited longest, so that no
//! stream of small uploads keeps a large one from it for ever.
//!
//! Not for: how long a turn may take (`uploads.rs`).
//! Called by: `room.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::call::ConnectionId;

/// Connections of which is known that they had a turn, the latest last.
const REMEMBERED: usize = 256;

/// Which of the turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Of any upload.
    Any,
    /// Of those that are small.
    Small,
}

/// What those need that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Whether somebody waits.
    any: bool,
    /// Whether a small one does.
    small: bool,
    /// What small ones need to go on within the shared room.
    pub(super) shared: u64,
}

impl Wanted {
    /// Whether somebody waits for this turn.
    pub(super) fn turn(self, lane: Lane) -> bool {
        match lane {
            Lane::Any => self.any,
            Lane::Small => self.small,
        }
    }
}

/// The turns; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    /// Uploads up to this are small.
    small: u64,
    any_is_held: bool,
    small_is_held: bool,
    /// In the order they came.
    waiting: Vec<Waiter>,
    recent: VecDeque<ConnectionId>,
}

#[derive(Debug)]
struct Waiter {
    connection: ConnectionId,
    size: u64,
    more: u64,
    granted: oneshot::Sender<Turn>,
}

/// A turn, until dropped.
#[derive(Debug)]
pub(super) struct Turn {
    /// None once it is known that nobody takes it.
    turns: Option<Turns>,
    connection: ConnectionId,
    pub(super) lane: Lane,
}

impl Turns {
    pub(super) fn new(small: u64) -> Self {
        Self(Arc::new(Mutex::new(Table {
            small,
            any_is_held: false,
            small_is_held: false,
            waiting: Vec::new(),
            recent: VecDeque::new(),
        })))
    }

    /// Waits for a turn of an upload that is `size` in all, and needs so much
    /// `more` to get on.
    pub(super) async fn take(&self, connection: ConnectionId, size: u64, more: u64) -> Turn {
        let (granted, turn) = oneshot::channel();
        {
            let mut table = self.0.lock();
            table.waiting.retain(|waiter| !waiter.granted.is_closed());
            table.waiting.push(Waiter {
                connection,
                size,
                more,
                granted,
            });
            self.grant(&mut table);
        }
        match turn.await {
            Ok(turn) => turn,
            // Only those that nobody waits for are dropped.
            Err(_) => std::future::pending().await,
        }
    }

    /// What is waited for.
    pub(super) fn wanted(&self) -> Wanted {
        let table = self.0.lock();
        let mut wanted = Wanted::default();
        for waiter in table.waiting.iter().filter(|w| !w.granted.is_closed()) {
            wanted.any = true;
            if waiter.size <= table.small {
                wanted.small = true;
                wanted.shared += waiter.more;
            }
        }
        wanted
    }

    fn grant(&self, table: &mut Table) {
        for lane in [Lane::Small, Lane::Any] {
            while !*table.held(lane) {
                let Some(next) = table.next(lane) else { break };
                let waiter = table.waiting.remove(next);
                let turn = Turn {
                    turns: Some(self.clone()),
                    connection: waiter.connection,
                    lane,
                };
                match waiter.granted.send(turn) {
                    Ok(()) => *table.held(lane) = true,
                    Err(mut nobodys) => nobodys.turns = None,
                }
            }
        }
    }
}

impl Table {
    fn held(&mut self, lane: Lane) -> &mut bool {
        match lane {
            Lane::Any => &mut self.any_is_held,
            Lane::Small => &mut self.small_is_held,
        }
    }

    /// Who has this turn next.
    fn next(&self, lane: Lane) -> Option<usize> {
        let may = |waiter: &Waiter| lane == Lane::Any || waiter.size <= self.small;
        let all = self.waiting.iter().enumerate();
        let next = all.filter(|(_, waiter)| may(waiter)).min_by_key(|(n, w)| {
            let had = self.recent.iter().rposition(|c| *c == w.connection);
            let size = if lane == Lane::Small { w.size } else { 0 };
            (had.map_or(0, |place| place + 1), size, *n)
        });
        next.map(|(n, _)| n)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.turns.take() else {
            return;
        };
        let mut table = turns.0.lock();
        *table.held(self.lane) = false;
        table.recent.retain(|c| *c != self.connection);
        if table.recent.len() == REMEMBERED {
            table.recent.pop_front();
        }
        table.recent.push_back(self.connection);
        turns.grant(&mut table);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn ids<const N: usize>() -> [ConnectionId; N] {
        [(); N].map(|()| ConnectionId::next())
    }

    #[tokio::test]
    async fn small_ones_do_not_wait_for_large_ones_and_who_needs_least_goes_first() {
        let turns = Turns::new(10);
        let [a, b, c, d] = ids();
        let large = turns.take(a, 100, 1).now_or_never().unwrap();
        let first = turns.take(b, 10, 1).now_or_never().unwrap();
        assert_eq!((large.lane, first.lane), (Lane::Any, Lane::Small));
        let mut larger = Box::pin(turns.take(c, 9, 2));
        let mut least = Box::pin(turns.take(d, 8, 3));
        assert!((&mut larger).now_or_never().is_none());
        assert!((&mut least).now_or_never().is_none());
        assert_eq!(turns.wanted().shared, 5);
        drop(first);
        let least = (&mut least).now_or_never().expect("it needs least");
        assert!((&mut larger).now_or_never().is_none());
        drop(large);
        let larger = (&mut larger).now_or_never().expect("nobody else waits");
        assert_eq!((larger.lane, least.lane), (Lane::Any, Lane::Small));
        assert_eq!(turns.wanted(), Wanted::default());
    }

    #[tokio::test]
    async fn who_had_a_turn_comes_after_those_that_had_none() {
        let turns = Turns::new(0);
        let [a, b, c] = ids();
        let mut held = turns.take(a, 1, 1).await;
        let mut again: Vec<_> = (0..9).map(|_| Box::pin(turns.take(a, 1, 1))).collect();
        for waiting in &mut again {
            assert!(waiting.now_or_never().is_none());
        }
        for connection in [b, c] {
            let mut waits = Box::pin(turns.take(connection, 1, 1));
            assert!((&mut waits).now_or_never().is_none());
            drop(held);
            held = (&mut waits).now_or_never().expect("its turn");
        }
        drop(held);
        assert!((&mut again[0]).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_was_granted_to_one_that_left_goes_on_to_the_next() {
        let turns = Turns::new(0);
        let [a, b, c] = ids();
        let held = turns.take(a, 1, 1).await;
        let mut left = Box::pin(turns.take(b, 1, 1));
        let mut never_asked = Box::pin(turns.take(b, 1, 1));
        let mut next = Box::pin(turns.take(c, 1, 1));
        for waiting in [&mut left, &mut never_asked, &mut next] {
            assert!(waiting.now_or_never().is_none());
        }
        drop(never_asked);
        drop(held);
        drop(left);
        let next = (&mut next).now_or_never().expect("it is free");
        assert!(!turns.wanted().turn(Lane::Any));
        drop(next);
        assert!(!turns.0.lock().any_is_held);
    }
}
