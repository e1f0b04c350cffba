//! The use case: look an asset up, else bring it from its origin and record
//! it; and record what clients push.
//!
//! Order of a fetch (conformance C3.4, C5): the checksum the request names,
//! then every URI with exactly these qualifiers, then pushes with more, then
//! the origin, or what it said a moment ago. A cache that cannot be asked is an
//! error and never a miss.
//! Not for: messages and status codes (`api`), the form of an entry (`store`),
//! requests to origins (`fetcher`).
//! Called by: `api`.

mod candidates;
mod current;
mod error;
mod explain;
mod flight;
mod freshness;
mod lookup;
#[cfg(test)]
mod model;
mod negative;
mod origin;
mod pattern;
mod permission;
mod proof;
mod push;
mod query;
mod read_back;
mod renewal;
mod retrieve;
mod subsets;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use error::ResolveError;
pub use explain::{Asking, ExplainedKey, Explanation, Verdict};
pub use freshness::UnpinnedRule;
pub use lookup::Missed;
pub use permission::{InstanceRule, Permissions, UriPrefix};
pub use proof::ReadBackLimits;
pub use query::{Answer, Outcome, Push, Query, Stats};
pub use subsets::SubsetRules;

use crate::asset::KeyHeaders;
use crate::clock::Clock;
use crate::digest::{DigestFunction, InstanceName};
use crate::drain::Drain;
use crate::fetcher::Fetcher;
use crate::store::AssetStore;
use crate::upstream::{self, Cache, CallContext};
use flight::{Fingerprints, Flights};
use negative::Negatives;
use proof::Proofs;
use renewal::Renewals;

/// Which digest functions the cache announces for an instance.
pub trait Announce: Send + Sync + 'static {
    /// The announced functions, most preferred first; empty if the cache does
    /// not say. Expected to be cheap: it is asked on every call.
    fn digest_functions(
        &self,
        context: &CallContext,
        instance: &InstanceName,
    ) -> impl Future<Output = Result<Arc<[DigestFunction]>, upstream::Error>> + Send;
}

/// Settings of a [`Resolver`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether clients may push.
    pub push: bool,
    /// Under which subsets of its qualifiers a push is found.
    pub subsets: SubsetRules,
    /// Whether references of another server are looked for.
    pub migrate: bool,
    /// The time.
    pub clock: Clock,
    /// What may be written on behalf of clients.
    pub permissions: Permissions,
    /// What is done about content no checksum pins; the first rule counts.
    pub unpinned: Vec<UnpinnedRule>,
    /// Further headers that select a representation.
    pub key_headers: KeyHeaders,
    /// What reading content back to prove a checksum may take.
    pub read_back: ReadBackLimits,
    /// Age from which on a signed reference that we may issue by ourselves is
    /// signed anew when it is used; `None` is never.
    pub renew_after: Option<Duration>,
    /// Whether pinned content that took credentials is found by whoever knows
    /// its checksum.
    pub share_private: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            push: true,
            subsets: SubsetRules::default(),
            migrate: false,
            clock: Clock::default(),
            permissions: Permissions::default(),
            unpinned: Vec::new(),
            key_headers: KeyHeaders::default(),
            read_back: ReadBackLimits::default(),
            renew_after: None,
            share_private: true,
        }
    }
}

/// Answers fetches and takes pushes. Cheap to clone.
pub struct Resolver<S, F, A> {
    inner: Arc<Inner<S, F, A>>,
}

/// What belongs to the thread that answers: its own connections to the cache.
struct Inner<S, F, A> {
    store: S,
    announce: A,
    shared: Arc<Shared<S, F>>,
}

/// What belongs to all: fetches run elsewhere, over connections of their own.
struct Shared<S, F> {
    store: S,
    fetcher: F,
    flights: Flights,
    fingerprints: Fingerprints,
    negatives: Negatives,
    proofs: Proofs,
    renewals: Renewals,
    settings: Settings,
}

