//! References that are signed anew while they are used, so that
//! `references.max_age` ends only those nobody asks for.
//!
//! Off the answer's path, for the caller who used one. Only what Assetgate
//! itself said of content: were a push signed anew, an old entry that somebody
//! put back would undo a later push.
//! Called by: `lookup.rs`.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Inner, Shared};
use crate::asset::{AssetKey, AssetReference, KeySpace};
use crate::fetcher::Fetcher;
use crate::store::{AssetStore, Lookup};
use crate::upstream::CallContext;

/// How long a reference is left alone after a try: callers who may not write
/// are among those who use it.
const AGAIN: Duration = Duration::from_secs(600);
/// Tries remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4_095);
/// References signed anew at once; what is too much is left for the next use.
const PARALLEL: usize = 4;

/// What was signed anew, or tried to be, a moment ago.
pub(super) struct Renewals {
    tried: Mutex<LruCache<AssetKey, Instant>>,
    turns: Arc<Semaphore>,
}

impl Renewals {
    pub(super) fn new() -> Self {
        Self {
            tried: Mutex::new(LruCache::new(REMEMBERED)),
            turns: Arc::new(Semaphore::new(PARALLEL)),
        }
    }

    fn is_due(&self, key: &AssetKey) -> bool {
        let now = Instant::now();
        let mut tried = self.tried.lock();
        if tried
            .get(key)
            .is_some_and(|at| now.duration_since(*at) < AGAIN)
        {
            return false;
        }
        tried.put(key.clone(), now);
        true
    }
}

impl<S: AssetStore, F: Fetcher, A> Inner<S, F, A> {
    /// Signs a reference that has just answered anew if it is old.
    pub(super) fn renew(&self, context: &CallContext, key: &AssetKey, entry: &AssetReference) {
        let shared = &self.shared;
        let (Some(after), Some(at)) = (shared.settings.renew_after, entry.signed_at) else {
            return;
        };
        let now = shared.settings.clock.now();
        let is_ours = matches!(
            key.space,
            KeySpace::Checksum { .. } | KeySpace::Fetched { .. }
        );
        let is_old = now.duration_since(at).is_ok_and(|age| age > after);
        let may_write = &shared.settings.permissions;
        if !is_ours || !is_old || may_write.check_fetch(&key.scope.instance).is_err() {
            return;
        }
        let Ok(turn) = Arc::clone(&shared.renewals.turns).try_acquire_owned() else {
            return;
        };
        if !shared.renewals.is_due(key) {
            return;
        }
        let (key, context) = (key.clone(), context.clone());
        let entry = AssetReference {
            signed_at: Some(now),
            ..entry.clone()
        };
        let task = Arc::clone(shared).sign(context, key, entry);
        shared.flights.detached(async move {
            task.await;
            drop(turn);
        });
    }
}

impl<S: AssetStore, F: Fetcher> Shared<S, F> {
    async fn sign(self: Arc<Self>, context: CallContext, key: AssetKey, entry: AssetReference) {
        // Somebody may have recorded something newer meanwhile.
        let there = self.store.get(&context, &key).await;
        let same = |there: &AssetReference| {
            (&there.digest, there.content_time) == (&entry.digest, entry.content_time)
        };
        match there {
            Ok(Lookup::Hit(there)) if same(&there) => {}
            _ => return,
        }
        let keys = std::slice::from_ref(&key);
        let signed = self.store.put(&context, keys, &entry).await;
        if let Err(error) = &signed {
            let error = context.redact(&error.to_string());
            tracing::debug!(error, "a reference could not be signed anew");
        }
        let outcome = if signed.is_ok() { "signed" } else { "failed" };
        metrics::counter!("assetgate_references_renewed_total", "outcome" => outcome).increment(1);
    }
}
