//! What survives a power cut, and the thread that sees to it.
//!
//! Files are renamed into place without a sync of each: `kill -9` cannot lose
//! what the kernel has, and a sync per blob costs milliseconds where the write
//! costs microseconds. Instead the whole file system is synced at most once a
//! minute while there are writes, and `state` records the boot and the time up
//! to which everything is on disk. If the next start is in the same boot, no
//! power was cut and every file is good. In another boot, blobs written after
//! that time are suspects: they are not in the index (a client that asks is
//! told they are missing) until this thread has hashed them. Action Cache
//! entries carry a checksum and need none of this. Where there is no boot
//! identifier (not Linux), every start counts as another boot.
//!
//! A clock set back by more than [`MARGIN`] between a sync and a write hides
//! that write from this; its size is still checked.
//!
//! Not for: the index (`scan.rs` fills it).
//! Called by: `Embedded::open`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::index;
use super::key::Key;
use super::private;
use super::scan::{self, Found};
use super::store::{Reservation, Store, gone_or_broken};
use super::verify;

/// Seconds by which file times may lag behind the clock.
const MARGIN: i64 = 5;

const TICK: Duration = Duration::from_secs(10);
const TICKS_PER_SYNC: u32 = 6;

/// The boot in which `state` was written, and the time up to which all files
/// written are on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    boot: String,
    synced: i64,
}

impl State {
    /// The state the previous process left; `None` if there is none or it is
    /// damaged.
    pub(super) fn read(root: &Path) -> Option<Self> {
        let text = fs::read_to_string(root.join("state")).ok()?;
        let mut words = text.split_ascii_whitespace();
        let (boot, synced) = (words.next()?, words.next()?);
        let whole = words.next()? == "." && words.next().is_none();
        whole.then_some(Self {
            boot: boot.to_owned(),
            synced: synced.parse().ok()?,
        })
    }

    /// Written without a sync: after a power cut an older state, or none,
    /// makes more files suspects, never fewer.
    fn write(&self, root: &Path) -> io::Result<()> {
        let temp = root.join("tmp/state");
        let text = format!("{} {} .\n", self.boot, self.synced);
        let _ = fs::remove_file(&temp);
        let written = private::new_file(&temp)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&temp, root.join("state")));
        if written.is_err() {
            let _ = fs::remove_file(temp);
        }
        written
    }

    /// Blobs written at this time or later need verification; `None` if none
    /// do.
    pub(super) fn suspect_from(state: Option<&Self>, boot: Option<&str>) -> Option<i64> {
        match state {
            Some(state) if boot == Some(&state.boot) => None,
            Some(state) => Some(state.synced - MARGIN),
            None => Some(i64::MIN),
        }
    }
}

/// Identifies the boot of the machine.
pub(super) fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// What a start found.
#[derive(Debug)]
pub(super) struct Restart {
    /// What the previous process left.
    pub(super) state: Option<State>,
    /// The boot of this process.
    pub(super) boot: Option<String>,
    /// Blobs to verify.
    pub(super) suspects: Vec<Found>,
    /// Whether the index has names only, so that files are to be looked at.
    pub(super) by_name: bool,
}

