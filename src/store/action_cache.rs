//! The [`AssetStore`] over a cache's Action Cache.
//!
//! Blind writes only, and nothing is kept in this process: any replica answers
//! for any other. An entry is verified in full on every read.
//! Not for: the format (`encoding.rs`), what a hit has to prove
//! (`presence.rs`), what a push has to upload (`content.rs`), how entries are
//! written and kept (`record.rs`).
//! Called by: `server` (construction), `resolver` (through the trait).

use std::sync::Arc;
use std::time::Duration;

use super::encoding::{
    EncodedKey, Format, Outputs, Payload, decode_entry, encode_key, find_payload,
};
use super::presence::{self, Presence};
use super::{AssetStore, Error, Explained, Lookup, MacKeys, Miss, Probes, migrate, record};
use crate::asset::{Algorithm, AssetKey, AssetKind, AssetReference, Checksum, KeySpace};
use crate::clock::Clock;
use crate::digest::{Digest, DigestFunction, Scope};
use crate::proto::rev2;
use crate::upstream::{self, Cache, CallContext};

/// How references are kept.
#[derive(Debug, Clone, Default)]
pub struct ReferenceSettings {
    /// Entries of another namespace are never seen.
    pub namespace: Arc<str>,
    /// Keys that sign entries; without, any writer of the Action Cache can
    /// issue references.
    pub mac: Option<MacKeys>,
    /// Age from which on signed entries no longer hold.
    pub max_age: Option<Duration>,
    /// Take over references of bb-remote-asset; the platform in its keys.
    pub bb_remote_asset: Option<Arc<[(String, String)]>>,
    /// The time.
    pub clock: Clock,
}

/// References as Action Cache entries.
#[derive(Debug, Clone)]
pub struct ActionCacheStore {
    /// Where content is.
    pub(super) content: Cache,
    /// Where entries are, if not there.
    elsewhere: Option<Cache>,
    pub(super) format: Format,
    pub(super) probes: Probes,
    pub(super) clock: Clock,
    max_age: Option<Duration>,
    pub(super) bb_remote_asset: Option<Arc<[(String, String)]>>,
}

/// An entry that fits its key: the reference and what stands beside it.
pub(super) type Decoded = (AssetReference, Outputs);

impl ActionCacheStore {
    /// A store in the cache that also holds the content. `probes` says how
    /// much of a hit's proof may be left to it.
    #[must_use]
    pub fn new(content: Cache, settings: ReferenceSettings, probes: Probes) -> Self {
        Self {
            content,
            elsewhere: None,
            format: Format {
                namespace: settings.namespace,
                mac: settings.mac,
            },
            probes,
            clock: settings.clock,
            max_age: settings.max_age,
            bb_remote_asset: settings.bb_remote_asset,
        }
    }

    /// The same, with the entries in another cache, which need not hold any
    /// content: they are *detached*, as outputs would make every cache that
    /// checks completeness withhold them.
    #[must_use]
    pub fn with_references(self, elsewhere: Cache) -> Self {
        Self {
            elsewhere: Some(elsewhere),
            ..self
        }
    }

    /// The cache that holds the entries.
    pub(super) fn entries(&self) -> &Cache {
        self.elsewhere.as_ref().unwrap_or(&self.content)
    }

    /// Whether entries of content under this function have no outputs: the
    /// digests in one entry are all of one function, that of its key.
    pub(super) fn is_detached(&self, function: DigestFunction) -> bool {
        self.elsewhere.is_some() || !function.is_computable()
    }

    /// The instance name and digest function of the entry under a key. Where
    /// the entry is detached, its cache need not know the content's function.
    pub(super) async fn key_scope(
        &self,
        context: &CallContext,
        scope: &Scope,
    ) -> Result<Scope, Error> {
        let mut function = scope.function;
        if let Some(elsewhere) = &self.elsewhere {
            let limits = elsewhere.limits(context, &scope.instance).await?;
            if !limits.supports(function) {
                function = DigestFunction::Sha256;
            }
        }
        if !function.is_computable() {
            function = DigestFunction::Sha256;
        }
        Ok(Scope::new(scope.instance.clone(), function))
    }

    pub(super) fn encode(
        &self,
        key: &AssetKey,
        function: DigestFunction,
    ) -> Result<EncodedKey, Error> {
        let unsupported = upstream::Error::UnsupportedFunction(function);
        encode_key(&self.format.namespace, key, function).ok_or_else(|| unsupported.into())
    }

