//! Files and index together: every change of what is stored happens here, in
//! an order that a crash between any two steps leaves consistent.
//!
//! All methods block on the disk or on short locks, except those said to
//! answer from memory; services call the others through `blocking`.
//!
//! Not for: what the bytes mean (`action.rs`, `tree.rs`).
//! Called by: the services, `upload.rs`, `durability.rs`.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use super::disk::{Disk, Temp};
use super::index::{self, Index, Room, Touch};
use super::key::Key;
use super::looks::Looks;
use super::recent::Recent;
use super::scan::Found;
use super::verify::Verified;
use crate::digest::Digest;

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It does not fit even an empty cache.
    #[error("{size} bytes are more than the whole cache may hold ({max} bytes)")]
    TooLarge {
        /// Bytes wanted.
        size: u64,
        /// Bytes of the cache.
        max: u64,
    },
    /// Unfinished uploads take all the space.
    #[error("the cache is full of unfinished uploads; try again")]
    NoRoom,
    /// The file system has no space left, or the quota is used up.
    #[error("the disk of the cache is full")]
    DiskFull,
    /// The bytes are not those of the digest.
    #[error("the data does not match its digest: it is {got}, not {want}")]
    Mismatch {
        /// The digest claimed.
        want: Digest,
        /// The digest of the data (of its beginning, if it is too long).
        got: Digest,
    },
    /// The data is longer than the digest says.
    #[error("the data is longer than its digest says ({0} bytes)")]
    TooLong(u64),
    /// The digest function cannot be computed.
    #[error("{0} is not a digest function this cache supports")]
    Function(crate::digest::DigestFunction),
    /// Any other failure of the file system.
    #[error("the disk of the cache failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io(error),
        }
    }
}

/// The stored files.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) disk: Disk,
    pub(super) index: Mutex<Index>,
    /// Held while files appear under or vanish from their final names, so
    /// that the removal of an old file cannot hit a new one. Readers and
    /// lookups do not take it. Taken before `index`.
    files: Mutex<()>,
    /// Uses to be recorded on disk.
    touched: Mutex<Vec<Key>>,
    /// Entries read lately.
    pub(super) recent: Recent,
    /// Files to be looked at.
    pub(super) looks: Looks,
    /// Files found right lately.
    pub(super) verified: Verified,
    /// Whether anything was written since the last sync.
    pub(super) dirty: AtomicBool,
    /// Whether recency is known; nothing is evicted before.
    settled: (Mutex<bool>, Condvar),
    max_size: u64,
}

impl Store {
    /// A store over an open directory, empty until filled by a scan.
    pub(super) fn new(disk: Disk, max_size: u64) -> Self {
        Self {
            disk,
            index: Mutex::new(Index::new(max_size)),
            files: Mutex::new(()),
            touched: Mutex::default(),
            recent: Recent::default(),
            looks: Looks::default(),
            verified: Verified::default(),
            dirty: AtomicBool::new(false),
            settled: Default::default(),
            max_size,
        }
    }

    /// Most bytes the cache may hold.
    pub(super) fn max_size(&self) -> u64 {
        self.max_size
    }

    /// Adds what a scan found, least recently used first.
    pub(super) fn fill(&self, found: &[Found]) {
        let mut index = self.index.lock();
        for file in found {
            index.insert(file.key, file.blocks, file.touched);
        }
    }

    /// Completes what was added by name only, with files in the same order.
    pub(super) fn settle(&self, found: &[Found]) {
        for files in found.rchunks(1024) {
            let mut index = self.index.lock();
            for file in files.iter().rev() {
                index.settle(&file.key, file.blocks, file.touched);
            }
        }
    }

    /// Says that recency is known, as far as it ever will be.
    pub(super) fn set_settled(&self) {
        *self.settled.0.lock() = true;
        self.settled.1.notify_all();
    }