/// The maintenance thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Maintenance {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Maintenance {
    /// Starts the thread. `on_tick` runs every few seconds.
    pub(super) fn start(
        store: Arc<Store>,
        restart: Restart,
        on_tick: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let boot = restart.boot.unwrap_or_else(|| "unknown".into());
        let synced = restart.state.map_or(0, |s| s.synced);
        let suspects = restart.suspects;
        if !restart.by_name {
            store.set_settled();
        }
        let mut job = Job {
            state: State { boot, synced },
            stop: Arc::default(),
            store,
            trusted: suspects.is_empty(),
        };
        // A state of this boot promises that there are no suspects left, so
        // it must not be written before that is so, and must be in place
        // before anything is acknowledged if it is.
        job.write_state();
        let suspects: Vec<_> = suspects
            .into_iter()
            .map(|f| (f, job.store.reserve_existing(f.blocks)))
            .collect();
        let stop = Arc::clone(&job.stop);
        let thread = std::thread::Builder::new()
            .name("cache-maintenance".into())
            .spawn(move || {
                if restart.by_name {
                    job.look_at_files();
                }
                job.run(suspects, on_tick);
            })?;
        let thread = Some(thread);
        Ok(Self { stop, thread })
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Job {
    store: Arc<Store>,
    state: State,
    stop: Arc<(Mutex<bool>, Condvar)>,
    /// Whether no suspects are left. Until then no state is written.
    trusted: bool,
}

impl Job {
    fn run(&mut self, suspects: Vec<(Found, Reservation)>, on_tick: impl Fn()) {
        if !suspects.is_empty() {
            self.trusted = self.verify(suspects);
            self.write_state();
        }
        self.store.shrink();
        self.store.dirty.store(true, Ordering::Release);
        self.store.report();
        let mut ticks = 0;
        while !self.wait() {
            ticks += 1;
            self.store.record_touches();
            on_tick();
            self.store.report();
            if ticks >= TICKS_PER_SYNC && self.store.dirty.swap(false, Ordering::AcqRel) {
                self.sync();
                ticks = 0;
            }
        }
        self.store.record_touches();
    }

    fn look_at_files(&self) {
        match scan::files(&self.store.disk, None) {
            Ok(scan) => {
                self.store.settle(&scan.good);
                for key in &scan.broken {
                    self.store.forget_broken(key);
                }
            }
            Err(error) => tracing::error!(%error, "the cache directory cannot be read"),
        }
        self.store.set_settled();
    }

    /// Waits for the next tick; true if it is time to end.
    fn wait(&self) -> bool {
        let mut stop = self.stop.0.lock();
        if !*stop {
            self.stop.1.wait_for(&mut stop, TICK);
        }
        *stop
    }

    /// Hashes suspects and admits those that are what they claim. False if
    /// some are suspects still: unreadable, or it was stopped before the end.
    fn verify(&self, mut suspects: Vec<(Found, Reservation)>) -> bool {
        tracing::info!(
            blobs = suspects.len(),
            "the machine was restarted; verifying what was written last"
        );
        suspects.sort_unstable_by_key(|(f, _)| f.touched);
        let mut all = true;
        for (found, reservation) in suspects {
            if *self.stop.0.lock() {
                return false;
            }
            match is_intact(&self.store, &found.key) {
                Ok(true) => self.store.admit(found.key, found.touched, reservation),
                Ok(false) => self.store.discard(&found.key),
                Err(error) => {
                    tracing::error!(%error, "a stored blob cannot be read");
                    all = gone_or_broken(&error) && all;
                }
            }
        }
        all
    }

    fn sync(&mut self) {
        let before = i64::from(index::now());
        let result = File::open(self.store.disk.root()).and_then(|d| sync_all(&d));
        match result {
            Ok(()) => {
                self.state.synced = before;
                self.write_state();
            }
            Err(error) => tracing::warn!(%error, "the cache directory cannot be synced"),
        }
    }

    fn write_state(&self) {
        if !self.trusted {
            return;
        }
        if let Err(error) = self.state.write(self.store.disk.root()) {
            tracing::warn!(%error, "the state of the cache directory cannot be written");
        }
    }
}

#[cfg(target_os = "linux")]
fn sync_all(directory: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(directory)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_all(_: &File) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

fn is_intact(store: &Store, key: &Key) -> io::Result<bool> {
    verify::is_right(key, &File::open(store.disk.path(key))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_boot_makes_suspects() {
        let state = State {
            boot: "a".into(),
            synced: 100,
        };
        let from = |boot| State::suspect_from(Some(&state), boot);
        assert_eq!(from(Some("a")), None);
        assert_eq!(from(Some("b")), Some(100 - MARGIN));
        assert_eq!(from(None), Some(100 - MARGIN));
        assert_eq!(State::suspect_from(None, Some("a")), Some(i64::MIN));
    }

    #[test]
    fn a_damaged_state_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        let state = State {
            boot: "a".into(),
            synced: 100,
        };
        state.write(dir.path()).unwrap();
        assert_eq!(State::read(dir.path()), Some(state));
        for damaged in ["", "a", "a 1", "a x .", "a 10", "\0\0\0\0"] {
            fs::write(dir.path().join("state"), damaged).unwrap();
            assert_eq!(State::read(dir.path()), None, "{damaged:?}");
        }
    }
}
