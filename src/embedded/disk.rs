//! The cache directory: its layout, its lock, temporary files that become
//! real by a rename, and the times files carry.
//!
//! ```text
//! lock                     held while a process uses the directory
//! state                    boot and time up to which all is known synced
//! tmp/                     unfinished writes, removed at start
//! cas/FUNCTION/XX/HASH-SIZE
//! ac/XX/KEY                Action Cache entries, with a checksum
//! ```
//!
//! A file's modification time is when it was written, its access time when it
//! was last used.
//!
//! Not for: deciding what to keep (`index.rs`).
//! Called by: `store.rs`, `scan.rs`, `upload.rs`, `durability.rs`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use super::key::Key;
use super::private;

/// An open cache directory.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    next_temp: AtomicU64,
    _lock: File,
    /// Bytes after which every write fails as a full disk does.
    #[cfg(test)]
    pub(super) full: std::sync::atomic::AtomicBool,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    /// Another process uses it.
    #[error("{} is in use by another process ({holder})", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// What that process wrote about itself.
        holder: String,
    },
    /// It cannot be created or written.
    #[error("{}: {source}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Disk {
    /// Creates the directory if need be, locks it and removes unfinished
    /// writes of earlier processes.
    pub(super) fn open(root: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            dir: root.to_owned(),
            source,
        };
        private::prepare(root).map_err(failed)?;
        let lock = lock(root)?;
        let temp = root.join("tmp");
        match fs::remove_dir_all(&temp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        for directory in ["tmp", "cas", "ac"] {
            private::create_within(&root.join(directory)).map_err(failed)?;
        }
        Ok(Self {
            root: root.to_owned(),
            next_temp: AtomicU64::new(0),
            _lock: lock,
            #[cfg(test)]
            full: false.into(),
        })
    }

    /// The directory.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the file of `key` is or would be.
    pub(super) fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.path())
    }

    /// A new unfinished file; it is removed when dropped.
    pub(super) fn temp(&self) -> io::Result<Temp> {
        self.check_full()?;
        let number = self.next_temp.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("tmp").join(number.to_string());
        let file = private::new_file(&path)?;
        Ok(Temp { file, path })
    }

    /// Appends to an unfinished file.
    pub(super) fn write(&self, temp: &mut Temp, bytes: &[u8]) -> io::Result<()> {
        self.check_full()?;
        temp.file.write_all(bytes)
    }

    /// Makes an unfinished file the file of `key`.
    pub(super) fn publish(&self, temp: &Temp, key: &Key) -> io::Result<()> {
        let path = self.path(key);
        match fs::rename(&temp.path, &path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    private::create(parent)?;
                }
                fs::rename(&temp.path, &path)
            }
            result => result,
        }
    }

    /// Removes the file of `key`; open readers go on reading.
    pub(super) fn remove(&self, key: &Key) -> io::Result<()> {
        match fs::remove_file(self.path(key)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Records on disk that `key` was used at `seconds`.
    pub(super) fn touch(&self, key: &Key, seconds: u32) -> io::Result<()> {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: seconds.into(),
                tv_nsec: 0,
            },
            last_modification: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
        };
        rustix::fs::utimensat(CWD, self.path(key), &times, AtFlags::empty())?;
        Ok(())
    }

    #[cfg(test)]
    fn check_full(&self) -> io::Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn check_full(&self) -> io::Result<()> {
        Ok(())
    }
}

fn lock(root: &Path) -> Result<File, LockError> {
    let path = root.join("lock");
    let failed = |source| LockError::Io {
        dir: root.to_owned(),
        source,
    };
    let mut file = private::own_file(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            return Err(LockError::InUse {
                dir: root.to_owned(),
                holder: holder.trim().to_owned(),
            });
        }
        Err(fs::TryLockError::Error(e)) => return Err(failed(e)),
    }
    // The text is for people only; a full disk must not keep us from starting.
    let _ = file.set_len(0);
    let _ = writeln!(file, "pid {}", std::process::id());
    Ok(file)
}

/// An unfinished file.
#[derive(Debug)]
pub(super) struct Temp {
    file: File,
    path: PathBuf,
}

impl Drop for Temp {
    fn drop(&mut self) {
        // Fails when the file was published, as it should.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Disk::open(dir.path()).unwrap();
        let error = Disk::open(dir.path()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, LockError::InUse { .. }), "{text}");
        assert!(
            text.contains(&format!("pid {}", std::process::id())),
            "{text}"
        );
        drop(first);
        Disk::open(dir.path()).unwrap();
    }

    #[test]
    fn unfinished_writes_are_gone_at_the_next_start_and_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let mut temp = disk.temp().unwrap();
        disk.write(&mut temp, b"half").unwrap();
        let count = || fs::read_dir(dir.path().join("tmp")).unwrap().count();
        assert_eq!(count(), 1);
        drop(temp);
        assert_eq!(count(), 0);
        fs::write(dir.path().join("tmp/orphan"), b"x").unwrap();
        drop(disk);
        Disk::open(dir.path()).unwrap();
        assert_eq!(count(), 0);
    }

    #[test]
    fn a_path_that_is_no_directory_is_an_error_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let text = Disk::open(&file).unwrap_err().to_string();
        assert!(text.contains("file"), "{text}");
    }
}
