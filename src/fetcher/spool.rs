//! Room for bodies on their way to the cache: small ones in memory, others in
//! unlinked temporary files, both under a budget for all fetches together.
//!
//! A file has no name, so nothing is left behind however a fetch ends.
//! Not for: which bytes come (`receive`).
//! Called by: `receive`, `fetch`.

use std::fs::{self, File};
use std::io::{self, Seek as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::io::ReaderStream;

/// Budgets are counted in units of this many bytes.
const UNIT: u64 = 64 * 1024;
/// What is said of a download that needs the place there is none of.
const NO_PLACE: &str = "it is too large for memory and there is no directory on a disk for it: \
                        the operator has to set fetch.spool_dir";
/// Bytes read from a file at once.
const READ: usize = 256 * 1024;

/// The budgets and the place for files.
#[derive(Debug)]
pub(super) struct Spool {
    memory: Budget,
    disk: Budget,
    dir: Option<PathBuf>,
}

impl Spool {
    pub(super) fn new(dir: Option<PathBuf>, memory: u64, disk: u64) -> Self {
        Self {
            memory: Budget::new(memory, "memory"),
            disk: Budget::new(disk, "disk"),
            dir,
        }
    }

    pub(super) fn memory(&self) -> &Budget {
        &self.memory
    }

    pub(super) fn disk(&self) -> &Budget {
        &self.disk
    }

    /// A new file without a name.
    pub(super) async fn file(&self) -> io::Result<File> {
        let dir = self.dir.clone().ok_or_else(no_place)?;
        let made = tokio::task::spawn_blocking(move || file_in(&dir));
        made.await.map_err(io::Error::other)?
    }
}

/// A file in a directory that was there at start; if somebody removed it since,
/// it is made again, for nobody else.
fn file_in(dir: &Path) -> io::Result<File> {
    let gone = match tempfile::tempfile_in(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => error,
        made => return made,
    };
    let again = fs::DirBuilder::new().mode(0o700).create(dir);
    match again.and_then(|()| tempfile::tempfile_in(dir)) {
        Ok(file) => {
            tracing::warn!(dir = %dir.display(), "the directory where downloads wait was gone and is made again");
            Ok(file)
        }
        Err(error) => {
            tracing::error!(
                dir = %dir.display(), %error,
                "the directory where downloads wait is gone and cannot be made again: make it, or set fetch.spool_dir"
            );
            Err(io::Error::new(io::ErrorKind::NotFound, gone))
        }
    }
}

/// A kind that no file system has.
fn no_place() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, NO_PLACE)
}

/// Bytes that may be held at once.
#[derive(Debug)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    units: u32,
    /// For metrics.
    place: &'static str,
}

impl Budget {
    fn new(bytes: u64, place: &'static str) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX);
        Self {
            free: Arc::new(Semaphore::new(units as usize)),
            units,
            place,
        }
    }

    /// All bytes there are.
    pub(super) fn total(&self) -> u64 {
        u64::from(self.units) * UNIT
    }

    /// A share of `bytes`, if there is room at once.
    pub(super) fn try_share(&self, bytes: u64) -> Option<Share> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        let permit = Arc::clone(&self.free).try_acquire_many_owned(units).ok()?;
        Some(Share::new(permit, self.place))
    }

    /// A share of `bytes` as soon as there is room; `None` if there never is.
    pub(super) async fn share(&self, bytes: u64) -> Option<Share> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        if units > self.units {
            return None;
        }
        let permit = Arc::clone(&self.free).acquire_many_owned(units).await;
        permit.ok().map(|permit| Share::new(permit, self.place))
    }
}

/// A part of a budget, given back on drop.
#[derive(Debug)]
pub(super) struct Share {
    permit: OwnedSemaphorePermit,
    place: &'static str,
}

impl Share {
    fn new(permit: OwnedSemaphorePermit, place: &'static str) -> Self {
        let share = Self { permit, place };
        share.gauge().increment(share.figure());
        share
    }

    pub(super) fn bytes(&self) -> u64 {
        self.permit.num_permits() as u64 * UNIT
    }

    #[allow(clippy::cast_precision_loss, reason = "a gauge need not be exact")]
    fn figure(&self) -> f64 {
        self.bytes() as f64
    }

    fn gauge(&self) -> metrics::Gauge {
        metrics::gauge!("assetgate_spool_bytes", "place" => self.place)
    }

    /// Grows to hold `bytes`; false if there is no room.
    pub(super) fn grow(&mut self, budget: &Budget, bytes: u64) -> bool {
        let Some(lacking) = bytes.checked_sub(self.bytes()).filter(|lack| *lack > 0) else {
            return true;
        };
        let units = u32::try_from(lacking.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&budget.free).try_acquire_many_owned(units) else {
            return false;
        };
        let before = self.figure();
        self.permit.merge(more);
        self.gauge().increment(self.figure() - before);
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gauge().decrement(self.figure());
    }
}

/// A body that has been received, with its share of the budget.
#[derive(Debug)]
pub(super) enum Content {
    Memory(Bytes, #[allow(dead_code, reason = "held, not read")] Share),
    File(File, #[allow(dead_code, reason = "held, not read")] Share),
}

impl Content {
    /// Where it is held, as in metrics.
    pub(super) fn place(&self) -> &'static str {
        match self {
            Self::Memory(..) => "memory",
            Self::File(..) => "disk",
        }
    }
}

/// Reads a spooled file from its beginning.
pub(super) fn read(
    mut file: &File,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static + use<>> {
    file.rewind()?;
    let copy = tokio::fs::File::from_std(file.try_clone()?);
    Ok(ReaderStream::with_capacity(copy, READ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn budgets_hold_and_are_given_back() {
        let spool = Spool::new(Some(std::env::temp_dir()), 4 * UNIT, 2 * UNIT);
        let mut share = spool.memory().try_share(UNIT + 1).unwrap();
        assert_eq!(share.bytes(), 2 * UNIT);
        assert!(share.grow(spool.memory(), 2 * UNIT));
        assert!(share.grow(spool.memory(), 4 * UNIT));
        assert!(!share.grow(spool.memory(), 4 * UNIT + 1));
        assert!(spool.memory().try_share(1).is_none());
        drop(share);
        assert!(spool.memory().try_share(4 * UNIT).is_some());
        assert!(spool.disk().share(2 * UNIT + 1).await.is_none());
    }
}
