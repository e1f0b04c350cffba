//! Unfinished uploads by resource name, so that a client whose connection
//! broke can go on where it was.
//!
//! They live as long as the process: a client that resumes after a restart
//! learns from `QueryWriteStatus` that it has to begin again. Those nobody
//! works on are bounded in number, bytes and age, and go first when space is
//! needed. The one that goes beyond its share goes when others wait for that
//! and it is slow.
//!
//! Not for: the bytes (`upload.rs`).
//! Called by: `write.rs`.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::index;
use super::room::Rooms;
use super::status::blocking;
use super::store;
use super::upload::Upload;

/// Seconds an upload is kept that nobody works on.
const MAX_AGE: u32 = 120;
/// Each holds an open file.
const MAX_COUNT: usize = 256;

/// While others wait to go beyond their share, the upload that does has to get
/// on by so much in such a time.
const LEAST_BEYOND: u64 = 4 << 20;
const LEAST_BEYOND_IN: Duration = Duration::from_secs(8);

/// How often those that wait for it see to that.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// How long what needs space waits for uploads to end that it told to.
const YIELD: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(80);

/// A call has to bring so much, or end, in such a time; what it waits for room
/// does not count.
pub(super) const LEAST_PROGRESS: usize = 16 << 10;
pub(super) const IDLE: Duration = Duration::from_secs(120);

/// How long to wait for a call on a dead connection to let go of its upload.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// All unfinished uploads that can be resumed.
#[derive(Debug)]
pub(super) struct Uploads {
    slots: Mutex<HashMap<[u8; 32], Arc<Slot>>>,
    pub(super) rooms: Rooms,
    max_idle_bytes: u64,
    /// When it was last seen to that nobody holds others up.
    checked: AtomicU32,
}

/// One upload; locked by the call that works on it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    upload: Arc<tokio::sync::Mutex<Option<Upload>>>,
    /// Tells the call that works on it to let go.
    let_go: Mutex<CancellationToken>,
    committed: AtomicU64,
    used: AtomicU32,
    /// Since when it goes beyond its share with others waiting for that, and
    /// how far it was.
    beyond: Mutex<Option<(Instant, u64)>>,
}

/// The right to work on an upload.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) slot: Arc<Slot>,
    pub(super) upload: OwnedMutexGuard<Option<Upload>>,
    pub(super) let_go: CancellationToken,
}

impl Slot {
    /// Whether nobody works on it.
    fn is_idle(&self) -> bool {
        self.upload.try_lock().is_ok()
    }

    /// Notes how far the upload is.
    pub(super) fn progress(&self, committed: u64) {
        self.committed.store(committed, Ordering::Relaxed);
        self.used.store(index::now(), Ordering::Relaxed);
    }

    /// Notes that the upload goes beyond its share.
    pub(super) fn goes_beyond(&self) {
        let committed = self.committed.load(Ordering::Relaxed);
        *self.beyond.lock() = Some((Instant::now(), committed));
    }

