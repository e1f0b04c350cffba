//! Downloads under way, by URL: whoever wants the same bytes of the same
//! origin, shown the same credentials, shares one.
//!
//! A download ends when the last of those who wait for it has left. A failure
//! that may pass is remembered until the origin should be asked again, so that
//! many requests together ask no more often than one, and one that comes when
//! all tries have just failed is told so at once; a success with a checksum
//! for some seconds, for those who looked into the cache before it was there.
//! Not for: whether what came is what a request wants, which each decides for
//! itself (`mirrors`).
//! Called by: `mirrors`.

use std::collections::HashMap;
use std::hash::Hash as _;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use lru::LruCache;
use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::backoff::Backoff;
use super::download::Download;
use super::failed::Failed;
use super::fetch::Inner;
use super::hosts::Standing;
use super::order::{Landed, Order, Spent};
use super::progress::Tracker;
use super::receive::Stop;
use super::{Failure, FetchError};
use crate::digest::{Fingerprint, Fingerprinter};

/// How long a success is remembered.
const LANDED: Duration = Duration::from_secs(5);
/// How long after it was due a try counts as one after the last.
const STREAK: Duration = Duration::from_secs(10);
/// Successes and failures remembered, each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// How a download ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) result: Result<Landed, Stop>,
    /// If it failed in a way that may pass.
    pub(super) lapse: Option<Lapse>,
    pub(super) spent: Spent,
}

/// What makes two downloads the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    bytes: Fingerprint,
    /// Caller and checksum of one that is not to be shared with others.
    alone: Option<Fingerprint>,
}

/// A failure that may pass.
#[derive(Debug, Clone)]
pub(super) struct Lapse {
    pub(super) failed: Failed,
    pub(super) at: Instant,
    /// When the origin may be asked again.
    pub(super) retry_at: Instant,
    /// Tries that failed so, one after another.
    pub(super) in_a_row: u32,
}

/// What a request gets to see.
pub(super) enum Seat {
    /// A download; if another request began it, how that one differs.
    Running(Arc<Running>, Option<Joined>),
    /// What one brought a moment ago. It may be gone, or out of reach.
    Landed(Landed),
    Lapsed(Lapse),
}

/// How the request that began a download differs from one that joined it: its
/// rights, or its checksum, are not the other's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joined {
    pub(super) other_caller: bool,
    pub(super) other_checksum: bool,
}

/// A download under way. Whoever holds it waits for it; without holders it
/// ends.
pub(super) struct Running {
    started: SystemTime,
    oldest: Option<SystemTime>,
    /// On whose behalf it is stored.
    caller: Fingerprint,
    /// What it was begun for.
    order: Arc<Order>,
    standing: Arc<Standing>,
    /// Shows it to those who look.
    pub(super) tracker: Arc<Tracker>,
    outcome: watch::Receiver<Option<Ended>>,
    _task: JoinSet<()>,
}

/// All downloads.
pub(super) struct Downloads {
    fingerprints: Fingerprinter,
    backoff: Backoff,
    table: Mutex<Table>,
}

struct Table {
    running: HashMap<Key, Weak<Running>>,
    lapses: LruCache<Key, Lapse>,
    landed: LruCache<Key, (Instant, Landed)>,
}

impl Downloads {
    pub(super) fn new(backoff: Backoff) -> Self {
        let table = Table {
            running: HashMap::new(),
            lapses: LruCache::new(REMEMBERED),
            landed: LruCache::new(REMEMBERED),
        };
        Self {
            fingerprints: Fingerprinter::default(),
            backoff,
            table: Mutex::new(table),
        }
    }

    /// Everything that the origin is shown and the cache is told, but for the
    /// checksum: who wants another one looks at the same bytes. Whether there
    /// is one counts, as redirects are judged by it.
    pub(super) fn key(&self, order: &Order, canonical_id: Option<&str>) -> Key {
        let bytes = self.fingerprints.make(|hasher| {
            order.scope.hash(hasher);
            order.target.url.as_str().hash(hasher);
            let basic = order.target.basic.as_ref();
            basic.map(|value| value.as_bytes()).hash(hasher);
            // A rule's user info may read like a client's; what came with it is
            // nobody's to share.
            order.target.lent.hash(hasher);
            canonical_id.hash(hasher);
            order.integrity.is_some().hash(hasher);
            order.headers.len().hash(hasher);
            for (name, value) in &order.headers {
                name.as_str().hash(hasher);
                value.expose_secret().hash(hasher);
            }
            let known = order.known.as_ref();
            let known = known.map(|k| (&k.digest, &k.validators.etag, &k.validators.last_modified));
            known.hash(hasher);
        });
        Key { bytes, alone: None }
    }

