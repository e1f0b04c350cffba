//! Whose turn it is: how many requests go to one host at a time, how fast,
//! and none while it asked to be left alone. A host is a name and a port here.
//!
//! A download first passes its host's gate, in order of arrival, and takes one
//! of the slots for all downloads only then: were it the other way round, those
//! that wait for one slow host would hold slots that others could use. It has
//! its place until the body has ended, and its slot until the content is
//! stored: what has arrived and is not yet in the cache has to be bounded, too.
//!
//! A redirect to another host gives both back first, so that nobody waits here
//! with something that others wait for. The exception is a download that goes
//! on with a body of which it has a part: it has kept its turn, and if it still
//! has to wait, at a host it is redirected from, then not for ever.
//!
//! A host that asked for a pause is an answer at once, not a wait: another
//! mirror may have the content.
//! Not for: which host to ask (`client`), nor what to do after a failure.
//! Called by: `exchange`, around each request to an origin.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use super::Failure;
use super::failed::Failed;
use super::rate::Rate;

/// Longest pause that an origin can ask for.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Longest wait of a download that has a slot.
const MAX_WAIT_WITH_SLOT: Duration = Duration::from_secs(10);
/// Hosts nobody waits for that are remembered, because of a pause or a rate.
/// Clients may name any number of hosts.
const MAX_RESTING: usize = 4096;

/// The gates of all hosts, and the slots of all downloads.
pub(super) struct Hosts(Arc<Shared>);

struct Shared {
    per_host: usize,
    rate: Option<Rate>,
    total: usize,
    slots: Arc<Semaphore>,
    table: Mutex<HashMap<Arc<str>, Entry>>,
}

struct Entry {
    host: Arc<Host>,
    /// Who waits or holds a permit; an entry without any may be dropped.
    visitors: usize,
}

struct Host {
    /// Held by the one who is next.
    turn: tokio::sync::Mutex<()>,
    places: Arc<Semaphore>,
    clock: Mutex<Clock>,
}

/// When the next request may go.
#[derive(Default)]
struct Clock {
    paused_until: Option<Instant>,
    /// Until when the rate is used up; a burst may run ahead of it.
    used_until: Option<Instant>,
}

impl Clock {
    fn at_rest(&self, now: Instant) -> bool {
        let over = |until: Option<Instant>| until.is_none_or(|until| until <= now);
        over(self.paused_until) && over(self.used_until)
    }

    /// When this host need not be remembered any more.
    fn rests_at(&self) -> Option<Instant> {
        self.paused_until.max(self.used_until)
    }
}

/// What a download holds while it is its turn.
#[derive(Default)]
pub(super) struct Turn {
    place: Option<Place>,
    slot: Option<OwnedSemaphorePermit>,
    /// A part of the body is there: the slot is not given up for the rest.
    pub(super) goes_on: bool,
    /// When it was last let through.
    pub(super) since: Option<Since>,
}

/// A moment on both clocks.
#[derive(Clone, Copy)]
pub(super) struct Since {
    pub(super) time: SystemTime,
    pub(super) instant: Instant,
}

impl Turn {
    /// The body has ended.
    pub(super) fn leave_host(&mut self) {
        self.place = None;
    }

    fn is_at(&self, host: &str) -> bool {
        let place = self.place.as_ref();
        self.slot.is_some() && place.is_some_and(|place| *place.visit.name == *host)
    }
}

struct Place {
    _permit: OwnedSemaphorePermit,
    visit: Visit,
}

/// What a download waits for while it is not its turn, for those who wait for
/// the download.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<Option<String>>);

impl Standing {
    pub(super) fn waits_for(&self) -> Option<String> {
        self.0.lock().clone()
    }

    fn begin(&self, by: &'static str, why: String) {
        metrics::counter!("assetgate_origin_requests_delayed_total", "by" => by).increment(1);
        *self.0.lock() = Some(why);
    }

    fn end(&self) {
        *self.0.lock() = None;
    }
}

/// Keeps a host in the table.
struct Visit {
    shared: Arc<Shared>,
    name: Arc<str>,
    host: Arc<Host>,
}

impl Hosts {
    pub(super) fn new(per_host: usize, rate: Option<Rate>, total: usize) -> Self {
        Self(Arc::new(Shared {
            per_host,
            rate,
            total,
            slots: Arc::new(Semaphore::new(total)),
            table: Mutex::new(HashMap::new()),
        }))
    }

    /// Waits until a download may send a request to `host`; fails if that asked
    /// for a pause. One who stops waiting has used nothing up.
    pub(super) async fn enter(
        &self,
        host: &str,
        turn: &mut Turn,
        standing: &Standing,
    ) -> Result<(), Failed> {
        if turn.is_at(host) {
            let visit = self.visit(host);
            visit.host.check_pause(host)?;
            visit.host.count(self.0.rate);
        } else {
            turn.leave_host();
            let _waiting = Waiting::new(standing);
            if turn.goes_on {
                let place = timeout(MAX_WAIT_WITH_SLOT, self.place(host, standing)).await;
                turn.place = Some(place.map_err(|_| crowded(host))??);
            } else {
                turn.slot = None;
                turn.place = Some(self.place(host, standing).await?);
            }
            if turn.slot.is_none() {
                turn.slot = Some(self.slot(standing).await?);
            }
        }
        turn.since = Some(Since {
            time: SystemTime::now(),
            instant: Instant::now(),
        });
        Ok(())
    }

