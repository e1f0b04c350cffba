//! What origins said they do not have, for a few seconds: a build that asks a
//! hundred times for what is not there makes one request.
//!
//! In this process only; in the cache, a late "absent" would overwrite what
//! somebody pushed meanwhile (conformance C5). Only 404 and 410, which are
//! about the content; only for the same caller with the same credentials; with
//! a checksum too, as all mirrors said so. A fetch that names a time asks
//! again, and a fetch that succeeds or a push of one of the URIs ends it.
//! Not for: other failures, which may be over with the next request.
//! Called by: `resolver` (after a look-up that missed).

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::ResolveError;
use super::flight::{Fingerprint, Landing, Same};
use crate::fetcher::{Failure, FetchError};

/// How long an origin's word holds.
const HELD: Duration = Duration::from_secs(10);
/// How many are held; the one that was needed least recently goes first.
const ENTRIES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// How many pushed URIs are remembered, to know which failures they ended.
const PUSHES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16383);

struct Negative {
    /// When the fetch began: a push after that ends it.
    since: Instant,
    at: Instant,
    about: Box<[Fingerprint]>,
    uri_index: usize,
    message: String,
}

/// The failures that are remembered.
pub(super) struct Negatives {
    held: Mutex<Held>,
}

struct Held {
    negatives: LruCache<Same, Negative>,
    pushes: LruCache<Fingerprint, Instant>,
    /// The latest of the pushes for which there was no room.
    dropped: Option<Instant>,
}

impl Negatives {
    pub(super) fn new() -> Self {
        let held = Held {
            negatives: LruCache::new(ENTRIES),
            pushes: LruCache::new(PUSHES),
            dropped: None,
        };
        Self {
            held: Mutex::new(held),
        }
    }

    /// Takes note of how a fetch ended that began at `since`.
    pub(super) fn note(
        &self,
        same: Same,
        about: Box<[Fingerprint]>,
        since: Instant,
        landing: &Landing,
    ) {
        match landing {
            Ok(_) => drop(self.held.lock().negatives.pop(&same)),
            // Without a request it is no origin that said so.
            Err(ResolveError::Fetch(FetchError::Origin {
                failure: Failure::NotFound,
                uri_index,
                message,
                attempts: 1..,
                ..
            })) => {
                let negative = Negative {
                    since,
                    at: Instant::now(),
                    about,
                    uri_index: *uri_index,
                    message: message.clone(),
                };
                self.held.lock().negatives.put(same, negative);
            }
            Err(_) => {}
        }
    }

    /// The failure, if the origin was asked the same a moment ago.
    pub(super) fn recall(&self, same: &Same) -> Option<FetchError> {
        let held = &mut *self.held.lock();
        let negative = held.negatives.get(same)?;
        let age = negative.at.elapsed();
        let later = |push: &Instant| *push >= negative.since;
        let pushed = |name| held.pushes.peek(name).is_some_and(later);
        if age >= HELD
            || held.dropped.as_ref().is_some_and(later)
            || negative.about.iter().any(pushed)
        {
            held.negatives.pop(same);
            return None;
        }
        let (said, ago, held_for) = (&negative.message, age.as_secs(), HELD.as_secs());
        let message = format!(
            "{said} (said {ago} s ago and remembered for {held_for} s; a request with \
             oldest_content_accepted asks again)"
        );
        metrics::counter!("assetgate_negative_hits_total").increment(1);
        Some(FetchError::Origin {
            failure: Failure::NotFound,
            uri_index: negative.uri_index,
            message,
            attempts: 0,
            detail: None,
        })
    }

    /// Ends whatever was or will be noted of fetches that began before now and
    /// are about one of these.
    pub(super) fn pushed(&self, names: &[Fingerprint]) {
        let now = Instant::now();
        let held = &mut *self.held.lock();
        for name in names {
            // What comes back is the name's own earlier push, or another's.
            let out = held.pushes.push(*name, now);
            if let Some((_, at)) = out.filter(|(other, _)| other != name) {
                held.dropped = held.dropped.max(Some(at));
            }
        }
    }
}

#[cfg(test)]
mod tests;
