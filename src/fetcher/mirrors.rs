//! The URIs of one request: in order, and those whose failure may pass again
//! after a while.
//!
//! No time is lost on an origin that is in trouble while another one is left
//! to ask: a round goes over all of them, and only then is waited.
//! Not for: one URI (`download`), nor who shares a download (`downloads`).
//! Called by: `fetch`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::deposit;
use super::downloads::{Ended, Joined, Key, Lapse, Seat};
use super::failed::{Failed, Failures};
use super::fetch::{Inner, Job};
use super::hashes::mismatch;
use super::measure::{self, class};
use super::order::{Landed, Order, Spent};
use super::receive::Stop;
use super::rules::headers;
use super::rules_in_force::told;
use super::target::Target;
use super::{Failure, FetchError, FetchRequest, Phase, Tracker, Wanting};
use crate::asset::{BAZEL_CANONICAL_ID, Checksum};

/// The longest that one request waits in all for origins to recover: beyond it
/// the client had better hear of it, and when to ask again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Content of one of the mirrors.
pub(super) struct Good {
    pub(super) uri_index: usize,
    pub(super) landed: Landed,
    /// Another request brought it.
    pub(super) joined: bool,
}

/// One URL that may have the content.
struct Mirror {
    uri_index: usize,
    order: Arc<Order>,
    key: Key,
    tries: u32,
    /// When its last failure came about.
    seen: Option<Instant>,
    retry_at: Instant,
    last: Option<Failed>,
    over: bool,
}

/// One request's way over its mirrors.
pub(super) struct Mirrors<'a> {
    inner: &'a Arc<Inner>,
    request: &'a FetchRequest,
    deadline: Instant,
    mirrors: Vec<Mirror>,
    /// URIs that cannot be fetched at all.
    unusable: Vec<(usize, Failed)>,
    waited: Duration,
    spent: Spent,
}

/// How one mirror did.
enum Tried {
    /// Whether another request brought it.
    Good(Landed, bool),
    Failed(Failed),
    /// The time is over, and what it was waited for if not the origin.
    TimeOver(Option<String>),
}

/// What a download that may be another request's is to this one.
enum Shared {
    Mine(Result<Tried, FetchError>),
    NotForMe,
    /// What is remembered is not in the cache any more.
    Gone,
}

impl<'a> Mirrors<'a> {
    pub(super) fn new(inner: &'a Arc<Inner>, job: Job<'a>, deadline: Instant) -> Self {
        let request = job.request;
        let canonical_id = request.qualifiers.get(BAZEL_CANONICAL_ID);
        let (mut mirrors, mut unusable) = (Vec::new(), Vec::new());
        for (uri_index, uri) in request.uris.iter().enumerate() {
            let targets = match inner.files.rules.targets(uri) {
                Ok(targets) => targets,
                Err(failed) => {
                    unusable.push((uri_index, failed));
                    continue;
                }
            };
            for target in targets {
                let order = order(&job, uri_index, target);
                mirrors.push(Mirror {
                    key: inner.downloads.key(&order, canonical_id),
                    uri_index,
                    order: Arc::new(order),
                    tries: 0,
                    seen: None,
                    retry_at: Instant::now(),
                    last: None,
                    over: false,
                });
            }
        }
        Self {
            inner,
            request,
            deadline,
            mirrors,
            unusable,
            waited: Duration::ZERO,
            spent: Spent::default(),
        }
    }

    /// Tries the mirrors until one delivers, none is left or the time is over.
    pub(super) async fn first_good(mut self) -> Result<(Good, Spent), FetchError> {
        loop {
            for index in 0..self.mirrors.len() {
                let mirror = &self.mirrors[index];
                if mirror.over || mirror.retry_at > Instant::now() {
                    continue;
                }
                let uri_index = mirror.uri_index;
                match self.attempt(index).await? {
                    Tried::Good(landed, joined) => {
                        let good = Good {
                            uri_index,
                            landed,
                            joined,
                        };
                        return Ok((good, self.spent));
                    }
                    Tried::Failed(failed) => self.note(index, failed),
                    Tried::TimeOver(waits_for) => {
                        self.mirrors[index].last = Some(self.timed_out(waits_for));
                        return Err(self.into_error());
                    }
                }
            }
            let Some((wait, next)) = self.next_round() else {
                return Err(self.into_error());
            };
            let _shown = self.waits_for(next);
            self.waited += wait;
            tokio::time::sleep(wait).await;
        }
    }