    async fn slot(&self, standing: &Standing) -> Result<OwnedSemaphorePermit, Failed> {
        let slots = Arc::clone(&self.0.slots);
        if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            return Ok(slot);
        }
        let why = format!(
            "{} downloads at a time (fetch.max_concurrent)",
            self.0.total
        );
        standing.begin("max_concurrent", why);
        slots.acquire_owned().await.map_err(|_| stopped())
    }

    /// Sends no new request to `host` before `until`, which is bounded. An
    /// earlier pause that is longer stays.
    pub(super) fn pause(&self, host: &str, until: Instant) {
        metrics::counter!("assetgate_origin_pauses_total").increment(1);
        let until = until.min(Instant::now() + MAX_PAUSE);
        let visit = self.visit(host);
        let mut clock = visit.host.clock.lock();
        clock.paused_until = clock.paused_until.max(Some(until));
    }

    /// A place at the host, in order of arrival, when its time has come.
    async fn place(&self, name: &str, standing: &Standing) -> Result<Place, Failed> {
        let visit = self.visit(name);
        let host = Arc::clone(&visit.host);
        host.check_pause(name)?;
        let places = || Arc::clone(&host.places);
        let turn = host.turn.try_lock().ok();
        let free = turn
            .as_ref()
            .and_then(|_| places().try_acquire_owned().ok());
        if free.is_none() {
            let most = self.0.per_host;
            let why = format!("{most} requests at a time to {name} (fetch.max_per_host)");
            standing.begin("max_per_host", why);
        }
        let _turn = match turn {
            Some(turn) => turn,
            None => host.turn.lock().await,
        };
        let permit = match free {
            Some(permit) => permit,
            None => places().acquire_owned().await.map_err(|_| stopped())?,
        };
        if let Some(rate) = self.0.rate {
            while let Some(at) = host.next_at(rate) {
                let why = format!("{rate} requests to {name} (fetch.rate_per_host)");
                standing.begin("rate", why);
                sleep_until(at).await;
            }
        }
        host.check_pause(name)?;
        host.count(self.0.rate);
        Ok(Place {
            _permit: permit,
            visit,
        })
    }

    fn visit(&self, host: &str) -> Visit {
        let mut table = self.0.table.lock();
        if !table.contains_key(host) {
            make_room(&mut table);
        }
        let name = match table.get_key_value(host) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(host),
        };
        let entry = table.entry(Arc::clone(&name)).or_insert_with(|| Entry {
            host: Arc::new(Host {
                turn: tokio::sync::Mutex::new(()),
                places: Arc::new(Semaphore::new(self.0.per_host)),
                clock: Mutex::default(),
            }),
            visitors: 0,
        });
        entry.visitors += 1;
        Visit {
            shared: Arc::clone(&self.0),
            name,
            host: Arc::clone(&entry.host),
        }
    }
}

/// Drops hosts that need not be remembered; if all do, the one that rests
/// soonest. Hosts with visitors stay: each of them is a fetch under way, which
/// costs more than its entry and has bounds of its own.
fn make_room(table: &mut HashMap<Arc<str>, Entry>) {
    if table.len() < MAX_RESTING {
        return;
    }
    let now = Instant::now();
    table.retain(|_, entry| entry.visitors > 0 || !entry.host.clock.lock().at_rest(now));
    let resting = table.iter().filter(|(_, entry)| entry.visitors == 0);
    if resting.clone().count() < MAX_RESTING {
        return;
    }
    let soonest = resting.min_by_key(|(_, entry)| entry.host.clock.lock().rests_at());
    if let Some(name) = soonest.map(|(name, _)| Arc::clone(name)) {
        table.remove(&name);
    }
}

impl Host {
    fn check_pause(&self, name: &str) -> Result<(), Failed> {
        let (now, until) = (Instant::now(), self.clock.lock().paused_until);
        let Some(until) = until.filter(|until| *until > now) else {
            return Ok(());
        };
        metrics::counter!("assetgate_origin_requests_delayed_total", "by" => "pause").increment(1);
        let left = until.duration_since(now);
        let retry_after = Some(left);
        let seconds = left.as_secs() + 1;
        let text = format!(
            "{name} answered 429 Too Many Requests before and is not asked for another {seconds}s"
        );
        Err(Failed::new(Failure::TooManyRequests { retry_after }, text))
    }

    /// When the next request may go, if the rate says not now.
    fn next_at(&self, rate: Rate) -> Option<Instant> {
        let now = Instant::now();
        let until = self.clock.lock().used_until?;
        let wait = until.duration_since(now).checked_sub(rate.ahead())?;
        (!wait.is_zero()).then(|| now + wait)
    }

    fn count(&self, rate: Option<Rate>) {
        let Some(rate) = rate else { return };
        let mut clock = self.clock.lock();
        let from = clock.used_until.max(Some(Instant::now()));
        clock.used_until = from.map(|from| from + rate.interval());
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut table = self.shared.table.lock();
        let Some(entry) = table.get_mut(&self.name) else {
            return;
        };
        entry.visitors -= 1;
        if entry.visitors == 0 && entry.host.clock.lock().at_rest(Instant::now()) {
            table.remove(&self.name);
        }
    }
}

fn crowded(host: &str) -> Failed {
    let text = format!("{host} was busy with other downloads (fetch.max_per_host)");
    Failed::unavailable(text)
}

/// The gates are never closed while there is somebody to pass them.
fn stopped() -> Failed {
    Failed::unavailable("fetching has stopped")
}

/// A request at the gates: counts itself as long as it waits.
struct Waiting<'a>(&'a Standing);

impl<'a> Waiting<'a> {
    fn new(standing: &'a Standing) -> Self {
        metrics::gauge!("assetgate_origin_requests_waiting").increment(1.0);
        Self(standing)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.end();
        metrics::gauge!("assetgate_origin_requests_waiting").decrement(1.0);
    }
}

#[cfg(test)]
mod tests;
