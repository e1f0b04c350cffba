//! The [`AssetStore`] over a cache's Action Cache.
//!
//! Blind writes only, and nothing is kept in this process: any replica answers
//! for any other. An entry is verified in full on every read.
//! Not for: the format (`encoding.rs`), what a hit has to prove
//! (`presence.rs`), what a push has to upload (`content.rs`).
//! Called by: `server` (construction), `resolver` (through the trait).

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::encoding::{EncodedKey, Outputs, decode_entry, encode_entry, encode_key, same_payload};
use super::presence::{self, Budget, Presence};
use super::{AssetStore, Error, Lookup, Miss, content};
use crate::asset::{AssetKey, AssetKind, AssetReference};
use crate::digest::{Digest, Scope};
use crate::upstream::{self, Cache, CallContext};

/// Entries of one push written at once.
const WRITES: usize = 8;

/// References as Action Cache entries.
#[derive(Debug, Clone)]
pub struct ActionCacheStore {
    cache: Cache,
    namespace: Arc<str>,
    budget: Arc<Budget>,
}

impl ActionCacheStore {
    /// A store in a cache. Entries of another namespace are never seen.
    #[must_use]
    pub fn new(cache: Cache, namespace: &str) -> Self {
        Self {
            cache,
            namespace: namespace.into(),
            budget: Arc::default(),
        }
    }

    fn encode(&self, key: &AssetKey) -> Result<EncodedKey, Error> {
        let function = key.scope.function;
        let unsupported = upstream::Error::UnsupportedFunction(function);
        encode_key(&self.namespace, key).ok_or_else(|| unsupported.into())
    }

    /// Writes one entry and makes sure that the cache keeps this one.
    async fn write_entry(
        &self,
        context: &CallContext,
        (key, encoded): (&AssetKey, &EncodedKey),
        reference: &AssetReference,
        outputs: &Outputs,
    ) -> Result<(), Error> {
        let entry = encode_entry(&self.namespace, key, encoded, reference, outputs);
        let (scope, action) = (&key.scope, &encoded.action.0);
        let sent = entry.clone();
        let answer = self
            .cache
            .update_action_result(context, scope, action, entry)
            .await?;
        let kept = match same_payload(&sent, &answer) {
            Some(same) => same,
            // Some caches answer with nothing: see what is there.
            None => {
                let found = self.cache.get_action_result(context, scope, action).await?;
                found.is_some_and(|found| same_payload(&sent, &found) == Some(true))
            }
        };
        if kept { Ok(()) } else { Err(not_kept()) }
    }

    /// Uploads the keys' messages and whatever the content needs.
    async fn prepare(
        &self,
        context: &CallContext,
        scope: &Scope,
        keys: &[EncodedKey],
        reference: &AssetReference,
    ) -> Result<Outputs, Error> {
        let content = if reference.is_expired(SystemTime::now()) {
            let outputs = Outputs {
                withdrawn: true,
                ..Outputs::default()
            };
            content::Content {
                outputs,
                blobs: Vec::new(),
            }
        } else {
            content::gather(&self.cache, context, scope, reference).await?
        };
        let messages = keys.iter().flat_map(|key| [&key.command, &key.action]);
        let mut blobs = content.blobs;
        blobs.extend(messages.cloned());
        self.cache.write_blobs(context, scope, blobs).await?;
        Ok(content.outputs)
    }
}

impl AssetStore for ActionCacheStore {
    async fn get(&self, context: &CallContext, key: &AssetKey) -> Result<Lookup, Error> {
        let encoded = self.encode(key)?;
        let entry = self
            .cache
            .get_action_result(context, &key.scope, &encoded.action.0);
        let entry = match entry.await {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(Lookup::Miss(Miss::Absent)),
            Err(upstream::Error::Malformed { .. }) => return Ok(unusable("undecodable")),
            Err(error) => return Err(error.into()),
        };
        let decoded = decode_entry(&self.namespace, key, &encoded, &entry);
        let (reference, outputs) = match decoded {
            Ok(decoded) => decoded,
            Err(why) => return Ok(unusable(why)),
        };
        drop(entry);
        if outputs.withdrawn || reference.is_expired(SystemTime::now()) {
            return Ok(Lookup::Miss(Miss::Expired));
        }
        let (cache, budget) = (&self.cache, &self.budget);
        let presence =
            presence::check(cache, budget, context, &key.scope, &reference, &outputs).await?;
        Ok(match presence {
            Presence::Complete => Lookup::Hit(Box::new(reference)),
            Presence::Incomplete => Lookup::Miss(Miss::Incomplete),
            Presence::Unusable(why) => unusable(why),
        })
    }

    async fn put(
        &self,
        context: &CallContext,
        keys: &[AssetKey],
        reference: &AssetReference,
    ) -> Result<(), Error> {
        let Some(first) = keys.first() else {
            return Ok(());
        };
        let encoded: Vec<EncodedKey> = keys
            .iter()
            .map(|key| self.encode(key))
            .collect::<Result<_, _>>()?;
        let outputs = self
            .prepare(context, &first.scope, &encoded, reference)
            .await?;
        let outputs = &outputs;
        let mut pairs = keys.iter().zip(&encoded);
        let first = pairs.next();
        let others: Vec<_> = pairs
            .map(|key| self.write_entry(context, key, reference, outputs))
            .collect();
        stream::iter(others)
            .buffer_unordered(WRITES)
            .try_collect::<()>()
            .await?;
        match first {
            Some(first) => self.write_entry(context, first, reference, outputs).await,
            None => Ok(()),
        }
    }

    async fn is_present(
        &self,
        context: &CallContext,
        scope: &Scope,
        kind: AssetKind,
        digest: &Digest,
    ) -> Result<bool, Error> {
        presence::is_present(&self.cache, context, scope, kind, digest).await
    }
}

fn unusable(why: &'static str) -> Lookup {
    tracing::debug!(
        why,
        "an Action Cache entry under one of our keys is not used"
    );
    metrics::counter!("assetgate_reference_unusable_total", "reason" => why).increment(1);
    Lookup::Miss(Miss::Unusable)
}

/// The cache acknowledged a write and kept something else, as caches do where
/// the first writer wins, or dropped it.
fn not_kept() -> Error {
    let text = "the Action Cache acknowledged the reference but keeps another entry or none; \
                references need a cache in which the last write of an entry wins";
    let status = tonic::Status::failed_precondition(text);
    upstream::Error::from_status("UpdateActionResult", status).into()
}

#[cfg(test)]
mod tests;
