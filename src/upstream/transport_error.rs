//! Why a call could not be carried to the upstream and back.
//!
//! Not for: errors the upstream answered with; those are answers. Not for
//! gRPC codes: the forward path and `upstream::Error` choose them.
//! Called by: `upstream`, `forward`.

use std::error::Error;
use std::sync::Arc;

/// A failure of the transport. Its text is for callers, so it names what failed
/// by its role: where the cache is, and what its certificate says, is nothing to
/// people who may merely reach this server. [`TransportError::detail`] says it,
/// for the log. (Addresses once stood in the text, by design; whoever needs one
/// finds it there.)
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// No connection can be had; the call was not sent.
    #[error("cannot reach the cache: {}", for_callers(reason))]
    Unreachable {
        /// Which upstream.
        address: Arc<str>,
        /// What went wrong.
        reason: Arc<str>,
    },
    /// The connection ended with the call on it.
    #[error("the connection to the cache was lost: {reason}")]
    Lost {
        /// Which upstream.
        address: Arc<str>,
        /// What went wrong.
        reason: Arc<str>,
    },
    /// The upstream refused the call without looking at it, more than once or
    /// after too much of the body had been sent to try again.
    #[error("the cache refused the call: {reason}")]
    Refused {
        /// Which upstream.
        address: Arc<str>,
        /// What it said.
        reason: Arc<str>,
    },
    /// The upstream reset this one stream.
    #[error("the cache reset the call: {reason}")]
    Reset {
        /// Which upstream.
        address: Arc<str>,
        /// The code it gave.
        reason: h2::Reason,
    },
    /// Nothing of the call moved for long, on a connection that others share.
    #[error(
        "the call stood still for too long on a connection to the cache that \
         other clients wait for; read answers as they come, or raise upstream.max_connections"
    )]
    Stalled {
        /// Which upstream.
        address: Arc<str>,
    },
    /// The upstream allows few calls at a time and too many wait already.
    #[error("{waiting} calls are waiting for the cache already")]
    Busy {
        /// Which upstream.
        address: Arc<str>,
        /// How many wait.
        waiting: usize,
    },
}

impl TransportError {
    /// All of it, for the operator: with the address.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Unreachable { address, reason } => {
                format!("cannot reach the cache at {address}: {reason}")
            }
            Self::Lost { address, .. }
            | Self::Refused { address, .. }
            | Self::Reset { address, .. }
            | Self::Stalled { address }
            | Self::Busy { address, .. } => format!("{self} ({address})"),
        }
    }

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

/// A reason without the names that certificates hold.
fn for_callers(reason: &str) -> &str {
    match reason.strip_prefix("TLS: ") {
        None => reason,
        Some(detail) if detail.contains("certificate") => "TLS: its certificate is not accepted",
        Some(_) => "TLS: the handshake failed",
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