    /// How long until a mirror may be asked again, if it is worth waiting for,
    /// and which.
    fn next_round(&self) -> Option<(Duration, usize)> {
        let live = self.mirrors.iter().enumerate().filter(|(_, m)| !m.over);
        let (next, at) = live
            .map(|(i, m)| (i, m.retry_at))
            .min_by_key(|(_, at)| *at)?;
        let wait = at.saturating_duration_since(Instant::now());
        let in_time = at < self.deadline && self.waited + wait <= PATIENCE;
        // A tick more, so that it is over when it is looked at again.
        in_time.then_some((wait + Duration::from_millis(1), next))
    }

    /// While none of them is asked, those who look are shown what is next.
    fn waits_for(&self, next: usize) -> (Wanting, Tracker) {
        let mirror = &self.mirrors[next];
        if let Some(failed) = &mirror.last {
            measure::retried(class(&failed.failure));
        }
        let target = &mirror.order.target;
        let host = target.url.host_str().unwrap_or_default().to_owned();
        let tracker = self.inner.progress.begin(mirror.order.uri.redacted(), host);
        tracker.attempt(self.spent.requests);
        tracker.phase(Phase::Waiting);
        (tracker.wanted_by(&self.request.waiters), tracker)
    }

    fn note(&mut self, index: usize, failed: Failed) {
        let uri = &self.request.uris[self.mirrors[index].uri_index];
        tracing::debug!(asset.uri = %uri, reason = %failed.text, "mirror failed");
        let attempts = self.inner.settings.attempts;
        let mirror = &mut self.mirrors[index];
        mirror.over = !failed.is_passing() || mirror.tries >= attempts;
        let by_rule = mirror.order.target.by_rule.as_deref();
        mirror.last = Some(told(by_rule, failed));
    }

    /// Tries one mirror once. What others got may be of no use here; then a
    /// download for this caller alone follows.
    async fn attempt(&mut self, index: usize) -> Result<Tried, FetchError> {
        let mirror = &mut self.mirrors[index];
        mirror.tries += 1;
        let (shared, order) = (mirror.key, Arc::clone(&mirror.order));
        let alone = self.inner.downloads.unshared(shared, &order);
        // Twice each: what is remembered of a moment ago may be gone.
        for key in [shared, shared, alone, alone] {
            match self.board(index, key).await {
                Shared::Mine(tried) => return tried,
                Shared::Gone => self.inner.downloads.forget(key),
                Shared::NotForMe if key == shared => {}
                Shared::NotForMe => break,
            }
        }
        let text = "a download that was shared is of no use to this request";
        Ok(Tried::Failed(Failed::unavailable(text)))
    }

    async fn board(&mut self, index: usize, key: Key) -> Shared {
        let (inner, oldest) = (self.inner, self.request.oldest);
        let mirror = &mut self.mirrors[index];
        let (order, seen) = (Arc::clone(&mirror.order), mirror.seen);
        match inner.downloads.board(inner, key, &order, oldest, seen) {
            Seat::Lapsed(lapse) => {
                let attempts = inner.settings.attempts;
                let mirror = &mut self.mirrors[index];
                if seen.is_none() && lapse.in_a_row >= attempts {
                    // Others have waited for it in vain; clients that repeat
                    // their calls need not do so each time.
                    mirror.tries = attempts;
                }
                mirror.lapsed(lapse)
            }
            // Other bytes than are wanted are no news of what the origin has now.
            Seat::Landed(landed) => match self.check(&order, landed, true).await {
                Shared::NotForMe | Shared::Mine(Ok(Tried::Failed(_))) => Shared::Gone,
                shared => shared,
            },
            Seat::Running(running, joined) => {
                let _wanting = running.tracker.wanted_by(&self.request.waiters);
                let ended = tokio::time::timeout_at(self.deadline, running.ended());
                let Ok(ended) = ended.await else {
                    return Shared::Mine(Ok(Tried::TimeOver(running.waits_for())));
                };
                self.settle(index, &order, ended, joined).await
            }
        }
    }

