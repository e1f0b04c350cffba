//! Calls on connections that clients share, so that one which does not move
//! can be told from those that wait because of it, and ended.
//!
//! HTTP/2 gives all streams of a connection one window. Answers that nobody
//! reads, or request bodies that the upstream does not read, fill it, and then
//! whatever else is on the connection waits as well. New calls go elsewhere
//! (`pool`); those that were sent before anybody could know are freed when the
//! calls that hold the window are ended, after `PoolSettings::stall_limit`.
//!
//! Only where connections are shared: a call on a connection of its own has no
//! watch, costs nothing here and may wait as long as it likes.
//!
//! Not for: how many there are (`stalls`), when they are ended (`upkeep`).
//! Called by: `load`, `sent`, `response`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::Context;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::response::{Answer, Polled};

/// Bytes of a request from which on it may be what fills the upstream's
/// window: more than most calls send that just take their time.
const MUCH: usize = 4096;

/// Ticks that a request which fills nothing itself is given once those are
/// ended that do.
const GRACE: u32 = 20;

/// No piece is held.
const MOVING: u32 = 0;

/// One call.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Whose call it is, as a number; see [`Watch::belongs_to`].
    owner: AtomicUsize,
    /// Since which tick a piece of the answer, or of the request, is held.
    answer: AtomicU32,
    request: AtomicU32,
    /// What of the request was sent, and in which tick the last of it.
    sent: AtomicUsize,
    sent_at: AtomicU32,
    answered: AtomicBool,
    ended: AtomicBool,
    /// Who waits for the answer.
    waker: AtomicWaker,
    /// The answer, so that it can be let go of while its reader holds still.
    taken_over: Mutex<Option<Answer>>,
}

/// Which way a held piece goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Request,
    Answer,
}

impl Watch {
    fn since(&self, way: Way) -> &AtomicU32 {
        match way {
            Way::Request => &self.request,
            Way::Answer => &self.answer,
        }
    }

    pub(super) fn held(&self, way: Way, tick: u32) {
        // Zero is taken; a tick more or less does not matter.
        self.since(way).store(tick.max(1), Relaxed);
    }

    pub(super) fn moved(&self, way: Way) {
        self.since(way).store(MOVING, Relaxed);
    }

    /// A piece of the request was sent.
    pub(super) fn sent(&self, bytes: usize, tick: u32) {
        self.sent.fetch_add(bytes, Relaxed);
        self.sent_at.store(tick, Relaxed);
    }

    /// For how many ticks a piece is held.
    fn held_for(&self, way: Way, now: u32) -> u32 {
        match self.since(way).load(Relaxed) {
            MOVING => 0,
            since => now.wrapping_sub(since),
        }
    }

    /// Whether it may fill the upstream's window: it sent much, there is no
    /// answer, and nothing happened for so many ticks.
    fn fills(&self, ticks: u32, now: u32) -> bool {
        !self.answered.load(Relaxed)
            && self.sent.load(Relaxed) >= MUCH
            && now.wrapping_sub(self.sent_at.load(Relaxed)) >= ticks
    }

    /// Notes whose call it is: any number that tells claims apart.
    pub(super) fn belongs_to(&self, owner: usize) {
        self.owner.store(owner, Relaxed);
    }

    /// Keeps the answer, which is read through [`Watch::poll_frame`] from here.
    pub(super) fn keep(&self, answer: Answer) {
        self.answered.store(true, Relaxed);
        *self.taken_over.lock() = Some(answer);
    }

    /// Whether the call was ended; if not, the task is woken when it is.
    pub(super) fn ended(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.ended.load(Relaxed)
    }

    /// The next frame of the answer; `None` when the call was ended.
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Option<Polled> {
        if self.ended(cx) {
            return None;
        }
        let mut answer = self.taken_over.lock();
        Some(answer.as_mut()?.poll_frame(cx))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let answer = self.taken_over.lock();
        answer.as_ref().is_some_and(Answer::is_end_stream)
    }

    /// Ends the call, if it was not: what it holds of the window is free at
    /// once.
    fn end(&self) -> bool {
        if self.ended.swap(true, Relaxed) {
            return false;
        }
        self.moved(Way::Request);
        self.moved(Way::Answer);
        drop(self.taken_over.lock().take());
        self.waker.wake();
        true
    }
}

/// The calls of a connection that are watched.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<Vec<Weak<Watch>>>);

impl Watches {
    /// A watch for a call that begins.
    pub(super) fn begin(&self) -> Arc<Watch> {
        let watch = Arc::<Watch>::default();
        self.0.lock().push(Arc::downgrade(&watch));
        watch
    }

    /// How many calls of this owner hold a piece for at least so many ticks.
    pub(super) fn stalled_of(&self, owner: usize, ticks: u32, now: u32) -> usize {
        let held = |watch: &Watch| {
            let held = [Way::Request, Way::Answer].map(|way| watch.held_for(way, now));
            watch.owner.load(Relaxed) == owner && held.into_iter().any(|held| held >= ticks)
        };
        let watches = self.0.lock();
        let watches = watches.iter().filter_map(Weak::upgrade);
        watches.filter(|watch| held(watch)).count()
    }

    /// Forgets calls that are over.
    pub(super) fn tidy(&self) {
        self.0.lock().retain(|watch| watch.strong_count() > 0);
    }

    /// Ends calls that keep others waiting for at least so many ticks, and says
    /// how many.
    pub(super) fn end_stalled(&self, ticks: u32, now: u32) -> usize {
        let watches: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        let mut guilty: Vec<_> = watches
            .iter()
            .filter(|watch| watch.held_for(Way::Answer, now) >= ticks)
            .collect();
        // What the upstream has and does not read is not what is held here, but
        // what was sent before.
        let waits = |watch: &Watch, ticks| watch.held_for(Way::Request, now) >= ticks;
        if watches.iter().any(|watch| waits(watch, ticks)) {
            let fills: Vec<_> = watches.iter().filter(|w| w.fills(ticks, now)).collect();
            let owners: HashSet<_> = fills.iter().map(|w| w.owner.load(Relaxed)).collect();
            guilty.extend(fills);
            guilty.extend(watches.iter().filter(|watch| {
                let own = owners.contains(&watch.owner.load(Relaxed));
                waits(watch, if own { ticks } else { ticks + GRACE })
            }));
        }
        guilty.iter().filter(|watch| watch.end()).count()
    }
}
