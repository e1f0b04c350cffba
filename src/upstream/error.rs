//! What can go wrong between Assetgate and the cache.
//!
//! The only error of the crate that carries a gRPC code below `api`: the one
//! received, which is passed on.

use crate::digest::{Digest, DigestFunction};
use crate::proto::Undecodable;

/// A failed upstream call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The cache answered with a status other than OK.
    #[error(
        "the cache answered {} to {method}: {}",
        crate::call::code_name(.status.code()),
        .status.message()
    )]
    Status {
        /// The method called, for the message.
        method: &'static str,
        /// The status received.
        status: Box<tonic::Status>,
    },
    /// The cache did not answer: no connection, or one that broke.
    #[error("{reason} ({method} was due)")]
    Unreachable {
        /// The method called.
        method: &'static str,
        /// What happened, for callers.
        reason: String,
        /// The same with the address, for the log.
        detail: Option<Box<str>>,
    },
    /// The cache answered something that makes no sense.
    #[error("the cache's answer to {method} is not usable: {reason}")]
    Malformed {
        /// The method called.
        method: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
    /// Content does not match its digest.
    #[error("the cache served other content for {0}")]
    Corrupt(Digest),
    /// The digest function is not one the cache announces.
    #[error("the cache does not announce digest function {0}")]
    UnsupportedFunction(DigestFunction),
    /// A blob is larger than the cache or Assetgate accepts.
    #[error("{size} bytes are more than the limit of {limit}")]
    TooLarge {
        /// Size of the blob.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Reading the local copy of what is being uploaded failed.
    #[error("reading the content to upload: {0}")]
    Source(String),
}

impl Error {
    /// The error for a status received from `method`. A status with a source
    /// was made here, of a connection that failed, whatever tonic made of it.
    #[must_use]
    pub fn from_status(method: &'static str, status: tonic::Status) -> Self {
        match std::error::Error::source(&status) {
            Some(source) if source.is::<Undecodable>() => Error::Malformed {
                method,
                reason: source.to_string(),
            },
            Some(source) => Error::Unreachable {
                method,
                reason: super::channel::chain(source),
                detail: super::channel::detail(source),
            },
            None => Error::Status {
                method,
                status: Box::new(status),
            },
        }
    }

    /// The text for operators, who may know where the cache is.
    #[must_use]
    pub fn for_operators(&self) -> String {
        self.detail()
            .map_or_else(|| self.to_string(), str::to_owned)
    }

    /// The text for the log, if that is not the one for callers.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        match self {
            Error::Unreachable { detail, .. } => detail.as_deref(),
            _ => None,
        }
    }

    /// Whether the cache refused the caller.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let code = self.code();
        code == Some(tonic::Code::PermissionDenied) || code == Some(tonic::Code::Unauthenticated)
    }

    /// The gRPC code received, or that stands for having received none.
    #[must_use]
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            Error::Status { status, .. } => Some(status.code()),
            Error::Unreachable { .. } => Some(tonic::Code::Unavailable),
            _ => None,
        }
    }
}