    /// What an entry says, or why it is not used.
    pub(super) async fn decode(
        &self,
        context: &CallContext,
        at: &Scope,
        (key, encoded): (&AssetKey, &EncodedKey),
        entry: &rev2::ActionResult,
    ) -> Result<Result<Decoded, &'static str>, Error> {
        let blob;
        let payload = match find_payload(at.function, entry) {
            None => return Ok(Err("no payload")),
            Some(Payload::Here(payload)) => payload,
            Some(Payload::Blob(digest)) => {
                let blob_read = self.entries().read_blob(context, at, &digest);
                match Box::pin(blob_read).await {
                    Ok(Some(bytes)) => blob = bytes,
                    Ok(None) => return Ok(Err("payload gone")),
                    Err(upstream::Error::Corrupt(_)) => return Ok(Err("payload corrupt")),
                    Err(error) => return Err(error.into()),
                }
                &blob
            }
        };
        Ok(decode_entry(&self.format, key, encoded, entry, payload))
    }

    /// `keep` says whether what is taken over is recorded as ours.
    async fn read(
        &self,
        context: &CallContext,
        key: &AssetKey,
        keep: bool,
    ) -> Result<Explained, Error> {
        let at = self.key_scope(context, &key.scope).await?;
        let encoded = self.encode(key, at.function)?;
        let action = &encoded.action.0;
        let found = Explained::nothing(action.clone());
        let entry = self.entries().get_action_result(context, &at, action);
        let entry = match entry.await {
            Ok(Some(entry)) => entry,
            Ok(None) if matches!(key.space, KeySpace::Migrated { .. }) => {
                return Box::pin(migrate::take_over(self, context, key, found, keep)).await;
            }
            Ok(None) => return Ok(found),
            Err(upstream::Error::Malformed { .. }) => return Ok(found.unusable("undecodable")),
            Err(error) => return Err(error.into()),
        };
        let decoded = self.decode(context, &at, (key, &encoded), &entry).await?;
        let (reference, outputs) = match decoded {
            Ok(decoded) => decoded,
            Err(why) => return Ok(found.unusable(why)),
        };
        drop(entry);
        let found = Explained {
            detached: outputs.detached.is_some(),
            signed: self.format.mac.is_some(),
            ..found.about(&reference)
        };
        if outputs.withdrawn {
            return Ok(found.expired("withdrawn by a later push"));
        }
        let now = self.clock.now();
        if reference.is_expired(now) {
            return Ok(found.expired("its time is over"));
        }
        if let (Some(max), Some(at)) = (self.max_age, reference.signed_at)
            && now.duration_since(at).is_ok_and(|age| age > max)
        {
            if matches!(key.space, KeySpace::Migrated { .. }) {
                return Box::pin(migrate::take_over(self, context, key, found, keep)).await;
            }
            return Ok(found.expired("signed longer ago than references.max_age"));
        }
        self.prove(context, &key.scope, found, reference, &outputs)
            .await
    }

    /// Whether everything an entry names is there.
    async fn prove(
        &self,
        context: &CallContext,
        scope: &Scope,
        found: Explained,
        reference: AssetReference,
        outputs: &Outputs,
    ) -> Result<Explained, Error> {
        let modes = self.probes.modes(&scope.instance);
        if presence::is_proved_by_the_cache(modes, &reference, outputs) {
            return Ok(found.hit(reference, "the cache checks it"));
        }
        // Boxed like all that a plain hit does not need: a look-up's future is
        // moved a few times, and these would make it several kilobytes large.
        let check = presence::check(&self.content, context, scope, &reference, outputs);
        let presence = Box::pin(check).await?;
        Ok(match presence {
            Presence::Complete => found.hit(reference, "asked of the CAS"),
            Presence::Incomplete => found.miss(Miss::Incomplete),
            Presence::Unusable(why) => found.unusable(why),
        })
    }
}

impl AssetStore for ActionCacheStore {
    async fn get(&self, context: &CallContext, key: &AssetKey) -> Result<Lookup, Error> {
        self.probes.on_call(context, &key.scope.instance);
        let found = self.read(context, key, true).await?;
        if found.lookup == Lookup::Miss(Miss::Unusable) {
            let why = found.detail;
            tracing::debug!(why, "an entry under one of our keys is not used");
            metrics::counter!("assetgate_reference_unusable_total", "reason" => why).increment(1);
        }
        Ok(found.lookup)
    }

    async fn explain(&self, context: &CallContext, key: &AssetKey) -> Result<Explained, Error> {
        self.read(context, key, false).await
    }

    async fn put(
        &self,
        context: &CallContext,
        keys: &[AssetKey],
        reference: &AssetReference,
    ) -> Result<(), Error> {
        if let Some(key) = keys.first() {
            self.probes.on_call(context, &key.scope.instance);
        }
        record::put(self, context, keys, reference).await
    }

    async fn hashes(
        &self,
        context: &CallContext,
        scope: &Scope,
        digest: &Digest,
        algorithms: &[Algorithm],
    ) -> Result<Option<Vec<Checksum>>, Error> {
        let hashes = self.content.hashes(context, scope, digest, algorithms);
        Ok(hashes.await?)
    }

    async fn is_present(
        &self,
        context: &CallContext,
        scope: &Scope,
        kind: AssetKind,
        digest: &Digest,
    ) -> Result<bool, Error> {
        presence::is_present(&self.content, context, scope, kind, digest).await
    }
}

#[cfg(test)]
pub(super) mod tests;
