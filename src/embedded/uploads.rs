//! Unfinished uploads by resource name, so that a client whose connection
//! broke can go on where it was.
//!
//! They live as long as the process: a client that resumes after a restart
//! learns from `QueryWriteStatus` that it has to begin again. Those nobody
//! works on are bounded in number, bytes and age, and go first when space is
//! needed.
//!
//! Not for: the bytes (`upload.rs`).
//! Called by: `write.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::index;
use super::upload::Upload;

/// Seconds an upload is kept that nobody works on.
const MAX_AGE: u32 = 3600;
/// Each holds an open file.
const MAX_COUNT: usize = 256;

/// How long to wait for a call on a dead connection to let go of its upload.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// All unfinished uploads that can be resumed.
#[derive(Debug)]
pub(super) struct Uploads {
    slots: Mutex<HashMap<[u8; 32], Arc<Slot>>>,
    max_idle_bytes: u64,
}

/// One upload; locked by the call that works on it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    upload: Arc<tokio::sync::Mutex<Option<Upload>>>,
    /// Tells the call that works on it to let go.
    let_go: Mutex<CancellationToken>,
    committed: AtomicU64,
    used: AtomicU32,
}

/// The right to work on an upload.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) slot: Arc<Slot>,
    pub(super) upload: OwnedMutexGuard<Option<Upload>>,
    pub(super) let_go: CancellationToken,
}

impl Slot {
    /// Notes how far the upload is.
    pub(super) fn progress(&self, committed: u64) {
        self.committed.store(committed, Ordering::Relaxed);
        self.used.store(index::now(), Ordering::Relaxed);
    }

    /// Claims an upload that only its creator knows.
    pub(super) fn claim_new(upload: Upload) -> Result<Claim, Status> {
        let slot = Self::default();
        slot.progress(0);
        let cell = Arc::new(tokio::sync::Mutex::new(Some(upload)));
        let locked = Arc::clone(&cell).try_lock_owned();
        let slot = Arc::new(Self {
            upload: cell,
            ..slot
        });
        let let_go = slot.let_go.lock().clone();
        Ok(Claim {
            slot,
            upload: locked.map_err(|_| busy())?,
            let_go,
        })
    }
}

fn busy() -> Status {
    Status::unavailable("another call is writing this upload")
}

fn id(name: &str) -> [u8; 32] {
    *blake3::hash(name.as_bytes()).as_bytes()
}

impl Uploads {
    /// No uploads; idle ones may take `max_idle_bytes`.
    pub(super) fn new(max_idle_bytes: u64) -> Self {
        Self {
            slots: Mutex::default(),
            max_idle_bytes,
        }
    }

    /// Begins an upload under `name`, in place of an earlier one.
    pub(super) fn begin(&self, name: &str, upload: Upload) -> Result<Claim, Status> {
        let claim = Slot::claim_new(upload)?;
        let slot = Arc::clone(&claim.slot);
        self.slots.lock().insert(id(name), slot);
        self.prune();
        Ok(claim)
    }

    /// Takes over the upload under `name`, from a call that may not know yet
    /// that its client is gone. `None` if there is none.
    pub(super) async fn resume(&self, name: &str) -> Result<Option<Claim>, Status> {
        let Some(slot) = self.slots.lock().get(&id(name)).cloned() else {
            return Ok(None);
        };
        let let_go = CancellationToken::new();
        std::mem::replace(&mut *slot.let_go.lock(), let_go.clone()).cancel();
        let lock = Arc::clone(&slot.upload).lock_owned();
        let upload = tokio::time::timeout(TAKE_OVER, lock).await;
        let upload = upload.map_err(|_| busy())?;
        Ok(upload.is_some().then_some(Claim {
            slot,
            upload,
            let_go,
        }))
    }

    /// Bytes committed under `name`.
    pub(super) fn committed(&self, name: &str) -> Option<u64> {
        let slots = self.slots.lock();
        let slot = slots.get(&id(name))?;
        Some(slot.committed.load(Ordering::Relaxed))
    }

    /// Forgets the upload under `name` if it still is `slot`.
    pub(super) fn forget(&self, name: &str, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock();
        let id = id(name);
        if slots.get(&id).is_some_and(|s| Arc::ptr_eq(s, slot)) {
            slots.remove(&id);
        }
    }

    /// Drops the uploads that nobody works on; true if there were any.
    pub(super) fn drop_idle(&self) -> bool {
        self.drop_oldest_while(|_, _, _| true) > 0
    }

    /// Drops idle uploads that are too old or too many.
    pub(super) fn prune(&self) {
        let now = index::now();
        self.drop_oldest_while(|used, count, bytes| {
            let old = now.saturating_sub(used) >= MAX_AGE;
            old || count > MAX_COUNT || bytes > self.max_idle_bytes
        });
    }

    /// Drops idle uploads, the one unused for longest first, while `goes`
    /// says so of its time of use, the number and the bytes of what is left.
    fn drop_oldest_while(&self, goes: impl Fn(u32, usize, u64) -> bool) -> usize {
        let mut slots = self.slots.lock();
        let idle = slots.iter().filter(|(_, s)| s.upload.try_lock().is_ok());
        let mut idle: Vec<_> = idle
            .map(|(id, s)| {
                let used = s.used.load(Ordering::Relaxed);
                (used, *id, s.committed.load(Ordering::Relaxed))
            })
            .collect();
        idle.sort_unstable();
        let mut bytes: u64 = idle.iter().map(|(_, _, bytes)| bytes).sum();
        let mut left = idle.len();
        let mut dropped = Vec::new();
        for (used, id, size) in idle {
            if !goes(used, left, bytes) {
                break;
            }
            left -= 1;
            bytes -= size;
            dropped.extend(slots.remove(&id));
        }
        drop(slots);
        dropped.len()
    }
}
