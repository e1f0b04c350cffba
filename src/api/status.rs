//! The one place where an error becomes a status: which code, with which
//! details, inside the answer or as the call's own (the table of DESIGN 6).
//!
//! Not for: finding out what is wrong with a request (`convert.rs`), nor which
//! of the two a client gets (`channel.rs`).

use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt as _};

use super::convert::Invalid;
use crate::asset::Uri;
use crate::fetcher::{Failure, FetchError};
use crate::resolver::ResolveError;
use crate::upstream::{self, CallContext};

/// How long a client is asked to wait when nobody says.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Most bytes of text and of details. A status travels in headers, the text in
/// two of them, and grpc-java takes 8 KiB of headers.
const MAX_TEXT: usize = 1300;
const MAX_DETAILS: usize = 2000;

/// What is said about an error.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) code: Code,
    /// Whether the API wants it inside the answer.
    pub(super) inline: bool,
    /// The URI of the request it is about.
    pub(super) uri_index: usize,
    /// Requests sent to origins before it.
    pub(super) attempts: u32,
    /// Why the cache had no answer, if that is the reason.
    pub(super) missed: Option<&'static str>,
    message: String,
    /// What the log says besides: where, which is nothing to callers.
    detail: Option<String>,
    details: ErrorDetails,
    /// Details of the cache's own status, passed on as they are.
    passed_on: Vec<prost_types::Any>,
}

impl Verdict {
    fn new(code: Code, message: impl ToString) -> Self {
        Self {
            code,
            inline: false,
            uri_index: 0,
            attempts: 0,
            missed: None,
            message: message.to_string(),
            detail: None,
            details: ErrorDetails::new(),
            passed_on: Vec::new(),
        }
    }

    fn inline(self) -> Self {
        Self {
            inline: true,
            ..self
        }
    }

    fn retry_after(mut self, delay: Option<Duration>) -> Self {
        self.details
            .set_retry_info(Some(delay.unwrap_or(RETRY_DELAY)));
        self
    }

    fn violation(mut self, field: &str, description: impl Into<String>) -> Self {
        self.details.add_bad_request_violation(field, description);
        self
    }

    /// Says which URI it is about and under which id the log has it. URIs are
    /// shown redacted.
    pub(super) fn locate(mut self, uris: &[Uri], request_id: &str) -> Self {
        let uri = uris.get(self.uri_index).map(|uri| uri.redacted());
        if let Some(uri) = uri.filter(|uri| !self.message.contains(uri.as_str())) {
            let more = match uris.len() {
                0 | 1 => String::new(),
                n => format!(" (one of {n} URIs)"),
            };
            self.message = format!("{uri}{more}: {}", self.message);
        }
        shorten(&mut self.message, MAX_TEXT);
        self.message.push_str(&format!(" [request {request_id}]"));
        self
    }

    /// Without what the cache quoted of the caller's own credentials (P4).
    pub(super) fn without_secrets(mut self, context: &CallContext) -> Self {
        self.message = context.redact(&self.message);
        self.detail = self.detail.map(|detail| context.redact(&detail));
        self.passed_on.retain(|d| !context.is_quoted_in(&d.value));
        self
    }

    /// How logs and metrics call it: nothing there, somebody refused, or
    /// something broken.
    pub(super) fn outcome(&self) -> &'static str {
        match self.code {
            Code::NotFound => "miss",
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::Unimplemented => "refused",
            _ => "failed",
        }
    }

    /// The code as gRPC spells it.
    pub(super) fn code_name(&self) -> &'static str {
        crate::call::code_name(self.code)
    }

    /// For people, without the code.
    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// For the log: with what callers are not told.
    pub(super) fn logged(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{} ({detail})", self.message),
            None => self.message.clone(),
        }
    }

    /// As `google.rpc.Status`, for an answer's `status` field.
    pub(super) fn to_message(&self) -> tonic_types::Status {
        let status = Status::with_error_details(self.code, &self.message, self.details.clone());
        let mut message = tonic_types::Status::decode(status.details()).unwrap_or_default();
        message.code = self.code as i32;
        message.message.clone_from(&self.message);
        message.details.extend(self.passed_on.iter().cloned());
        message
    }

    /// As the status of the call.
    pub(super) fn to_status(&self) -> Status {
        let message = self.to_message();
        if message.details.is_empty() {
            return Status::new(self.code, &self.message);
        }
        Status::with_details(self.code, &self.message, message.encode_to_vec().into())
    }
}

