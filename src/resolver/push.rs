//! Recording what clients push.
//!
//! Not for: whether the content is there (`store` refuses what is not).

use std::sync::Arc;

use super::{Announce, Inner, Push, ResolveError};
use crate::asset::{AssetKey, AssetReference, KeySpace, Source, Validators};
use crate::digest::{DigestFunction, Scope};
use crate::fetcher::Fetcher;
use crate::store::AssetStore;
use crate::upstream::CallContext;

impl<S: AssetStore, F: Fetcher, A: Announce> Inner<S, F, A> {
    /// The last push wins; one whose `expire_at` has passed withdraws, by being
    /// found expired (N8).
    pub(super) async fn record_push(
        &self,
        context: &CallContext,
        push: Push,
    ) -> Result<(), ResolveError> {
        let function = self.push_function(context, &push).await?;
        let scope = Scope::new(push.instance.clone(), function);
        let now = self.shared.settings.clock.now();
        let withdraws = push.expire_at.is_some_and(|at| at <= now);
        let keys = self.keys_of_push(&scope, &push, withdraws);
        let first = push.uris.first().map(|uri| uri.redacted());
        let reference = AssetReference {
            kind: push.kind,
            digest: push.digest,
            uri: first.unwrap_or_default(),
            qualifiers: push.qualifiers,
            content_time: now,
            expire_at: push.expire_at,
            source: Source::Push,
            validators: Validators::default(),
            // A pusher's checksum is a claim; only verified hashes stand here.
            verified: Vec::new(),
            signed_at: None,
            referenced_blobs: push.referenced_blobs,
            referenced_directories: push.referenced_directories,
        };
        // A directory is walked and hashed: not on a thread that forwards.
        let (shared, context) = (Arc::clone(&self.shared), context.clone());
        let put = async move { shared.store.put(&context, &keys, &reference).await };
        let put = self.shared.flights.attached(put).await?;
        put.map_err(|error| ResolveError::from_store(error, function))
    }

    /// One exact key per URI, in request order, then those of subsets. A
    /// withdrawal stands under the exact ones only: what others pushed is
    /// found by the same subsets.
    fn keys_of_push(&self, scope: &Scope, push: &Push, withdraws: bool) -> Vec<AssetKey> {
        let key = |space| AssetKey {
            scope: scope.clone(),
            kind: push.kind,
            space,
        };
        let exact = push.uris.iter().map(|uri| KeySpace::Exact {
            uri: uri.clone(),
            qualifiers: push.qualifiers.clone(),
        });
        let mut keys: Vec<AssetKey> = exact.map(key).collect();
        if withdraws {
            return keys;
        }
        let rules = &self.shared.settings.subsets;
        let subsets = rules.of_push(push.uris.len(), &push.qualifiers);
        for uri in &push.uris {
            keys.extend(subsets.iter().map(|qualifiers| {
                key(KeySpace::Subset {
                    uri: uri.clone(),
                    qualifiers: qualifiers.clone(),
                })
            }));
        }
        keys
    }

    /// The function of the pushed digests: what the request says, else what
    /// their length and the cache's announcement say (V11, V12).
    async fn push_function(
        &self,
        context: &CallContext,
        push: &Push,
    ) -> Result<DigestFunction, ResolveError> {
        if let Some(function) = push.function {
            self.check_function(context, &push.instance, function)
                .await?;
            return Ok(function);
        }
        let announced = self.announce.digest_functions(context, &push.instance);
        let announced = announced.await?;
        Ok(DigestFunction::infer(push.digest.hash().len(), &announced)?)
    }
}
