//! The answers the forward path gives itself: the only place where it makes
//! gRPC statuses.
//!
//! Not for: the Remote Asset API's statuses (`api::status`).
//! Called by: `forward`, `forward::body`, `server::dispatch`.

use http::{HeaderMap, Response, StatusCode};
use tonic::Status;

use super::Body;
use crate::upstream::TransportError;

/// What a client is told of a failed transport. All of it is UNAVAILABLE:
/// clients try again. Where the cache is stands in the log.
pub(super) fn of(error: &TransportError) -> Status {
    match error {
        TransportError::Busy { .. } => Status::resource_exhausted(error.to_string()),
        TransportError::Unreachable { .. }
        | TransportError::Lost { .. }
        | TransportError::Refused { .. }
        | TransportError::Stalled { .. }
        | TransportError::Reset { .. } => Status::unavailable(error.to_string()),
    }
}

/// A whole answer that consists of a status.
pub(super) fn trailers_only(status: &Status) -> Response<Body> {
    status.clone().into_http::<()>().map(|()| Body::Empty)
}

/// A status as the trailers of an answer that has begun.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    // Fails for a text that cannot be a header, which the encoding excludes.
    if status.add_header(&mut trailers).is_err() {
        trailers.clear();
        let bare = Status::new(status.code(), "");
        drop(bare.add_header(&mut trailers));
    }
    trailers
}

/// The answer to an HTTP/2 request that is no gRPC call.
#[must_use]
pub fn not_grpc() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}
