//! Something there is only so much of (memory for checks, room for uploads),
//! shared between connections so that no one of them can take it from the
//! others.
//!
//! A connection may hold half of what the others leave, so that whoever comes
//! next finds some. What is not to be had is waited for: within a connection
//! in order, between connections in turn, and who gave something back last is
//! last in turn.
//!
//! Not for: what is shared (`room.rs`, `action_cache.rs`).
//! Called by: `room.rs`, `action_cache.rs`.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::call::ConnectionId;

/// So much of something; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Shares(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    capacity: u64,
    /// Whether a connection that holds nothing may have any amount, if only it
    /// is there.
    whole: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    total: u64,
    held: HashMap<ConnectionId, u64, Numbers>,
    waiting: HashMap<ConnectionId, VecDeque<Waiter>>,
    /// Connections that wait; the first is next.
    turns: VecDeque<ConnectionId>,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    amount: u64,
    granted: oneshot::Sender<()>,
}

enum Verdict {
    Granted,
    /// The connection holds too much.
    OwnShare,
    /// All of it is taken.
    Taken,
}

impl Shares {
    /// So much, of which a connection gets no more than half of what the
    /// others leave.
    pub(super) fn new(capacity: u64) -> Self {
        Self::of(capacity, false)
    }

    /// The same, but a connection that holds nothing may have all that is left.
    pub(super) fn with_whole(capacity: u64) -> Self {
        Self::of(capacity, true)
    }

    fn of(capacity: u64, whole: bool) -> Self {
        Self(Arc::new(Pool {
            capacity,
            whole,
            state: Mutex::default(),
        }))
    }

    /// Waits for `amount`. Without `whole`, more than the share of a
    /// connection is waited for until the others leave enough, if ever.
    pub(super) async fn acquire(&self, connection: ConnectionId, amount: u64) -> Permit {
        let amount = amount.min(self.0.capacity);
        let permit = Permit {
            pool: Arc::clone(&self.0),
            connection,
            amount,
        };
        if self.0.take_now(connection, amount) {
            return permit;
        }
        let (granted, receiver) = oneshot::channel();
        let number = self.0.enqueue(connection, amount, granted);
        let mut waiting = Waiting {
            permit: Some(permit),
            number,
            receiver,
        };
        // Its sender is dropped by nobody but its guard.
        let _ = (&mut waiting.receiver).await;
        let permit = waiting.permit.take();
        permit.unwrap_or_else(|| unreachable!("it is taken here only"))
    }

    /// Whether someone waits.
    #[cfg(test)]
    pub(super) fn is_wanted(&self) -> bool {
        !self.0.state.lock().turns.is_empty()
    }

    /// Whether some of it is held.
    #[cfg(test)]
    pub(super) fn is_held(&self) -> bool {
        self.0.state.lock().total > 0
    }
}

/// Someone who waits; gives up, or gives back, when dropped.
struct Waiting {
    permit: Option<Permit>,
    number: u64,
    receiver: oneshot::Receiver<()>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(mut permit) = self.permit.take() else {
            return;
        };
        permit.pool.give_up(permit.connection, self.number);
        if self.receiver.try_recv().is_err() {
            permit.amount = 0;
        }
    }
}

impl Pool {
    /// Takes it if it is there and nobody waits, as nearly always.
    fn take_now(&self, connection: ConnectionId, amount: u64) -> bool {
        let mut state = self.state.lock();
        let there = state.turns.is_empty()
            && matches!(self.verdict(&state, connection, amount), Verdict::Granted);
        if there {
            state.take(connection, amount);
        }
        there
    }

    fn enqueue(&self, connection: ConnectionId, amount: u64, granted: oneshot::Sender<()>) -> u64 {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        let waiters = state.waiting.entry(connection).or_default();
        waiters.push_back(Waiter {
            number,
            amount,
            granted,
        });
        if waiters.len() == 1 {
            state.turns.push_back(connection);
        }
        self.grant(&mut state);
        number
    }

    fn give_up(&self, connection: ConnectionId, number: u64) {
        let mut state = self.state.lock();
        let Some(waiters) = state.waiting.get_mut(&connection) else {
            return;
        };
        waiters.retain(|waiter| waiter.number != number);
        if waiters.is_empty() {
            state.waiting.remove(&connection);
            state.turns.retain(|turn| *turn != connection);
        }
        self.grant(&mut state);
    }

    fn release(&self, connection: ConnectionId, amount: u64) {
        let mut state = self.state.lock();
        state.total -= amount;
        if let Some(held) = state.held.get_mut(&connection) {
            *held -= amount;
            if *held == 0 {
                state.held.remove(&connection);
            }
        }
        if let Some(turn) = state.turns.iter().position(|turn| *turn == connection) {
            state.turns.remove(turn);
            state.turns.push_back(connection);
        }
        self.grant(&mut state);
    }

