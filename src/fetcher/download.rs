//! One URL into the cache: asked, taken in, gone on with after a cut, stored.
//!
//! A body that breaks off is gone on with at the same origin, as long as the
//! origin can be held to the same bytes: by a validator, or by the checksum.
//! Whatever else fails ends the download; what then follows is up to those who
//! share it (`mirrors`).
//! Not for: who shares it (`downloads`).
//! Called by: `downloads`.

use std::time::SystemTime;

use http::response::Parts;
use http::{HeaderValue, StatusCode, header};

use super::client::{Answer, Ask};
use super::deposit::{self, Presence};
use super::exchange::Body;
use super::failed::Failed;
use super::fetch::Inner;
use super::hosts::{Standing, Turn};
use super::order::{Landed, Order, Spent};
use super::progress::{Phase, Tracker};
use super::receive::{Bounds, Stop, receive};
use super::resume::{is_the_rest, strong_validator};
use super::rules::{self, content_length, usable};
use super::sink::{Received, Sink};
use super::spool::Content;
use super::{Failure, measure};
use crate::asset::{Checksum, Validators};
use crate::digest::Digest;

/// Requests one download may take, however well it gets on: an origin that cuts
/// after each byte must have an end.
const REQUESTS: u32 = 64;

/// Bytes of a body that are worth asking for its rest only.
const WORTH: u64 = 16 << 10;

/// A download under way.
pub(super) struct Download<'a> {
    inner: &'a Inner,
    order: &'a Order,
    standing: &'a Standing,
    tracker: &'a Tracker,
    turn: Turn,
    started_at: SystemTime,
    spent: Spent,
    partial: Option<Partial<'a>>,
    /// The body is of several answers.
    stitched: bool,
    /// The origin began again when it was asked for the rest.
    restarted: bool,
    /// Credentials of this service went along.
    lent: bool,
}

/// A body of which not all has come.
struct Partial<'a> {
    sink: Sink<'a>,
    bounds: Bounds,
    validators: Validators,
    /// What the cache said a moment ago it lacks.
    absent: Vec<Digest>,
    /// What the origin is held to; `None`: the checksum.
    current: Option<HeaderValue>,
}

impl<'a> Download<'a> {
    pub(super) fn new(
        inner: &'a Inner,
        order: &'a Order,
        standing: &'a Standing,
        tracker: &'a Tracker,
    ) -> Self {
        Self {
            inner,
            order,
            standing,
            tracker,
            turn: Turn::default(),
            started_at: SystemTime::now(),
            spent: Spent::default(),
            partial: None,
            stitched: false,
            restarted: false,
            lent: false,
        }
    }

    pub(super) async fn run(mut self) -> (Result<Landed, Stop>, Spent) {
        let result = self.whole().await;
        (result, self.spent)
    }

    async fn whole(&mut self) -> Result<Landed, Stop> {
        let settings = &self.inner.settings;
        let (mut in_vain, mut in_one_piece) = (0, false);
        loop {
            let before = self.arrived();
            let failed = match self.attempt().await {
                Ok(landed) => return Ok(landed),
                Err(Stop::Origin(failed)) => failed,
                Err(fatal) => return Err(fatal),
            };
            if failed.failure == Failure::Mismatch && self.stitched && !in_one_piece {
                // It may be of two versions: once more from the beginning.
                in_one_piece = true;
                self.partial = None;
                continue;
            }
            let got_on = self.arrived() > before;
            in_vain = if got_on { 0 } else { in_vain + 1 };
            let resumable = self.partial.is_some() && !self.restarted && failed.is_passing();
            if !resumable || in_vain >= settings.attempts || self.spent.requests >= REQUESTS {
                return Err(failed.into());
            }
            tracing::debug!(reason = %failed.text, "a download is gone on with");
            let wait = self.inner.backoff.after(in_vain, failed.retry_after());
            self.tracker.phase(Phase::Waiting);
            tokio::time::sleep(wait).await;
        }
    }

