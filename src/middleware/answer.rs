//! The statuses that layers answer with themselves, each a response of
//! trailers only.
//!
//! Not for: errors of the use case (`api::status`).

use std::time::Duration;

use http::Response;
use tonic::Status;
use tonic::body::Body;

use crate::call::Call;

/// The deadline of the call has passed (conformance S6).
pub(super) fn deadline_exceeded(after: Duration) -> Status {
    Status::deadline_exceeded(format!("the call's own deadline of {after:?} has passed"))
}

/// A panic, of which the log has more than the caller needs to know.
pub(super) fn panicked(call: &Call) -> Status {
    Status::internal(format!(
        "Assetgate failed while handling this call [request {}]",
        call.id()
    ))
}

/// A `grpc-timeout` that is none.
pub(super) fn bad_timeout() -> Status {
    Status::invalid_argument("grpc-timeout is not one to eight digits and one of H M S m u n")
}

/// A status as a response.
pub(super) fn response(status: Status) -> Response<Body> {
    status.into_http()
}
