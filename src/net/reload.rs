//! Keeps a value equal to the files it is read from: certificates and
//! credentials are renewed while connections stay up.
//!
//! Not for: connections already made; they keep what they were made with.
//! Called by: `net::tls`, `upstream::credential`, `server`.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// When and how large each file was; different means changed.
type Stamps = Vec<Option<(SystemTime, u64, u64, (i64, i64))>>;

/// A value read from files, and read again when they change.
pub struct Reloading<T> {
    /// What the files are, for the log.
    what: &'static str,
    current: ArcSwap<T>,
    paths: Vec<PathBuf>,
    stamps: Mutex<Stamps>,
    read: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
}

impl<T> std::fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloading")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl<T> Reloading<T> {
    /// Reads the files for the first time. The texts of errors are logged:
    /// they must not hold what the files do.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn new<E: Display + 'static>(
        what: &'static str,
        paths: Vec<PathBuf>,
        read: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, E> {
        // Stamped before they are read: a change in between is read once more.
        let stamps = stamps(&paths);
        Ok(Arc::new(Self {
            what,
            current: ArcSwap::from_pointee(read()?),
            paths,
            stamps: Mutex::new(stamps),
            read: Box::new(move || read().map_err(|error| error.to_string())),
        }))
    }

    /// The newest usable value.
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the files again if they changed. Files that cannot be used leave
    /// the value as it is, and are logged once per change.
    pub fn reload_if_changed(&self) -> bool {
        let now = stamps(&self.paths);
        let mut seen = self.stamps.lock();
        if *seen == now {
            return false;
        }
        *seen = now;
        match (self.read)() {
            Ok(value) => {
                self.current.store(Arc::new(value));
                tracing::info!(files = ?self.paths, "{} changed and were read again", self.what);
                true
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    files = ?self.paths,
                    "changed {} cannot be used; the old ones stay in use", self.what
                );
                false
            }
        }
    }

    /// Looks for changed files at intervals, for ever.
    pub async fn watch(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            self.reload_if_changed();
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Stamps {
    use std::os::unix::fs::MetadataExt;

    // The inode too: Kubernetes swaps a symbolic link, and tools that preserve
    // times exist. And when it was given to whom: that may be what was wrong.
    let stamp = |path: &PathBuf| {
        let file = std::fs::metadata(path).ok()?;
        let changed = (file.ctime(), file.ctime_nsec());
        Some((file.modified().ok()?, file.len(), file.ino(), changed))
    };
    paths.iter().map(stamp).collect()
}
