//! What is stored and how recently it was used, in memory: a least recently
//! used list with an account of disk space.
//!
//! Not for: files; it only says which to remove. It is rebuilt from the
//! directory at start (`scan.rs`).
//! Called by: `store.rs`, under its lock.

use lru::LruCache;

use super::key::Key;

/// Space is counted in blocks of this size, as file systems do, so that the
/// bound holds on disk for many small files too.
pub(super) const BLOCK: u64 = 4096;

/// How long a use may go unrecorded on disk: recency after a restart is this
/// coarse, and a file that is read all the time costs one write in that time.
const TOUCH_EVERY: u32 = 600;

/// How many seconds after a look at a file it is time for the next: one that
/// was removed or changed in size by others is claimed no longer than this.
pub(super) const LOOK_EVERY: u32 = 5;

/// How many seconds after a look its file may still be taken for granted by
/// who has it looked at afterwards (`looks.rs`).
pub(super) const TRUSTED_FOR: u32 = 60;

/// Blocks a file of `size` bytes takes.
pub(super) fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK)
}

/// Seconds since 1970.
pub(super) fn now() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX))
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    blocks: u32,
    touched: u32,
    /// When its file was last looked at.
    looked: u32,
}

/// What [`Index::make_room`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// The space is reserved.
    Reserved,
    /// This entry was the least recently used and is now forgotten; remove
    /// its file and ask again.
    Evict(Key),
    /// Uploads in progress hold all the space there is.
    None,
}

/// What [`Index::touch`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    /// Not stored.
    Absent,
    /// Stored; its recency on disk is recent enough.
    Present,
    /// Stored; its recency on disk is to be renewed.
    Stale,
}

/// The same, and seconds since the last look at the file.
pub(super) type Found = (Touch, u32);

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    entries: LruCache<Key, Entry>,
    used: u64,
    reserved: u64,
    max: u64,
}

impl Index {
    /// An empty index for `max_size` bytes.
    pub(super) fn new(max_size: u64) -> Self {
        Self {
            entries: LruCache::unbounded(),
            used: 0,
            reserved: 0,
            max: max_size / BLOCK,
        }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes taken by entries and reservations.
    pub(super) fn bytes(&self) -> u64 {
        (self.used + self.reserved) * BLOCK
    }

    /// Whether `key` is stored, without using it.
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.entries.contains(key)
    }

    /// Uses `key`: it becomes the last to be evicted.
    pub(super) fn touch(&mut self, key: &Key, now: u32) -> Found {
        let Some(entry) = self.entries.get_mut(key) else {
            return (Touch::Absent, 0);
        };
        let age = match key.is_action() {
            // It is known by its checksum when it is read.
            true => 0,
            false => now.abs_diff(entry.looked),
        };
        if now.saturating_sub(entry.touched) < TOUCH_EVERY {
            return (Touch::Present, age);
        }
        entry.touched = now;
        (Touch::Stale, age)
    }

    /// Whether it is time to look at its file; if so, whoever asks does.
    pub(super) fn claim_look(&mut self, key: &Key, now: u32) -> bool {
        let Some(entry) = self.entries.peek_mut(key) else {
            return false;
        };
        let due = !key.is_action() && now.abs_diff(entry.looked) >= LOOK_EVERY;
        if due {
            entry.looked = now;
        }
        due
    }

    /// Sets when its file was last looked at.
    #[cfg(test)]
    pub(super) fn looked(&mut self, key: &Key, now: u32) {
        if let Some(entry) = self.entries.peek_mut(key) {
            entry.looked = now;
        }
    }

    /// Adds or replaces an entry, most recently used.
    pub(super) fn insert(&mut self, key: Key, blocks: u64, touched: u32) {
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let entry = Entry {
            blocks,
            touched,
            looked: touched,
        };
        let old = self.entries.put(key, entry);
        self.used += u64::from(blocks);
        self.used -= old.map_or(0, |e| u64::from(e.blocks));
    }

    /// Completes an entry of which only the name was known, and makes it the
    /// first to be evicted unless it was used since. So entries are to be
    /// settled from the most to the least recently used.
    pub(super) fn settle(&mut self, key: &Key, blocks: u64, touched: u32) {
        let Some(entry) = self.entries.peek_mut(key) else {
            return;
        };
        if entry.blocks == 0 {
            entry.blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
            self.used += u64::from(entry.blocks);
        }
        if entry.touched == 0 {
            entry.touched = touched;
            self.entries.demote(key);
        }
    }