impl From<&Invalid> for Verdict {
    fn from(invalid: &Invalid) -> Self {
        let said = invalid.violations().iter().map(|v| {
            let field: &str = &v.field;
            format!("{field}: {}", v.description)
        });
        let said: Vec<String> = said.collect();
        let mut verdict = Self::new(Code::InvalidArgument, said.join("; "));
        verdict
            .details
            .set_bad_request(fitting(invalid.violations()));
        verdict
    }
}

impl From<&ResolveError> for Verdict {
    fn from(error: &ResolveError) -> Self {
        use ResolveError as E;
        match error {
            E::NotFound { text, missed } => Self {
                missed: Some(missed.name()),
                ..Self::new(Code::NotFound, text).inline()
            },
            E::Unsupported(names) => {
                let violations = names.iter().map(|name| {
                    FieldViolation::new("qualifiers.name", format!("\"{name}\" not supported"))
                });
                let violations: Vec<FieldViolation> = violations.collect();
                let mut verdict = Self::new(Code::InvalidArgument, error);
                verdict.details.set_bad_request(fitting(&violations));
                verdict
            }
            E::NotAnnounced { .. } | E::NotComputable(_) => {
                let verdict = Self::new(Code::InvalidArgument, error);
                verdict.violation("digest_function", error.to_string())
            }
            E::Digest(cause) => {
                let verdict = Self::new(Code::InvalidArgument, error);
                verdict.violation("digest", cause.to_string())
            }
            // Not UNIMPLEMENTED: BuildStream 1 would look for an older service.
            E::PushDisabled | E::InstanceNotAllowed { .. } => {
                Self::new(Code::PermissionDenied, error)
            }
            E::UriNotAllowed { uri_index, .. } => Self {
                uri_index: *uri_index,
                ..Self::new(Code::PermissionDenied, error)
            },
            E::NotPinned { uri_index, .. } => Self {
                uri_index: *uri_index,
                ..Self::new(Code::PermissionDenied, error).inline()
            },
            E::Missing { function, digests } => {
                let mut verdict = Self::new(Code::FailedPrecondition, error);
                let violations = digests.iter().map(|digest| {
                    let subject = format!("blobs/{}", digest.resource_name(*function));
                    PreconditionViolation::new("MISSING", subject, "not in the CAS")
                });
                // About 180 bytes each.
                let violations = violations.take(MAX_DETAILS / 180);
                let violations: Vec<PreconditionViolation> = violations.collect();
                verdict.details.set_precondition_failure(violations);
                verdict
            }
            E::NotADirectory { .. } => {
                let verdict = Self::new(Code::InvalidArgument, error);
                verdict.violation("root_directory_digest", error.to_string())
            }
            E::TreeTooLarge(_) => Self::new(Code::ResourceExhausted, error),
            E::Fetch(error) => fetch(error),
            E::Upstream(error) => cache(error),
            E::Stopped => Self::new(Code::Unavailable, error).retry_after(None),
            E::Panicked => Self::new(Code::Internal, error),
        }
    }
}

fn fetch(error: &FetchError) -> Verdict {
    match error {
        FetchError::Origin {
            failure,
            uri_index,
            message,
            detail,
            attempts,
        } => Verdict {
            uri_index: *uri_index,
            attempts: *attempts,
            detail: detail.clone(),
            ..origin(failure, message)
        },
        FetchError::Upstream(error) => cache(error),
        FetchError::NoRoom(reason) => Verdict::new(Code::ResourceExhausted, reason),
        FetchError::NoPlace(reason) => Verdict::new(Code::Unavailable, reason),
        FetchError::Internal(reason) => Verdict::new(Code::Internal, reason),
    }
}

