//! Statuses of a cache that does not know how to make them.

use super::*;
use crate::digest::InstanceName;
use crate::upstream::{Cache, CallContext};

async fn status_of(
    answer: impl Fn() -> http::Response<Body> + Send + Sync + Clone + 'static,
) -> Error {
    let service = tower::service_fn(move |_: http::Request<Body>| {
        let answer = answer();
        async move { Ok::<_, tower::BoxError>(answer) }.boxed()
    });
    Cache::new(Upstream::new(service))
        .limits(&CallContext::default(), &InstanceName::default())
        .await
        .unwrap_err()
}

fn head() -> http::response::Builder {
    http::Response::builder().header("content-type", "application/grpc")
}

#[tokio::test]
async fn details_that_are_not_base64_are_dropped() {
    // "YQ" is good, "YR" has bits after its end.
    for bad in ["***", "YR"] {
        let in_head = status_of(move || {
            let head = head().header("grpc-status", "7").header(DETAILS, bad);
            head.body(Body::empty()).unwrap()
        });
        let error = in_head.await;
        assert_eq!(error.code(), Some(tonic::Code::PermissionDenied));
        let text = error.to_string();
        assert!(text.contains("answered PERMISSION_DENIED to"), "{text}");

        let in_trailers = status_of(move || {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "7".parse().unwrap());
            trailers.insert(DETAILS, bad.parse().unwrap());
            let body = http_body_util::Empty::<bytes::Bytes>::new();
            let body = body.with_trailers(async move { Some(Ok(trailers)) });
            head().body(Body::new(body)).unwrap()
        });
        assert_eq!(
            in_trailers.await.code(),
            Some(tonic::Code::PermissionDenied)
        );
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_decoded_is_the_caches_fault() {
    let error = status_of(|| {
        let frame: &[u8] = &[0, 0, 0, 0, 2, 0xff, 0xff];
        let body = http_body_util::Full::new(bytes::Bytes::from_static(frame));
        head().body(Body::new(body)).unwrap()
    });
    assert!(matches!(error.await, Error::Malformed { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_never_answers_is_given_up() {
    let service = tower::service_fn(|_: http::Request<Body>| {
        std::future::pending::<Result<http::Response<Body>, tower::BoxError>>().boxed()
    });
    let error = Cache::new(Upstream::new(service))
        .limits(&CallContext::default(), &InstanceName::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(tonic::Code::Unavailable));
}

#[test]
fn causes_are_told_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: std::io::Error,
    }
    let refused = || std::io::Error::other("refused");
    let error = Layer {
        text: "connecting",
        source: refused(),
    };
    assert_eq!(chain(&error), "connecting: refused");
    let error = Layer {
        text: "connecting: refused",
        source: refused(),
    };
    assert_eq!(chain(&error), "connecting: refused");
}
