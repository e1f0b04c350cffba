//! One budget of bytes for everything that was received and is not yet
//! answered: how much of it each connection may hold, and who waits when there
//! is no more.
//!
//! Three rules. A connection may hold a third of what it leaves to others:
//! alone that is a quarter of the budget, and whoever comes next finds room
//! however many came before. For its oldest incomplete [`Permit`] it may hold
//! as much as it leaves. The oldest of the process is held to nothing: one can
//! always go on, so that nobody waits for ever. The others wait, oldest first,
//! and what they wait for is not read.
//!
//! Not for: what is charged and how much (`intake`, `resolver`); content on its
//! way from an origin to the cache (`fetcher` has a budget for that).
//! Called by: `server` makes the one there is and a share of it for each
//! connection; whoever holds what a client sent.

mod cgroup;
mod ledger;
#[cfg(test)]
mod tests;
mod unsent;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use ledger::{Ledger, Number};

pub use cgroup::memory_limit;
use unsent::Answers;
pub use unsent::Unsent;

/// Most bytes of the budget unless told otherwise.
const MOST: u64 = 256 << 20;

/// Least bytes of a budget: one full message and some.
pub const LEAST: u64 = 24 << 20;

/// What part of a budget answers may take, beside it, that are made and not yet
/// sent.
const UNSENT_PART: u64 = 4;

/// What looks into caches are counted in.
const UNIT: u64 = 1 << 10;

/// Small messages of a connection that are not charged to the process:
/// counting them there would cost each call more than they do.
const SMALL: u64 = 512 << 10;

/// The budget of the process; clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    ledger: Arc<Ledger>,
    unsent: Arc<unsent::Room>,
}

/// What one connection, or one part of the process, has of the budget; clones
/// are the same share.
#[derive(Debug, Clone)]
pub struct Share(Arc<Account>);

#[derive(Debug)]
struct Account {
    ledger: Arc<Ledger>,
    number: Number,
    /// Bytes of small messages, charged to nobody.
    small: AtomicU64,
    /// Bodies that are not read for want of room.
    stalled: AtomicUsize,
    /// When one of its bodies last made progress, in milliseconds since the
    /// share began.
    progress: AtomicU64,
    began: Instant,
    answers: Answers,
    /// Room for what is looked at in caches for it.
    looks: Arc<Semaphore>,
    /// One at a time of what is not to be done for one connection at once.
    alone: Arc<Semaphore>,
    /// The same for what is done aside.
    aside: Arc<Semaphore>,
}

/// The budget where nothing is configured: 256 MiB, or an eighth of the memory
/// that the control group may use, whichever is less.
#[must_use]
pub fn default_limit() -> u64 {
    memory_limit().map_or(MOST, |limit| (limit / 8).clamp(LEAST, MOST))
}

impl Budget {
    /// A budget of so many bytes; at least [`LEAST`].
    #[must_use]
    pub fn new(limit: u64) -> Self {
        let limit = limit.max(LEAST);
        Self {
            ledger: Arc::new(Ledger::new(limit)),
            unsent: Arc::new(unsent::Room::new(limit / UNSENT_PART)),
        }
    }

    /// A new connection's share.
    #[must_use]
    pub fn share(&self) -> Share {
        Share(Arc::new(Account {
            number: self.ledger.number(),
            ledger: Arc::clone(&self.ledger),
            small: AtomicU64::new(0),
            stalled: AtomicUsize::new(0),
            progress: AtomicU64::new(0),
            began: Instant::now(),
            answers: Answers::of(&self.unsent),
            looks: Arc::new(Semaphore::new(self.ledger.looks() as usize)),
            alone: Arc::new(Semaphore::new(1)),
            aside: Arc::new(Semaphore::new(1)),
        }))
    }

    /// Its bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.ledger.limit()
    }

    /// Bytes held now, those of small messages aside.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.ledger.used()
    }

    /// Bytes of answers that are made and not yet sent.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.unsent.used()
    }

    /// How many wait for room.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.ledger.waiting()
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(default_limit())
    }
}

impl Share {
    /// A permit of no bytes yet. Its age counts from now, and until
    /// [`Permit::complete`] it is one of those that may have to go on.
    #[must_use]
    pub fn claim(&self) -> Permit {
        let number = self.0.ledger.number();
        self.0.ledger.claim(self.0.number, number);
        Permit {
            share: self.clone(),
            number,
            bytes: 0,
            complete: false,
        }
    }

    /// A complete permit of so many bytes, once there is room.
    pub async fn reserve(&self, bytes: u64) -> Permit {
        let mut permit = self.claim();
        permit.grow(bytes).await;
        permit.complete();
        permit
    }

    /// The same now, or not at all: it is nobody's elder.
    #[must_use]
    pub fn try_reserve(&self, bytes: u64) -> Option<Permit> {
        let mut permit = Permit {
            share: self.clone(),
            number: self.0.ledger.number(),
            bytes: 0,
            complete: true,
        };
        permit.try_grow(bytes).then_some(permit)
    }

