//! Judging answers: which channel an error came by, its code, text and details.

use std::time::Duration;

use assetgate::proto::asset::{FetchBlobResponse, FetchDirectoryResponse};
use assetgate::proto::rev2::Digest;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What both fetch responses have.
pub trait Answer: std::fmt::Debug {
    fn status(&self) -> &tonic_types::Status;
    fn digest(&self) -> Option<&Digest>;
    fn uri(&self) -> String;
}

macro_rules! answer {
    ($message:ty, $digest:ident) => {
        impl Answer for $message {
            fn status(&self) -> &tonic_types::Status {
                self.status.as_ref().expect("status is always present")
            }
            fn digest(&self) -> Option<&Digest> {
                self.$digest.as_ref()
            }
            fn uri(&self) -> String {
                String::from_utf8_lossy(&self.uri).into_owned()
            }
        }
    };
}

answer!(FetchBlobResponse, blob_digest);
answer!(FetchDirectoryResponse, root_directory_digest);

/// The digest of a successful answer.
#[track_caller]
pub fn hit<A: Answer>(answer: Result<A, Status>) -> Digest {
    let answer = answer.expect("the call succeeds");
    assert_eq!(answer.status().code, 0, "{answer:?}");
    answer.digest().expect("success carries a digest").clone()
}

/// The message of a failure told inside an OK response, which carries no digest.
#[track_caller]
pub fn inline<A: Answer>(answer: Result<A, Status>, code: Code) -> String {
    let answer = answer.expect("this failure is told inline, the call itself succeeds");
    assert_eq!(Code::from_i32(answer.status().code), code, "{answer:?}");
    assert_eq!(answer.digest(), None, "a failure never carries a digest");
    let message = answer.status().message.clone();
    assert!(!message.is_empty(), "a failure says why");
    message
}

/// The status of a failure told as status of the call.
#[track_caller]
pub fn refused<A: std::fmt::Debug>(answer: Result<A, Status>, code: Code) -> Status {
    let status = answer.expect_err("this failure is a status of the call");
    assert_eq!(status.code(), code, "{status:?}");
    assert!(!status.message().is_empty(), "a failure says why");
    status
}

/// Field and description of each violation in the `BadRequest` detail.
#[track_caller]
pub fn violations(status: &Status) -> Vec<(String, String)> {
    let detail = status
        .get_details_bad_request()
        .unwrap_or_else(|| panic!("no BadRequest in {status:?}"));
    let all = detail.field_violations.into_iter();
    all.map(|v| (v.field, v.description)).collect()
}

/// Fields named in the `BadRequest` detail.
#[track_caller]
pub fn fields(status: &Status) -> Vec<String> {
    violations(status).into_iter().map(|(f, _)| f).collect()
}

/// Type and subject of each violation in the `PreconditionFailure` detail.
#[track_caller]
pub fn missing(status: &Status) -> Vec<(String, String)> {
    let detail = status
        .get_details_precondition_failure()
        .unwrap_or_else(|| panic!("no PreconditionFailure in {status:?}"));
    let all = detail.violations.into_iter();
    all.map(|v| (v.r#type, v.subject)).collect()
}

/// The delay of the `RetryInfo` detail.
#[track_caller]
pub fn retry_delay(status: &Status) -> Duration {
    status
        .get_details_retry_info()
        .unwrap_or_else(|| panic!("no RetryInfo in {status:?}"))
        .retry_delay
        .expect("RetryInfo says when")
}

/// Asserts that a text for people holds each of these.
#[track_caller]
pub fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
