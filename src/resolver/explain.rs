//! What a fetch would find and answer at this moment, key by key, without
//! fetching anything.
//!
//! Goes by the rules of the real look-up (`lookup.rs`, `origin.rs`), but does
//! not stop at the first hit. Blind to what a running server remembers beside
//! the cache: downloads under way, and failures of the last seconds.
//! Not for: words and layout (`cli`).
//! Called by: `server`.

use std::time::SystemTime;

use super::candidates::past;
use super::lookup::{Judged, answer};
use super::{Announce, Answer, Inner, Missed, Query, ResolveError, Resolver};
use crate::asset::AssetKey;
use crate::digest::Digest;
use crate::fetcher::Fetcher;
use crate::store::{AssetStore, Explained, Lookup};
use crate::upstream::CallContext;

/// What a fetch would look up, and how it would end.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// Every key, in the order of a fetch, which stops at the one that answers.
    pub keys: Vec<ExplainedKey>,
    /// How it would end.
    pub verdict: Verdict,
}

/// One key.
#[derive(Debug, Clone)]
pub struct ExplainedKey {
    /// The key.
    pub key: AssetKey,
    /// Which URI of the request it is about.
    pub uri_index: Option<usize>,
    /// What stands under it.
    pub found: Explained,
    /// Where a subset of the qualifiers led to it: what stands under exactly
    /// those of the push, which has the last word.
    pub confirmed_by: Option<Explained>,
    /// Why it is no answer to this request, if it is none.
    pub missed: Option<Missed>,
    /// It is the one that answers.
    pub answers: bool,
}

/// How a fetch would end.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// With an answer from the cache.
    Hit(Answer),
    /// Not from the cache.
    Miss {
        /// Why not; `None` if the cache would not be asked.
        missed: Option<Missed>,
        /// What the origins would be asked, or what would be answered.
        origin: Result<Vec<Asking>, ResolveError>,
    },
}

/// A mirror that would only be asked whether what it served before is that
/// still. The others would be asked for all of it.
#[derive(Debug, Clone)]
pub struct Asking {
    /// Which URI of the request.
    pub uri_index: usize,
    /// What it served.
    pub digest: Digest,
    /// When it was asked last.
    pub content_time: SystemTime,
}

impl<S: AssetStore, F: Fetcher, A: Announce> Resolver<S, F, A> {
    /// Explains what [`Resolver::fetch`] would do.
    ///
    /// # Errors
    /// When the cache cannot be asked.
    pub async fn explain(
        &self,
        context: &CallContext,
        query: &Query,
    ) -> Result<Explanation, ResolveError> {
        let inner = &self.inner;
        let query = &mut query.clone();
        let key_headers = &inner.shared.settings.key_headers;
        query.request.headers.select_by(key_headers);
        let keys = match inner.check(context, query).await {
            Ok(()) => inner.explain_keys(context, query).await?,
            Err(error @ ResolveError::Upstream(_)) => return Err(error),
            Err(refusal) => {
                let verdict = Verdict::Miss {
                    missed: None,
                    origin: Err(refusal),
                };
                let keys = Vec::new();
                return Ok(Explanation { keys, verdict });
            }
        };
        let (mut keys, answer) = keys;
        let verdict = match answer {
            Some(answer) => Verdict::Hit(answer),
            None => inner.explain_miss(context, query, &mut keys).await?,
        };
        Ok(Explanation { keys, verdict })
    }
}

impl<S: AssetStore, F: Fetcher, A> Inner<S, F, A> {
    /// All keys one after the other, and the answer of the first that has one.
    async fn explain_keys(
        &self,
        context: &CallContext,
        query: &Query,
    ) -> Result<(Vec<ExplainedKey>, Option<Answer>), ResolveError> {
        let (mut keys, mut first) = (Vec::new(), None);
        let mut judged = Judged::default();
        for wave in self.waves(query) {
            for candidate in wave {
                let found = self.read(context, query, &candidate.key).await?;
                let mut confirmed_by = None;
                let ask = async |exact: AssetKey| {
                    let there = self.read(context, query, &exact).await?;
                    let lookup = there.lookup.clone();
                    confirmed_by = Some(there);
                    Ok(lookup)
                };
                let accepted = self.accept(query, &candidate, found.lookup.clone());
                let accepted = self.judge(context, query, &candidate, accepted, &mut judged, ask);
                let accepted = accepted.await?;
                let missed = accepted.as_ref().err().copied();
                let answers = first.is_none() && missed.is_none();
                if let (true, Ok(reference)) = (answers, accepted) {
                    first = Some(answer(&candidate, *reference));
                }
                keys.push(ExplainedKey {
                    key: candidate.key,
                    uri_index: candidate.uri_index,
                    found,
                    confirmed_by,
                    missed,
                    answers,
                });
            }
        }
        Ok((keys, first))
    }

    /// How a fetch goes on after these keys, none of which answers.
    async fn explain_miss(
        &self,
        context: &CallContext,
        query: &Query,
        keys: &mut Vec<ExplainedKey>,
    ) -> Result<Verdict, ResolveError> {
        let shared = &self.shared;
        let missed = keys.iter().filter_map(|key| key.missed).max();
        let missed = missed.unwrap_or_default();
        if let Err(refusal) = shared.check_origin(query, missed) {
            return Ok(Verdict::Miss {
                missed: Some(missed),
                origin: Err(refusal),
            });
        }
        let (mut missed, mut asked) = (missed, Vec::new());
        for (uri_index, key) in shared.keys_of_past(query) {
            if keys.iter().all(|known| known.key != key) {
                let found = self.read(context, query, &key).await?;
                keys.push(self.explain_past(query, uri_index, key.clone(), found));
            }
            let found = keys.iter().find(|known| known.key == key);
            let Some(Lookup::Hit(past)) = found.map(|known| &known.found.lookup) else {
                continue;
            };
            if !shared.is_past(query, past) {
                continue;
            }
            missed = missed.max(Missed::Unconfirmed);
            let known = shared.known_of(query, uri_index, past);
            asked.extend(known.map(|known| Asking {
                uri_index,
                digest: known.digest,
                content_time: past.content_time,
            }));
        }
        Ok(Verdict::Miss {
            missed: Some(missed),
            origin: Ok(asked),
        })
    }

    /// What an origin served before, where it takes its word to answer.
    fn explain_past(
        &self,
        query: &Query,
        uri_index: usize,
        key: AssetKey,
        found: Explained,
    ) -> ExplainedKey {
        let candidate = past(uri_index, key);
        let accepted = self.accept(query, &candidate, found.lookup.clone());
        ExplainedKey {
            key: candidate.key,
            uri_index: candidate.uri_index,
            found,
            confirmed_by: None,
            missed: Some(accepted.err().unwrap_or(Missed::Unconfirmed)),
            answers: false,
        }
    }

    async fn read(
        &self,
        context: &CallContext,
        query: &Query,
        key: &AssetKey,
    ) -> Result<Explained, ResolveError> {
        let found = self.store.explain(context, key).await;
        let function = query.request.scope.function;
        found.map_err(|e| ResolveError::from_store(e, function))
    }
}
