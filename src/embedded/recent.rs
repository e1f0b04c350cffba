//! Action Cache entries that were read lately, in memory: those that name
//! files only, so that whether they are complete is known without the disk.
//!
//! Looked at for calls from within this process, which it spares two thread
//! switches, a file and a gRPC call in process. Clients read entries from disk.
//! Not for: deciding what is stored; an entry here is only used while the index
//! has it.
//! Called by: `Embedded::entry_at_hand`, `action_cache.rs` (fills it),
//! `store.rs` (writes).

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use prost::Message as _;

use super::key::Key;
use super::store::Store;
use super::{action, index};
use crate::digest::DigestFunction;
use crate::proto::rev2;

/// Most entries kept.
const ENTRIES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
/// Larger entries are not kept: together at most 16 MiB, encoded.
const LARGEST: usize = 4 << 10;

/// An entry, and what has to be stored for it to be complete.
#[derive(Debug)]
struct Kept {
    result: rev2::ActionResult,
    /// The entry's own key first.
    keys: Arc<[Key]>,
}

/// The entries.
#[derive(Debug)]
pub(super) struct Recent(Mutex<State>);

#[derive(Debug)]
struct State {
    entries: LruCache<Key, Arc<Kept>>,
    /// Entries written so far.
    writes: u64,
}

impl Default for Recent {
    fn default() -> Self {
        Self(Mutex::new(State {
            entries: LruCache::new(ENTRIES),
            writes: 0,
        }))
    }
}

impl Recent {
    /// How many entries were written so far. Asked before one is read from
    /// disk, it tells whether that is still what stands there.
    pub(super) fn writes(&self) -> u64 {
        self.0.lock().writes
    }

    /// Keeps an entry read after `writes` writes, unless there was one since.
    pub(super) fn keep(
        &self,
        key: Key,
        function: DigestFunction,
        result: &rev2::ActionResult,
        writes: u64,
    ) {
        let Some(files) = action::files(function, result) else {
            return;
        };
        if result.encoded_len() > LARGEST {
            return;
        }
        let kept = Kept {
            result: result.clone(),
            keys: std::iter::once(key).chain(files).collect(),
        };
        let mut state = self.0.lock();
        if state.writes == writes {
            state.entries.put(key, Arc::new(kept));
        }
    }

    /// The entry under a key was written: to be called once the new one stands
    /// on disk.
    pub(super) fn written(&self, key: &Key) {
        let mut state = self.0.lock();
        state.writes += 1;
        state.entries.pop(key);
    }

    /// The entry under a key, if it is kept and complete; if so, all of it was
    /// used. From memory: files are looked at afterwards where it is time to,
    /// and there is no answer if they were not looked at for long.
    pub(super) fn complete(&self, store: &Store, key: &Key) -> Option<rev2::ActionResult> {
        let kept = self.0.lock().entries.get(key).map(Arc::clone)?;
        let mut present = 0;
        let mut oldest = 0;
        store.touch_each(&kept.keys, |_, age| {
            present += usize::from(age.is_some());
            oldest = oldest.max(age.unwrap_or_default());
        });
        if present < kept.keys.len() || oldest >= index::TRUSTED_FOR {
            return None;
        }
        if oldest >= index::LOOK_EVERY {
            store.looks.ask(&kept.keys);
        }
        Some(kept.result.clone())
    }
}
