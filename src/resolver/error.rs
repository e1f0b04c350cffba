//! Why a fetch or a push has no answer.
//!
//! Not for: codes (`api::status` has the table).

use std::sync::Arc;

use super::Missed;
use crate::digest::{self, Digest, DigestFunction, InstanceName};
use crate::fetcher::FetchError;
use crate::store;
use crate::upstream;

/// Why a fetch or a push has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// Nobody pushed it, and no origin can be asked.
    #[error("{text}")]
    NotFound {
        /// Why, in words.
        text: String,
        /// Why, in short.
        missed: Missed,
    },
    /// Qualifiers that an origin fetch could not honour.
    #[error("unsupported qualifiers: {}", .0.join(", "))]
    Unsupported(Vec<String>),
    /// The cache does not announce the digest function.
    #[error("the cache does not announce digest function {function}; it announces {}", names(.announced))]
    NotAnnounced {
        /// The function of the request.
        function: DigestFunction,
        /// Those the cache announces.
        announced: Arc<[DigestFunction]>,
    },
    /// The content would have to be hashed with a function Assetgate lacks.
    #[error("Assetgate cannot compute {0}, so nothing can be fetched under it; pushed assets can")]
    NotComputable(DigestFunction),
    /// No digest function fits the digest.
    #[error(transparent)]
    Digest(#[from] digest::Error),
    /// Pushing is switched off.
    #[error("pushing is switched off on this server")]
    PushDisabled,
    /// The operator does not let clients write into the instance.
    #[error("{what} instance {instance:?} is not allowed on this server (setting {setting})")]
    InstanceNotAllowed {
        /// What would have been done.
        what: &'static str,
        /// Where.
        instance: InstanceName,
        /// What decides.
        setting: &'static str,
    },
    /// The operator does not let clients push the URI.
    #[error("pushing {uri} is not allowed on this server (setting {setting})")]
    UriNotAllowed {
        /// The URI, redacted.
        uri: String,
        /// Which of the request.
        uri_index: usize,
        /// What decides.
        setting: &'static str,
    },
    /// The operator does not let the URI be fetched without a checksum.
    #[error(
        "fetching {uri} without a checksum is not allowed on this server (setting \
         fetch.unpinned): name the qualifier checksum.sri, in Bazel by `integrity` or `sha256`"
    )]
    NotPinned {
        /// The URI, redacted.
        uri: String,
        /// Which of the request.
        uri_index: usize,
    },
    /// Pushed content is not in the CAS.
    #[error("not in the CAS: {}", shown(.digests))]
    Missing {
        /// The function of the digests.
        function: DigestFunction,
        /// What is not there.
        digests: Vec<Digest>,
    },
    /// The pushed root is not a `Directory`.
    #[error("{digest} is not a Directory message: {reason}")]
    NotADirectory {
        /// The pushed root.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// The tree is larger than Assetgate records.
    #[error("the directory is too large to be recorded: {0}")]
    TreeTooLarge(String),
    /// No origin delivered.
    #[error(transparent)]
    Fetch(FetchError),
    /// The cache failed, or refused the caller.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// The fetch was stopped by a shutdown.
    #[error("the fetch was stopped because this server is shutting down")]
    Stopped,
    /// The fetch ended in a panic.
    #[error("the fetch failed inside Assetgate")]
    Panicked,
}

impl ResolveError {
    /// The error for a failed store operation under `function`.
    pub(super) fn from_store(error: store::Error, function: DigestFunction) -> Self {
        match error {
            store::Error::Upstream(error) => Self::Upstream(error),
            store::Error::Missing(digests) => Self::Missing { function, digests },
            store::Error::NotADirectory(digest, reason) => Self::NotADirectory { digest, reason },
            store::Error::TooLarge(reason) => Self::TreeTooLarge(reason),
        }
    }
}

impl From<FetchError> for ResolveError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Upstream(error) => Self::Upstream(error),
            other => Self::Fetch(other),
        }
    }
}

fn names(functions: &[DigestFunction]) -> String {
    let names: Vec<&str> = functions.iter().map(|f| f.name()).collect();
    names.join(", ")
}

fn shown(digests: &[Digest]) -> String {
    let shown: Vec<String> = digests.iter().take(5).map(ToString::to_string).collect();
    let more = match digests.len().saturating_sub(shown.len()) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("{}{more}", shown.join(", "))
}
