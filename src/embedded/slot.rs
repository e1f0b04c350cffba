//! One upload as others see it: whether somebody works on it, how far it is,
//! and whether it holds up those that wait for its room.
//!
//! Not for: which there are (`uploads.rs`), the bytes (`upload.rs`).
//! Called by: `uploads.rs`, `write.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::index;
use super::room::Room;
use super::turns::{Lane, Wanted};
use super::upload::Upload;

/// While others wait to go beyond their share, the upload that does has to get
/// on by so much in such a time.
const LEAST_BEYOND: u64 = 4 << 20;
const LEAST_BEYOND_IN: Duration = Duration::from_secs(8);

/// An upload stands still of which nothing came for so long, while nothing but
/// its client was waited for.
const STILL: Duration = Duration::from_secs(1);

/// A call has to bring so much, or end, in such a time; what it waits for room
/// does not count.
pub(super) const LEAST_PROGRESS: usize = 16 << 10;
pub(super) const IDLE: Duration = Duration::from_secs(120);

/// One upload; locked by the call that works on it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) upload: Arc<tokio::sync::Mutex<Option<Upload>>>,
    /// Tells the call that works on it to let go.
    let_go: Mutex<CancellationToken>,
    committed: AtomicU64,
    used: AtomicU32,
    /// What it has of the room that is shared.
    shared: AtomicU64,
    beyond: Mutex<Option<Beyond>>,
    /// Since when its client is waited for.
    waits: Mutex<Option<Instant>>,
}

/// That an upload goes beyond its share.
#[derive(Debug)]
struct Beyond {
    lane: Lane,
    /// Since when others wait for that, and how far it was.
    since: Instant,
    committed: u64,
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
    pub(super) fn is_idle(&self) -> bool {
        self.upload.try_lock().is_ok()
    }

    /// Bytes of it that are here.
    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Relaxed)
    }

    /// When it last got on, by [`index::now`].
    pub(super) fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// What it has of the room that is shared.
    pub(super) fn shared(&self) -> u64 {
        self.shared.load(Relaxed)
    }

    /// Notes how far the upload is.
    pub(super) fn progress(&self, committed: u64) {
        self.committed.store(committed, Relaxed);
        self.used.store(index::now(), Relaxed);
    }

    /// Notes what room the upload has now.
    pub(super) fn has(&self, room: &Room) {
        self.shared.store(room.shared(), Relaxed);
        *self.beyond.lock() = room.beyond().map(|lane| Beyond {
            lane,
            since: Instant::now(),
            committed: self.committed(),
        });
    }

    /// Tells the call that works on it, if any, to let go.
    pub(super) fn let_go(&self) {
        self.let_go.lock().cancel();
    }

    /// The same, and returns what the next one is told by.
    pub(super) fn take_over(&self) -> CancellationToken {
        let let_go = CancellationToken::new();
        std::mem::replace(&mut *self.let_go.lock(), let_go.clone()).cancel();
        let_go
    }

    /// Since when it stands still, if it does.
    pub(super) fn still_since(&self) -> Option<Instant> {
        let now = Instant::now();
        match *self.waits.lock() {
            Some(since) => Some(since).filter(|since| now.duration_since(*since) >= STILL),
            None => {
                let unused = index::now().saturating_sub(self.used());
                let unused = Duration::from_secs(unused.into());
                let left = unused > STILL && self.is_idle();
                left.then(|| now.checked_sub(unused).unwrap_or(now))
            }
        }
    }

    /// Whether it goes beyond its share, and those that wait for that do so in
    /// vain: nobody works on it, or it stands still or is too slow.
    pub(super) fn holds_up(&self, wanted: Wanted) -> bool {
        let committed = self.committed();
        let mut beyond = self.beyond.lock();
        let Some(beyond) = &mut *beyond else {
            return false;
        };
        let wanted = wanted.turn(beyond.lane);
        if wanted && (self.is_idle() || self.still_since().is_some()) {
            return true;
        }
        if !wanted || committed.saturating_sub(beyond.committed) >= LEAST_BEYOND {
            (beyond.since, beyond.committed) = (Instant::now(), committed);
            return false;
        }
        beyond.since.elapsed() >= LEAST_BEYOND_IN
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

pub(super) fn busy() -> Status {
    Status::unavailable("another call is writing this upload")
}

/// Whether a call gets on.
#[derive(Debug)]
pub(super) struct Progress {
    slot: Arc<Slot>,
    until: Instant,
    bytes: usize,
}

impl Progress {
    /// From now on.
    pub(super) fn new(slot: &Arc<Slot>) -> Self {
        Self {
            slot: Arc::clone(slot),
            until: Instant::now() + IDLE,
            bytes: 0,
        }
    }

    /// The client is waited for; returns until when.
    pub(super) fn wait(&self) -> Instant {
        self.slot.waits.lock().get_or_insert_with(Instant::now);
        self.until
    }

    /// Bytes came.
    pub(super) fn note(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= LEAST_PROGRESS {
            *self = Self::new(&self.slot);
            self.works();
        }
    }

    /// It is not the client that is waited for.
    pub(super) fn works(&self) {
        *self.slot.waits.lock() = None;
    }
}
