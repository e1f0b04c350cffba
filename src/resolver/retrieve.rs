//! What follows a miss: what is known of the origin already, else a flight to
//! it.
//!
//! Comes after the look-up, which has shown that the cache lets the caller in
//! and has seen what others pushed (S11).

use std::sync::Arc;

use tokio::time::Instant;

use super::flight::{Fingerprint, Landing, Wanted, joined};
use super::{Answer, Inner, Outcome, Query, ResolveError, Shared, Stats};
use crate::fetcher::Fetcher;
use crate::store::AssetStore;
use crate::upstream::CallContext;

impl<S: AssetStore, F: Fetcher, A> Inner<S, F, A> {
    /// An answer that takes a request to an origin, or would have.
    pub(super) async fn retrieve(&self, context: &CallContext, query: Query) -> Landing {
        let shared = &self.shared;
        let wanted = Wanted {
            same: shared.fingerprints.of(context, &query),
            oldest: query.oldest_accepted,
        };
        if wanted.oldest.is_none()
            && let Some(failure) = shared.negatives.recall(&wanted.same)
        {
            return Err(failure.into());
        }
        if let Some(answer) = self.remembered(context, &query, wanted).await? {
            return Ok(answer);
        }
        let about = shared.fingerprints.asked_for(&query);
        let task = Arc::clone(shared).fly_once(context.clone(), query, wanted, about);
        shared.flights.fly(wanted, task).await
    }

    /// What a flight for the same time brought, if it is in the CAS still (P2).
    async fn remembered(
        &self,
        context: &CallContext,
        query: &Query,
        wanted: Wanted,
    ) -> Result<Option<Answer>, ResolveError> {
        let flights = &self.shared.flights;
        let Some(answer) = flights.landed(wanted) else {
            return Ok(None);
        };
        let scope = &query.request.scope;
        let present = self
            .store
            .is_present(context, scope, answer.kind, &answer.digest)
            .await
            .map_err(|error| ResolveError::from_store(error, scope.function))?;
        if !present {
            flights.forget(wanted);
            return Ok(None);
        }
        joined("remembered");
        Ok(Some(Answer {
            outcome: Outcome::Joined,
            stats: Stats::default(),
            ..answer
        }))
    }
}

impl<S: AssetStore, F: Fetcher> Shared<S, F> {
    async fn fly_once(
        self: Arc<Self>,
        context: CallContext,
        query: Query,
        wanted: Wanted,
        about: Box<[Fingerprint]>,
    ) -> Landing {
        let since = Instant::now();
        let landing = Arc::clone(&self).fetch_and_record(context, query).await;
        self.negatives.note(wanted.same, about, since, &landing);
        landing
    }
}
