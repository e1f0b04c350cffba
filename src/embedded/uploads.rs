//! Unfinished uploads by resource name, so that a client whose connection
//! broke can go on where it was.
//!
//! They live as long as the process: a client that resumes after a restart
//! learns from `QueryWriteStatus` that it has to begin again. Those nobody
//! works on are bounded in number, bytes and age, and go first when space is
//! needed. Those that stand still go when others wait for their room, and what
//! goes beyond its share also when it is slow.
//!
//! Not for: the bytes (`upload.rs`), one upload by itself (`slot.rs`).
//! Called by: `write.rs`.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;

use super::index;
use super::room::Rooms;
use super::slot::{Claim, Slot, busy};
use super::status::blocking;
use super::store;
use super::upload::Upload;

/// Seconds an upload is kept that nobody works on.
const MAX_AGE: u32 = 120;
/// Each holds an open file.
const MAX_COUNT: usize = 256;

/// How often those that wait for it see to that.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// All together no more often than that.
const CHECK_LEAST: Duration = Duration::from_millis(50);

/// How long what needs space waits for uploads to end that it told to.
const YIELD: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(80);

/// How long to wait for a call on a dead connection to let go of its upload.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// All unfinished uploads that can be resumed.
#[derive(Debug)]
pub(super) struct Uploads {
    slots: Mutex<HashMap<[u8; 32], Arc<Slot>>>,
    pub(super) rooms: Rooms,
    max_idle_bytes: u64,
    /// When it was last seen to that nobody holds others up.
    checked: Mutex<Option<Instant>>,
}

/// For an upload whose name another has now: of nobody's name.
fn nameless() -> [u8; 32] {
    *blake3::hash(uuid::Uuid::new_v4().as_bytes()).as_bytes()
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
            checked: Mutex::default(),
        }
    }

    /// Begins an upload under `name`, in place of an earlier one.
    pub(super) fn begin(&self, name: &str, upload: Upload) -> Result<Claim, Status> {
        let claim = Slot::claim_new(upload)?;
        let slot = Arc::clone(&claim.slot);
        let mut slots = self.slots.lock();
        let earlier = slots.insert(id(name), slot);
        if let Some(earlier) = earlier.filter(|earlier| !earlier.is_idle()) {
            // Whoever works on it may finish, but holds up nobody.
            slots.insert(nameless(), earlier);
        }
        drop(slots);
        self.prune();
        Ok(claim)
    }

    /// Takes over the upload under `name`, from a call that may not know yet
    /// that its client is gone. `None` if there is none.
    pub(super) async fn resume(&self, name: &str) -> Result<Option<Claim>, Status> {
        let Some(slot) = self.slots.lock().get(&id(name)).cloned() else {
            return Ok(None);
        };
        let let_go = slot.take_over();
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
        Some(slot.committed())
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
        {
            let mut extended = pin!(self.rooms.extend(&mut upload.room, bytes));
            let mut pause = Duration::ZERO;
            while tokio::time::timeout(pause, &mut extended).await.is_err() {
                pause = CHECK_EVERY;
                if self.may_check() {
                    self.drop_what_holds_up();
                }
            }
        }
        claim.slot.has(&upload.room);
    }

    /// Whether those that wait have not been seen to just now.
    fn may_check(&self) -> bool {
        let mut checked = self.checked.lock();
        let may = checked.is_none_or(|at| at.elapsed() >= CHECK_LEAST);
        if may {
            *checked = Some(Instant::now());
        }
        may
    }

    /// Drops the uploads that `holds_up`, whether or not somebody works on
    /// them.
    fn drop_holding_up(&self, holds_up: impl Fn(&Slot) -> bool) {
        let mut dropped = Vec::new();
        self.slots.lock().retain(|_, slot| {
            let goes = holds_up(slot);
            if goes {
                slot.let_go();
                dropped.push(Arc::clone(slot));
            }
            !goes
        });
        drop(dropped);
    }

    fn drop_what_holds_up(&self) {
        let wanted = self.rooms.wanted();
        self.drop_holding_up(|slot| slot.holds_up(wanted));
        if wanted.shared > 0 {
            self.drop_standing_still(wanted.shared);
        }
    }

    /// Drops uploads that stand still, those first that do so longest, until
    /// so much of the shared room is free.
    fn drop_standing_still(&self, mut wanted: u64) {
        let slots = self.slots.lock();
        let holding = slots.values().filter(|slot| slot.shared() > 0);
        let mut still: Vec<_> = holding
            .filter_map(|slot| Some((slot.still_since()?, Arc::clone(slot))))
            .collect();
        drop(slots);
        still.sort_unstable_by_key(|(since, _)| *since);
        still.retain(|(_, slot)| {
            let goes = wanted > 0;
            wanted = wanted.saturating_sub(slot.shared());
            goes
        });
        self.drop_holding_up(|slot| still.iter().any(|(_, other)| std::ptr::eq(&**other, slot)));
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
        let largest = others.max_by_key(|(_, slot)| slot.committed());
        let Some((_, largest)) = largest else {
            return false;
        };
        largest.let_go();
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
                let used = s.used();
                (used, *id, s.committed())
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
