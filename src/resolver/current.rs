//! What an origin serves now: all of it, or its word that what the cache has of
//! it is that still.
//!
//! Before the origins of unpinned, public content are asked, the cache is asked
//! what they served before (at most [`MIRRORS`] of them). That word counts as
//! a retrieval begun now (conformance C5), and only while the content is in the
//! CAS under this caller's own credentials (P2). Whether the client would have
//! taken the entry as it was plays no part.
//! Not for: what answers without an origin (`lookup.rs`), the conditional
//! request itself (`fetcher`).
//! Called by: `origin.rs`.

use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, stream};

use super::candidates::{key, key_qualifiers};
use super::freshness::{UnpinnedPolicy, policy};
use super::{Query, ResolveError, Shared};
use crate::asset::{AssetKey, AssetReference, KeySpace, Source, Validators};
use crate::fetcher::{FetchError, Fetched, Fetcher, Known};
use crate::store::{AssetStore, Lookup};
use crate::upstream::CallContext;

/// Mirrors of which it is looked up what they served before. Hardly anyone
/// names more, and the first that answers is nearly always among the first.
const MIRRORS: usize = 16;
/// How long content was left alone before its date is a name for it (RFC 9110,
/// 8.8.2.2, with time for clocks to differ).
const SETTLED: Duration = Duration::from_secs(60);
/// Look-ups under way at a time.
const PARALLEL: usize = 8;

/// What the origin of each URI served before, if it is still there.
pub(super) type Past = Vec<Option<Box<AssetReference>>>;

impl<S: AssetStore, F: Fetcher> Shared<S, F> {
    /// What the origins of a query served before.
    pub(super) async fn past(&self, context: &CallContext, query: &Query) -> Past {
        let mut past: Past = vec![None; query.request.uris.len()];
        let keys = self.keys_of_past(query).into_iter();
        let lookups: Vec<_> = keys
            .map(async |(index, key)| (index, self.past_of(context, query, &key).await))
            .collect();
        let mut lookups = stream::iter(lookups).buffer_unordered(PARALLEL);
        while let Some((index, found)) = lookups.next().await {
            past[index] = found;
        }
        past
    }

    /// A cache that fails here fails soon after where that counts; without a
    /// past, all of the content is fetched.
    async fn past_of(
        &self,
        context: &CallContext,
        query: &Query,
        key: &AssetKey,
    ) -> Option<Box<AssetReference>> {
        let found = self.store.get(context, key).await;
        match found {
            Ok(Lookup::Hit(reference)) => self.is_past(query, &reference).then_some(reference),
            Ok(Lookup::Miss(_)) => None,
            Err(error) => {
                let error = context.redact(&error.to_string());
                tracing::debug!(error, "what an origin served before could not be looked up");
                None
            }
        }
    }

    /// Where it is recorded what the origins of a query serve, by URI.
    pub(super) fn keys_of_past(&self, query: &Query) -> Vec<(usize, AssetKey)> {
        let uris = query.request.uris.iter().enumerate().take(MIRRORS);
        let uris = uris.filter(|(index, _)| self.has_past(query, *index));
        let keys = uris.map(|(index, uri)| {
            let space = KeySpace::Fetched {
                uri: uri.clone(),
                qualifiers: key_qualifiers(query, index),
            };
            (index, key(query, space))
        });
        keys.collect()
    }

    /// Whether an entry under such a key is one of what an origin served.
    pub(super) fn is_past(&self, query: &Query, reference: &AssetReference) -> bool {
        let now = self.settings.clock.now();
        reference.kind == query.request.kind
            && reference.source == Source::Fetch
            && !reference.is_expired(now)
    }

    /// What an origin may be asked about: content it gave a name to.
    pub(super) fn known_of(
        &self,
        query: &Query,
        index: usize,
        past: &AssetReference,
    ) -> Option<Known> {
        let uri = query.request.uris.get(index)?;
        let Validators {
            etag,
            last_modified,
        } = &past.validators;
        let dated = |date: &String| is_settled(date, past.content_time);
        let named = etag.is_some() || last_modified.as_ref().is_some_and(dated);
        let asks = policy(&self.settings.unpinned, uri) != UnpinnedPolicy::Refetch;
        (named && asks).then(|| Known {
            digest: past.digest.clone(),
            validators: past.validators.clone(),
        })
    }

