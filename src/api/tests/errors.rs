//! Part A, section 4, and who gets failures where.

use super::*;
use crate::api::ErrorMode;
use crate::fetcher::Failure;
use crate::resolver::testing::refused;

#[tokio::test]
async fn s1_s2_s3_s5_failures_outside_the_server_are_inline() {
    let server = Server::new();
    for (failure, want) in [
        (Failure::NotFound, Code::NotFound),
        (Failure::Unusable, Code::NotFound),
        (Failure::Refused, Code::PermissionDenied),
        (Failure::Mismatch, Code::Aborted),
        (Failure::Truncated, Code::Aborted),
        (Failure::TooLarge, Code::ResourceExhausted),
        (Failure::TimedOut, Code::DeadlineExceeded),
    ] {
        server.world.fetcher.fails(failure);
        let (code, text) = inline(server.fetch(blob(&[HTTP], &[])).await);
        assert_eq!(code, want);
        assert!(
            text.contains(HTTP) && text.contains("the origin said no"),
            "{text}"
        );
        assert!(text.contains("[request "), "{text}");
    }
    assert_eq!(
        inline(server.fetch(blob(&[URN], &[])).await).0,
        Code::NotFound
    );
    assert!(
        server.world.store.entries.lock().is_empty(),
        "no reference of a failure"
    );
}

#[tokio::test]
async fn s4_s7_what_a_retry_may_mend_is_the_calls_status() {
    let server = Server::new();
    let retry_after = Some(Duration::from_secs(7));
    for (failure, want, delay) in [
        (
            Failure::TooManyRequests { retry_after },
            Code::ResourceExhausted,
            7,
        ),
        (Failure::Unavailable { retry_after }, Code::Unavailable, 7),
        (
            Failure::Unavailable { retry_after: None },
            Code::Unavailable,
            1,
        ),
    ] {
        server.world.fetcher.fails(failure);
        let status = server.fetch(blob(&[HTTP], &[])).await.unwrap_err();
        assert_eq!(status.code(), want);
        let retry = status.get_details_retry_info().unwrap().retry_delay;
        assert_eq!(retry, Some(Duration::from_secs(delay)));
        assert!(status.message().contains(HTTP), "{status}");
    }
}

#[tokio::test]
async fn s8_s11_the_caches_refusal_is_passed_on_before_the_origin_is_asked() {
    let server = Server::new();
    for code in [
        Code::Unavailable,
        Code::ResourceExhausted,
        Code::Internal,
        Code::Unauthenticated,
        Code::PermissionDenied,
    ] {
        *server.world.store.get_error.lock() = Some(refused(code).into());
        // Also where no entry could have answered.
        let mut message = blob(&[HTTP], &[]);
        message.oldest_content_accepted = from_now(3600);
        let status = server.fetch(message).await.unwrap_err();
        assert_eq!(status.code(), code);
        assert!(status.message().contains("says the cache"), "{status}");
        let retry = status.get_details_retry_info().is_some();
        assert_eq!(retry, code == Code::Unavailable);
    }
    assert_eq!(server.world.fetcher.count(), 0);
}

#[tokio::test]
async fn s8_an_unreachable_cache_is_never_a_miss() {
    let server = Server::new();
    *server.world.announce.0.lock() = Err(refused(Code::Unavailable));
    let status = server.fetch(blob(&[URN], &[])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        code(server.push(push(&[URN], &[], b"x")).await),
        Code::Unavailable
    );
}

#[tokio::test]
async fn s11_a_refused_reference_write_does_not_fail_the_fetch() {
    let server = Server::new();
    *server.world.store.put_error.lock() = Some(refused(Code::PermissionDenied).into());
    assert_eq!(
        digest(server.fetch(blob(&[HTTP], &[])).await),
        sha256(b"from the origin")
    );
    assert_eq!(
        code(server.push(push(&[URN], &[], b"x")).await),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn s9_clients_that_ignore_inline_failures_get_the_calls_status() {
    for (tool, version) in [
        ("bazel", ""),
        ("bazel", "4.2.3"),
        ("bazel", "8.1.1"),
        ("bazel", "no_version"),
        ("Please", "17.8.0"),
    ] {
        let server = Server::new().tool(tool, version);
        let status = server.fetch(blob(&[URN], &[])).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{tool} {version}");
        assert!(status.message().contains(URN), "{status}");
    }
    for (tool, version) in [("bazel", "8.2.0"), ("bazel", "9.1.0rc2"), ("buck2", "")] {
        let server = Server::new().tool(tool, version);
        inline(server.fetch(blob(&[URN], &[])).await);
    }
    inline(Server::new().fetch(blob(&[URN], &[])).await);
    let v1 = "urn:fdc:buildstream.build:2020:v1:ref";
    assert_eq!(
        code(Server::new().fetch(blob(&[v1], &[])).await),
        Code::NotFound
    );
    let answer = Server::new().fetch_directory(directory(&[v1], &[])).await;
    assert_eq!(code(answer), Code::NotFound);
}

#[tokio::test]
async fn s9_the_channel_can_be_forced() {
    let mut server = Server::new().tool("bazel", "4.2.3");
    server.errors.mode = ErrorMode::Inline;
    inline(server.fetch(blob(&[URN], &[])).await);
    let mut server = Server::new();
    server.errors.mode = ErrorMode::Grpc;
    assert_eq!(code(server.fetch(blob(&[URN], &[])).await), Code::NotFound);
    let mut server = Server::new().tool("mytool", "1");
    server.errors.grpc_clients = vec!["mytool".into()];
    assert_eq!(code(server.fetch(blob(&[URN], &[])).await), Code::NotFound);
}

#[tokio::test]
async fn s10_status_is_present_on_success() {
    let answer = Server::new().fetch(blob(&[HTTP], &[])).await.unwrap();
    assert_eq!(answer.status.unwrap().code, 0);
}

#[tokio::test]
async fn a_panic_in_a_fetch_is_internal_for_its_own_call() {
    let server = Server::new();
    let panics = &server.world.fetcher.panics;
    panics.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(code(server.fetch(blob(&[HTTP], &[])).await), Code::Internal);
    panics.store(false, std::sync::atomic::Ordering::SeqCst);
    digest(server.fetch(blob(&[HTTP], &[])).await);
}

#[tokio::test]
async fn what_the_cache_lacks_is_not_said_of_the_asset_services() {
    use crate::upstream::Error;
    let server = Server::new();
    let lacks = |method| Error::from_status(method, Status::unimplemented("not here"));
    *server.world.store.put_error.lock() = Some(lacks("UpdateActionResult").into());
    let answer = server.push(push(&[URN], &[], b"x")).await;
    assert_eq!(code(answer), Code::PermissionDenied);
    *server.world.store.get_error.lock() = Some(lacks("GetActionResult").into());
    let answer = server.fetch(blob(&[URN], &[])).await;
    assert_eq!(code(answer), Code::FailedPrecondition);
}