fn origin(failure: &Failure, message: &str) -> Verdict {
    let verdict = |code| Verdict::new(code, message);
    match failure {
        Failure::NotFound => verdict(Code::NotFound).inline(),
        Failure::Refused | Failure::Disallowed => verdict(Code::PermissionDenied).inline(),
        // A 400 or an answer that makes no sense: there is no usable asset at
        // this address. The other codes for inside the answer would say that
        // somebody was refused, or make clients try again at once.
        Failure::Unusable => verdict(Code::NotFound).inline(),
        Failure::TooLarge => verdict(Code::ResourceExhausted).inline(),
        Failure::Mismatch | Failure::Truncated => verdict(Code::Aborted).inline(),
        Failure::TimedOut => verdict(Code::DeadlineExceeded).inline(),
        Failure::TooManyRequests { retry_after } => {
            verdict(Code::ResourceExhausted).retry_after(*retry_after)
        }
        Failure::Unavailable { retry_after } => {
            verdict(Code::Unavailable).retry_after(*retry_after)
        }
    }
}

/// Words of the cache, and what they mean for whoever pushes: most caches say
/// no more than that something is denied.
fn cache_said(code: Code, method: &str, error: &upstream::Error) -> String {
    match (code, method) {
        (Code::PermissionDenied | Code::Unauthenticated, "UpdateActionResult") => format!(
            "{error}; references are entries of the Action Cache, and it takes none from this caller"
        ),
        _ => error.to_string(),
    }
}

/// The cache's own code, with its details, if it answered; never inside the
/// answer, as clients do not retry those.
fn cache(error: &upstream::Error) -> Verdict {
    use upstream::Error as E;
    match error {
        E::Status { status, method } => {
            // Clients take UNIMPLEMENTED for the asset services themselves.
            let code = match (status.code(), *method) {
                (Code::Unimplemented, "UpdateActionResult") => Code::PermissionDenied,
                (Code::Unimplemented, _) => Code::FailedPrecondition,
                (code, _) => code,
            };
            let theirs = tonic_types::Status::decode(status.details()).unwrap_or_default();
            let fits = status.details().len() <= MAX_DETAILS;
            let verdict = Verdict {
                passed_on: if fits { theirs.details } else { Vec::new() },
                ..Verdict::new(code, cache_said(code, method, error))
            };
            let unavailable = status.code() == Code::Unavailable;
            if unavailable && status.get_details_retry_info().is_none() {
                return verdict.retry_after(None);
            }
            verdict
        }
        E::Unreachable { .. } => Verdict {
            detail: error.detail().map(str::to_owned),
            ..Verdict::new(Code::Unavailable, error).retry_after(None)
        },
        E::Malformed { .. } | E::Corrupt(_) | E::Source(_) => Verdict::new(Code::Internal, error),
        E::UnsupportedFunction(_) => {
            let verdict = Verdict::new(Code::InvalidArgument, error);
            verdict.violation("digest_function", error.to_string())
        }
        E::TooLarge { .. } => Verdict::new(Code::ResourceExhausted, error).inline(),
    }
}

/// As many violations as fit, at least one.
fn fitting(violations: &[FieldViolation]) -> Vec<FieldViolation> {
    let mut room = MAX_DETAILS;
    let fits = |violation: &&FieldViolation| {
        let size = violation.field.len() + violation.description.len() + 8;
        let fits = size <= room;
        room = room.saturating_sub(size);
        fits
    };
    let mut kept: Vec<FieldViolation> = violations.iter().take_while(fits).cloned().collect();
    if let (true, Some(first)) = (kept.is_empty(), violations.first()) {
        let mut first = first.clone();
        shorten(&mut first.description, MAX_DETAILS);
        kept.push(first);
    }
    kept
}

/// Cuts a text that takes more than `most` bytes in a header, where whatever
/// is not ASCII takes three for one.
fn shorten(text: &mut String, most: usize) {
    let mut used = 0;
    let cut = text.char_indices().find(|(_, c)| {
        used += if c.is_ascii_graphic() || *c == ' ' {
            1
        } else {
            3 * c.len_utf8()
        };
        used > most
    });
    if let Some((at, _)) = cut {
        text.truncate(at);
        text.push_str("...");
    }
}

/// A cache that could not be asked for its health at all.
pub(super) fn unreachable(error: tower::BoxError) -> Status {
    match error.downcast::<Status>() {
        Ok(status) => *status,
        Err(error) => Status::unavailable(format!("the cache cannot be asked: {error}")),
    }
}

#[cfg(test)]
mod tests;