    /// The same download for one caller and one checksum alone.
    pub(super) fn unshared(&self, key: Key, order: &Order) -> Key {
        let alone = self.fingerprints.make(|hasher| {
            order.context.feed(hasher);
            let checksum = order.integrity.as_ref().map(ToString::to_string);
            checksum.hash(hasher);
        });
        Key {
            alone: Some(alone),
            ..key
        }
    }

    fn caller(&self, order: &Order) -> Fingerprint {
        self.fingerprints.make(|hasher| order.context.feed(hasher))
    }

    /// A download for this order: one under way, else what one came to a moment
    /// ago, else a new one. `seen` is when the last failure came about that
    /// this request knows of: a later one is another request's, and counts as
    /// one of its own.
    pub(super) fn board(
        &self,
        inner: &Arc<Inner>,
        key: Key,
        order: &Arc<Order>,
        oldest: Option<SystemTime>,
        seen: Option<Instant>,
    ) -> Seat {
        let caller = self.caller(order);
        let mut table = self.table.lock();
        if let Some(running) = table.running.get(&key).and_then(Weak::upgrade)
            && running.serves(oldest)
        {
            let joined = Joined {
                other_caller: running.caller != caller,
                other_checksum: running.order.integrity != order.integrity,
            };
            return Seat::Running(running, Some(joined));
        }
        if let Some(landed) = table.recent(&key, oldest) {
            return Seat::Landed(landed);
        }
        let lapse = table.lapses.peek(&key);
        if let Some(lapse) = lapse.filter(|l| l.is_news(seen)) {
            return Seat::Lapsed(lapse.clone());
        }
        let (sender, outcome) = watch::channel(None);
        let standing = Arc::<Standing>::default();
        let target = &order.target;
        let host = target.url.host_str().unwrap_or_default().to_owned();
        let tracker = inner.progress.begin(order.uri.redacted(), host);
        let tracker = Arc::new(tracker.standing(Arc::clone(&standing)));
        let flight = Flight {
            inner: Arc::clone(inner),
            order: Arc::clone(order),
            key,
            standing: Arc::clone(&standing),
            tracker: Arc::clone(&tracker),
            outcome: sender,
        };
        let mut task = JoinSet::new();
        task.spawn(flight.run().in_current_span());
        let running = Arc::new(Running {
            started: SystemTime::now(),
            oldest,
            caller,
            order: Arc::clone(order),
            standing,
            tracker,
            outcome,
            _task: task,
        });
        table.running.insert(key, Arc::downgrade(&running));
        table.sweep();
        Seat::Running(running, None)
    }

    /// Forgets what a download brought: it is gone.
    pub(super) fn forget(&self, key: Key) {
        self.table.lock().landed.pop(&key);
    }

    /// Takes note of how a download ended.
    fn land(&self, key: Key, result: &Result<Landed, Stop>, spent: Spent) -> Option<Lapse> {
        let mut table = self.table.lock();
        let now = Instant::now();
        let before = table.lapses.pop(&key);
        match result {
            Ok(landed) if landed.computed.is_empty() => None,
            Ok(landed) => {
                table.landed.put(key, (now, landed.clone()));
                None
            }
            Err(Stop::Origin(failed)) if failed.is_passing() => {
                let before = before.filter(|lapse| now < lapse.retry_at + STREAK);
                let sent = u32::from(spent.requests > 0);
                let in_a_row = before.map_or(0, |lapse| lapse.in_a_row) + sent;
                let wait = self.backoff.after(in_a_row, failed.retry_after());
                let lapse = Lapse {
                    failed: failed.clone(),
                    at: now,
                    retry_at: now + wait,
                    in_a_row,
                };
                table.lapses.put(key, lapse.clone());
                Some(lapse)
            }
            Err(_) => None,
        }
    }
}

