//! The statuses that a message is refused with before any service has it.
//!
//! Not for: what a service refuses.
//! Called by: the other parts of `intake`.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::proto::estimate::Excess;

/// When it makes sense to come again.
const AGAIN: Duration = Duration::from_secs(1);

/// Too much of the connection waits already, or what it waits for stands still.
pub(super) fn crowded() -> Status {
    no_room(
        "no room for this message: other messages of this connection wait to be read, or stand still; send fewer at a time",
    )
}

/// Calls of the connection that are not answered yet have too many headers.
#[must_use]
pub fn too_many_headers() -> Status {
    no_room(
        "no room for the headers of this call: those of other calls of this connection are held until they are answered; send fewer at a time",
    )
}

fn no_room(text: &str) -> Status {
    count("no_room");
    let details = ErrorDetails::with_retry_info(Some(AGAIN));
    Status::with_error_details(Code::ResourceExhausted, text, details)
}

/// The sender stopped within the message.
pub(super) fn stalled(received: u64, patience: Duration) -> Status {
    count("stalled");
    Status::deadline_exceeded(format!(
        "the request stood still: {received} bytes of it came, and too few of them in the last {patience:?}"
    ))
}

/// It is small on the wire only.
pub(super) fn too_many_parts(excess: &Excess) -> Status {
    count("parts");
    Status::resource_exhausted(format!("the message cannot be decoded: {excess}"))
}

/// More than one message where the method takes one.
pub(super) fn two_messages() -> Status {
    Status::internal("the request has more than the one message this method takes")
}

fn count(reason: &'static str) {
    metrics::counter!("assetgate_received_refused_total", "reason" => reason).increment(1);
}