impl<S, F, A> Clone for Resolver<S, F, A> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<S: AssetStore + Clone, F: Fetcher, A: Announce> Resolver<S, F, A> {
    /// A resolver whose fetches and pushes run on `runtime`, through `store`,
    /// and are tracked by `drain`.
    pub fn new(
        store: S,
        fetcher: F,
        announce: A,
        settings: Settings,
        drain: Drain,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let shared = Shared {
            store: store.clone(),
            fetcher,
            flights: Flights::new(drain, runtime),
            fingerprints: Fingerprints::new(),
            negatives: Negatives::new(),
            proofs: Proofs::new(),
            renewals: Renewals::new(),
            settings,
        };
        Self::over(store, announce, Arc::new(shared))
    }
}

impl<S: AssetStore, F: Fetcher, A: Announce> Resolver<S, F, A> {
    fn over(store: S, announce: A, shared: Arc<Shared<S, F>>) -> Self {
        let inner = Inner {
            store,
            announce,
            shared,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The same resolver for another thread: look-ups go through that thread's
    /// connections; fetches and pushes are shared.
    #[must_use]
    pub fn on_thread(&self, store: S, announce: A) -> Self {
        Self::over(store, announce, Arc::clone(&self.inner.shared))
    }

    /// Whether clients may push at all.
    #[must_use]
    pub fn accepts_pushes(&self) -> bool {
        let settings = &self.inner.shared.settings;
        settings.push && settings.permissions.some_push()
    }

    /// Whether clients may push to an instance, whatever they push. `None` is
    /// one that cannot be.
    pub fn check_pushing(&self, instance: Option<&InstanceName>) -> Result<(), ResolveError> {
        let settings = &self.inner.shared.settings;
        match instance {
            _ if !settings.push => Err(ResolveError::PushDisabled),
            Some(name) => settings.permissions.check_push_instance(name),
            None => Ok(()),
        }
    }

    /// Finds or fetches an asset.
    pub async fn fetch(
        &self,
        context: &CallContext,
        mut query: Query,
    ) -> Result<Answer, ResolveError> {
        let inner = &self.inner;
        let shared = &inner.shared;
        query
            .request
            .headers
            .select_by(&shared.settings.key_headers);
        inner.check(context, &query).await?;
        let missed = match inner.look_up(context, &query).await? {
            Ok(found) => return Ok(found),
            Err(missed) => missed,
        };
        shared.check_origin(&query, missed)?;
        // Boxed, as it is large, and a hit never gets here.
        Box::pin(inner.retrieve(context, query, missed)).await
    }

    /// Records what a client says a URI is.
    pub async fn push(&self, context: &CallContext, push: Push) -> Result<(), ResolveError> {
        self.check_pushing(Some(&push.instance))?;
        let shared = &self.inner.shared;
        shared.settings.permissions.check_uris(&push.uris)?;
        let about = shared.fingerprints.pushed(&push);
        let recorded = self.inner.record_push(context, push).await;
        // Of one that failed, a part may have been recorded.
        shared.negatives.pushed(&about);
        recorded
    }
}

impl Announce for Cache {
    async fn digest_functions(
        &self,
        context: &CallContext,
        instance: &InstanceName,
    ) -> Result<Arc<[DigestFunction]>, upstream::Error> {
        let limits = self.limits(context, instance).await?;
        Ok(Arc::clone(&limits.digest_functions))
    }
}

impl<S, F: Fetcher, A: Announce> Inner<S, F, A> {
    /// What must hold before the cache is asked for references.
    async fn check(&self, context: &CallContext, query: &Query) -> Result<(), ResolveError> {
        let scope = &query.request.scope;
        self.check_function(context, &scope.instance, scope.function)
            .await?;
        if !self.shared.settings.push {
            // Nothing can have been pushed, so no label can match (Q2).
            self.shared.check_supported(query)?;
        }
        Ok(())
    }
}

impl<S, F, A: Announce> Inner<S, F, A> {
    /// Refuses a function the cache does not announce: never answers in
    /// another one silently (V10).
    async fn check_function(
        &self,
        context: &CallContext,
        instance: &InstanceName,
        function: DigestFunction,
    ) -> Result<(), ResolveError> {
        let announced = self.announce.digest_functions(context, instance).await?;
        if announced.is_empty() || announced.contains(&function) {
            return Ok(());
        }
        Err(ResolveError::NotAnnounced {
            function,
            announced,
        })
    }
}
