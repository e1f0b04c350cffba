//! What a fetch would find and answer at this moment, key by key, without
//! fetching anything.
//!
//! Goes by the rules of the real look-up (`lookup.rs`, `origin.rs`), but does
//! not stop at the first hit. Blind to what a running server remembers beside
//! the cache: downloads under way, and failures of the last seconds.
//! Not for: words and layout (`cli`).
//! Called by: `server`.

use super::lookup::answer;
use super::{Announce, Answer, Inner, Missed, Query, ResolveError, Resolver};
use crate::asset::AssetKey;
use crate::fetcher::Fetcher;
use crate::store::{AssetStore, Explained};
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
        /// Whether the origin would be asked, or what would be answered.
        origin: Result<(), ResolveError>,
    },
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
        let (keys, answer) = keys;
        let verdict = match answer {
            Some(answer) => Verdict::Hit(answer),
            None => {
                let missed = keys.iter().filter_map(|key| key.missed).max();
                let missed = missed.unwrap_or_default();
                Verdict::Miss {
                    missed: Some(missed),
                    origin: inner.shared.check_origin(query, missed),
                }
            }
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
        for wave in self.waves(query) {
            let mut passed = Vec::new();
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
                let judged = self.judge(context, query, &candidate, accepted, &mut passed, ask);
                let judged = judged.await?;
                let missed = judged.as_ref().err().copied();
                let answers = first.is_none() && missed.is_none();
                if let (true, Ok(reference)) = (answers, judged) {
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
