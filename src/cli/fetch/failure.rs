//! Why a fetch failed, in words, and the exit code that says so.
//!
//! Not for: bad usage, which is found before anything is asked.
//! Called by: `cli::fetch`.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::call::code_name;
use crate::upstream::TransportError;

/// It cannot be reached, as in `sysexits.h` (EX_UNAVAILABLE).
const UNREACHABLE: u8 = 69;

/// As shells say of what Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// The end of a fetch that brought nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) text: String,
    pub(super) code: u8,
}

impl Failure {
    /// The fetch failed.
    pub(super) fn failed(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            code: 1,
        }
    }

    pub(super) fn interrupted() -> Self {
        Self {
            text: "interrupted; the server goes on with what it downloads".to_owned(),
            code: INTERRUPTED,
        }
    }

    /// A call that ended with a status, or without any answer.
    pub(super) fn of(status: &Status) -> Self {
        match transport(status) {
            Some(TransportError::Unreachable { address, reason }) => Self {
                text: format!(
                    "cannot reach {address}: {reason}; is a server running there? \
                     (--endpoint names another)"
                ),
                code: UNREACHABLE,
            },
            Some(TransportError::Lost { address, reason }) => Self {
                text: format!("the connection to {address} was lost: {reason}"),
                code: UNREACHABLE,
            },
            Some(other) => Self::failed(other.to_string()),
            None => Self::failed(words(status.code(), status.message(), &violations(status))),
        }
    }

    /// A status inside an answer.
    pub(super) fn inline(status: &tonic_types::Status) -> Self {
        Self::failed(words(Code::from_i32(status.code), &status.message, &[]))
    }
}

/// What went wrong on the way, if no answer came.
pub(super) fn transport(status: &Status) -> Option<&TransportError> {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// How long the server asks to wait before the same is asked again, if it
/// expects that to help.
pub(super) fn retry_delay(status: &Status) -> Option<Duration> {
    let codes = [Code::Unavailable, Code::ResourceExhausted];
    let info = status.get_details_retry_info()?;
    let asks = codes.contains(&status.code());
    asks.then(|| info.retry_delay.unwrap_or_default())
}

/// Fields of the request that the server did not like.
fn violations(status: &Status) -> Vec<String> {
    let bad = status.get_details_bad_request();
    let all = bad.into_iter().flat_map(|bad| bad.field_violations);
    all.map(|v| format!("{}: {}", v.field, v.description))
        .filter(|told| !status.message().contains(told.as_str()))
        .collect()
}

fn words(code: Code, message: &str, further: &[String]) -> String {
    let mut text = format!("the fetch failed: {}", code_name(code));
    for part in std::iter::once(message).chain(further.iter().map(String::as_str)) {
        if !part.is_empty() {
            text.push_str(": ");
            text.push_str(part);
        }
    }
    // What a server says goes to a terminal.
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;

    #[test]
    fn failures_say_what_happened_and_control_no_terminal() {
        let inline = tonic_types::Status {
            code: 5,
            message: "http://h/a: 404 \x1b[2JNot Found".to_owned(),
            details: Vec::new(),
        };
        let failure = Failure::inline(&inline);
        let text = "the fetch failed: NOT_FOUND: http://h/a: 404  [2JNot Found";
        assert_eq!((&*failure.text, failure.code), (text, 1));

        let bad = vec![FieldViolation::new("uris", "too many")];
        let details = ErrorDetails::with_bad_request(bad);
        let status = Status::with_error_details(Code::InvalidArgument, "no", details);
        let text = "the fetch failed: INVALID_ARGUMENT: no: uris: too many";
        assert_eq!(Failure::of(&status).text, text);
        assert_eq!(retry_delay(&status), None);
    }

    #[test]
    fn no_answer_is_another_exit_code() {
        let error = TransportError::Unreachable {
            address: "grpc://h:1".into(),
            reason: "refused".into(),
        };
        let failure = Failure::of(&Status::from_error(Box::new(error)));
        assert_eq!(failure.code, UNREACHABLE);
        assert!(failure.text.contains("grpc://h:1: refused"));
    }

    #[test]
    fn only_what_may_pass_is_asked_again() {
        let wait = Duration::from_secs(3);
        let details = ErrorDetails::with_retry_info(Some(wait));
        let with = |code| Status::with_error_details(code, "later", details.clone());
        assert_eq!(retry_delay(&with(Code::Unavailable)), Some(wait));
        assert_eq!(retry_delay(&with(Code::ResourceExhausted)), Some(wait));
        assert_eq!(retry_delay(&with(Code::NotFound)), None);
        assert_eq!(retry_delay(&Status::unavailable("now")), None);
    }
}
