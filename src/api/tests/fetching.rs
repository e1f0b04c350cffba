//! Part A, sections 3, 5 and 8, as far as they show here.

use std::sync::atomic::Ordering;

use super::*;
use crate::fetcher::{Failure, FetchError};
use crate::resolver::testing::content;

#[tokio::test]
async fn u1_u3_any_uri_in_request_order() {
    let server = Server::new();
    server
        .push(push(&["urn:x:strong"], &[], b"strong"))
        .await
        .unwrap();
    server
        .push(push(&["urn:x:weak"], &[], b"weak"))
        .await
        .unwrap();
    let answer = server
        .fetch(blob(&["urn:x:miss", "urn:x:weak"], &[]))
        .await
        .unwrap();
    assert_eq!(answer.uri, "urn:x:weak");
    let both = ["urn:x:strong", "urn:x:weak"];
    let answer = server.fetch(blob(&both, &[])).await.unwrap();
    assert_eq!(answer.uri, "urn:x:strong");
    assert_eq!(answer.blob_digest, Some(sha256(b"strong")));
    // A URI whose entry does not match is skipped.
    server
        .push(push(&["urn:x:weak"], &[("q", "1")], b"q"))
        .await
        .unwrap();
    let answer = server.fetch(blob(&both, &[("q", "1")])).await.unwrap();
    assert_eq!(answer.uri, "urn:x:weak");
}

#[tokio::test]
async fn u2_every_pushed_uri_answers() {
    let server = Server::new();
    server
        .push(push(&["urn:a", "urn:b"], &[], b"x"))
        .await
        .unwrap();
    for of in [&["urn:a"][..], &["urn:b"], &["urn:b", "urn:z"]] {
        assert_eq!(digest(server.fetch(blob(of, &[])).await), sha256(b"x"));
    }
}

#[tokio::test]
async fn u4_the_uri_that_answered_or_failed_is_named() {
    let server = Server::new();
    server.world.fetcher.script(|request| {
        let mut fetched = content(request, b"second");
        fetched.uri_index = 1;
        Ok(fetched)
    });
    let answer = server.fetch(blob(&[HTTP, MIRROR], &[])).await.unwrap();
    assert_eq!(answer.uri, MIRROR);
    server.world.fetcher.script(|_| {
        Err(FetchError::Origin {
            failure: Failure::Refused,
            uri_index: 1,
            message: "HTTP 403".into(),
            detail: None,
            attempts: 2,
        })
    });
    let (answer, report) = server.fetch_noting(blob(&[HTTP, MIRROR], &[])).await;
    assert_eq!(report.attempts, 2, "counted on failure too");
    let answer = answer.unwrap();
    assert_eq!(answer.uri, MIRROR, "filled on failure too");
    let (code, text) = inline(Ok(answer));
    assert_eq!(code, Code::PermissionDenied);
    assert!(text.contains(MIRROR) && text.contains("HTTP 403"), "{text}");
}