    /// Whether it goes beyond its share, and too slowly for those that wait.
    fn holds_up(&self, wanted: bool) -> bool {
        let committed = self.committed.load(Ordering::Relaxed);
        let mut beyond = self.beyond.lock();
        let Some((since, bytes)) = *beyond else {
            return false;
        };
        if !wanted || committed - bytes.min(committed) >= LEAST_BEYOND {
            *beyond = Some((Instant::now(), committed));
            return false;
        }
        since.elapsed() >= LEAST_BEYOND_IN
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

/// Whether a call gets on.
#[derive(Debug)]
pub(super) struct Progress {
    until: Instant,
    bytes: usize,
}

impl Progress {
    /// From now on.
    pub(super) fn new() -> Self {
        Self {
            until: Instant::now() + IDLE,
            bytes: 0,
        }
    }

    /// When it is over if it does not.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Bytes came.
    pub(super) fn note(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= LEAST_PROGRESS {
            *self = Self::new();
        }
    }
}

fn busy() -> Status {
    Status::unavailable("another call is writing this upload")
}

fn id(name: &str) -> [u8; 32] {
    *blake3::hash(name.as_bytes()).as_bytes()
}

impl Uploads {
    /// No uploads, in a cache of `max_size` bytes.
    pub(super) fn new(max_size: u64) -> Self {
        Self {
            slots: Mutex::default(),
            rooms: Rooms::new(max_size),
            max_idle_bytes: max_size / 4,
            checked: AtomicU32::new(0),
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

    /// Waits until the upload of a claim has room for `bytes`.
    pub(super) async fn extend(&self, claim: &mut Claim, bytes: u64) {
        let Some(upload) = claim.upload.as_mut() else {
            return;
        };
        if self.rooms.beyond_is_held() {
            self.drop_holding_up(|slot| slot.beyond.lock().is_some() && slot.is_idle());
        }
        {
            let mut extended = pin!(self.rooms.extend(&mut upload.room, bytes));
            while tokio::time::timeout(CHECK_EVERY, &mut extended)
                .await
                .is_err()
            {
                let now = index::now();
                if self.checked.swap(now, Ordering::Relaxed) != now {
                    self.drop_what_holds_up();
                }
            }
        }
        if upload.room.is_beyond() {
            claim.slot.goes_beyond();
        }
    }

    /// Drops the uploads that `holds_up`, whether or not somebody works on
    /// them.
    fn drop_holding_up(&self, holds_up: impl Fn(&Slot) -> bool) {
        let mut dropped = Vec::new();
        self.slots.lock().retain(|_, slot| {
            let goes = holds_up(slot);
            if goes {
                slot.let_go.lock().cancel();
                dropped.push(Arc::clone(slot));
            }
            !goes
        });
        drop(dropped);
    }

    fn drop_what_holds_up(&self) {
        let wanted = self.rooms.beyond_is_wanted();
        self.drop_holding_up(|slot| slot.holds_up(wanted));
    }

    /// Makes room for what finds none: drops the uploads that nobody works on
    /// or, if there are none, the largest but `own`. False if there is none.
    fn make_way(&self, own: Option<&Arc<Slot>>) -> bool {
        if self.drop_idle() {
            return true;
        }
        let slots = self.slots.lock();
        let others = slots
            .iter()
            .filter(|(_, slot)| own.is_none_or(|own| !Arc::ptr_eq(own, slot)));
        let largest = others.max_by_key(|(_, slot)| slot.committed.load(Ordering::Relaxed));
        let Some((_, largest)) = largest else {
            return false;
        };
        largest.let_go.lock().cancel();
        true
    }

    /// After an error of a write.
    pub(super) fn on_error(&self, error: &store::Error) {
        if matches!(error, store::Error::DiskFull) {
            // Room for the next one; this one may be half written.
            self.drop_idle();
        }
    }

    /// Drops idle uploads that are too old or too many, and what holds others
    /// up.
    pub(super) fn prune(&self) {
        self.drop_what_holds_up();
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
        let idle = slots.iter().filter(|(_, s)| s.is_idle());
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

/// A wait for space that others are to make. It holds no thread, so that any
/// number can wait.
#[derive(Debug)]
pub(super) struct Way {
    since: Instant,
    pause: Duration,
}

impl Way {
    /// From now on.
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            pause: FIRST_PAUSE,
        }
    }

    /// Has others than `own` make way and gives them a moment. An error if
    /// there are none, or they were waited for long enough.
    pub(super) async fn wait(
        &mut self,
        uploads: &Arc<Uploads>,
        own: Option<&Arc<Slot>>,
    ) -> Result<(), Status> {
        if self.since.elapsed() >= YIELD {
            return Err(store::Error::NoRoom.into());
        }
        let (uploads, own) = (Arc::clone(uploads), own.cloned());
        if !blocking(move || uploads.make_way(own.as_ref())).await? {
            return Err(store::Error::NoRoom.into());
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
