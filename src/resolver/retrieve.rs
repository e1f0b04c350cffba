//! What follows a miss: what is known of the origin already, else a flight to
//! it.
//!
//! Comes after the look-up, which has shown that the cache lets the caller in
//! and has seen what others pushed (S11).

use std::sync::Arc;

use tokio::time::Instant;

use super::flight::{Fingerprint, Landing, Wanted, joined};
use super::{Answer, Inner, Missed, Outcome, Query, ResolveError, Shared, Stats};
use crate::fetcher::Fetcher;
use crate::store::AssetStore;
use crate::upstream::CallContext;

impl<S: AssetStore, F: Fetcher, A> Inner<S, F, A> {
    /// An answer that takes a request to an origin, or would have.
    pub(super) async fn retrieve(
        &self,
        context: &CallContext,
        query: Query,
        missed: Missed,
    ) -> Landing {
        let shared = &self.shared;
        let wanted = Wanted {
            same: shared.fingerprints.of(context, &query),
            oldest: query.request.oldest,
        };
        if wanted.oldest.is_none()
            && let Some(failure) = shared.negatives.recall(&wanted.same)
        {
            return Err(failure.into());
        }
        if let Some(answer) = self.remembered(context, &query, wanted).await? {
            return Ok(answer);
        }
        let comes_back = query.comes_back;
        let about = shared.fingerprints.asked_for(&query);
        let flight = Flight {
            query,
            missed,
            wanted,
            about,
        };
        let task = |waiters| {
            let mut flight = flight;
            flight.query.request.waiters = waiters;
            Arc::clone(shared).fly_once(context.clone(), flight)
        };
        shared
            .flights
            .fly(wanted, comes_back, shared.settings.clock.now(), task)
            .await
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

/// What a flight is for.
struct Flight {
    query: Query,
    missed: Missed,
    wanted: Wanted,
    about: Box<[Fingerprint]>,
}

impl<S: AssetStore, F: Fetcher> Shared<S, F> {
    async fn fly_once(self: Arc<Self>, context: CallContext, flight: Flight) -> Landing {
        let since = Instant::now();
        let Flight {
            query,
            missed,
            wanted,
            about,
        } = flight;
        let landing = Arc::clone(&self).fetch_and_record(context, query, missed);
        let landing = landing.await;
        self.negatives.note(wanted.same, about, since, &landing);
        landing
    }
}