#[tokio::test]
async fn u5_disallowed_addresses() {
    let server = Server::new();
    server.world.fetcher.fails(Failure::Disallowed);
    assert_eq!(
        inline(server.fetch(blob(&[HTTP], &[])).await).0,
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn u6_urns_are_opaque_and_never_fetched() {
    let server = Server::new();
    server
        .push(push(&["urn:x:%41/../B"], &[], b"x"))
        .await
        .unwrap();
    for other in ["urn:x:A/../B", "urn:x:B", "URN:x:%41/../B"] {
        assert_eq!(
            inline(server.fetch(blob(&[other], &[])).await).0,
            Code::NotFound
        );
    }
    digest(server.fetch(blob(&["urn:x:%41/../B"], &[])).await);
    assert_eq!(server.world.fetcher.count(), 0);
}

#[tokio::test]
async fn u7_a_checksum_hit_names_the_first_uri() {
    let server = Server::new();
    let pinned = sri(DigestFunction::Sha512, b"from the origin");
    let with = [("checksum.sri", pinned.as_str())];
    digest(server.fetch(blob(&[HTTP], &with)).await);
    server.holds(DigestFunction::Sha256, b"from the origin");
    let (answer, report) = server.fetch_noting(blob(&[MIRROR, HTTP], &with)).await;
    assert_eq!(answer.unwrap().uri, MIRROR);
    assert_eq!(report.outcome, "hit_checksum");
    assert_eq!(
        server.world.fetcher.count(),
        1,
        "H4: the origin is not needed"
    );
}

#[tokio::test]
async fn u8_the_first_success_is_returned_uncompared() {
    let server = Server::new();
    server.push(push(&["urn:a"], &[], b"a")).await.unwrap();
    server.push(push(&["urn:b"], &[], b"b")).await.unwrap();
    let answer = server.fetch(blob(&["urn:b", "urn:a"], &[])).await;
    assert_eq!(digest(answer), sha256(b"b"));
}

#[tokio::test]
async fn u9_no_rest_and_no_unknown_methods() {
    for path in [
        "/v1/main/assets:fetchBlob",
        "/build.bazel.remote.asset.v1.Fetch/Nope",
    ] {
        let request = http::Request::post(path).header("content-type", "application/grpc");
        let request = request.body(tonic::body::Body::empty()).unwrap();
        let response = Server::new().routes().oneshot(request).await.unwrap();
        assert_eq!(
            response.headers().get("grpc-status").unwrap(),
            "12",
            "{path}"
        );
    }
}

#[tokio::test]
async fn t1_t4_the_timeout_is_the_fetchers_to_bound() {
    let server = Server::new();
    digest(server.fetch(blob(&[HTTP], &[])).await);
    for seconds in [1, 1_000_000] {
        let mut message = blob(&[HTTP], &[]);
        message.timeout = Some(prost_types::Duration { seconds, nanos: 0 });
        digest(server.fetch(message).await);
    }
    let requests = server.world.fetcher.requests.lock();
    let asked: Vec<_> = requests
        .iter()
        .map(|r| r.timeout.map(|t| t.as_secs()))
        .collect();
    assert_eq!(asked, [None, Some(1), Some(1_000_000)]);
}

#[tokio::test]
async fn t2_a_caller_who_leaves_does_not_end_the_fetch() {
    let server = Server::new();
    let fetcher = &server.world.fetcher;
    fetcher.hangs.store(true, Ordering::SeqCst);
    let call = tokio::time::timeout(SHORT, server.fetch(blob(&[HTTP], &[])));
    assert!(call.await.is_err());
    assert_eq!(fetcher.count(), 1);
    tokio::time::sleep(SHORT).await;
    assert_eq!(fetcher.dropped.load(Ordering::SeqCst), 0);
    assert!(
        server.world.drain.finish(Duration::from_secs(5)).await,
        "a stop does not wait for it"
    );
    assert_eq!(fetcher.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn d3_kinds_are_separate() {
    let server = Server::new();
    server.push(push(&[URN], &[], b"x")).await.unwrap();
    server
        .push_directory(push_directory(&["urn:dir"], b"tree"))
        .await
        .unwrap();
    let answer = server
        .fetch_directory(directory(&[URN], &[]))
        .await
        .unwrap();
    assert_eq!(answer.status.unwrap().code, Code::NotFound as i32);
    assert_eq!(
        inline(server.fetch(blob(&["urn:dir"], &[])).await).0,
        Code::NotFound
    );
    let answer = server
        .fetch_directory(directory(&["urn:dir"], &[]))
        .await
        .unwrap();
    assert_eq!(answer.root_directory_digest, Some(sha256(b"tree")));
}

#[tokio::test]
async fn d7_a_directory_nobody_pushed_says_what_is_missing() {
    let server = Server::new();
    let answer = server
        .fetch_directory(directory(&[HTTP], &[("foo", "1")]))
        .await
        .unwrap();
    let status = answer.status.unwrap();
    assert_eq!(status.code, Code::NotFound as i32);
    assert!(
        status
            .message
            .contains("unpacking archives is not built in yet"),
        "{status:?}"
    );
    assert_eq!(answer.uri, HTTP);
    assert_eq!(answer.root_directory_digest, None);
}

#[tokio::test]
async fn outcomes_are_reported() {
    let server = Server::new();
    let (_, report) = server.fetch_noting(blob(&[HTTP], &[])).await;
    assert_eq!(
        (report.outcome, report.bytes, report.attempts),
        ("fetched", 15, 1)
    );
    assert_eq!(
        (report.kind, report.origin_host.as_str()),
        ("blob", "origin.example")
    );
    server.push(push(&[URN], &[], b"x")).await.unwrap();
    let (_, report) = server.fetch_noting(blob(&[URN], &[])).await;
    assert_eq!(report.outcome, "hit_exact");
    let (_, report) = server.fetch_noting(blob(&["urn:no"], &[])).await;
    assert_eq!(
        (report.outcome, report.inline_code),
        ("miss", Some("NOT_FOUND"))
    );
    let (_, report) = server.fetch_noting(blob(&[], &[])).await;
    assert_eq!((report.outcome, report.inline_code), ("refused", None));
}

#[tokio::test]
async fn h5_what_selects_a_representation_is_no_qualifier_to_clients() {
    let server = Server::new();
    for outcome in ["fetched", "hit_exact"] {
        let mut message = blob(&[HTTP], &[("http_header:Accept", "text/plain")]);
        message.oldest_content_accepted = from_now(-60);
        let (answer, report) = server.fetch_noting(message).await;
        assert_eq!(report.outcome, outcome);
        assert_eq!(answer.unwrap().qualifiers, []);
    }
}
