//! What the cache does not know: whether an origin can be asked, asking it,
//! and recording what it gave.
//!
//! Not for: how an origin is asked (`fetcher`).

use std::sync::Arc;

use super::candidates::{key, key_qualifiers, shown};
use super::flight::joined;
use super::{Answer, Missed, Outcome, Query, ResolveError, Shared, Stats};
use crate::asset::{AssetKey, AssetKind, AssetReference, KeySpace, Qualifiers, Source, Validators};
use crate::fetcher::{Fetched, Fetcher};
use crate::store::AssetStore;
use crate::upstream::CallContext;

impl<S, F: Fetcher> Shared<S, F> {
    /// Refuses qualifiers that a fetch could not honour: content is never
    /// fetched while ignoring one (Q1, Q5).
    pub(super) fn check_supported(&self, query: &Query) -> Result<(), ResolveError> {
        match self.fetcher.unsupported(&query.request) {
            names if names.is_empty() => Ok(()),
            names => Err(ResolveError::Unsupported(names)),
        }
    }

    /// What must hold before an origin is contacted after a miss.
    pub(super) fn check_origin(&self, query: &Query, missed: Missed) -> Result<(), ResolveError> {
        let request = &query.request;
        let fetchable = |uri| self.fetcher.is_fetchable(request.kind, uri);
        if !request.uris.iter().any(fetchable) {
            let text = reason(query, missed);
            return Err(ResolveError::NotFound { text, missed });
        }
        let permissions = &self.settings.permissions;
        permissions.check_fetch(&request.scope.instance)?;
        self.check_pinned(query)?;
        self.check_supported(query)?;
        if !request.scope.function.is_computable() {
            return Err(ResolveError::NotComputable(request.scope.function));
        }
        Ok(())
    }
}

impl<S: AssetStore, F: Fetcher> Shared<S, F> {
    /// The body of a flight.
    pub(super) async fn fetch_and_record(
        self: Arc<Self>,
        context: CallContext,
        mut query: Query,
        mut missed: Missed,
    ) -> Result<Answer, ResolveError> {
        let past = self.past(&context, &query).await;
        if past.iter().any(Option::is_some) {
            missed = missed.max(Missed::Unconfirmed);
        }
        let fetched = self.fetch_current(&context, &mut query, &past).await?;
        if fetched.joined {
            joined("download");
        } else if !took_secrets(&query, &fetched) {
            self.note_drift(&query, &past, &fetched);
        }
        let scope = &query.request.scope;
        self.proofs.learn(scope, &fetched.digest, &fetched.verified);
        let qualifiers = self.record(&context, &query, &fetched).await;
        Ok(Answer {
            kind: query.request.kind,
            digest: fetched.digest,
            uri_index: Some(fetched.uri_index),
            qualifiers: shown(qualifiers),
            outcome: match (fetched.joined, fetched.not_modified) {
                (true, _) => Outcome::Joined,
                (false, true) => Outcome::Revalidated,
                (false, false) => Outcome::Fetched,
            },
            stats: Stats {
                origin_bytes: fetched.origin_bytes,
                attempts: fetched.attempts,
                missed: Some(missed),
            },
        })
    }

    /// Records fetched content. That the cache takes no reference does not
    /// make the content wrong: it is counted, logged, and the fetch is OK
    /// (S11). Returns the qualifiers the content is known by.
    async fn record(&self, context: &CallContext, query: &Query, fetched: &Fetched) -> Qualifiers {
        let (keys, qualifiers) = self.keys_of(query, fetched);
        if keys.is_empty() {
            return qualifiers;
        }
        let reference = reference_of(query, fetched, qualifiers);
        if let Err(error) = self.store.put(context, &keys, &reference).await {
            metrics::counter!("assetgate_reference_write_failures_total", "source" => "fetch")
                .increment(1);
            tracing::warn!(
                asset.uri = reference.uri,
                error = context.redact(&error.to_string()),
                "fetched content could not be recorded and will be fetched again"
            );
        }
        reference.qualifiers
    }

    /// Under which keys fetched content is recorded: pinned by a checksum, under
    /// every hash that was verified, whatever the URI; unpinned, under the URI
    /// that answered. What took credentials is recorded if a checksum pins it
    /// and the operator lets it be shared.
    fn keys_of(&self, query: &Query, fetched: &Fetched) -> (Vec<AssetKey>, Qualifiers) {
        let request = &query.request;
        let pinned = request.integrity.is_some();
        let qualifiers = match pinned {
            true => request.qualifiers.clone(),
            false => key_qualifiers(query, fetched.uri_index),
        };
        if took_secrets(query, fetched) && !(pinned && self.settings.share_private) {
            return (Vec::new(), qualifiers);
        }
        if pinned {
            let verified = fetched.verified.iter();
            let spaces = verified.filter_map(|c| KeySpace::checksum(c, &qualifiers));
            let keys = spaces.map(|space| key(query, space)).collect();
            return (keys, qualifiers);
        }
        let space = request
            .uris
            .get(fetched.uri_index)
            .map(|uri| KeySpace::Fetched {
                uri: uri.clone(),
                qualifiers: qualifiers.clone(),
            });
        let keys = space.map(|space| key(query, space)).into_iter().collect();
        (keys, qualifiers)
    }
}

/// Whether an origin was shown a secret, or the request held one.
fn took_secrets(query: &Query, fetched: &Fetched) -> bool {
    fetched.with_credentials || query.request.is_private(fetched.uri_index)
}

fn reference_of(query: &Query, fetched: &Fetched, qualifiers: Qualifiers) -> AssetReference {
    let uri = query.request.uris.get(fetched.uri_index);
    // An origin may repeat in them what it was shown (P4).
    let validators = match took_secrets(query, fetched) {
        true => Validators::default(),
        false => fetched.validators.clone(),
    };
    AssetReference {
        kind: query.request.kind,
        digest: fetched.digest.clone(),
        uri: uri.map(|uri| uri.redacted()).unwrap_or_default(),
        qualifiers,
        content_time: fetched.started_at,
        expire_at: None,
        source: Source::Fetch,
        validators,
        verified: fetched.verified.clone(),
        signed_at: None,
        referenced_blobs: Vec::new(),
        referenced_directories: Vec::new(),
    }
}

/// Why a fetch ends here, in a sentence for whoever asked.
fn reason(query: &Query, missed: Missed) -> String {
    let request = &query.request;
    if request.uris.is_empty() {
        return "no content with this checksum is known here".to_owned();
    }
    let pushed = match missed {
        Missed::Absent => "nobody pushed this asset with these qualifiers",
        Missed::Unusable => "what stands in the cache for it is no reference of this server",
        Missed::HalfPushed => "it was pushed for several URIs and not recorded for the first",
        Missed::Contradicted => {
            "what was pushed under it is not known to have this checksum: push it with `checksum.sri`"
        }
        Missed::Unproven => {
            "whether what was pushed under it has this checksum could not be found out"
        }
        Missed::Gone => "it was pushed, but its content is no longer in the cache",
        Missed::Expired => "what was pushed under it has expired or was withdrawn",
        Missed::Unconfirmed => "what its origin served before has to be confirmed by it",
        Missed::Stale => "what was pushed under it is older than oldest_content_accepted",
    };
    let is_directory_url =
        request.kind == AssetKind::Directory && request.uris.iter().any(|uri| uri.is_http());
    let origin = if is_directory_url {
        "it cannot be fetched either: unpacking archives is not built in yet"
    } else {
        "no origin can be asked for such a URI"
    };
    format!("{pushed}, and {origin}")
}