    /// Room for a small message, of which each connection has a little of its
    /// own: one atomic addition.
    #[must_use]
    pub fn small(&self, bytes: u64) -> Option<Small> {
        let before = self.0.small.fetch_add(bytes, Relaxed);
        let small = Small {
            share: self.clone(),
            bytes,
        };
        (before.saturating_add(bytes) <= SMALL).then_some(small)
    }

    /// Counts one more body that is not read for want of room, unless `most`
    /// are already.
    #[must_use]
    pub fn stall(&self, most: usize) -> Option<Stall> {
        let before = self.0.stalled.fetch_add(1, Relaxed);
        let stall = Stall(self.clone());
        (before < most).then_some(stall)
    }

    /// A body of this share made progress, or could make none for our part.
    pub fn progressed(&self) {
        let since = self.0.began.elapsed().as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        self.0.progress.fetch_max(since, Relaxed);
    }

    /// When one last did.
    #[must_use]
    pub fn last_progress(&self) -> Instant {
        self.0.began + Duration::from_millis(self.0.progress.load(Relaxed))
    }

    /// Whether its oldest incomplete permit waits, for what others hold.
    #[must_use]
    pub fn is_held_up(&self) -> bool {
        self.0.ledger.oldest_waits(self.0.number)
    }

    /// Waits until nothing else of this share is done that takes a permit here.
    pub async fn alone(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.0.alone).acquire_owned().await {
            Ok(permit) => permit,
            // Never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until nothing of this share is done aside, on threads that all
    /// share.
    pub async fn aside(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.0.aside).acquire_owned().await {
            Ok(permit) => permit,
            // Never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Room for an answer of so many bytes, once enough earlier ones have been
    /// sent. To be held until it has been sent itself.
    pub async fn answer(&self, bytes: u64) -> Unsent {
        self.0.answers.room(bytes).await
    }

    /// Leave to look at so many bytes that stand in a cache, once earlier looks
    /// of this share leave room: an eighth of the budget, or one that is larger.
    /// What they take is charged elsewhere; this is for other shares to find
    /// room there.
    pub async fn look(&self, bytes: u64) -> OwnedSemaphorePermit {
        let units = bytes.div_ceil(UNIT).min(self.0.ledger.looks()) as u32;
        match Arc::clone(&self.0.looks).acquire_many_owned(units).await {
            Ok(permit) => permit,
            // Never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Tells shares apart.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// The bytes of the whole budget.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.0.ledger.limit()
    }

    /// Bytes that permits of this share hold.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.ledger.used_by(self.0.number)
    }
}

/// Bytes of the budget, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    share: Share,
    number: Number,
    bytes: u64,
    complete: bool,
}

impl Permit {
    /// How many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The share it is of.
    #[must_use]
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Takes so many more once there is room. To be polled again with the same
    /// number until it is ready.
    pub fn poll_grow(&mut self, cx: &mut Context<'_>, bytes: u64) -> Poll<()> {
        let ledger = &self.share.0.ledger;
        let granted = ledger.poll(self.share.0.number, self.number, bytes, Some(cx.waker()));
        if granted {
            self.bytes += bytes;
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Takes so many more once there is room.
    pub async fn grow(&mut self, bytes: u64) {
        poll_fn(|cx| self.poll_grow(cx, bytes)).await;
    }

    /// Takes so many more if there is room now.
    #[must_use]
    pub fn try_grow(&mut self, bytes: u64) -> bool {
        let ledger = &self.share.0.ledger;
        let granted = ledger.poll(self.share.0.number, self.number, bytes, None);
        if granted {
            self.bytes += bytes;
        }
        granted
    }

    /// Counts what is held already, room or not.
    pub fn charge(&mut self, bytes: u64) {
        self.share.0.ledger.charge(self.share.0.number, bytes);
        self.bytes += bytes;
    }

    /// Gives back what is held beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let excess = self.bytes.saturating_sub(bytes);
        self.bytes -= excess;
        self.share.0.ledger.release(self.share.0.number, excess);
    }

    /// It will not grow any more: another may be the oldest.
    pub fn complete(&mut self) {
        if !self.complete {
            self.complete = true;
            let ledger = &self.share.0.ledger;
            ledger.complete(self.share.0.number, self.number);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.complete();
        self.shrink_to(0);
    }
}

/// Bytes of a small message, given back when dropped.
#[derive(Debug)]
pub struct Small {
    share: Share,
    bytes: u64,
}

impl Drop for Small {
    fn drop(&mut self) {
        self.share.0.small.fetch_sub(self.bytes, Relaxed);
    }
}

/// One body that is not read, as counted.
#[derive(Debug)]
pub struct Stall(Share);

impl Drop for Stall {
    fn drop(&mut self) {
        self.0.0.stalled.fetch_sub(1, Relaxed);
    }
}