    /// Bytes of the body that need not come again.
    fn arrived(&self) -> u64 {
        self.partial.as_ref().map_or(0, |p| p.sink.received())
    }

    /// One request.
    async fn attempt(&mut self) -> Result<Landed, Stop> {
        let order = self.order;
        let ask = Ask {
            from: self.partial.as_ref().map(Partial::rest),
            known: order.known.as_ref().map(|k| k.validators.clone()),
            key_headers: order.key_headers.clone(),
        };
        self.tracker.attempt(self.spent.requests + 1);
        let pinned = order.integrity.is_some();
        let (client, target) = (&self.inner.client, order.target.clone());
        let (turn, standing) = (&mut self.turn, self.standing);
        (turn.goes_on, turn.since) = (ask.from.is_some(), None);
        let answer = client.get(target, &order.headers, &ask, pinned, turn, standing);
        let answer = answer.await;
        // None was sent if its host is left alone for a while.
        let since = self.turn.since.map(|since| since.instant);
        self.spent.requests += u32::from(since.is_some());
        let outcome = match answer {
            Ok(answer) => self.take(answer, &ask).await,
            Err(failed) => Err(failed.into()),
        };
        let class = match &outcome {
            Ok(landed) if landed.not_modified => "not_modified",
            Ok(_) => "ok",
            Err(Stop::Origin(failed)) => measure::class(&failed.failure),
            Err(Stop::Fatal(_)) => return outcome,
        };
        let host = order.target.url.host_str().unwrap_or_default();
        if let Some(since) = since {
            measure::request(class, host, since);
        }
        outcome
    }

    async fn take(&mut self, answer: Answer, ask: &Ask) -> Result<Landed, Stop> {
        let Answer {
            response,
            redirected_to,
            lent,
        } = answer;
        self.lent |= lent;
        let (head, body) = response.into_parts();
        if let Some(since) = self.turn.since
            && (head.status != StatusCode::PARTIAL_CONTENT || ask.from.is_none())
        {
            self.started_at = since.time;
        }
        let mut taken = match head.status {
            StatusCode::NOT_MODIFIED if ask.known.is_some() => return self.not_modified(),
            StatusCode::PARTIAL_CONTENT if ask.from.is_some() => self.go_on(&head, body).await,
            StatusCode::RANGE_NOT_SATISFIABLE if ask.from.is_some() => {
                self.partial = None;
                measure::resumed("refused");
                let text = "the rest of a body that was cut off could not be had";
                Err(Failed::unavailable(text).into())
            }
            status if usable(status, &self.order.headers) => self.begin(&head, body).await,
            status => Err(Failed::status(status, &head.headers).into()),
        };
        let elsewhere = redirected_to.is_some() || !self.order.target.own;
        if let (Ok(landed), true) = (&mut taken, elsewhere) {
            // It says nothing of an older file that this leads to next.
            landed.validators.last_modified = None;
        }
        taken.map_err(|stop| match stop {
            Stop::Origin(failed) => Stop::Origin(Failed {
                redirected_to,
                ..failed
            }),
            fatal @ Stop::Fatal(_) => fatal,
        })
    }

    fn not_modified(&self) -> Result<Landed, Stop> {
        let known = self.order.known.clone();
        let known = known.ok_or_else(|| Failed::new(Failure::Unusable, "304 unasked"))?;
        Ok(Landed {
            not_modified: true,
            ..self.landed(known.digest, Vec::new(), known.validators)
        })
    }

    /// The rest of a body.
    async fn go_on(&mut self, head: &Parts, body: Body) -> Result<Landed, Stop> {
        let Some(partial) = self.partial.take() else {
            return Err(Failed::new(Failure::Unusable, "206 unasked").into());
        };
        let (first, total) = (partial.sink.received(), partial.bounds.announced);
        if !is_the_rest(&head.headers, first, total) {
            measure::resumed("unusable");
            let text = "what came was not the rest of a body that was cut off";
            return Err(Failed::unavailable(text).into());
        }
        self.stitched = true;
        measure::resumed("resumed");
        self.tracker.announce(total);
        self.body(partial, body).await
    }

