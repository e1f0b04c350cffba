//! What the cache already knows about a query.
//!
//! Not for: what an entry looks like or whether its content is still there;
//! the store answers only with complete ones.

use std::time::SystemTime;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;

use super::{Answer, Inner, Outcome, Query, ResolveError, Stats};
use crate::asset::{AssetKey, AssetKind, AssetReference, Checksum, KeySpace, Qualifiers, Source};
use crate::fetcher::Fetcher;
use crate::store::{AssetStore, Lookup, Miss};
use crate::upstream::CallContext;

/// Look-ups of one query under way at a time.
const PARALLEL: usize = 8;

/// Prefix of what stands in a key for a header that selects a representation.
/// Not `http_header:`, as that is a name no entry may hold.
const SELECTED_BY: &str = "request_header:";

/// A key that may answer a query.
struct Candidate {
    key: AssetKey,
    uri_index: Option<usize>,
    outcome: Outcome,
    pushed_only: bool,
}

/// Why nothing was found, as words for the caller: the most telling reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Missed {
    #[default]
    Absent,
    /// Content from the origin that has to be asked again.
    Unpinned,
    /// The entry says what the request's checksum rules out.
    Contradicted,
    Gone,
    Expired,
    Stale,
}

impl<S: AssetStore, F: Fetcher, A> Inner<S, F, A> {
    /// Asks the cache: checksum keys first, then each URI in request order.
    /// Always asks, also for a query no entry can satisfy: a caller the cache
    /// refuses learns so before the origin is asked (S11).
    pub(super) async fn look_up(
        &self,
        context: &CallContext,
        query: &Query,
    ) -> Result<Result<Answer, Missed>, ResolveError> {
        let mut missed = Missed::default();
        for candidates in [checksum_candidates(query), exact_candidates(query)] {
            for some in candidates.chunks(PARALLEL) {
                match self.first_hit(context, query, some).await? {
                    Ok(answer) => return Ok(Ok(answer)),
                    Err(reason) => missed = missed.max(reason),
                }
            }
        }
        Ok(Err(missed))
    }

    async fn first_hit(
        &self,
        context: &CallContext,
        query: &Query,
        candidates: &[Candidate],
    ) -> Result<Result<Answer, Missed>, ResolveError> {
        let mut missed = Missed::default();
        let mut lookups = FuturesOrdered::new();
        for candidate in candidates {
            lookups.push_back(self.store.get(context, &candidate.key));
        }
        for candidate in candidates {
            let Some(found) = lookups.next().await else {
                break;
            };
            let function = query.request.scope.function;
            let found = found.map_err(|e| ResolveError::from_store(e, function))?;
            match self.accept(query, candidate, found) {
                Ok(reference) => return Ok(Ok(answer(candidate, *reference))),
                Err(reason) => missed = missed.max(reason),
            }
        }
        Ok(Err(missed))
    }

    /// Whether an entry answers the query at this moment.
    fn accept(
        &self,
        query: &Query,
        candidate: &Candidate,
        found: Lookup,
    ) -> Result<Box<AssetReference>, Missed> {
        let reference = match found {
            Lookup::Hit(reference) => reference,
            Lookup::Miss(Miss::Incomplete) => return Err(Missed::Gone),
            Lookup::Miss(Miss::Expired) => return Err(Missed::Expired),
            Lookup::Miss(_) => return Err(Missed::Absent),
        };
        let now = SystemTime::now();
        let wrong_source = candidate.pushed_only && reference.source != Source::Push;
        if reference.kind != query.request.kind || wrong_source {
            return Err(Missed::Absent);
        }
        if reference.is_expired(now) {
            return Err(Missed::Expired);
        }
        let from_future = query.oldest_accepted.is_some_and(|oldest| oldest > now);
        if from_future || !reference.is_fresh(query.oldest_accepted) {
            return Err(Missed::Stale);
        }
        if contradicts(query, candidate, &reference) {
            return Err(Missed::Contradicted);
        }
        if self.needs_revalidation(query, candidate, &reference) {
            return Err(Missed::Unpinned);
        }
        Ok(reference)
    }