impl Table {
    /// What a download brought a moment ago, if it began after the time that is
    /// asked for.
    fn recent(&mut self, key: &Key, oldest: Option<SystemTime>) -> Option<Landed> {
        let (at, landed) = self.landed.get(key)?;
        let young = at.elapsed() < LANDED && oldest.is_none_or(|t| landed.started_at >= t);
        young.then(|| landed.clone())
    }

    /// Forgets those that ended, now and then.
    fn sweep(&mut self) {
        if self.running.len().is_power_of_two() {
            self.running.retain(|_, running| running.strong_count() > 0);
        }
    }
}

impl Lapse {
    /// Whether the one who knows of a failure at `seen` has this to learn.
    fn is_news(&self, seen: Option<Instant>) -> bool {
        match seen {
            Some(seen) => self.at > seen,
            None => Instant::now() < self.retry_at,
        }
    }
}

impl Running {
    /// Whether it is for this time: any, one before it began, or the very one
    /// it was begun for.
    fn serves(&self, oldest: Option<SystemTime>) -> bool {
        let open = self.outcome.borrow().is_none();
        open && oldest.is_none_or(|t| self.started >= t || self.oldest == oldest)
    }

    /// What it waits for, if it is not its turn to ask an origin.
    pub(super) fn waits_for(&self) -> Option<String> {
        self.standing.waits_for()
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> Ended {
        let mut outcome = self.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        ended.ok().and_then(|e| e.clone()).unwrap_or_else(lost)
    }
}

fn lost() -> Ended {
    let error = FetchError::Internal("the download ended without a result".to_owned());
    Ended {
        result: Err(Stop::Fatal(error)),
        lapse: None,
        spent: Spent::default(),
    }
}

/// The task of one download.
struct Flight {
    inner: Arc<Inner>,
    order: Arc<Order>,
    key: Key,
    standing: Arc<Standing>,
    tracker: Arc<Tracker>,
    outcome: watch::Sender<Option<Ended>>,
}

impl Flight {
    async fn run(self) {
        let outcome = AssertUnwindSafe(self.download()).catch_unwind().await;
        let (result, spent) = outcome.unwrap_or_else(|_| {
            metrics::counter!("assetgate_panics_total").increment(1);
            tracing::error!("a download panicked; only those who wait for it are affected");
            (lost().result, Spent::default())
        });
        let downloads = &self.inner.downloads;
        let ended = Ended {
            lapse: downloads.land(self.key, &result, spent),
            result,
            spent,
        };
        self.outcome.send_replace(Some(ended));
    }

    async fn download(&self) -> (Result<Landed, Stop>, Spent) {
        let download = Download::new(&self.inner, &self.order, &self.standing, &self.tracker);
        // Each who waits has a time of its own; but one after another could
        // wait for a body that drips for ever.
        let longest = self.inner.settings.max_timeout;
        let done = tokio::time::timeout(longest, download.run()).await;
        done.unwrap_or_else(|_| {
            let longest = humantime::format_duration(longest);
            let text = format!("no complete answer within {longest} (fetch.max_timeout)");
            let failed = Failed::new(Failure::TimedOut, text);
            (Err(failed.into()), Spent::default())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_count_as_a_row_only_one_soon_after_the_other() {
        let first = Duration::from_millis(100);
        let downloads = Downloads::new(Backoff::new(first));
        let key = Key {
            bytes: downloads.fingerprints.make(|_| {}),
            alone: None,
        };
        let down: Result<Landed, Stop> = Err(Failed::unavailable("down").into());
        let fails = |requests| {
            let spent = Spent { bytes: 0, requests };
            downloads.land(key, &down, spent).unwrap().in_a_row
        };
        assert_eq!((fails(1), fails(1), fails(1)), (1, 2, 3));
        assert_eq!(fails(0), 3, "what was not sent did not fail");
        tokio::time::advance(first).await;
        assert_eq!(fails(1), 4);
        tokio::time::advance(STREAK * 2).await;
        assert_eq!(fails(1), 1);
    }
}