    /// Asks the origins. If one says that nothing changed and the content has
    /// gone meanwhile, they are asked again, for all of it.
    pub(super) async fn fetch_current(
        &self,
        context: &CallContext,
        query: &mut Query,
        past: &Past,
    ) -> Result<Fetched, ResolveError> {
        let known = past.iter().enumerate().map(|(index, past)| {
            let past = past.as_deref()?;
            self.known_of(query, index, past)
        });
        query.request.known = known.collect();
        let first = self.fetcher.fetch(context, &query.request).await?;
        if !first.not_modified {
            return Ok(first);
        }
        let known = query.request.known.get(first.uri_index).cloned().flatten();
        if let Some(known) = known.filter(|known| known.digest == first.digest)
            && self.is_there(context, query, &first).await?
        {
            let validators = merged(known.validators, &first.validators);
            return Ok(Fetched {
                validators,
                ..first
            });
        }
        tracing::debug!(digest = %first.digest, "unchanged at the origin, and gone from the cache");
        query.request.known.clear();
        let second = self.fetcher.fetch(context, &query.request).await?;
        if second.not_modified {
            let text = "an origin confirmed content that it was not asked about";
            return Err(FetchError::Internal(text.to_owned()).into());
        }
        Ok(Fetched {
            origin_bytes: first.origin_bytes.saturating_add(second.origin_bytes),
            attempts: first.attempts.saturating_add(second.attempts),
            ..second
        })
    }

    /// Whether confirmed content is in the CAS now. Of a directory only its
    /// entry can tell.
    async fn is_there(
        &self,
        context: &CallContext,
        query: &Query,
        fetched: &Fetched,
    ) -> Result<bool, ResolveError> {
        let scope = &query.request.scope;
        let failed = |error| ResolveError::from_store(error, scope.function);
        let (kind, digest) = (query.request.kind, &fetched.digest);
        let present = self.store.is_present(context, scope, kind, digest).await;
        if present.map_err(failed)? {
            return Ok(true);
        }
        let mut keys = self.keys_of_past(query).into_iter();
        let Some((_, key)) = keys.find(|(index, _)| *index == fetched.uri_index) else {
            return Ok(false);
        };
        match self.store.get(context, &key).await.map_err(failed)? {
            Lookup::Hit(reference) => Ok(reference.kind == kind && reference.digest == *digest),
            Lookup::Miss(_) => Ok(false),
        }
    }

    /// Notes that an origin serves something else under a URL than before.
    pub(super) fn note_drift(&self, query: &Query, past: &Past, fetched: &Fetched) {
        let before = past.get(fetched.uri_index).and_then(Option::as_deref);
        let Some(before) = before.filter(|before| before.digest != fetched.digest) else {
            return;
        };
        metrics::counter!("assetgate_origin_drift_total").increment(1);
        let uri = query.request.uris.get(fetched.uri_index);
        let age = fetched.started_at.duration_since(before.content_time);
        tracing::info!(
            asset.uri = uri.map(|uri| uri.redacted()).unwrap_or_default(),
            old = %before.digest,
            new = %fetched.digest,
            age_seconds = age.unwrap_or_default().as_secs(),
            "an origin serves other content under this URL than before; nothing pins it"
        );
    }
}

/// Whether content retrieved then can be known by this date. Dates count
/// seconds, and clocks differ: what was modified shortly before may have been
/// so again since, within the same second.
fn is_settled(date: &str, content_time: SystemTime) -> bool {
    let date = httpdate::parse_http_date(date).ok();
    let age = date.and_then(|date| content_time.duration_since(date).ok());
    age.is_some_and(|age| age >= SETTLED)
}

/// Validators after a confirmation, which need not repeat them.
fn merged(before: Validators, now: &Validators) -> Validators {
    Validators {
        etag: now.etag.clone().or(before.etag),
        last_modified: now.last_modified.clone().or(before.last_modified),
    }
}
