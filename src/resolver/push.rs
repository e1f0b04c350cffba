//! Recording what clients push.
//!
//! Not for: whether the content is there (`store` refuses what is not).

use std::sync::Arc;
use std::time::SystemTime;

use super::{Announce, Inner, Push, ResolveError};
use crate::asset::{AssetKey, AssetReference, KeySpace, Source, Validators};
use crate::digest::{DigestFunction, Scope};
use crate::fetcher::Fetcher;
use crate::store::AssetStore;
use crate::upstream::CallContext;

impl<S: AssetStore, F: Fetcher, A: Announce> Inner<S, F, A> {
    /// One exact key per URI, in request order. The last push wins; one whose
    /// `expire_at` has passed withdraws, by being found expired (N8).
    pub(super) async fn record_push(
        &self,
        context: &CallContext,
        push: Push,
    ) -> Result<(), ResolveError> {
        let function = self.push_function(context, &push).await?;
        let scope = Scope::new(push.instance, function);
        let keys = push.uris.iter().map(|uri| AssetKey {
            scope: scope.clone(),
            kind: push.kind,
            space: KeySpace::Exact {
                uri: uri.clone(),
                qualifiers: push.qualifiers.clone(),
            },
        });
        let keys: Vec<AssetKey> = keys.collect();
        let first = push.uris.first().map(|uri| uri.redacted());
        let reference = AssetReference {
            kind: push.kind,
            digest: push.digest,
            uri: first.unwrap_or_default(),
            qualifiers: push.qualifiers,
            content_time: SystemTime::now(),
            expire_at: push.expire_at,
            source: Source::Push,
            validators: Validators::default(),
            // A pusher's checksum is a claim; only verified hashes stand here.
            verified: Vec::new(),
            referenced_blobs: push.referenced_blobs,
            referenced_directories: push.referenced_directories,
        };
        // A directory is walked and hashed: not on a thread that forwards.
        let (shared, context) = (Arc::clone(&self.shared), context.clone());
        let put = async move { shared.store.put(&context, &keys, &reference).await };
        let put = self.shared.flights.attached(put).await?;
        put.map_err(|error| ResolveError::from_store(error, function))
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
