//! What becomes of bodies, without connections.
#![allow(
    clippy::disallowed_methods,
    reason = "a test's tasks end with its runtime"
)]

use bytes::{BufMut as _, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tonic::{Code, Status};
use tower::service_fn;

use super::*;
use crate::budget::{Budget, LEAST};
use crate::proto::asset;

const UNARY: &str = "/build.bazel.remote.asset.v1.Fetch/FetchBlob";
const WRITE: &str = "/google.bytestream.ByteStream/Write";

fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.extend_from_slice(message);
    out.freeze()
}

/// A body of these frames, which does not end if it is `open`.
fn body(frames: Vec<Bytes>, open: bool) -> Body {
    let frames = stream::iter(frames.into_iter().map(|f| Ok::<_, Status>(Frame::data(f))));
    let rest = stream::poll_fn(move |_| {
        if open {
            Poll::Pending
        } else {
            Poll::Ready(None::<Result<Frame<Bytes>, Status>>)
        }
    });
    Body::new(StreamBody::new(futures_util::StreamExt::chain(
        frames, rest,
    )))
}

/// Answers how many bytes came, or with the status of the body.
fn counting() -> impl Calls {
    service_fn(|request: Request<Body>| async move {
        Ok::<_, Infallible>(match request.into_body().collect().await {
            Ok(body) => Response::builder()
                .header("bytes", body.to_bytes().len())
                .body(Body::default())
                .unwrap_or_default(),
            Err(status) => status.into_http(),
        })
    })
}

async fn answer(share: &Share, path: &str, body: Body) -> Result<usize, Code> {
    let mut intake = IntakeLayer::here().layer(counting());
    let mut request = Request::post(path).body(body).unwrap();
    request.extensions_mut().insert(share.clone());
    let Ok(response) = intake.call(request).await;
    match response.headers().get("bytes") {
        Some(bytes) => Ok(bytes.to_str().unwrap().parse().unwrap()),
        None => Err(Status::from_header_map(response.headers()).unwrap().code()),
    }
}

#[tokio::test(start_paused = true)]
async fn messages_come_whole_however_they_are_cut() {
    let budget = Budget::new(LEAST);
    let share = budget.share();
    for length in [0, 7, 3_000, 700_000] {
        let whole = frame(&vec![b'x'; length]);
        for cut in [1, 5, 6, 1_000, 100_000, usize::MAX] {
            let count = whole.len() / cut.min(whole.len());
            if count > 1_000_000 {
                continue;
            }
            let frames = whole.chunks(cut).map(Bytes::copy_from_slice).collect();
            let got = answer(&share, UNARY, body(frames, false)).await;
            assert_eq!(got, Ok(whole.len()), "{length} cut at {cut}");
        }
    }
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_stands_still_ends_by_its_kind() {
    let share = Budget::new(LEAST).share();
    for (path, seconds) in [(UNARY, 10), (WRITE, 120)] {
        for frames in [
            vec![],
            vec![frame(b"abc").slice(..6)],
            vec![frame(b"whole, but the call goes on")],
            vec![frame(&[0; 600_000]).slice(..500_000)],
        ] {
            let begun = tokio::time::Instant::now();
            let got = answer(&share, path, body(frames, true)).await;
            assert_eq!(got, Err(Code::DeadlineExceeded), "{path}");
            assert_eq!(begun.elapsed().as_secs(), seconds, "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_messages_are_one_too_many_for_a_unary_call_only() {
    let share = Budget::new(LEAST).share();
    let two = || vec![frame(b"one"), frame(b"two")];
    let got = answer(&share, UNARY, body(two(), false)).await;
    assert_eq!(got, Err(Code::Internal));
    let got = answer(&share, WRITE, body(two(), false)).await;
    assert_eq!(got, Ok(16));
}

#[tokio::test(start_paused = true)]
async fn what_the_service_refuses_by_its_prefix_is_not_read() {
    let budget = Budget::new(LEAST);
    let share = budget.share();
    let mut long = BytesMut::from(&frame(b"")[..]);
    long[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
    let frames = vec![long.freeze(), Bytes::from_static(&[0; 1000])];
    // It would be cut off at once; this one reads on.
    let got = answer(&share, UNARY, body(frames, false)).await;
    assert_eq!(got, Ok(1005));
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_waits_and_the_time_is_ours() {
    let budget = Budget::new(LEAST);
    let (share, elsewhere) = (budget.share(), budget.share());
    let mut full = elsewhere.claim();
    full.charge(LEAST);
    let whole = frame(&[0; 600_000]);
    let frames: Vec<_> = whole.chunks(100_000).map(Bytes::copy_from_slice).collect();
    let length = whole.len();
    let waiting = tokio::spawn(async move { answer(&share, UNARY, body(frames, false)).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(budget.waiting(), 1);
    assert!(!waiting.is_finished());
    drop(full);
    assert_eq!(waiting.await.unwrap(), Ok(length));
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn more_than_the_window_has_room_for_are_refused() {
    let budget = Budget::new(LEAST);
    let (share, elsewhere) = (budget.share(), budget.share());
    let mut full = elsewhere.claim();
    full.charge(LEAST);
    let part = || vec![frame(&[0; 600_000]).slice(..200_000)];
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let share = share.clone();
            tokio::spawn(async move { answer(&share, UNARY, body(part(), true)).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut refused = 0;
    for call in &calls {
        refused += usize::from(call.is_finished());
    }
    assert_eq!((refused, budget.waiting()), (4, 16));
    // A small one still passes.
    let got = answer(&share, UNARY, body(vec![frame(b"small")], false)).await;
    assert_eq!(got, Ok(10));
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Fetch, whatever is asked.
struct Nothing;

#[tonic::async_trait]
impl asset::fetch_server::Fetch for Nothing {
    async fn fetch_blob(
        &self,
        _: tonic::Request<asset::FetchBlobRequest>,
    ) -> Result<tonic::Response<asset::FetchBlobResponse>, Status> {
        Ok(tonic::Response::new(Default::default()))
    }

    async fn fetch_directory(
        &self,
        _: tonic::Request<asset::FetchDirectoryRequest>,
    ) -> Result<tonic::Response<asset::FetchDirectoryResponse>, Status> {
        Ok(tonic::Response::new(Default::default()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_walked_once() {
    let budget = Budget::new(LEAST);
    let service = || {
        let service = asset::fetch_server::FetchServer::new(Nothing);
        service.max_decoding_message_size(crate::proto::MAX_NATIVE_MESSAGE)
    };
    let here = IntakeLayer::here().layer(service());
    let elsewhere = Elsewhere::new(tokio::runtime::Handle::current());
    let far = IntakeLayer::new(service(), elsewhere).layer(service());
    for (mut intake, size) in [(here.clone(), 200_017), (here, 700_019), (far, 700_027)] {
        let message = asset::FetchBlobRequest {
            uris: vec!["x".repeat(size).into()],
            ..Default::default()
        };
        let message = prost::Message::encode_to_vec(&message);
        let frames = frame(&message)
            .chunks(16 << 10)
            .map(Bytes::copy_from_slice)
            .collect();
        let mut request = Request::post(UNARY).body(body(frames, false)).unwrap();
        request.extensions_mut().insert(budget.share());
        let Ok(response) = intake.call(request).await;
        let failed = Status::from_header_map(response.headers());
        assert!(failed.is_none(), "{failed:?}");
        let walks = crate::proto::estimate::WALKS.lock();
        let walks = walks.iter().filter(|(_, length)| *length == message.len());
        assert_eq!(walks.count(), 1, "{size}");
    }
}
