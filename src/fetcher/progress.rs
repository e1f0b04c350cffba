//! What is being downloaded at the moment, for whoever wants to look: the
//! admin page `/fetches`, and through it `assetgate fetch`.
//!
//! A download holds a [`Tracker`] and says through it how it gets on; bytes are
//! counted without a lock. URIs are redacted before they get here.
//! Not for: deciding anything. What no longer fits into the list is downloaded
//! all the same.
//! Called by: the download code beside it, `resolver` (who waits), `admin`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::hosts::Standing;
use super::measure;

/// Downloads listed at a time; more than run at once by far.
const LISTED: usize = 1024;

/// Longest URI shown; they may have 64 KiB.
const SHOWN: usize = 512;

/// What `total` says when the origin has not.
const UNKNOWN: u64 = u64::MAX;

/// The callers who wait for one fetch; clones share the number.
#[derive(Debug, Clone, Default)]
pub struct Waiters(Arc<AtomicU32>);

impl Waiters {
    /// So many wait now.
    pub fn set(&self, count: usize) {
        self.0
            .store(u32::try_from(count).unwrap_or(u32::MAX), Relaxed);
    }

    /// How many wait.
    #[must_use]
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// What a download is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waits for its turn, or to try again.
    Waiting,
    /// Has asked the origin and not been answered.
    Connecting,
    /// Takes in the body.
    Receiving,
    /// Brings the content into the cache.
    Storing,
}

impl Phase {
    const ALL: [Self; 4] = [
        Self::Waiting,
        Self::Connecting,
        Self::Receiving,
        Self::Storing,
    ];

    /// As in the page.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Receiving => "receiving",
            Self::Storing => "storing",
        }
    }
}

/// One download, as it was when the list was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is downloaded, redacted.
    pub uri: String,
    /// From where.
    pub host: String,
    /// Bytes of the content received so far.
    pub bytes: u64,
    /// Bytes it will have, if the origin says.
    pub total: Option<u64>,
    /// Callers who wait for it.
    pub waiters: u32,
    /// Requests sent to the origin.
    pub attempts: u32,
    /// Since it began.
    pub age: Duration,
    /// What it is doing.
    pub phase: Phase,
    /// What it waits for while it is not its turn.
    pub waits_for: Option<String>,
}

/// The downloads under way. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    running: BTreeMap<u64, Arc<Download>>,
}

#[derive(Debug)]
struct Download {
    uri: String,
    host: String,
    since: Instant,
    bytes: AtomicU64,
    total: AtomicU64,
    attempts: AtomicU32,
    phase: AtomicU8,
    waiters: Mutex<BTreeMap<u64, Waiters>>,
    standing: OnceLock<Arc<Standing>>,
}

/// A URI with an end.
fn shown(mut uri: String) -> String {
    if let Some((end, _)) = uri.char_indices().nth(SHOWN) {
        uri.truncate(end);
        uri.push('…');
    }
    uri
}

impl Progress {
    /// A download of `uri`, which must be redacted, begins: it is listed until
    /// the tracker is dropped. It counts as waiting until it says otherwise.
    #[must_use]
    pub fn begin(&self, uri: String, host: String) -> Tracker {
        let download = Arc::new(Download {
            uri: shown(uri),
            host,
            since: Instant::now(),
            bytes: AtomicU64::new(0),
            total: AtomicU64::new(UNKNOWN),
            attempts: AtomicU32::new(0),
            phase: AtomicU8::new(Phase::Waiting as u8),
            waiters: Mutex::default(),
            standing: OnceLock::new(),
        });
        waiting(1.0);
        let mut table = self.0.lock();
        let id = table.next;
        table.next += 1;
        if table.running.len() < LISTED {
            table.running.insert(id, Arc::clone(&download));
        }
        drop(table);
        Tracker {
            progress: self.clone(),
            id,
            download,
            counted: OnceLock::new(),
        }
    }

    /// What is under way, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Entry> {
        let running: Vec<Arc<Download>> = self.0.lock().running.values().cloned().collect();
        running.iter().map(|download| download.entry()).collect()
    }
}

impl Download {
    fn entry(&self) -> Entry {
        let waiters = self.waiters.lock();
        let waiters = waiters.values().map(Waiters::get);
        let total = self.total.load(Relaxed);
        let waits_for = self.standing.get().and_then(|s| s.waits_for());
        Entry {
            uri: self.uri.clone(),
            host: self.host.clone(),
            bytes: self.bytes.load(Relaxed),
            total: (total != UNKNOWN).then_some(total),
            waiters: waiters.fold(0, u32::saturating_add),
            attempts: self.attempts.load(Relaxed),
            age: self.since.elapsed(),
            phase: match waits_for {
                Some(_) => Phase::Waiting,
                None => self.phase(),
            },
            waits_for,
        }
    }

    fn phase(&self) -> Phase {
        let stored = usize::from(self.phase.load(Relaxed));
        Phase::ALL.get(stored).copied().unwrap_or(Phase::Waiting)
    }
}

/// By which a download says how it gets on.
#[derive(Debug)]
pub struct Tracker {
    progress: Progress,
    id: u64,
    download: Arc<Download>,
    /// The series of bytes from this host, looked up once.
    counted: OnceLock<metrics::Counter>,
}

