//! Answers that are made and not yet sent: they stay for as long as their reader
//! likes. They have room of their own, or one that reads nothing would keep
//! others from being read.
//!
//! Each connection may hold a little, and one answer whatever its size, that is
//! not taken from the room: whoever reads nothing keeps nobody else from that.
//! Beyond it, one may hold a third of what it leaves to others. The answers of a
//! connection wait in their order, and one of them at a time for others.
//!
//! Not for: which answers count, and how much they take (`embedded`).
//! Called by: the parent module.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

/// What part of the room's size a connection may hold beside it.
const FREE_PART: u64 = 16;

/// The room there is.
#[derive(Debug)]
pub(super) struct Room {
    limit: u64,
    used: Mutex<u64>,
    freed: Notify,
}

/// What one connection has of it.
#[derive(Debug)]
pub(super) struct Answers {
    room: Arc<Room>,
    held: Arc<Mine>,
    /// Whose turn it is to wait for room.
    turn: Semaphore,
}

/// Room of an answer, given back when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Unsent(#[allow(dead_code, reason = "held")] Arc<Held>);

/// Bytes of one connection. Changed while `Room::used` is locked.
#[derive(Debug, Default)]
struct Mine {
    all: AtomicU64,
    /// Of these, taken from the room.
    charged: AtomicU64,
}

#[derive(Debug)]
struct Held {
    room: Arc<Room>,
    connection: Arc<Mine>,
    bytes: u64,
    charged: u64,
}

impl Room {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: Mutex::new(0),
            freed: Notify::new(),
        }
    }

    pub(super) fn used(&self) -> u64 {
        *self.used.lock()
    }

    /// Takes so many bytes if they may be had; says how many of them are taken
    /// from the room.
    fn take(&self, connection: &Mine, bytes: u64) -> Option<u64> {
        let mut used = self.used.lock();
        let all = connection.all.load(Relaxed);
        let free = all == 0 || all + bytes <= self.limit / FREE_PART;
        let charged = if free { 0 } else { bytes };
        let mine = connection.charged.load(Relaxed) + charged;
        let left = self.limit.saturating_sub(*used + charged);
        if !free && mine > left / 3 {
            return None;
        }
        *used += charged;
        connection.all.store(all + bytes, Relaxed);
        connection.charged.store(mine, Relaxed);
        Some(charged)
    }
}

impl Answers {
    pub(super) fn of(room: &Arc<Room>) -> Self {
        Self {
            room: Arc::clone(room),
            held: Arc::default(),
            turn: Semaphore::new(1),
        }
    }

    /// Room for an answer of so many bytes, once there is.
    pub(super) async fn room(&self, bytes: u64) -> Unsent {
        // Never closed.
        let _turn = self.turn.acquire().await;
        loop {
            let mut freed = std::pin::pin!(self.room.freed.notified());
            freed.as_mut().enable();
            if let Some(charged) = self.room.take(&self.held, bytes) {
                return Unsent(Arc::new(Held {
                    room: Arc::clone(&self.room),
                    connection: Arc::clone(&self.held),
                    bytes,
                    charged,
                }));
            }
            freed.await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut used = self.room.used.lock();
        *used -= self.charged;
        self.connection.all.fetch_sub(self.bytes, Relaxed);
        self.connection.charged.fetch_sub(self.charged, Relaxed);
        drop(used);
        self.room.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn fill(answers: &Answers, bytes: u64) -> Vec<Unsent> {
        std::iter::from_fn(|| answers.room(bytes).now_or_never()).collect()
    }

    #[test]
    fn a_connection_holds_a_third_of_what_it_leaves_and_the_next_finds_room() {
        let room = Arc::new(Room::new(64 * MIB));
        let connections: Vec<_> = (0..10).map(|_| Answers::of(&room)).collect();
        let held: Vec<_> = connections.iter().map(|c| fill(c, MIB / 4)).collect();
        assert_eq!(held[0].len(), 16 + 64, "a little, and a quarter");
        assert!(held.iter().all(|held| !held.is_empty()));
        assert!(room.used() > 56 * MIB && room.used() <= 64 * MIB);
        drop(held);
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn everybody_may_have_one_answer_whatever_its_size() {
        let room = Arc::new(Room::new(MIB));
        for _ in 0..3 {
            let held = fill(&Answers::of(&room), 4 * MIB);
            assert_eq!(held.len(), 1);
            std::mem::forget(held);
        }
    }

    #[test]
    fn who_reads_nothing_of_large_answers_keeps_nobody_from_theirs() {
        let room = Arc::new(Room::new(64 * MIB));
        let attackers: Vec<_> = (0..100).map(|_| Answers::of(&room)).collect();
        let _one_each: Vec<_> = attackers.iter().map(|a| fill(a, 45 * MIB)).collect();
        let honest = Answers::of(&room);
        assert_eq!(fill(&honest, MIB).len(), 4 + 16, "as if alone");
        let _more: Vec<_> = attackers.iter().map(|a| fill(a, MIB / 4)).collect();
        assert_eq!(fill(&honest, MIB).len(), 4, "its own at any rate");
    }

    #[tokio::test]
    async fn what_waits_goes_on_in_order_when_another_connection_gives_room_back() {
        let room = Arc::new(Room::new(16 * MIB));
        let (one, other) = (Answers::of(&room), Answers::of(&room));
        let mut held = fill(&other, MIB);
        let mine = fill(&one, MIB);
        assert!(!mine.is_empty());
        let mut first = Box::pin(one.room(MIB));
        let mut second = Box::pin(one.room(1));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        held.clear();
        let room_of_first = first.await;
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(room_of_first);
        drop((second.await, mine));
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn who_gives_up_waiting_leaves_nothing_behind() {
        let room = Arc::new(Room::new(MIB));
        let one = Answers::of(&room);
        let held = fill(&one, MIB / 4);
        assert!(one.room(MIB).now_or_never().is_none());
        drop(held);
        assert_eq!(room.used(), 0);
        assert!(one.room(MIB / 4).now_or_never().is_some());
    }
}
