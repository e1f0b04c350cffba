//! Files that are looked at after an answer that took them for granted, by a
//! thread of its own, so that whoever asks for what is used all the time never
//! waits for the disk.
//!
//! Not for: the look itself, at most one per file in `index::LOOK_EVERY`
//! seconds (`stored.rs`).
//! Called by: `recent.rs` (asks), `Embedded::open` (starts the thread).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::key::Key;
use super::store::Store;

/// Most lists of files that wait; what does not fit is asked for again by the
/// next use.
const WAITING: usize = 1024;

/// Files to be looked at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    files: VecDeque<Arc<[Key]>>,
    ended: bool,
}

impl Looks {
    /// Has these files looked at soon. From memory.
    pub(super) fn ask(&self, files: &Arc<[Key]>) {
        let mut queue = self.queue.lock();
        if queue.files.len() < WAITING {
            queue.files.push_back(Arc::clone(files));
            self.changed.notify_one();
        }
    }

    /// Waits for files; `None` once there is nobody left to ask.
    fn next(&self) -> Option<Arc<[Key]>> {
        let mut queue = self.queue.lock();
        loop {
            if queue.ended {
                return None;
            }
            if let Some(files) = queue.files.pop_front() {
                return Some(files);
            }
            self.changed.wait(&mut queue);
        }
    }

    fn end(&self) {
        self.queue.lock().ended = true;
        self.changed.notify_all();
    }
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Looker {
    store: Arc<Store>,
    thread: Option<JoinHandle<()>>,
}

impl Looker {
    /// Starts the thread.
    pub(super) fn start(store: &Arc<Store>) -> io::Result<Self> {
        let looked_at = Arc::clone(store);
        let thread = std::thread::Builder::new()
            .name("cache-looks".into())
            .spawn(move || {
                while let Some(files) = looked_at.looks.next() {
                    looked_at.look(&files);
                }
            })?;
        Ok(Self {
            store: Arc::clone(store),
            thread: Some(thread),
        })
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.store.looks.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
