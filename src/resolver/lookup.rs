//! What the cache already knows about a query.
//!
//! Not for: which keys are asked (`candidates.rs`), what an entry looks like or
//! whether its content is still there; the store answers only with complete
//! ones.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio::time::Instant;

use super::candidates::{Candidate, Extent, shown, waves};
use super::{Answer, Inner, Query, ResolveError, Stats};
use crate::asset::{AssetKey, AssetReference, KeySpace, Source};
use crate::fetcher::Fetcher;
use crate::store::{AssetStore, Lookup, Miss};
use crate::upstream::CallContext;

/// Look-ups of one query under way at a time.
const PARALLEL: usize = 8;

/// Why nothing was found: the most telling reason of all keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Missed {
    /// Nobody recorded it.
    #[default]
    Absent,
    /// An entry that is not one of ours, or does not fit its key.
    Unusable,
    /// Its content does not have the checksum of the request.
    Contradicted,
    /// Whether its content has that could not be found out.
    Unproven,
    /// A push for several URIs of which the first was never written.
    HalfPushed,
    /// It is known, and its content is not in the cache any more.
    Gone,
    /// It has expired or was withdrawn.
    Expired,
    /// What its origin served before, which the origin has to confirm first.
    Unconfirmed,
    /// It is older than the request accepts.
    Stale,
}

impl Missed {
    /// Every reason, the most telling one last.
    pub const ALL: [Self; 9] = [
        Self::Absent,
        Self::Unusable,
        Self::Contradicted,
        Self::Unproven,
        Self::HalfPushed,
        Self::Gone,
        Self::Expired,
        Self::Unconfirmed,
        Self::Stale,
    ];

    /// The reason as in metrics, logs and explanations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Missed::Absent => "absent",
            Missed::Unusable => "unusable",
            Missed::Contradicted => "contradicted",
            Missed::Unproven => "unproven",
            Missed::HalfPushed => "half_pushed",
            Missed::Gone => "gone",
            Missed::Expired => "expired",
            Missed::Unconfirmed => "unconfirmed",
            Missed::Stale => "stale",
        }
    }
}

/// What one key gave.
pub(super) type Found = Result<Box<AssetReference>, Missed>;

/// What one look-up remembers from key to key.
#[derive(Default)]
pub(super) struct Judged {
    /// Exact keys that gave nothing, and why.
    passed: Vec<(AssetKey, Missed)>,
    /// Until when content may be read back for it: once for all keys, as each
    /// may lead to other content that somebody else made large.
    pub(super) deadline: Option<Instant>,
}

impl<S: AssetStore, F: Fetcher, A> Inner<S, F, A> {
    /// Asks the cache, wave by wave. Always asks, also for a query no entry
    /// can satisfy: a caller the cache refuses learns so before the origin is
    /// asked (S11).
    pub(super) async fn look_up(
        &self,
        context: &CallContext,
        query: &Query,
    ) -> Result<Result<Answer, Missed>, ResolveError> {
        let (mut missed, mut judged) = (Missed::default(), Judged::default());
        for wave in self.waves(query) {
            match self.first_hit(context, query, &wave, &mut judged).await? {
                Ok(answer) => return Ok(Ok(answer)),
                Err(reason) => missed = missed.max(reason),
            }
        }
        Ok(Err(missed))
    }

    pub(super) fn waves(&self, query: &Query) -> Vec<Vec<Candidate>> {
        let uris = 0..query.request.uris.len();
        let fetched: Vec<bool> = uris
            .map(|index| self.shared.may_be_fetched(query, index))
            .collect();
        let settings = &self.shared.settings;
        let private = || (0..query.request.uris.len()).any(|index| query.request.is_private(index));
        let instance = &query.request.scope.instance;
        let extent = Extent {
            settings,
            fetched: &fetched,
            checksums: settings.share_private || !private(),
            migrate: settings.migrate && settings.permissions.check_fetch(instance).is_ok(),
        };
        waves(query, extent)
    }

