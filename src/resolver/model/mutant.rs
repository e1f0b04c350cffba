//! Stores and caches that are wrong in one way each. The oracle has to find
//! every one of them; else it says nothing of the real one.

use crate::asset::{Algorithm, AssetKey, AssetKind, AssetReference, Checksum, KeySpace};
use crate::clock::Clock;
use crate::digest::{Digest, Scope};
use crate::store::{ActionCacheStore, AssetStore, Error, Explained, Lookup, Miss};
use crate::upstream::CallContext;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    /// Nothing.
    None,
    /// The cache keeps the first entry under a key.
    FirstWriterWins,
    /// The cache is trusted to check completeness, and does not.
    CacheChecksNothing,
    /// Nobody asks whether the content is there.
    NoPresence,
    /// Exact entries are written before those of subsets.
    ExactFirst,
    /// The entry of the first URI is written first.
    FirstUriFirst,
    /// A subset hit is not confirmed by the exact entry.
    NoConfirmation,
    /// That the first URI of a push has no entry is not looked at.
    NoHalfPushed,
    /// The entry of the last subset is not written.
    LosesSubset,
    /// The entry of the last URI is not written.
    LosesUri,
    /// A failed write is acknowledged.
    AcknowledgesFailure,
    /// `expire_at` is forgotten.
    ForgetsExpiry,
    /// The content seems younger than it is.
    Rejuvenates,
    /// All of a directory but its root may be missing.
    ShallowPush,
}

/// All that are wrong.
pub(super) const ALL: [Mutant; 13] = [
    Mutant::FirstWriterWins,
    Mutant::CacheChecksNothing,
    Mutant::NoPresence,
    Mutant::ExactFirst,
    Mutant::FirstUriFirst,
    Mutant::NoConfirmation,
    Mutant::NoHalfPushed,
    Mutant::LosesSubset,
    Mutant::LosesUri,
    Mutant::AcknowledgesFailure,
    Mutant::ForgetsExpiry,
    Mutant::Rejuvenates,
    Mutant::ShallowPush,
];

/// A store, as the mutant would be.
#[derive(Debug, Clone)]
pub(super) struct Mutated(
    pub(super) ActionCacheStore,
    pub(super) Mutant,
    pub(super) Clock,
);

fn is_subset(key: &AssetKey) -> bool {
    matches!(key.space, KeySpace::Subset { .. })
}

impl AssetStore for Mutated {
    async fn get(&self, context: &CallContext, key: &AssetKey) -> Result<Lookup, Error> {
        let exact = matches!(key.space, KeySpace::Exact { .. });
        if self.1 == Mutant::NoPresence {
            let found = self.0.explain(context, key).await?;
            return Ok(match (found.lookup, found.reference) {
                (Lookup::Miss(Miss::Incomplete), Some(reference)) => Lookup::Hit(reference),
                (lookup, _) => lookup,
            });
        }
        let mut found = self.0.get(context, key).await?;
        match (self.1, &mut found) {
            (Mutant::NoConfirmation, Lookup::Miss(miss @ Miss::Expired)) if exact => {
                *miss = Miss::Absent;
            }
            (Mutant::NoHalfPushed, Lookup::Miss(miss @ Miss::Absent)) if exact => {
                *miss = Miss::Unusable;
            }
            (Mutant::Rejuvenates, Lookup::Hit(reference)) => {
                reference.content_time = self.2.now();
            }
            _ => {}
        }
        Ok(found)
    }

    async fn explain(&self, context: &CallContext, key: &AssetKey) -> Result<Explained, Error> {
        let mut found = self.0.explain(context, key).await?;
        // As if nothing older could stand there.
        if self.1 == Mutant::NoHalfPushed
            && let Some(reference) = &mut found.reference
        {
            reference.content_time = self.2.now();
        }
        Ok(found)
    }

    async fn hashes(
        &self,
        context: &CallContext,
        scope: &Scope,
        digest: &Digest,
        algorithms: &[Algorithm],
    ) -> Result<Option<Vec<Checksum>>, Error> {
        self.0.hashes(context, scope, digest, algorithms).await
    }

    async fn is_present(
        &self,
        context: &CallContext,
        scope: &Scope,
        kind: AssetKind,
        digest: &Digest,
    ) -> Result<bool, Error> {
        self.0.is_present(context, scope, kind, digest).await
    }

    async fn put(
        &self,
        context: &CallContext,
        keys: &[AssetKey],
        reference: &AssetReference,
    ) -> Result<(), Error> {
        let store = &self.0;
        let mut keys = keys.to_vec();
        let mut reference = reference.clone();
        match self.1 {
            Mutant::ExactFirst => {
                let (subsets, exact): (Vec<_>, Vec<_>) = keys.into_iter().partition(is_subset);
                store.put(context, &exact, &reference).await?;
                return store.put(context, &subsets, &reference).await;
            }
            Mutant::FirstUriFirst => {
                store.put(context, &keys[..1], &reference).await?;
                return store.put(context, &keys[1..], &reference).await;
            }
            Mutant::LosesSubset if keys.last().is_some_and(is_subset) => {
                keys.pop();
            }
            Mutant::LosesUri => {
                let exact = keys.iter().filter(|k| !is_subset(k)).count();
                if exact > 1 {
                    keys.remove(exact - 1);
                }
            }
            Mutant::AcknowledgesFailure => {
                return match store.put(context, &keys, &reference).await {
                    Err(Error::Upstream(_)) => Ok(()),
                    other => other,
                };
            }
            Mutant::ForgetsExpiry if !reference.is_expired(self.2.now()) => {
                reference.expire_at = None;
            }
            Mutant::ShallowPush => reference.kind = AssetKind::Blob,
            _ => {}
        }
        store.put(context, &keys, &reference).await
    }
}