    /// A body from its first byte.
    async fn begin(&mut self, head: &Parts, body: Body) -> Result<Landed, Stop> {
        // What was there before is of another version.
        self.restarted = self.partial.take().is_some();
        if self.restarted {
            measure::resumed("restarted");
        }
        self.tracker.restart();
        self.stitched = false;
        let order = self.order;
        let bounds = Bounds {
            announced: content_length(&head.headers),
            limit: order.limit,
            stall: self.inner.settings.stall_timeout,
        };
        if bounds.announced.is_some_and(|n| n > bounds.limit) {
            return Err(bounds.too_large().into());
        }
        let validators = rules::validators(&head.headers);
        let absent = match deposit::present(&self.inner.cache, order, bounds.announced).await? {
            Presence::There(digest, checksum) => {
                return Ok(self.landed(digest, vec![checksum], validators));
            }
            Presence::Absent(digests) => digests,
        };
        self.tracker.announce(bounds.announced);
        let sink = self.sink(bounds.announced).await?;
        let partial = Partial {
            sink,
            bounds,
            validators,
            absent,
            current: strong_validator(&head.headers),
        };
        self.body(partial, body).await
    }

    async fn sink(&self, announced: Option<u64>) -> Result<Sink<'a>, Stop> {
        let (inner, order) = (self.inner, self.order);
        let small = inner.settings.small_body;
        let large = announced.filter(|n| *n > small);
        match large.and_then(|n| order.fixed(n)) {
            Some(digest) => Ok(Sink::cache(&inner.cache, order, digest)),
            None => Sink::spool(order.hashes.clone(), &inner.spool, announced, small).await,
        }
    }

    async fn body(&mut self, mut partial: Partial<'a>, body: Body) -> Result<Landed, Stop> {
        let (total, tracker) = (&mut self.spent.bytes, self.tracker);
        let arrived = |n: usize| {
            *total += n as u64;
            tracker.received(n);
        };
        match receive(body, &mut partial.sink, &partial.bounds, arrived).await {
            Ok(()) => self.store(partial).await,
            Err(stop) => {
                if self.may_go_on(&partial) {
                    self.partial = Some(partial);
                }
                Err(stop)
            }
        }
    }

    /// Whether the rest of a body can be asked for, and told to be its rest.
    fn may_go_on(&self, partial: &Partial<'_>) -> bool {
        let asked_for_part = self.order.headers.iter().any(|(n, _)| n == header::RANGE);
        let held = partial.current.is_some() || self.order.integrity.is_some();
        partial.sink.received() >= WORTH && held && !asked_for_part
    }

    async fn store(&mut self, partial: Partial<'a>) -> Result<Landed, Stop> {
        self.turn.leave_host();
        let (cache, order) = (&self.inner.cache, self.order);
        let Received {
            digest,
            verified,
            content,
        } = partial.sink.finish().await?;
        self.tracker.phase(Phase::Storing);
        measure::body(content.as_ref().map_or("streamed", Content::place));
        let stored = match content {
            Some(content) => {
                let is_absent = partial.absent.contains(&digest);
                deposit::upload(cache, order, &digest, content, is_absent).await
            }
            None => deposit::kept(cache, order, &digest).await,
        };
        stored.map_err(Stop::Fatal)?;
        Ok(self.landed(digest, verified, partial.validators))
    }

    fn landed(&self, digest: Digest, computed: Vec<Checksum>, validators: Validators) -> Landed {
        Landed {
            digest,
            computed,
            validators,
            not_modified: false,
            started_at: self.started_at,
            lent: self.lent,
        }
    }
}

impl Partial<'_> {
    fn rest(&self) -> (u64, Option<HeaderValue>) {
        (self.sink.received(), self.current.clone())
    }
}
