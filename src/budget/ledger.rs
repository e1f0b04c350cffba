//! The books of the budget: who holds what, who waits for what, and whose turn
//! it is.
//!
//! Not for: giving back what was taken (`Permit` does, when dropped).
//! Called by: the parent module.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Waker;

use parking_lot::Mutex;

/// Number of a share or a permit; a lower one is older.
pub(super) type Number = u64;

#[derive(Debug)]
pub(super) struct Ledger {
    limit: u64,
    /// The next number.
    next: AtomicU64,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    used: u64,
    /// Shares of which anything is held or incomplete.
    shares: HashMap<Number, Holding>,
    /// Incomplete permits of all shares.
    incomplete: BTreeSet<Number>,
    /// Permits that wait.
    waiting: BTreeMap<Number, Waiting>,
    /// Permits that were given what they waited for and do not know it yet.
    granted: HashMap<Number, u64>,
}

/// What one share holds.
#[derive(Debug, Default)]
struct Holding {
    used: u64,
    incomplete: BTreeSet<Number>,
}

#[derive(Debug)]
struct Waiting {
    share: Number,
    bytes: u64,
    waker: Waker,
}

impl Ledger {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            next: AtomicU64::new(0),
            books: Mutex::default(),
        }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// What one share may look at at once, in units.
    pub(super) fn looks(&self) -> u64 {
        let units = self.limit / 8 / super::UNIT;
        units.min(u64::from(u32::MAX))
    }

    pub(super) fn used(&self) -> u64 {
        self.books.lock().used
    }

    pub(super) fn used_by(&self, share: Number) -> u64 {
        self.books.lock().shares.get(&share).map_or(0, |s| s.used)
    }

    pub(super) fn waiting(&self) -> usize {
        self.books.lock().waiting.len()
    }

    /// Whether the oldest incomplete permit of the share waits, or did until now.
    pub(super) fn oldest_waits(&self, share: Number) -> bool {
        let books = self.books.lock();
        let oldest = books.shares.get(&share).and_then(|s| s.incomplete.first());
        oldest.is_some_and(|permit| {
            books.waiting.contains_key(permit) || books.granted.contains_key(permit)
        })
    }

    pub(super) fn number(&self) -> Number {
        self.next.fetch_add(1, Relaxed)
    }

    /// A new incomplete permit.
    pub(super) fn claim(&self, share: Number, permit: Number) {
        let mut books = self.books.lock();
        books.incomplete.insert(permit);
        let holding = books.shares.entry(share).or_default();
        holding.incomplete.insert(permit);
    }

    /// Whether the permit now has these bytes. If not and there is a waker, it
    /// waits.
    pub(super) fn poll(
        &self,
        share: Number,
        permit: Number,
        bytes: u64,
        waker: Option<&Waker>,
    ) -> bool {
        let mut books = self.books.lock();
        if books.granted.remove(&permit).is_some() {
            return true;
        }
        if books.may(self.limit, share, permit, bytes) {
            books.waiting.remove(&permit);
            books.take(share, bytes);
            return true;
        }
        if let Some(waker) = waker {
            let waiting = Waiting {
                share,
                bytes,
                waker: waker.clone(),
            };
            books.waiting.insert(permit, waiting);
        }
        false
    }

    pub(super) fn charge(&self, share: Number, bytes: u64) {
        if bytes > 0 {
            self.books.lock().take(share, bytes);
        }
    }

    pub(super) fn release(&self, share: Number, bytes: u64) {
        if bytes > 0 {
            self.settle(|books| books.give_back(share, bytes));
        }
    }

    /// The permit grows no more; what it was granted and did not take is given
    /// back.
    pub(super) fn complete(&self, share: Number, permit: Number) {
        self.settle(|books| {
            books.incomplete.remove(&permit);
            books.waiting.remove(&permit);
            if let Some(holding) = books.shares.get_mut(&share) {
                holding.incomplete.remove(&permit);
            }
            let granted = books.granted.remove(&permit).unwrap_or_default();
            books.give_back(share, granted);
        });
    }

    /// Makes a change and gives those who wait what they now may have.
    fn settle(&self, change: impl FnOnce(&mut Books)) {
        let mut wake = Vec::new();
        {
            let mut books = self.books.lock();
            change(&mut books);
            if books.waiting.is_empty() {
                return;
            }
            let waiting: Vec<_> = books
                .waiting
                .iter()
                .map(|(permit, w)| (*permit, w.share, w.bytes))
                .collect();
            for (permit, share, bytes) in waiting {
                if books.may(self.limit, share, permit, bytes) {
                    books.take(share, bytes);
                    books.granted.insert(permit, bytes);
                    wake.extend(books.waiting.remove(&permit).map(|w| w.waker));
                } else if books.used >= self.limit {
                    // The oldest was first in this row.
                    break;
                }
            }
        }
        for waker in wake {
            waker.wake();
        }
    }
}

impl Books {
    /// Whether a permit may have so many bytes more.
    fn may(&self, limit: u64, share: Number, permit: Number, bytes: u64) -> bool {
        if self.incomplete.first() == Some(&permit) {
            return true;
        }
        let Some(free) = limit.checked_sub(self.used.saturating_add(bytes)) else {
            return false;
        };
        let holding = self.shares.get(&share);
        let would_hold = holding.map_or(0, |h| h.used).saturating_add(bytes);
        let oldest = holding.is_some_and(|h| h.incomplete.first() == Some(&permit));
        would_hold <= if oldest { free } else { free / 3 }
    }

    fn take(&mut self, share: Number, bytes: u64) {
        self.used += bytes;
        self.shares.entry(share).or_default().used += bytes;
    }

    fn give_back(&mut self, share: Number, bytes: u64) {
        self.used -= bytes;
        if let Some(holding) = self.shares.get_mut(&share) {
            holding.used -= bytes;
            if holding.used == 0 && holding.incomplete.is_empty() {
                self.shares.remove(&share);
            }
        }
    }
}