    /// What a download is to this request.
    async fn settle(
        &mut self,
        index: usize,
        order: &Order,
        ended: Ended,
        joined: Option<Joined>,
    ) -> Shared {
        self.spent.requests += ended.spent.requests;
        if ended.spent.requests == 0 {
            // The host wants to be left alone: that was no try.
            let mirror = &mut self.mirrors[index];
            mirror.tries = mirror.tries.saturating_sub(1);
        }
        if joined.is_none() {
            self.spent.bytes += ended.spent.bytes;
        }
        match (ended.result, joined) {
            (Ok(landed), None) => Shared::Mine(Ok(Tried::Good(landed, false))),
            (Ok(landed), Some(by)) => self.check(order, landed, by.other_caller).await,
            (Err(Stop::Fatal(_)), Some(by)) if by.other_caller => Shared::NotForMe,
            (Err(Stop::Fatal(error)), _) => Shared::Mine(Err(error)),
            (Err(Stop::Origin(failed)), Some(by))
                if by.other_checksum && failed.failure == Failure::Mismatch =>
            {
                Shared::NotForMe
            }
            (Err(Stop::Origin(failed)), _) => match ended.lapse {
                Some(lapse) => self.mirrors[index].lapsed(lapse),
                None => Shared::Mine(Ok(Tried::Failed(failed))),
            },
        }
    }

    /// Whether content another request brought is what this one wants, and in
    /// this caller's reach.
    async fn check(&mut self, order: &Order, mut landed: Landed, other_caller: bool) -> Shared {
        let cache = &self.inner.cache;
        if other_caller && !landed.not_modified {
            let there = cache.find_missing(&order.context, &order.scope, [&landed.digest]);
            match there.await {
                Ok(missing) if missing.is_empty() => {}
                Ok(_) => return Shared::NotForMe,
                Err(error) => return Shared::Mine(Err(error.into())),
            }
        }
        let wanted = order.integrity.as_ref().map_or(&[][..], |i| i.checksums());
        let fits = |landed: &Landed| landed.computed.iter().any(|c| wanted.contains(c));
        if wanted.is_empty() || fits(&landed) {
            return Shared::Mine(Ok(Tried::Good(landed, true)));
        }
        let algorithms: Vec<_> = landed.computed.iter().map(Checksum::algorithm).collect();
        if wanted.iter().all(|c| algorithms.contains(&c.algorithm())) {
            return Shared::Mine(Ok(Tried::Failed(mismatch(wanted, &landed.computed))));
        }
        match deposit::read_back(cache, order, &landed.digest).await {
            Ok(Some(computed)) => {
                landed.computed = computed;
                Shared::Mine(Ok(Tried::Good(landed, true)))
            }
            Ok(None) => Shared::NotForMe,
            Err(Stop::Origin(failed)) => Shared::Mine(Ok(Tried::Failed(failed))),
            Err(Stop::Fatal(error)) => Shared::Mine(Err(error)),
        }
    }

    fn timed_out(&self, waits_for: Option<String>) -> Failed {
        let text = match waits_for {
            Some(what) => {
                format!("the time was over before it was this fetch's turn: {what}")
            }
            None => {
                let time = self.inner.time(self.request);
                let time = humantime::format_duration(time);
                format!("no complete answer within {time}")
            }
        };
        Failed::new(Failure::TimedOut, text)
    }

    fn into_error(self) -> FetchError {
        let mut failures = Failures::new(&self.request.uris);
        let tried = self.mirrors.into_iter();
        let tried = tried.filter_map(|mirror| Some((mirror.uri_index, mirror.tries, mirror.last?)));
        let unusable = self.unusable.into_iter().map(|(i, failed)| (i, 0, failed));
        let mut all: Vec<_> = tried.chain(unusable).collect();
        all.sort_by_key(|(uri_index, ..)| *uri_index);
        for (uri_index, tries, failed) in all {
            failures.add(uri_index, failed.after(tries));
        }
        failures.into_error(self.spent.requests)
    }
}

/// What to download from one URL that is asked for a URI.
fn order(job: &Job<'_>, uri_index: usize, target: Target) -> Order {
    let request = job.request;
    let mut headers = headers(request, uri_index);
    headers.retain(|(name, _)| target.own || request.headers.selects(name.as_str()));
    let known = request.known.get(uri_index).cloned().flatten();
    // A date of one server says nothing to another.
    let known = known.filter(|known| target.own || known.validators.etag.is_some());
    Order {
        context: job.context.clone(),
        scope: request.scope.clone(),
        integrity: request.integrity.clone(),
        uri: request.uris[uri_index].clone(),
        target,
        headers,
        known,
        key_headers: request.headers.key_headers().clone(),
        hashes: job.hashes.clone(),
        limit: job.limit,
    }
}

impl Mirror {
    /// A failure that may pass, of this request or of another one.
    fn lapsed(&mut self, lapse: Lapse) -> Shared {
        self.seen = Some(lapse.at);
        self.retry_at = lapse.retry_at;
        Shared::Mine(Ok(Tried::Failed(lapse.failed)))
    }
}
