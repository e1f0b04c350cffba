//! Why content could not be had from its origins.

use std::time::Duration;

use crate::upstream;

/// A fetch that failed. Cloneable, as several callers may share one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// No origin delivered; the text names each attempt, redacted.
    #[error("{message}")]
    Origin {
        /// The class of the failure that decides the answer.
        failure: Failure,
        /// The URI of the request whose failure is reported.
        uri_index: usize,
        /// What was tried and what happened, for people.
        message: String,
        /// For the log: which addresses and proxies it was about.
        detail: Option<String>,
        /// Requests sent to origins, redirects not counted.
        attempts: u32,
    },
    /// The cache refused or failed.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// There is no room for a temporary file; the text says for whom and what
    /// to do about it.
    #[error("{0}")]
    NoRoom(String),
    /// There is no place for temporary files for now; the text says what to do
    /// about it.
    #[error("{0}")]
    NoPlace(String),
    /// Assetgate itself failed.
    #[error("{0}")]
    Internal(String),
}

/// Classes of failure at the origin. The order is the order of precedence when
/// several mirrors fail differently: a later variant outranks an earlier one
/// (conformance U4: transient over PERMISSION_DENIED over NOT_FOUND).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// 404, 410, or not a URI that can be fetched.
    NotFound,
    /// 401, 403.
    Refused,
    /// The address, scheme or redirect is not allowed by policy.
    Disallowed,
    /// Another 4xx, or an answer that cannot be used.
    Unusable,
    /// More bytes than the limit.
    TooLarge,
    /// The served bytes do not match `checksum.sri`.
    Mismatch,
    /// Fewer or more bytes than announced, cut off.
    Truncated,
    /// The time for the whole fetch is over.
    TimedOut,
    /// 429.
    TooManyRequests {
        /// `Retry-After`, if given.
        retry_after: Option<Duration>,
    },
    /// 5xx, 408, or no connection, or no DNS answer.
    Unavailable {
        /// `Retry-After`, if given.
        retry_after: Option<Duration>,
    },
}