    /// The first candidate in order that answers; all are asked at once, some
    /// at a time.
    async fn first_hit(
        &self,
        context: &CallContext,
        query: &Query,
        wave: &[Candidate],
        judged: &mut Judged,
    ) -> Result<Result<Answer, Missed>, ResolveError> {
        let mut missed = Missed::default();
        let mut left = wave;
        while !left.is_empty() {
            let some = &left[..left.len().min(PARALLEL)];
            let lookups = some.iter().map(|c| self.ask(context, query, &c.key));
            let mut lookups: FuturesOrdered<_> = lookups.collect();
            while let Some(found) = lookups.next().await {
                let Some((candidate, others)) = left.split_first() else {
                    break;
                };
                left = others;
                let found = self.accept(query, candidate, found?);
                if found.is_ok() {
                    // To judge it may take memory that the other look-ups
                    // hold, and nobody would go on with these.
                    lookups.clear();
                }
                let ask = async |exact: AssetKey| self.ask(context, query, &exact).await;
                let found = self.judge(context, query, candidate, found, judged, ask);
                let found = found.await?;
                count(candidate, &found);
                match found {
                    Ok(reference) => {
                        self.renew(context, &candidate.key, &reference);
                        return Ok(Ok(answer(candidate, *reference)));
                    }
                    Err(reason) => missed = missed.max(reason),
                }
            }
        }
        Ok(Err(missed))
    }

    /// What stands under a key.
    async fn ask(
        &self,
        context: &CallContext,
        query: &Query,
        key: &AssetKey,
    ) -> Result<Lookup, ResolveError> {
        let found = self.store.get(context, key).await;
        let function = query.request.scope.function;
        found.map_err(|e| ResolveError::from_store(e, function))
    }

    /// Whether an accepted entry answers the query, and has the checksum it
    /// names: the one place that decides, for fetches and for explanations. `judged` is
    /// what the keys before told, and learns of this one; `ask` looks
    /// a further key up, where the answer depends on one.
    pub(super) async fn judge(
        &self,
        context: &CallContext,
        query: &Query,
        candidate: &Candidate,
        mut found: Found,
        judged: &mut Judged,
        ask: impl AsyncFnOnce(AssetKey) -> Result<Lookup, ResolveError>,
    ) -> Result<Found, ResolveError> {
        if let Some(exact) = found.as_ref().ok().and_then(|f| confirming(candidate, f)) {
            let there = ask(exact).await?;
            found = self.confirm(query, candidate, found, there);
        }
        if let Ok(reference) = &found
            && let Some((first, reason)) = first_of_push(candidate, &judged.passed, reference)
            && Box::pin(self.is_half(context, first, *reason, reference)).await?
        {
            found = Err(Missed::HalfPushed);
        }
        // Last, as it may take reading all of the content.
        if let Ok(reference) = &found
            && let Err(missed) = self
                .prove(context, query, candidate, reference, judged)
                .await?
        {
            found = Err(missed);
        }
        if let (Err(reason), KeySpace::Exact { .. }) = (&found, &candidate.key.space)
            && query.request.uris.len() > 1
        {
            judged.passed.push((candidate.key.clone(), *reason));
        }
        Ok(found)
    }

    /// A push that failed midway may have left the entries of its later URIs.
    /// Who asks for all of them, as BuildStream does before it pushes, must not
    /// take it for done: the first URI would then be missing for ever. Its
    /// entry is written last, so that one of before, which has expired or lost
    /// its content, says as much as none.
    async fn is_half(
        &self,
        context: &CallContext,
        first: &AssetKey,
        reason: Missed,
        found: &AssetReference,
    ) -> Result<bool, ResolveError> {
        if reason == Missed::Absent {
            return Ok(true);
        }
        let there = self.store.explain(context, first).await;
        let there = there.map_err(|e| ResolveError::from_store(e, first.scope.function))?;
        Ok(there
            .reference
            .is_none_or(|first| first.content_time < found.content_time))
    }

