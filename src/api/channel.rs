//! Where a failure goes that the API wants inside the answer: there, or as the
//! status of the call.
//!
//! # Why two channels
//!
//! The API wants failures outside the server's control *inside* an OK answer.
//! Bazel before 8.2 ignores them there and, without a checksum, builds with an
//! empty file; so such clients get every failure as the call's status.
//!
//! Not for: what is said (`status.rs`).
//! Called by: `fetch.rs`; `server` (settings).

use super::caller::Caller;
use crate::asset::Uri;

/// URIs of BuildStream 1, which ignores failures inside an OK answer.
const BUILDSTREAM_1: &[u8] = b"urn:fdc:buildstream.build:2020:v1:";

/// Where a failure the API wants inside the answer goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ErrorMode {
    /// Decided by what the client says of itself.
    #[default]
    Auto,
    /// Always inside the answer.
    Inline,
    /// Always the call's own status.
    Grpc,
}

/// Settings of the error channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorSettings {
    /// Where failures go.
    pub mode: ErrorMode,
    /// Tools that get every failure as the call's status in [`ErrorMode::Auto`].
    pub grpc_clients: Vec<String>,
}

impl Default for ErrorSettings {
    fn default() -> Self {
        Self {
            mode: ErrorMode::Auto,
            grpc_clients: vec!["please".to_owned()],
        }
    }
}

impl ErrorSettings {
    /// Whether this caller gets failures inside the answer.
    pub(super) fn inline_for(&self, caller: &Caller, uris: &[Uri]) -> bool {
        match self.mode {
            ErrorMode::Inline => true,
            ErrorMode::Grpc => false,
            ErrorMode::Auto => {
                let named = |tool: &String| tool.eq_ignore_ascii_case(&caller.tool);
                !(caller.is_bazel_before_8_2()
                    || self.grpc_clients.iter().any(named)
                    || uris.iter().any(|u| u.to_wire().starts_with(BUILDSTREAM_1)))
            }
        }
    }
}
