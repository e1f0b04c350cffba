//! The whole table, one row per variant.

use std::sync::Arc;

use super::*;
use crate::digest::{self, Digest, DigestFunction};

fn not_found(text: &str) -> ResolveError {
    ResolveError::NotFound {
        text: text.to_owned(),
        missed: crate::resolver::Missed::Absent,
    }
}

fn digest() -> Digest {
    Digest::of(DigestFunction::Sha256, b"x").unwrap()
}

fn origin(failure: Failure) -> ResolveError {
    ResolveError::Fetch(FetchError::Origin {
        failure,
        uri_index: 0,
        message: "m".into(),
        detail: None,
        attempts: 1,
    })
}

fn cache(error: upstream::Error) -> ResolveError {
    ResolveError::Upstream(error)
}

type Row = (ResolveError, Code, bool);

/// Every variant with its code and whether it goes inside the answer.
fn table() -> Vec<Row> {
    let mut rows = own_rows();
    rows.extend(origin_rows());
    rows.extend(cache_rows());
    rows
}

fn own_rows() -> Vec<Row> {
    use ResolveError as E;
    vec![
        (not_found("m"), Code::NotFound, true),
        (
            E::Unsupported(vec!["foo".into()]),
            Code::InvalidArgument,
            false,
        ),
        (
            E::NotAnnounced {
                function: DigestFunction::Md5,
                announced: Arc::from([DigestFunction::Sha256]),
            },
            Code::InvalidArgument,
            false,
        ),
        (
            E::NotComputable(DigestFunction::Vso),
            Code::InvalidArgument,
            false,
        ),
        (
            E::Digest(digest::Error::Missing),
            Code::InvalidArgument,
            false,
        ),
        (E::PushDisabled, Code::PermissionDenied, false),
        (
            E::Missing {
                function: DigestFunction::Sha256,
                digests: vec![digest()],
            },
            Code::FailedPrecondition,
            false,
        ),
        (
            E::NotADirectory {
                digest: digest(),
                reason: "m".into(),
            },
            Code::InvalidArgument,
            false,
        ),
        (E::TreeTooLarge("m".into()), Code::ResourceExhausted, false),
        (E::Stopped, Code::Unavailable, false),
        (E::Panicked, Code::Internal, false),
    ]
}

fn origin_rows() -> Vec<Row> {
    vec![
        (origin(Failure::NotFound), Code::NotFound, true),
        (origin(Failure::Refused), Code::PermissionDenied, true),
        (origin(Failure::Disallowed), Code::PermissionDenied, true),
        (origin(Failure::Unusable), Code::NotFound, true),
        (origin(Failure::TooLarge), Code::ResourceExhausted, true),
        (origin(Failure::Mismatch), Code::Aborted, true),
        (origin(Failure::Truncated), Code::Aborted, true),
        (origin(Failure::TimedOut), Code::DeadlineExceeded, true),
        (
            origin(Failure::TooManyRequests { retry_after: None }),
            Code::ResourceExhausted,
            false,
        ),
        (
            origin(Failure::Unavailable { retry_after: None }),
            Code::Unavailable,
            false,
        ),
    ]
}

fn cache_rows() -> Vec<Row> {
    use ResolveError as E;
    use upstream::Error as U;
    let status = |code| U::from_status("Get", Status::new(code, "m"));
    vec![
        (
            E::Fetch(FetchError::Upstream(status(Code::Unavailable))),
            Code::Unavailable,
            false,
        ),
        (
            E::Fetch(FetchError::NoRoom("m".into())),
            Code::ResourceExhausted,
            false,
        ),
        (
            E::Fetch(FetchError::Internal("m".into())),
            Code::Internal,
            false,
        ),
        (
            E::Fetch(FetchError::NoRoom("m".into())),
            Code::ResourceExhausted,
            false,
        ),
        (cache(status(Code::Unavailable)), Code::Unavailable, false),
        (cache(status(Code::NotFound)), Code::NotFound, false),
        (
            cache(status(Code::Unauthenticated)),
            Code::Unauthenticated,
            false,
        ),
        (
            cache(U::Malformed {
                method: "Get",
                reason: "m".into(),
            }),
            Code::Internal,
            false,
        ),
        (cache(U::Corrupt(digest())), Code::Internal, false),
        (
            cache(U::UnsupportedFunction(DigestFunction::Vso)),
            Code::InvalidArgument,
            false,
        ),
        (
            cache(U::TooLarge { size: 2, limit: 1 }),
            Code::ResourceExhausted,
            true,
        ),
        (cache(U::Source("m".into())), Code::Internal, false),
    ]
}