impl Tracker {
    /// Where it stands in front of its host is told there.
    #[must_use]
    pub(super) fn standing(self, standing: Arc<Standing>) -> Self {
        // Set only here, before anybody else has it.
        let _ = self.download.standing.set(standing);
        self
    }

    /// What it does now.
    pub fn phase(&self, phase: Phase) {
        let before = self.download.phase.swap(phase as u8, Relaxed);
        let was = before == Phase::Waiting as u8;
        match (was, phase == Phase::Waiting) {
            (false, true) => waiting(1.0),
            (true, false) => waiting(-1.0),
            _ => {}
        }
    }

    /// A request goes out, the `n`th for this content.
    pub fn attempt(&self, n: u32) {
        self.download.attempts.store(n, Relaxed);
        self.phase(Phase::Connecting);
    }

    /// The answer begins; the whole content has so many bytes.
    pub fn announce(&self, total: Option<u64>) {
        self.download.total.store(total.unwrap_or(UNKNOWN), Relaxed);
        self.phase(Phase::Receiving);
    }

    /// So many bytes more. Counts them in `assetgate_origin_bytes_total` too.
    pub fn received(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.download.bytes.fetch_add(bytes, Relaxed);
        self.counted
            .get_or_init(|| measure::bytes_of(&self.download.host))
            .increment(bytes);
    }

    /// What came is thrown away, and the content begins anew.
    pub fn restart(&self) {
        self.download.bytes.store(0, Relaxed);
        self.download.total.store(UNKNOWN, Relaxed);
    }

    /// A fetch wants this content; until the answer is dropped, those who wait
    /// for the fetch count as waiting for this download.
    #[must_use]
    pub fn wanted_by(&self, waiters: &Waiters) -> Wanting {
        let mut all = self.download.waiters.lock();
        let id = all.last_key_value().map_or(0, |(last, _)| last + 1);
        all.insert(id, waiters.clone());
        drop(all);
        Wanting {
            download: Arc::clone(&self.download),
            id,
        }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        if self.download.phase() == Phase::Waiting {
            waiting(-1.0);
        }
        self.progress.0.lock().running.remove(&self.id);
    }
}

/// A fetch that wants what a download brings.
#[derive(Debug)]
pub struct Wanting {
    download: Arc<Download>,
    id: u64,
}

impl Drop for Wanting {
    fn drop(&mut self) {
        self.download.waiters.lock().remove(&self.id);
    }
}

fn waiting(change: f64) {
    metrics::gauge!("assetgate_fetches_waiting").increment(change);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(progress: &Progress) -> Tracker {
        progress.begin("http://h/a".to_owned(), "h".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_follows_its_download_and_goes_with_it() {
        let progress = Progress::default();
        let tracker = begin(&progress);
        let later = begin(&progress);
        let first = || progress.list().remove(0);
        assert_eq!((first().phase, first().total), (Phase::Waiting, None));
        tokio::time::advance(Duration::from_secs(3)).await;
        tracker.attempt(1);
        assert_eq!((first().phase, first().attempts), (Phase::Connecting, 1));
        tracker.announce(Some(10));
        tracker.received(4);
        tracker.received(3);
        let entry = first();
        assert_eq!((entry.bytes, entry.total), (7, Some(10)));
        assert_eq!(entry.phase, Phase::Receiving);
        assert_eq!(entry.age, Duration::from_secs(3));
        assert_eq!((&*entry.uri, &*entry.host), ("http://h/a", "h"));
        tracker.restart();
        tracker.attempt(2);
        let entry = first();
        assert_eq!((entry.bytes, entry.total, entry.attempts), (0, None, 2));
        tracker.phase(Phase::Storing);
        assert_eq!(first().phase, Phase::Storing);
        drop(tracker);
        assert_eq!(progress.list().len(), 1);
        drop(later);
        assert_eq!(progress.list(), []);
    }

    #[test]
    fn all_who_wait_for_any_of_its_fetches_wait_for_a_download() {
        let progress = Progress::default();
        let tracker = begin(&progress);
        let waiting = || progress.list()[0].waiters;
        let (one, other) = (Waiters::default(), Waiters::default());
        one.set(2);
        other.set(1);
        let first = tracker.wanted_by(&one);
        let second = tracker.wanted_by(&other);
        assert_eq!(waiting(), 3);
        one.set(0);
        assert_eq!(waiting(), 1, "they left, the fetch goes on");
        drop(second);
        assert_eq!(waiting(), 0);
        let third = tracker.wanted_by(&other);
        one.set(5);
        assert_eq!(waiting(), 6);
        drop((first, third));
        assert_eq!(waiting(), 0);
    }

    #[test]
    fn the_list_and_what_stands_in_it_have_an_end() {
        let progress = Progress::default();
        let all: Vec<Tracker> = (0..LISTED + 10).map(|_| begin(&progress)).collect();
        assert_eq!(progress.list().len(), LISTED);
        all[LISTED + 5].received(1);
        drop(all);
        assert_eq!(progress.list(), []);
        let long = progress.begin("é".repeat(5000), String::new());
        assert_eq!(progress.list()[0].uri.chars().count(), SHOWN + 1);
        drop(long);
    }
}
