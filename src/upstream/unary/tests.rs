//! Answers as caches frame them, and as they should not.

use std::convert::Infallible;

use http_body::Frame;
use http_body_util::StreamBody;

use super::*;
use crate::proto::rev2;
use crate::upstream::Upstream;

static METHOD: Method = method!("ContentAddressableStorage", "FindMissingBlobs");

fn message() -> rev2::FindMissingBlobsResponse {
    let digest = |n: usize| rev2::Digest {
        hash: "ab".repeat(32),
        size_bytes: n as i64,
    };
    rev2::FindMissingBlobsResponse {
        missing_blob_digests: (0..50).map(digest).collect(),
    }
}

fn framed(message: &impl Message) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    message.encode(&mut bytes).unwrap();
    bytes
}

fn trailers(code: &'static str) -> Option<HeaderMap> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    Some(trailers)
}

/// What becomes of an answer with this head, these pieces and these trailers.
async fn answered(
    head: http::response::Builder,
    pieces: Vec<Vec<u8>>,
    trailers: Option<HeaderMap>,
) -> Result<rev2::FindMissingBlobsResponse, Error> {
    let frames = pieces.into_iter().map(|piece| Frame::data(piece.into()));
    let frames: Vec<_> = frames.chain(trailers.map(Frame::trailers)).collect();
    let frames = frames.into_iter().map(Ok::<Frame<Bytes>, Infallible>);
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let mut answer = Some(head.body(Body::new(body)).unwrap());
    let service = move |request: http::Request<Body>| {
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let path = "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";
        assert_eq!(request.uri().path(), path);
        let answer = answer.take().unwrap();
        async move {
            let sent = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(sent, framed(&message()), "the message came as it is");
            Ok::<_, tower::BoxError>(answer)
        }
    };
    let service = std::sync::Arc::new(parking_lot::Mutex::new(service));
    let service = tower::service_fn(move |request| (service.lock())(request));
    Channel::new(Upstream::new(service))
        .unary(&METHOD, &CallContext::default(), &message())
        .await
}

fn head() -> http::response::Builder {
    http::Response::builder().header("content-type", "application/grpc")
}

fn code(answer: Result<rev2::FindMissingBlobsResponse, Error>) -> Code {
    answer.unwrap_err().code().unwrap()
}

#[tokio::test]
async fn a_message_may_come_in_any_pieces() {
    let whole = framed(&message());
    for size in [1, 2, 3, 7, 1000, whole.len() - 1, whole.len()] {
        let pieces = whole.chunks(size).map(<[u8]>::to_vec).collect();
        let got = answered(head(), pieces, trailers("0")).await.unwrap();
        assert_eq!(got, message(), "in pieces of {size}");
    }
    let pieces = vec![Vec::new(), whole.clone(), Vec::new()];
    let got = answered(head(), pieces, trailers("0")).await.unwrap();
    assert_eq!(got, message());
    let empty = answered(head(), vec![vec![0; 5]], trailers("0")).await;
    assert_eq!(empty.unwrap(), rev2::FindMissingBlobsResponse::default());
}

#[tokio::test]
async fn what_follows_the_message_is_not_part_of_it() {
    let twice = [framed(&message()), framed(&message())].concat();
    let got = answered(head(), vec![twice], trailers("0")).await.unwrap();
    assert_eq!(got, message());
}

#[tokio::test]
async fn the_status_counts_wherever_it_stands() {
    let whole = || vec![framed(&message())];
    assert_eq!(
        code(answered(head(), whole(), trailers("7")).await),
        Code::PermissionDenied
    );
    let refused = head().header("grpc-status", "16");
    assert_eq!(
        code(answered(refused, vec![], None).await),
        Code::Unauthenticated
    );
    let good = head().header("grpc-status", "0");
    assert_eq!(answered(good, whole(), None).await.unwrap(), message());
    assert_eq!(code(answered(head(), whole(), None).await), Code::Unknown);
    let unavailable = head().status(503);
    assert_eq!(
        code(answered(unavailable, vec![], None).await),
        Code::Unavailable
    );
}

#[tokio::test]
async fn answers_that_are_none() {
    let cut = framed(&message())[..100].to_vec();
    assert_eq!(
        code(answered(head(), vec![cut], None).await),
        Code::Internal
    );
    assert_eq!(
        code(answered(head(), vec![], trailers("0")).await),
        Code::Internal
    );
    let flagged = vec![1, 0, 0, 0, 0];
    assert_eq!(
        code(answered(head(), vec![flagged], trailers("0")).await),
        Code::Internal
    );
    let huge = vec![0, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(
        code(answered(head(), vec![huge], trailers("0")).await),
        Code::OutOfRange
    );
    let zipped = head().header("grpc-encoding", "gzip");
    assert_eq!(
        code(answered(zipped, vec![framed(&message())], trailers("0")).await),
        Code::Unimplemented
    );
    let nonsense = vec![0, 0, 0, 0, 2, 0xff, 0xff];
    let error = answered(head(), vec![nonsense], trailers("0")).await;
    assert!(matches!(error, Err(Error::Malformed { .. })));
}
