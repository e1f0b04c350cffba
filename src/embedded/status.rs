//! Errors of the embedded cache as gRPC statuses: the one place here that
//! chooses codes.
//!
//! Not for: statuses of Assetgate itself (`api/status.rs`); this is a server
//! of its own.
//! Called by: the services of `embedded`.

use std::fmt::Display;

use tokio::task::JoinError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{resource, store};
use crate::labour;

/// INVALID_ARGUMENT with the field it is about.
pub(super) fn invalid(field: &str, reason: impl Display) -> Status {
    let reason = reason.to_string();
    let message = format!("{field}: {reason}");
    let details = ErrorDetails::with_bad_request_violation(field, reason);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// A blob that is not stored.
pub(super) fn blob_not_found(digest: &crate::digest::Digest) -> Status {
    Status::not_found(format!("the blob {digest} is not in this cache"))
}

impl From<store::Error> for Status {
    fn from(error: store::Error) -> Self {
        use store::Error as E;
        let message = error.to_string();
        match error {
            E::Mismatch { .. } | E::TooLong(_) | E::Function(_) | E::TooLarge { .. } => {
                invalid("digest", message)
            }
            E::NoRoom | E::DiskFull => Self::resource_exhausted(message),
            E::Io(cause) => {
                tracing::error!(error = %cause, "the disk of the embedded cache failed");
                Self::internal(message)
            }
        }
    }
}

impl From<resource::Error> for Status {
    fn from(error: resource::Error) -> Self {
        match error {
            resource::Error::Foreign => Self::not_found(format!("resource_name: {error}")),
            resource::Error::Malformed(_) => invalid("resource_name", error),
        }
    }
}

/// A status as a field of a response.
pub(super) fn inline(status: &Status) -> tonic_types::Status {
    tonic_types::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    }
}

/// An inline OK.
pub(super) fn ok() -> tonic_types::Status {
    tonic_types::Status::default()
}

/// Runs what blocks on the disk or computes for long where it does not hold
/// up other calls of the same thread.
pub(super) async fn blocking<T, F>(work: F) -> Result<T, Status>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    finished(tokio::task::spawn_blocking(work).await)
}

/// Runs what computes for very long where it does not hold up what [`blocking`]
/// does either.
pub(super) async fn laborious<T, F>(work: F) -> Result<T, Status>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    finished(labour::spawn(work).await)
}

fn finished<T>(done: Result<T, JoinError>) -> Result<T, Status> {
    done.map_err(|e| Status::internal(format!("the embedded cache failed: {e}")))
}
