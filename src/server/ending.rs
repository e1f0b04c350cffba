//! How a client's HTTP/2 connection ended: the word for metrics, the last word
//! to the client, the log line.
//!
//! Not for: deciding that it ends (`connection`), nor for connections that
//! never spoke HTTP/2.
//! Called by: `connection`.

use std::error::Error as _;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use h2::Reason;

use crate::net::{Coalesced, Offence, Stream};
use crate::telemetry;

/// How long a client that was told to go away has to hear it.
const LINGER: Duration = Duration::from_secs(1);

/// What it may go on sending meanwhile; then it is let wait.
const HEARD: usize = 16 * 1024 * 1024;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// In order: the client left, or we asked it to for the reason named.
    Orderly(&'static str),
    /// It sent too much that is of no use.
    Offence(Offence),
    /// It began something and did not finish it in time.
    Stalled,
    /// HTTP/2 ended it.
    Failed(hyper::Error),
}

impl End {
    /// The metric's label.
    fn reason(&self) -> &'static str {
        match self {
            Self::Orderly(reason) => reason,
            Self::Offence(offence) => offence.label(),
            Self::Stalled => "stalled",
            Self::Failed(error) => failure(error).0,
        }
    }

    /// Whether the client broke the rules.
    fn is_offence(&self) -> bool {
        match self {
            Self::Orderly(_) => false,
            Self::Offence(_) | Self::Stalled => true,
            Self::Failed(error) => failure(error).1,
        }
    }
}

/// Says goodbye, counts and logs. HTTP/2 must be gone from `stream`.
pub(super) async fn finish(end: End, stream: Coalesced<Stream>, address: Option<SocketAddr>) {
    let reason = end.reason();
    metrics::counter!("assetgate_connections_ended_total", "reason" => reason).increment(1);
    if !end.is_offence() {
        if let End::Failed(error) = end {
            tracing::debug!(client.address = ?address, reason, %error, "connection ended");
        }
        return;
    }
    if let Some(suppressed) = telemetry::may_log(reason) {
        let error = match &end {
            End::Failed(error) => error.source().map(ToString::to_string),
            _ => None,
        };
        tracing::warn!(
            client.address = ?address, reason, error, suppressed,
            "a client broke the rules of HTTP/2 and was disconnected"
        );
    }
    // When HTTP/2 failed it has said so itself.
    if matches!(end, End::Offence(_) | End::Stalled) {
        stream.go_away(Reason::ENHANCE_YOUR_CALM.into(), reason);
    }
    let goodbye = async {
        poll_fn(|cx| stream.poll_close(cx)).await?;
        let mut heard = 0;
        while heard < HEARD {
            match poll_fn(|cx| stream.poll_discard(cx)).await? {
                0 => return std::io::Result::Ok(()),
                more => heard += more,
            }
            tokio::task::yield_now().await;
        }
        std::future::pending().await
    };
    // It may be gone, or not listen.
    drop(tokio::time::timeout(LINGER, goodbye).await);
}

/// A word for an error, and whether it was the client's fault.
fn failure(error: &hyper::Error) -> (&'static str, bool) {
    if error.is_timeout() {
        return ("ping_timeout", false);
    }
    let source = error.source().and_then(|s| s.downcast_ref::<h2::Error>());
    match source {
        Some(source) if source.is_remote() => ("client_error", false),
        Some(source) => match source.reason() {
            Some(Reason::NO_ERROR) | None => ("lost", false),
            Some(reason) => (name(reason), true),
        },
        None => ("lost", false),
    }
}

fn name(reason: Reason) -> &'static str {
    match reason {
        Reason::PROTOCOL_ERROR => "protocol_error",
        Reason::INTERNAL_ERROR => "internal_error",
        Reason::FLOW_CONTROL_ERROR => "flow_control_error",
        Reason::SETTINGS_TIMEOUT => "settings_timeout",
        Reason::STREAM_CLOSED => "stream_closed",
        Reason::FRAME_SIZE_ERROR => "frame_size_error",
        Reason::COMPRESSION_ERROR => "compression_error",
        Reason::ENHANCE_YOUR_CALM => "enhance_your_calm",
        _ => "other_error",
    }
}
