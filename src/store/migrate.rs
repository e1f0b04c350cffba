//! Taking over what bb-remote-asset left in the same cache: looked for under
//! its key when ours has nothing, checked as our own are, and recorded again
//! in our format, so that it outlives the switch.
//!
//! Not for: its layout (`compat.rs`).
//! Called by: `action_cache.rs`.

use super::action_cache::ActionCacheStore;
use super::encoding::Outputs;
use super::presence::{self, Presence};
use super::{Error, Explained, Miss, compat, record};
use crate::asset::{AssetKey, AssetReference};
use crate::digest::Digest;
use crate::proto::rev2;
use crate::upstream::{self, CallContext};

/// Looks where bb-remote-asset would have put it. `found` is what our own key
/// gave, which is nothing; `keep` whether to record what is there as ours.
pub(super) async fn take_over(
    store: &ActionCacheStore,
    context: &CallContext,
    key: &AssetKey,
    found: Explained,
    keep: bool,
) -> Result<Explained, Error> {
    let Some((reference, tree)) = look(store, context, key).await? else {
        return Ok(found);
    };
    let found = found.about(&reference);
    // Its entries pin nothing, so what they name is always asked for.
    let outputs = Outputs {
        tree,
        ..Outputs::default()
    };
    let presence = presence::check(&store.content, context, &key.scope, &reference, &outputs);
    match presence.await? {
        Presence::Complete => {}
        Presence::Incomplete => return Ok(found.miss(Miss::Incomplete)),
        Presence::Unusable(why) => return Ok(found.unusable(why)),
    }
    if keep {
        record(store, context, key, &reference).await;
    }
    Ok(found.hit(reference, "taken over from bb-remote-asset"))
}

async fn record(
    store: &ActionCacheStore,
    context: &CallContext,
    key: &AssetKey,
    reference: &AssetReference,
) {
    // Its own time may be long ago; whether it is trusted is decided now.
    let reference = AssetReference {
        signed_at: Some(store.clock.now()),
        ..reference.clone()
    };
    let recorded = record::put(store, context, std::slice::from_ref(key), &reference).await;
    if let Err(error) = &recorded {
        let error = context.redact(&error.to_string());
        tracing::debug!(
            error,
            "a reference of bb-remote-asset could not be recorded again"
        );
    }
    let outcome = if recorded.is_ok() { "recorded" } else { "read" };
    metrics::counter!("assetgate_references_migrated_total", "outcome" => outcome).increment(1);
}

async fn look(
    store: &ActionCacheStore,
    context: &CallContext,
    key: &AssetKey,
) -> Result<Option<(AssetReference, Option<Digest>)>, Error> {
    let (Some(platform), Some(uri)) = (&store.bb_remote_asset, key.space.uri()) else {
        return Ok(None);
    };
    let (scope, qualifiers) = (&key.scope, key.space.qualifiers());
    let Some(action) = compat::bb_key(scope, uri, qualifiers, platform) else {
        return Ok(None);
    };
    // Where its entries are is where the content is: it has no other place.
    let entry: rev2::ActionResult = match store
        .content
        .get_action_result(context, scope, &action)
        .await
    {
        Ok(Some(entry)) => entry,
        Ok(None) | Err(upstream::Error::Malformed { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match compat::bb_reference(key.kind, scope, uri, qualifiers, &entry) {
        Ok(found) => Ok(Some(found)),
        Err(why) => {
            tracing::debug!(why, "an entry of bb-remote-asset is not used");
            Ok(None)
        }
    }
}
