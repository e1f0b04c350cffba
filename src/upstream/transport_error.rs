//! Why a call could not be carried to the upstream and back.
//!
//! Not for: errors the upstream answered with; those are answers. Not for
//! gRPC codes: the forward path and `upstream::Error` choose them.
//! Called by: `upstream`, `forward`.

use std::error::Error;
use std::sync::Arc;

/// A failure of the transport.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// No connection can be had; the call was not sent.
    #[error("cannot reach the upstream cache at {address}: {reason}")]
    Unreachable {
        /// Which upstream.
        address: Arc<str>,
        /// What went wrong.
        reason: Arc<str>,
    },
    /// The connection ended with the call on it.
    #[error("the connection to the upstream cache at {address} was lost: {reason}")]
    Lost {
        /// Which upstream.
        address: Arc<str>,
        /// What went wrong.
        reason: Arc<str>,
    },
    /// The upstream refused the call without looking at it, more than once or
    /// after too much of the body had been sent to try again.
    #[error("the upstream cache at {address} refused the call: {reason}")]
    Refused {
        /// Which upstream.
        address: Arc<str>,
        /// What it said.
        reason: Arc<str>,
    },
    /// The upstream reset this one stream.
    #[error("the upstream cache at {address} reset the call: {reason}")]
    Reset {
        /// Which upstream.
        address: Arc<str>,
        /// The code it gave.
        reason: h2::Reason,
    },
    /// Nothing of the call moved for long, on a connection that others share.
    #[error(
        "the call stood still for too long on a connection to the upstream cache at {address} that \
         other clients wait for; read answers as they come, or raise upstream.max_connections"
    )]
    Stalled {
        /// Which upstream.
        address: Arc<str>,
    },
    /// The upstream allows few calls at a time and too many wait already.
    #[error("{waiting} calls are waiting for the upstream cache at {address} already")]
    Busy {
        /// Which upstream.
        address: Arc<str>,
        /// How many wait.
        waiting: usize,
    },
}

impl TransportError {
    /// What an error of HTTP/2 means, for a call that is on its way.
    pub(super) fn of(error: &h2::Error, address: &Arc<str>) -> Self {
        if unprocessed(error) {
            Self::Refused {
                address: Arc::clone(address),
                reason: error.to_string().into(),
            }
        } else if error.is_reset() && error.is_remote() {
            Self::Reset {
                address: Arc::clone(address),
                reason: error.reason().unwrap_or(h2::Reason::INTERNAL_ERROR),
            }
        } else {
            Self::lost(error, address)
        }
    }

    /// A call that ended without an answer.
    pub(super) fn lost(error: &(dyn Error + 'static), address: &Arc<str>) -> Self {
        Self::Lost {
            address: Arc::clone(address),
            reason: root(error).into(),
        }
    }
}

/// Whether the upstream says that it never looked at the call.
///
/// h2 puts a GOAWAY into the error of a stream only if the stream is above the
/// last one the peer processed; the others end with the connection's error.
pub(super) fn unprocessed(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

/// The innermost reason: what is wrapped around it says less.
pub(super) fn root(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
