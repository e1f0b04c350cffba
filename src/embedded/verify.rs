//! Whether a file holds what its name says: by its bytes, or because it is the
//! same file that was found right before.
//!
//! Not for: what follows if it does not (`store.rs` removes it).
//! Called by: `store.rs`, `read.rs`, `durability.rs`.

use std::fs::{File, Metadata};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use lru::LruCache;
use parking_lot::Mutex;

use super::key::Key;
use crate::digest::Hasher;

/// Files remembered as right: 100 bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add((64 << 10) - 1);

/// Bytes hashed at a time.
const PIECE: usize = 256 << 10;

/// What tells a file from one that was changed or put in its place. The times
/// have nanoseconds; nobody but the kernel sets the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of a file as it is now.
    pub(super) fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// How long the file is.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether it is the same file, changed or not.
    pub(super) fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Files found right.
#[derive(Debug)]
pub(super) struct Verified(Mutex<LruCache<Key, Stamp>>);

impl Default for Verified {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Verified {
    /// Whether this very file was found right.
    pub(super) fn knows(&self, key: &Key, stamp: &Stamp) -> bool {
        self.0.lock().get(key) == Some(stamp)
    }

    /// The file was found right.
    pub(super) fn remember(&self, key: Key, stamp: Stamp) {
        self.0.lock().put(key, stamp);
    }
}

/// The bytes of a blob as they are read, hashed.
pub(super) struct Verifier {
    key: Key,
    hasher: Hasher,
}

impl Verifier {
    /// For a blob; `None` if its digest function cannot be computed.
    pub(super) fn new(key: &Key) -> Option<Self> {
        let hasher = key.function().and_then(Hasher::new)?;
        Some(Self { key: *key, hasher })
    }

    /// Takes in the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Whether they were those of the blob.
    pub(super) fn finish(self) -> bool {
        let function = self.hasher.function();
        Key::blob(function, &self.hasher.finish()) == self.key
    }
}

/// Whether these are the bytes of a blob.
pub(super) fn are_right(key: &Key, bytes: &[u8]) -> bool {
    let Some(mut verifier) = Verifier::new(key) else {
        return false;
    };
    verifier.update(bytes);
    verifier.finish()
}

/// Whether a file holds a blob; reads all of it.
pub(super) fn is_right(key: &Key, file: &File) -> io::Result<bool> {
    let Some(mut verifier) = Verifier::new(key) else {
        return Ok(false);
    };
    let mut buffer = vec![0; PIECE];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        if read == 0 {
            return Ok(verifier.finish());
        }
        verifier.update(buffer.get(..read).unwrap_or_default());
        offset += read as u64;
    }
}