    /// Whether `key` is stored, without using it. From memory.
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.index.lock().contains(key)
    }

    /// Whether `key` is stored; if so, it is used. From memory.
    pub(super) fn touch(&self, key: &Key) -> bool {
        self.touch_all(std::slice::from_ref(key)) == 1
    }

    /// Which of the keys, by their number, are not stored. From memory.
    pub(super) fn absent(&self, keys: &[Key]) -> Vec<usize> {
        let index = self.index.lock();
        let absent = keys.iter().enumerate();
        let absent = absent.filter(|(_, key)| !index.contains(key));
        absent.map(|(n, _)| n).collect()
    }

    /// Uses the keys that are stored and says how many are. From memory.
    pub(super) fn touch_all(&self, keys: &[Key]) -> usize {
        let mut found = 0;
        self.touch_each(keys, |_, age| found += usize::from(age.is_some()));
        found
    }

    /// Uses the keys that are stored and tells for each how many seconds ago
    /// its file was looked at, if it is stored. From memory.
    pub(super) fn touch_each(&self, keys: &[Key], mut tell: impl FnMut(usize, Option<u32>)) {
        let now = index::now();
        let mut stale = Vec::new();
        let mut index = self.index.lock();
        for (n, key) in keys.iter().enumerate() {
            let (touch, age) = index.touch(key, now);
            tell(n, (touch != Touch::Absent).then_some(age));
            if touch == Touch::Stale {
                stale.push(*key);
            }
        }
        drop(index);
        if !stale.is_empty() {
            self.touched.lock().append(&mut stale);
        }
    }

    /// Records on disk what was used since the last call.
    pub(super) fn record_touches(&self) {
        let keys = std::mem::take(&mut *self.touched.lock());
        let now = index::now();
        for key in keys {
            // Fails if the file was evicted meanwhile.
            let _ = self.disk.touch(&key, now);
        }
    }

    /// Removes a blob whose file does not have its size, or an Action Cache
    /// entry without one.
    pub(super) fn forget_broken(&self, key: &Key) {
        self.forget(key, |path| match path.metadata() {
            Ok(metadata) => !key.is_action() && metadata.len() != key.size(),
            Err(error) => gone_or_broken(&error),
        });
    }

    /// Removes a file that is `still_bad` once nobody can replace it.
    pub(super) fn forget(&self, key: &Key, still_bad: impl FnOnce(&Path) -> bool) {
        let files = self.files.lock();
        if !self.contains(key) || !still_bad(&self.disk.path(key)) {
            return;
        }
        self.index.lock().remove(key);
        let _ = self.disk.remove(key);
        drop(files);
        corrupt(key);
    }

    /// Reserves space for `bytes` that will be written, evicting what was not
    /// used for longest.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, Error> {
        let mut reservation = Reservation {
            store: Arc::clone(self),
            blocks: 0,
        };
        reservation.grow_to(bytes)?;
        Ok(reservation)
    }

    fn make_room(&self, blocks: u64) -> Result<(), Error> {
        if self.index.lock().try_reserve(blocks) {
            return Ok(());
        }
        let mut settled = self.settled.0.lock();
        self.settled.1.wait_while(&mut settled, |settled| !*settled);
        drop(settled);
        let _files = self.files.lock();
        loop {
            let room = self.index.lock().make_room(blocks);
            match room {
                Room::Reserved => return Ok(()),
                Room::None => return Err(Error::NoRoom),
                Room::Evict(key) => {
                    self.disk.remove(&key)?;
                    metrics::counter!("assetgate_embedded_evictions_total").increment(1);
                }
            }
        }
    }

    /// Evicts until the cache is within its bound (which may have been
    /// lowered since the files were written).
    pub(super) fn shrink(&self) {
        match self.make_room(0) {
            Ok(()) | Err(Error::NoRoom) => {}
            Err(error) => tracing::error!(%error, "the cache cannot be made smaller"),
        }
    }

    /// Gives a finished file its name and its place in the index. A blob that
    /// somebody else finished first stays; an Action Cache entry is replaced.
    pub(super) fn publish(
        &self,
        key: Key,
        temp: &Temp,
        size: u64,
        mut reserved: Reservation,
    ) -> Result<(), Error> {
        self.dirty.store(true, Ordering::Release);
        let _files = self.files.lock();
        if !key.is_action() && self.touch(&key) {
            return Ok(());
        }
        self.disk.publish(temp, &key)?;
        if key.is_action() {
            self.recent.written(&key);
        }
        let mut index = self.index.lock();
        index.release(std::mem::take(&mut reserved.blocks));
        index.insert(key, index::blocks(size), index::now());
        Ok(())
    }

    /// Adds a blob whose file is in place, verified only now.
    pub(super) fn admit(&self, key: Key, touched: u32, mut reserved: Reservation) {
        let _files = self.files.lock();
        let mut index = self.index.lock();
        let blocks = std::mem::take(&mut reserved.blocks);
        index.release(blocks);
        if !index.contains(&key) {
            index.insert(key, blocks, touched);
        }
    }

    /// Removes a file that was never in the index, unless it is by now.
    pub(super) fn discard(&self, key: &Key) {
        let _files = self.files.lock();
        if !self.contains(key) {
            let _ = self.disk.remove(key);
        }
        corrupt(key);
    }

    /// Counts a file that is on disk, but not in the index, as reserved.
    pub(super) fn reserve_existing(self: &Arc<Self>, blocks: u64) -> Reservation {
        self.index.lock().reserve_existing(blocks);
        Reservation {
            store: Arc::clone(self),
            blocks,
        }
    }

    /// Publishes the gauges.
    #[allow(clippy::cast_precision_loss, reason = "gauges are floating point")]
    pub(super) fn report(&self) {
        let (bytes, blobs) = {
            let index = self.index.lock();
            (index.bytes(), index.len())
        };
        metrics::gauge!("assetgate_embedded_bytes").set(bytes as f64);
        metrics::gauge!("assetgate_embedded_blobs").set(blobs as f64);
    }

    /// Bytes on disk, with unfinished uploads, and number of entries.
    #[cfg(test)]
    pub(super) fn usage(&self) -> (u64, usize) {
        let index = self.index.lock();
        (index.bytes(), index.len())
    }
}

/// Counts and logs a file that was not what it should be.
pub(super) fn corrupt(key: &Key) {
    metrics::counter!("assetgate_embedded_corrupt_total").increment(1);
    tracing::warn!(file = %key.path().display(), "a damaged file was removed from the cache");
}

/// Whether there is no such file, rather than no way to read it just now.
pub(super) fn gone_or_broken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory
    )
}

/// Space set aside for a file that is being written; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    store: Arc<Store>,
    blocks: u64,
}

impl Reservation {
    /// Makes it enough for `bytes`.
    pub(super) fn grow_to(&mut self, bytes: u64) -> Result<(), Error> {
        let max = self.store.max_size;
        if index::blocks(bytes) > max / index::BLOCK {
            return Err(Error::TooLarge { size: bytes, max });
        }
        let more = index::blocks(bytes).saturating_sub(self.blocks);
        if more > 0 {
            self.store.make_room(more)?;
            self.blocks += more;
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.blocks > 0 {
            self.store.index.lock().release(self.blocks);
        }
    }
}