#[test]
fn every_variant_has_its_row() {
    for (error, code, inline) in table() {
        let verdict = Verdict::from(&error);
        assert_eq!((verdict.code, verdict.inline), (code, inline), "{error:?}");
        let status = verdict.locate(&[Uri::new("urn:x")], "id").to_status();
        assert_eq!(status.code(), code);
        assert!(status.message().contains("[request id]"), "{status}");
        let details = status.get_error_details();
        let asks_to_retry = details.retry_info().is_some();
        let retried = code == Code::Unavailable || status.message().contains("429");
        assert!(asks_to_retry || !retried, "{error:?}");
        assert_eq!(
            details.bad_request().is_some(),
            code == Code::InvalidArgument
        );
    }
}

#[test]
fn both_channels_say_the_same() {
    for (error, code, _) in table() {
        let verdict = Verdict::from(&error);
        let message = verdict.to_message();
        assert_eq!(message.code, code as i32);
        assert_eq!(message.message, verdict.message());
        assert_eq!(verdict.to_status().message(), verdict.message());
    }
}

#[test]
fn the_caches_own_details_are_passed_on() {
    let theirs = Status::with_error_details(
        Code::FailedPrecondition,
        "no",
        ErrorDetails::with_precondition_failure_violation("MISSING", "blobs/x/1", "gone"),
    );
    let error = cache(upstream::Error::from_status("Update", theirs));
    let status = Verdict::from(&error).to_status();
    let details = status.get_details_precondition_failure().unwrap();
    assert_eq!(details.violations[0].subject, "blobs/x/1");
}

#[test]
fn a_cache_that_takes_no_references_is_told_as_one() {
    let said = |code, method| {
        let status = Status::new(code, "denied");
        let verdict = Verdict::from(&cache(upstream::Error::from_status(method, status)));
        let tells = verdict.message().contains("references are entries");
        (verdict.code, tells)
    };
    let update = "UpdateActionResult";
    assert_eq!(said(Code::Unimplemented, update).0, Code::PermissionDenied);
    for code in [
        Code::PermissionDenied,
        Code::Unauthenticated,
        Code::Unimplemented,
    ] {
        assert!(said(code, update).1, "{code}");
        assert!(!said(code, "FindMissingBlobs").1, "{code}");
    }
    assert!(!said(Code::Unavailable, update).1);
}

#[test]
fn a_uri_is_named_once_and_redacted() {
    let uris = [Uri::new("https://u:p@h/a"), Uri::new("https://h/b")];
    let verdict = Verdict::from(&not_found("gone"));
    let said = verdict.locate(&uris, "7").message().to_owned();
    assert_eq!(said, "https://h/a (one of 2 URIs): gone [request 7]");
    let verdict = Verdict::from(&not_found("https://h/a: 404"));
    assert_eq!(
        verdict.locate(&uris, "7").message(),
        "https://h/a: 404 [request 7]"
    );
}

#[test]
fn a_status_fits_the_headers_clients_accept() {
    let names: Vec<String> = (0..32).map(|i| format!("{i}{}", "n".repeat(500))).collect();
    let digests = vec![digest(); 1000];
    let function = DigestFunction::Sha256;
    for error in [
        ResolveError::Unsupported(names.clone()),
        not_found(&"é".repeat(5000)),
        ResolveError::Missing { function, digests },
    ] {
        let status = Verdict::from(&error)
            .locate(&[Uri::new("urn:x")], "id")
            .to_status();
        let head = status.clone().into_http::<tonic::body::Body>();
        let bytes = head
            .headers()
            .iter()
            .map(|(n, v)| n.as_str().len() + v.len() + 32);
        let bytes: usize = bytes.sum();
        assert!(bytes < 7500, "{bytes}: grpc-java takes 8 KiB");
        assert!(status.message().ends_with("[request id]"), "{status}");
    }
    let status = Verdict::from(&ResolveError::Unsupported(names)).to_status();
    let kept = status.get_details_bad_request().unwrap();
    assert!(!kept.field_violations.is_empty());
}
