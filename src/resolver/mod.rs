//! The use case: look an asset up, else bring it from its origin and record
//! it; and record what clients push.
//!
//! Order of a fetch (conformance C3.4, C5): the checksum the request names,
//! then every URI with exactly these qualifiers, then the origin. A cache that
//! cannot be asked is an error and never a miss.
//! Not for: messages and status codes (`api`), the form of an entry (`store`),
//! requests to origins (`fetcher`).
//! Called by: `api`.

mod error;
mod flight;
mod lookup;
mod origin;
mod push;
mod query;
#[cfg(test)]
pub(crate) mod testing;

use std::future::Future;
use std::sync::Arc;

pub use error::ResolveError;
pub use query::{Answer, Outcome, Push, Query, Stats};

use crate::digest::{DigestFunction, InstanceName};
use crate::drain::Drain;
use crate::fetcher::Fetcher;
use crate::store::AssetStore;
use crate::upstream::{self, Cache, CallContext};
use flight::Flights;

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
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Whether clients may push.
    pub push: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { push: true }
    }
}

/// Answers fetches and takes pushes. Cheap to clone.
pub struct Resolver<S, F, A> {
    inner: Arc<Inner<S, F, A>>,
}

/// The same references over two sets of upstream connections.
pub struct Stores<S> {
    /// For look-ups, which run where the call came in.
    pub near: S,
    /// For fetches and pushes, which run on the asset runtime.
    pub far: S,
}

struct Inner<S, F, A> {
    stores: Stores<S>,
    fetcher: Arc<F>,
    announce: A,
    flights: Flights,
    settings: Settings,
}

impl<S, F, A> Clone for Resolver<S, F, A> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<S: AssetStore, F: Fetcher, A: Announce> Resolver<S, F, A> {
    /// A resolver whose fetches and pushes run on `runtime` and are tracked by
    /// `drain`.
    pub fn new(
        stores: Stores<S>,
        fetcher: Arc<F>,
        announce: A,
        settings: Settings,
        drain: Drain,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let flights = Flights::new(drain, runtime);
        let inner = Inner {
            stores,
            fetcher,
            announce,
            flights,
            settings,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Whether clients may push.
    #[must_use]
    pub fn accepts_pushes(&self) -> bool {
        self.inner.settings.push
    }

    /// Finds or fetches an asset.
    pub async fn fetch(&self, context: &CallContext, query: Query) -> Result<Answer, ResolveError> {
        let inner = &self.inner;
        let scope = &query.request.scope;
        inner
            .check_function(context, &scope.instance, scope.function)
            .await?;
        if !inner.settings.push {
            // Nothing can have been pushed, so no label can match (Q2).
            inner.check_supported(&query)?;
        }
        let missed = match inner.look_up(context, &query).await? {
            Ok(found) => return Ok(found),
            Err(missed) => missed,
        };
        inner.check_origin(&query, missed)?;
        let task = Arc::clone(inner).fetch_and_record(context.clone(), query);
        inner.flights.run(task).await?
    }

    /// Records what a client says a URI is.
    pub async fn push(&self, context: &CallContext, push: Push) -> Result<(), ResolveError> {
        if !self.inner.settings.push {
            return Err(ResolveError::PushDisabled);
        }
        // A directory is walked and hashed: not on a thread that forwards.
        let task = Arc::clone(&self.inner).record_push(context.clone(), push);
        self.inner.flights.run(task).await?
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