    /// Whether an entry answers the query at this moment.
    pub(super) fn accept(&self, query: &Query, candidate: &Candidate, found: Lookup) -> Found {
        let reference = match found {
            Lookup::Hit(reference) => reference,
            Lookup::Miss(Miss::Incomplete) => return Err(Missed::Gone),
            Lookup::Miss(Miss::Expired) => return Err(Missed::Expired),
            Lookup::Miss(Miss::Unusable) => return Err(Missed::Unusable),
            Lookup::Miss(Miss::Absent) => return Err(Missed::Absent),
        };
        let now = self.shared.settings.clock.now();
        if reference.kind != query.request.kind || !has_right_source(candidate, &reference) {
            return Err(Missed::Unusable);
        }
        if reference.is_expired(now) {
            return Err(Missed::Expired);
        }
        let from_future = query.request.oldest.is_some_and(|oldest| oldest > now);
        if from_future || !reference.is_fresh(query.request.oldest) {
            return Err(Missed::Stale);
        }
        if let KeySpace::Fetched { uri, .. } = &candidate.key.space
            && !self.shared.holds(query, uri, &reference)
        {
            return Err(Missed::Unconfirmed);
        }
        Ok(reference)
    }

    /// What the exact entry `there` makes of one found by a subset.
    fn confirm(&self, query: &Query, candidate: &Candidate, found: Found, there: Lookup) -> Found {
        if let (Ok(subset), Lookup::Hit(exact)) = (&found, &there)
            && exact.content_time <= subset.content_time
        {
            return found;
        }
        match self.accept(query, candidate, there) {
            Err(Missed::Absent | Missed::Unusable) => found,
            other => other,
        }
    }
}

/// An entry found by a subset of its qualifiers is what was pushed last with
/// more; whether that push still holds, the exact entry says, if it is there: a
/// withdrawal or a later push (C3.7).
fn confirming(candidate: &Candidate, subset: &AssetReference) -> Option<AssetKey> {
    let KeySpace::Subset { uri, .. } = &candidate.key.space else {
        return None;
    };
    let space = KeySpace::Exact {
        uri: uri.clone(),
        qualifiers: subset.qualifiers.clone(),
    };
    Some(AssetKey {
        space,
        ..candidate.key.clone()
    })
}

/// What was asked before for the first URI of the push that an exact entry is
/// of, if that is another URI.
fn first_of_push<'a>(
    candidate: &Candidate,
    passed: &'a [(AssetKey, Missed)],
    found: &AssetReference,
) -> Option<&'a (AssetKey, Missed)> {
    let space = &candidate.key.space;
    let is_pushed = matches!(space, KeySpace::Exact { .. });
    passed.iter().filter(|_| is_pushed).find(|(key, _)| {
        let uri = key.space.uri();
        key.space.qualifiers() == space.qualifiers()
            && uri != space.uri()
            && uri.is_some_and(|uri| uri.redacted() == found.uri)
    })
}

/// Whether the entry is of the origin that its key space is for.
fn has_right_source(candidate: &Candidate, reference: &AssetReference) -> bool {
    match candidate.key.space {
        KeySpace::Exact { .. } | KeySpace::Subset { .. } | KeySpace::Migrated { .. } => {
            reference.source == Source::Push
        }
        KeySpace::Fetched { .. } => reference.source == Source::Fetch,
        KeySpace::Checksum { .. } => true,
    }
}

fn count(candidate: &Candidate, found: &Found) {
    let result = found.as_ref().err().map_or("hit", |missed| missed.name());
    let space = candidate.key.space.name();
    metrics::counter!("assetgate_lookups_total", "space" => space, "result" => result).increment(1);
}

pub(super) fn answer(candidate: &Candidate, reference: AssetReference) -> Answer {
    Answer {
        kind: reference.kind,
        digest: reference.digest,
        uri_index: candidate.uri_index,
        qualifiers: shown(reference.qualifiers),
        outcome: candidate.outcome,
        stats: Stats::default(),
    }
}
