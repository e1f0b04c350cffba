//! Writing references: what stands beside an entry first, then the entries in
//! an order that makes a half-written push harmless, and the proof that the
//! cache keeps them.
//!
//! # The order
//!
//! Content and Trees, the Actions that are the keys, then entries for subsets
//! of the qualifiers, then the exact ones, that of the first URI last: a hit on
//! it means that the whole push was written (conformance C3.5). After an
//! error any of them may be there; a push is repeated as a whole.
//!
//! Not for: the form of an entry (`encoding.rs`).
//! Called by: `action_cache.rs`.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::action_cache::ActionCacheStore;
use super::content::{self, Content};
use super::encoding::{EncodedKey, Outputs, encode_entry, same_payload};
use super::{Carrier, Error, overwrite};
use crate::asset::{AssetKey, AssetReference, KeySpace};
use crate::digest::{Digest, Scope};
use crate::proto::rev2;
use crate::upstream::{self, CallContext};

/// Entries of one push written at once.
const WRITES: usize = 16;

/// A key and the messages it becomes.
type Key<'a> = (&'a AssetKey, &'a EncodedKey);

pub(super) async fn put(
    store: &ActionCacheStore,
    context: &CallContext,
    keys: &[AssetKey],
    reference: &AssetReference,
) -> Result<(), Error> {
    let Some(first) = keys.first() else {
        return Ok(());
    };
    let scope = &first.scope;
    let at = store.key_scope(context, scope).await?;
    let encoded = keys.iter().map(|key| store.encode(key, at.function));
    let encoded: Vec<EncodedKey> = encoded.collect::<Result<_, _>>()?;
    let content = gather(store, context, scope, reference).await?;
    store
        .content
        .write_blobs(context, scope, content.blobs)
        .await?;
    let messages = encoded.iter().flat_map(|key| [&key.command, &key.action]);
    let messages: Vec<(Digest, Bytes)> = messages.cloned().collect();
    store.entries().write_blobs(context, &at, messages).await?;
    let record = Record {
        store,
        context,
        at: &at,
        reference,
        outputs: &content.outputs,
        carrier: store.probes.modes(&scope.instance).carrier,
    };
    record.all(keys.iter().zip(&encoded)).await
}

/// Looks at what the reference names, and makes the outputs of its entries.
async fn gather(
    store: &ActionCacheStore,
    context: &CallContext,
    scope: &Scope,
    reference: &AssetReference,
) -> Result<Content, Error> {
    let detached = store.is_detached(scope.function);
    if reference.is_expired(store.clock.now()) {
        let outputs = Outputs {
            withdrawn: !detached,
            detached: detached.then(Vec::new),
            ..Outputs::default()
        };
        return Ok(Content {
            outputs,
            ..Content::default()
        });
    }
    content::gather(&store.content, context, scope, reference, detached).await
}

/// What the cache keeps of a write it acknowledged.
enum Kept {
    /// This entry, or one of a later push.
    This,
    Another,
    Nothing,
}

struct Record<'a> {
    store: &'a ActionCacheStore,
    context: &'a CallContext,
    at: &'a Scope,
    reference: &'a AssetReference,
    outputs: &'a Outputs,
    carrier: Carrier,
}

impl Record<'_> {
    async fn all<'a>(&self, keys: impl Iterator<Item = Key<'a>>) -> Result<(), Error> {
        let is_subset = |(key, _): &Key<'_>| matches!(key.space, KeySpace::Subset { .. });
        let (subsets, exact): (Vec<_>, Vec<_>) = keys.partition(is_subset);
        self.some(subsets).await?;
        let mut exact = exact.into_iter();
        let first = exact.next();
        self.some(exact.rev().collect()).await?;
        self.some(first.into_iter().collect()).await
    }

    async fn some(&self, keys: Vec<Key<'_>>) -> Result<(), Error> {
        let writes: Vec<_> = keys.into_iter().map(|key| self.write(key)).collect();
        stream::iter(writes)
            .buffer_unordered(WRITES)
            .try_collect::<()>()
            .await
    }

    /// Writes one entry and makes sure that the cache keeps it.
    async fn write(&self, key: Key<'_>) -> Result<(), Error> {
        let (format, carrier) = (&self.store.format, self.carrier);
        let (entry, blob) =
            encode_entry(format, key.0, key.1, self.reference, self.outputs, carrier);
        let blob = blob.into_iter().collect();
        let cache = self.store.entries();
        cache.write_blobs(self.context, self.at, blob).await?;
        // An older push beside this one may have written last: the second time
        // it has not. A cache in which the first writer wins keeps another for good.
        for _ in 0..2 {
            match self.send(key, &entry).await? {
                Kept::This => return Ok(()),
                Kept::Nothing => return Err(kept_nothing()),
                Kept::Another => {}
            }
        }
        Err(kept_another())
    }

    async fn send(&self, key: Key<'_>, entry: &rev2::ActionResult) -> Result<Kept, Error> {
        let (context, at, action) = (self.context, self.at, &key.1.action.0);
        let cache = self.store.entries();
        let answer = cache.update_action_result(context, at, action, entry.clone());
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => {
                let judged = overwrite::judge(cache, context, (at, action), entry, error);
                return judged.await.map(|()| Kept::This);
            }
        };
        if let Some(same) = same_payload(at.function, entry, &answer) {
            return self.kept(key, same, &answer).await;
        }
        // Some caches answer with nothing: see what is there.
        match cache.get_action_result(context, at, action).await? {
            Some(found) => {
                let same = same_payload(at.function, entry, &found) == Some(true);
                self.kept(key, same, &found).await
            }
            None => Ok(Kept::Nothing),
        }
    }

    async fn kept(
        &self,
        key: Key<'_>,
        same: bool,
        there: &rev2::ActionResult,
    ) -> Result<Kept, Error> {
        if same || self.is_superseded(key, there).await? {
            return Ok(Kept::This);
        }
        Ok(Kept::Another)
    }

    /// Whether what is there was recorded later than this: somebody else's
    /// write came in between, and the last one wins.
    async fn is_superseded(&self, key: Key<'_>, there: &rev2::ActionResult) -> Result<bool, Error> {
        let decoded = self.store.decode(self.context, self.at, key, there);
        let ours = self.reference.content_time;
        Ok(matches!(decoded.await?, Ok((other, _)) if other.content_time > ours))
    }
}

/// The cache acknowledged a write and dropped it, as some do for callers who
/// may only read.
fn kept_nothing() -> Error {
    let text = "the Action Cache acknowledged the reference and kept nothing; it does so for \
                callers who may not write there";
    refused(tonic::Status::permission_denied(text))
}

/// The cache acknowledged a write and keeps something else, as those do where
/// the first writer wins.
fn kept_another() -> Error {
    let text = "the Action Cache acknowledged the reference but keeps another entry; \
                references need a cache in which the last write of an entry wins";
    refused(tonic::Status::failed_precondition(text))
}

fn refused(status: tonic::Status) -> Error {
    upstream::Error::from_status("UpdateActionResult", status).into()
}