    /// Unpinned content from an origin may have changed there since. A caller
    /// who states no limit expects what the origin serves now (N6), and until
    /// conditional requests are built the only way to know is to fetch again.
    /// A caller who does state a limit gets any entry within it, unless this
    /// caller shows the origin credentials: these may lead to other content.
    fn needs_revalidation(
        &self,
        query: &Query,
        candidate: &Candidate,
        reference: &AssetReference,
    ) -> bool {
        let request = &query.request;
        let Some(index) = candidate.uri_index else {
            return false;
        };
        let Some(uri) = request.uris.get(index) else {
            return false;
        };
        let headers = &request.headers;
        let private = headers.has_credentials(index, uri.as_str().unwrap_or_default())
            || uri.has_secret()
            || request.qualifiers.had_secret();
        reference.source == Source::Fetch
            && candidate.outcome == Outcome::HitExact
            && request.integrity.is_none()
            && (private || query.oldest_accepted.is_none())
            && self.shared.fetcher.is_fetchable(request.kind, uri)
    }
}

/// The keys of the verified hashes the query names, if a checksum alone says
/// which asset is meant.
fn checksum_candidates(query: &Query) -> Vec<Candidate> {
    let request = &query.request;
    let checksums = request.integrity.iter().flat_map(|i| i.checksums());
    let spaces = checksums.filter_map(|c| KeySpace::checksum(c, &request.qualifiers));
    let candidates = spaces.map(|space| Candidate {
        key: key(query, space),
        uri_index: (!request.uris.is_empty()).then_some(0),
        outcome: Outcome::HitChecksum,
        pushed_only: false,
    });
    candidates.collect()
}

/// One key per URI; two where headers select a representation, as what was
/// pushed is matched whatever the headers (C3: header names are left out).
fn exact_candidates(query: &Query) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for (index, uri) in query.request.uris.iter().enumerate() {
        let candidate = |qualifiers, pushed_only| Candidate {
            key: key(
                query,
                KeySpace::Exact {
                    uri: uri.clone(),
                    qualifiers,
                },
            ),
            uri_index: Some(index),
            outcome: Outcome::HitExact,
            pushed_only,
        };
        let selected = key_qualifiers(query, index);
        let also_plain = selected != query.request.qualifiers;
        candidates.push(candidate(selected, false));
        if also_plain {
            candidates.push(candidate(query.request.qualifiers.clone(), true));
        }
    }
    candidates
}

/// The qualifiers under which content of one URI is kept: those of the request
/// and, unless a checksum pins it, the headers that select a representation.
pub(super) fn key_qualifiers(query: &Query, index: usize) -> Qualifiers {
    let request = &query.request;
    let uri = request.uris.get(index).and_then(|uri| uri.as_str());
    let mut qualifiers = request.qualifiers.clone();
    if request.integrity.is_none() {
        for (name, value) in request.headers.selecting(index, uri.unwrap_or_default()) {
            qualifiers = qualifiers.with(&format!("{SELECTED_BY}{name}"), &value);
        }
    }
    qualifiers
}

/// What of the stored qualifiers is one to clients.
pub(super) fn shown(stored: Qualifiers) -> Qualifiers {
    stored.without_prefix(SELECTED_BY)
}

pub(super) fn key(query: &Query, space: KeySpace) -> AssetKey {
    AssetKey {
        scope: query.request.scope.clone(),
        kind: query.request.kind,
        space,
    }
}

/// Whether an entry cannot be what the checksum of the query means: one found
/// by a hash that nobody verified, or a blob whose digest is another hash.
fn contradicts(query: &Query, candidate: &Candidate, reference: &AssetReference) -> bool {
    if let KeySpace::Checksum { checksum, .. } = &candidate.key.space {
        return !reference.verified.contains(checksum)
            || is_another_blob(query, reference, checksum);
    }
    let Some(integrity) = &query.request.integrity else {
        return false;
    };
    let checksums = integrity.checksums();
    let verified = checksums.iter().any(|c| reference.verified.contains(c));
    let unverified_fetch = reference.source == Source::Fetch && !verified;
    unverified_fetch
        || checksums
            .iter()
            .all(|c| is_another_blob(query, reference, c))
}

fn is_another_blob(query: &Query, reference: &AssetReference, checksum: &Checksum) -> bool {
    reference.kind == AssetKind::Blob
        && checksum.algorithm().function() == query.request.scope.function
        && checksum.raw() != reference.digest.raw()
}

fn answer(candidate: &Candidate, reference: AssetReference) -> Answer {
    Answer {
        kind: reference.kind,
        digest: reference.digest,
        uri_index: candidate.uri_index,
        qualifiers: shown(reference.qualifiers),
        outcome: candidate.outcome,
        stats: Stats::default(),
    }
}