    /// Forgets an entry.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let old = self.entries.pop(key);
        self.used -= old.map_or(0, |e| u64::from(e.blocks));
        old.is_some()
    }

    /// Reserves `blocks` if nothing has to go for them.
    pub(super) fn try_reserve(&mut self, blocks: u64) -> bool {
        let fits = self.used + self.reserved + blocks <= self.max;
        self.reserved += if fits { blocks } else { 0 };
        fits
    }

    /// Reserves `blocks`, or says what has to go first.
    pub(super) fn make_room(&mut self, blocks: u64) -> Room {
        if self.try_reserve(blocks) {
            return Room::Reserved;
        }
        if self.reserved + blocks > self.max {
            return Room::None;
        }
        match self.entries.pop_lru() {
            Some((key, entry)) => {
                self.used -= u64::from(entry.blocks);
                Room::Evict(key)
            }
            None => Room::None,
        }
    }

    /// Takes `blocks` as reserved, whether or not there is room: for files
    /// that are on disk already.
    pub(super) fn reserve_existing(&mut self, blocks: u64) {
        self.reserved += blocks;
    }

    /// Gives a reservation back.
    pub(super) fn release(&mut self, blocks: u64) {
        self.reserved = self.reserved.saturating_sub(blocks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Digest, DigestFunction};

    fn key(n: u8) -> Key {
        let digest = Digest::of(DigestFunction::Sha256, &[n]).unwrap();
        Key::blob(DigestFunction::Sha256, &digest)
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut index = Index::new(3 * BLOCK);
        for n in 0..3 {
            index.insert(key(n), 1, 100);
        }
        assert_eq!(index.touch(&key(0), 101), (Touch::Present, 1));
        assert_eq!(index.make_room(1), Room::Evict(key(1)));
        assert_eq!(index.make_room(1), Room::Reserved);
        assert_eq!(index.bytes(), 3 * BLOCK);
        assert!(index.contains(&key(0)) && !index.contains(&key(1)));
    }

    #[test]
    fn what_uploads_hold_is_not_given_twice() {
        let mut index = Index::new(3 * BLOCK);
        assert_eq!(index.make_room(2), Room::Reserved);
        assert_eq!(index.make_room(2), Room::None);
        index.release(2);
        assert_eq!(index.make_room(2), Room::Reserved);
    }

    #[test]
    fn settled_entries_are_in_order_and_used_ones_stay_ahead() {
        let mut index = Index::new(9 * BLOCK);
        for n in [2, 0, 3, 1] {
            index.insert(key(n), 0, 0);
        }
        index.touch(&key(0), 1000);
        for n in [3, 2, 1, 0] {
            index.settle(&key(n), 2, 100 + u32::from(n));
        }
        index.settle(&key(9), 2, 100);
        assert_eq!(index.bytes(), 8 * BLOCK);
        let mut gone = Vec::new();
        while let Room::Evict(key) = index.make_room(9) {
            gone.push(key);
        }
        assert_eq!(gone, [key(1), key(2), key(3), key(0)]);
    }

    #[test]
    fn replacing_an_entry_counts_it_once() {
        let mut index = Index::new(9 * BLOCK);
        index.insert(key(1), 4, 0);
        index.insert(key(1), 2, 0);
        assert_eq!((index.bytes(), index.len()), (2 * BLOCK, 1));
        assert!(index.remove(&key(1)) && !index.remove(&key(1)));
        assert_eq!(index.bytes(), 0);
    }

    #[test]
    fn a_use_reaches_the_disk_only_now_and_then() {
        let mut index = Index::new(9 * BLOCK);
        index.insert(key(1), 1, 1000);
        let touch = |index: &mut Index, now| index.touch(&key(1), now).0;
        assert_eq!(touch(&mut index, 1000 + TOUCH_EVERY - 1), Touch::Present);
        assert_eq!(touch(&mut index, 1000 + TOUCH_EVERY), Touch::Stale);
        assert_eq!(touch(&mut index, 1001 + TOUCH_EVERY), Touch::Present);
        assert_eq!(index.touch(&key(2), 0), (Touch::Absent, 0));
    }
}
