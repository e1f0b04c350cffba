//! Keeps a TLS configuration equal to its files: certificates are renewed
//! while connections stay up.
//!
//! Not for: connections already made; they keep what they were made with.
//! Called by: `server`, `upstream`, and whoever handles SIGHUP.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{ClientConfig, ServerConfig};

use super::{ClientFiles, ServerFiles, TlsError};

/// When and how large each file was; different means changed.
type Stamps = Vec<Option<(SystemTime, u64, u64)>>;

/// A value read from files, and read again when they change.
pub struct Reloading<T> {
    current: ArcSwap<T>,
    paths: Vec<PathBuf>,
    stamps: Mutex<Stamps>,
    read: Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>,
}

impl<T> std::fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloading")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl Reloading<ServerConfig> {
    /// Reads a listener's files.
    ///
    /// # Errors
    /// When they are missing, malformed or do not belong together.
    pub fn server(files: ServerFiles) -> Result<Arc<Self>, TlsError> {
        Self::new(files.paths(), move || files.read())
    }
}

impl Reloading<ClientConfig> {
    /// Reads the files for dialling an upstream.
    ///
    /// # Errors
    /// When they are missing, malformed or do not belong together.
    pub fn client(files: ClientFiles) -> Result<Arc<Self>, TlsError> {
        Self::new(files.paths(), move || files.read())
    }
}

impl<T> Reloading<T> {
    fn new(
        paths: Vec<PathBuf>,
        read: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, TlsError> {
        // Stamped before they are read: a change in between is read once more.
        let stamps = stamps(&paths);
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(read()?),
            paths,
            stamps: Mutex::new(stamps),
            read: Box::new(read),
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
                tracing::info!(tls.files = ?self.paths, "TLS files changed and were read again");
                true
            }
            Err(error) => {
                tracing::error!(%error, "changed TLS files cannot be used; the old ones stay in use");
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
    // times exist.
    let stamp = |path: &PathBuf| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.modified().ok()?, file.len(), file.ino()))
    };
    paths.iter().map(stamp).collect()
}