    fn verdict(&self, state: &State, connection: ConnectionId, amount: u64) -> Verdict {
        let held = state.held.get(&connection).copied().unwrap_or_default();
        let left = self.capacity.saturating_sub(state.total - held);
        if held + amount <= left / 2 {
            return Verdict::Granted;
        }
        match self.whole && held == 0 {
            true if amount <= left => Verdict::Granted,
            true => Verdict::Taken,
            false => Verdict::OwnShare,
        }
    }

    /// Grants what can be, each connection in turn.
    fn grant(&self, state: &mut State) {
        let mut passed_over = 0;
        while passed_over < state.turns.len() {
            let Some(connection) = state.turns.pop_front() else {
                return;
            };
            let Some(waiters) = state.waiting.get(&connection) else {
                continue;
            };
            let amount = waiters.front().map_or(0, |waiter| waiter.amount);
            match self.verdict(state, connection, amount) {
                Verdict::Granted => {
                    passed_over = 0;
                    Self::grant_first(state, connection);
                }
                Verdict::OwnShare => {
                    passed_over += 1;
                    state.turns.push_back(connection);
                }
                // Whoever comes after it would take what it waits for.
                Verdict::Taken => {
                    state.turns.push_front(connection);
                    return;
                }
            }
        }
    }

    fn grant_first(state: &mut State, connection: ConnectionId) {
        let Some(waiters) = state.waiting.get_mut(&connection) else {
            return;
        };
        let first = waiters.pop_front();
        match waiters.is_empty() {
            true => drop(state.waiting.remove(&connection)),
            false => state.turns.push_back(connection),
        }
        let Some(waiter) = first else { return };
        if waiter.granted.send(()).is_ok() {
            state.take(connection, waiter.amount);
        }
    }
}

impl State {
    fn take(&mut self, connection: ConnectionId, amount: u64) {
        self.total += amount;
        *self.held.entry(connection).or_default() += amount;
    }
}

/// Hashes connections, whose numbers are ours: nobody chooses them.
type Numbers = BuildHasherDefault<NumberHasher>;

#[derive(Debug, Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A part of it; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    pool: Arc<Pool>,
    connection: ConnectionId,
    amount: u64,
}

impl Permit {
    /// How much it is.
    pub(super) fn amount(&self) -> u64 {
        self.amount
    }

    /// Adds another permit of the same connection.
    pub(super) fn merge(&mut self, mut other: Self) {
        self.amount += std::mem::take(&mut other.amount);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.pool.release(self.connection, self.amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_connection_leaves_half_to_whoever_comes_next() {
        let shares = Shares::new(80);
        let (a, b) = (ConnectionId::next(), ConnectionId::next());
        let held = shares.acquire(a, 40).now_or_never().unwrap();
        assert!(shares.acquire(a, 1).now_or_never().is_none());
        let other = shares.acquire(b, 20).now_or_never().unwrap();
        assert!(shares.acquire(b, 1).now_or_never().is_none());
        drop(held);
        let mut more = shares.acquire(b, 20).now_or_never().unwrap();
        more.merge(other);
        assert_eq!(more.amount(), 40);
        drop(more);
        assert!(!shares.is_held() && !shares.is_wanted());
    }

    #[tokio::test]
    async fn connections_take_turns_however_many_wait() {
        let shares = Shares::with_whole(1);
        let (a, b) = (ConnectionId::next(), ConnectionId::next());
        let mut held = shares.acquire(a, 1).await;
        let mut many: VecDeque<_> = (0..100).map(|_| Box::pin(shares.acquire(a, 1))).collect();
        for waiting in &mut many {
            assert!(waiting.now_or_never().is_none());
        }
        let mut one = Box::pin(shares.acquire(b, 1));
        assert!((&mut one).now_or_never().is_none());
        drop(held);
        held = (&mut one).now_or_never().expect("its turn");
        drop(held);
        held = many.pop_front().unwrap().now_or_never().expect("in order");
        // Those that stop waiting leave nothing behind.
        drop(many);
        drop(held);
        assert!(!shares.is_held() && !shares.is_wanted());
    }

    #[tokio::test]
    async fn what_was_granted_to_one_that_left_goes_on_to_the_next() {
        let shares = Shares::with_whole(1);
        let (a, b) = (ConnectionId::next(), ConnectionId::next());
        let held = shares.acquire(a, 1).await;
        let mut left = Box::pin(shares.acquire(a, 1));
        let mut next = Box::pin(shares.acquire(b, 1));
        assert!((&mut left).now_or_never().is_none());
        drop(held);
        drop(left);
        assert!((&mut next).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_large_amount_is_not_passed_by_small_ones_for_ever() {
        let shares = Shares::with_whole(100);
        let id: Vec<_> = (0..3).map(|_| ConnectionId::next()).collect();
        let small = shares.acquire(id[0], 10).await;
        let mut large = Box::pin(shares.acquire(id[1], 100));
        assert!((&mut large).now_or_never().is_none());
        let mut late = Box::pin(shares.acquire(id[2], 10));
        assert!((&mut late).now_or_never().is_none());
        drop(small);
        let large = (&mut large).now_or_never().expect("its turn");
        drop(large);
        assert!((&mut late).now_or_never().is_some());
    }
}
