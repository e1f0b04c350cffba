//! The layers around a scripted service, in the order the server puts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tonic::Code;
use tower::{Layer as _, ServiceExt as _};

use super::*;
use crate::call::Call;

const FETCH_BLOB: &str = "/build.bazel.remote.asset.v1.Fetch/FetchBlob";

/// What the scripted service does.
#[derive(Clone, Copy)]
enum Act {
    Answer,
    Refuse,
    Panic,
    Hang,
    HangInBody,
}

#[derive(Clone, Default)]
struct Dropped(Arc<AtomicUsize>);

struct Guard(Dropped);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
    }
}

async fn act(act: Act, dropped: Dropped, request: Request<Body>) -> Response<Body> {
    let _guard = Guard(dropped);
    let call = Call::of(request.extensions());
    match act {
        Act::Answer => {
            call.note(|report| {
                report.outcome = "fetched";
                report.uri = "https://h/a?…".into();
                report.inline_code = Some("ABORTED");
                report.attempts = 3;
            });
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let body = http_body_util::Full::new(Bytes::from_static(b"x"))
                .with_trailers(std::future::ready(Some(Ok(trailers))))
                .map_err(|never| match never {});
            Response::new(Body::new(body))
        }
        Act::Refuse => tonic::Status::invalid_argument("no").into_http(),
        Act::Panic => panic!("a panic with s3cret in it"),
        Act::Hang => std::future::pending().await,
        Act::HangInBody => {
            let never = futures_util::stream::pending::<Result<_, std::convert::Infallible>>();
            let body = http_body_util::StreamBody::new(never);
            Response::new(Body::new(body.map_err(|never| match never {})))
        }
    }
}

fn stack(
    what: Act,
    dropped: &Dropped,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ use<> {
    let dropped = dropped.clone();
    let service = tower::service_fn(move |request| {
        let answer = act(what, dropped.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let service = CatchPanicLayer.layer(DeadlineLayer.layer(service));
    CallLayer.layer(ObserveLayer.layer(service))
}

fn request(timeout: Option<&str>) -> Request<Body> {
    let mut request = Request::post(FETCH_BLOB);
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    request.body(Body::empty()).unwrap()
}

/// Head and trailers of an answer, read to its end.
async fn call(what: Act, timeout: Option<&str>) -> (http::HeaderMap, http::HeaderMap) {
    let answer = stack(what, &Dropped::default()).oneshot(request(timeout));
    let (parts, body) = answer.await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    (parts.headers, body.trailers().cloned().unwrap_or_default())
}

fn code(headers: &http::HeaderMap) -> Code {
    Code::from_bytes(headers.get("grpc-status").expect("a status").as_bytes())
}

#[tokio::test]
async fn the_request_id_is_in_head_and_trailers() {
    let (head, trailers) = call(Act::Answer, None).await;
    let id = head.get(REQUEST_ID).unwrap();
    assert_eq!(id.len(), 16);
    assert_eq!(trailers.get(REQUEST_ID), Some(id));
    assert_eq!(code(&trailers), Code::Ok);
    let (head, trailers) = call(Act::Refuse, None).await;
    assert!(head.contains_key(REQUEST_ID), "trailers-only");
    assert!(trailers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn s6_the_calls_own_deadline() {
    let dropped = Dropped::default();
    let started = tokio::time::Instant::now();
    let answer = stack(Act::Hang, &dropped).oneshot(request(Some("1500m")));
    let answer = answer.await.unwrap();
    assert_eq!(code(answer.headers()), Code::DeadlineExceeded);
    assert_eq!(started.elapsed(), Duration::from_millis(1500));
    assert_eq!(dropped.0.load(Ordering::SeqCst), 1, "the call is dropped");
    // Also once the answer has begun.
    let (head, trailers) = call(Act::HangInBody, Some("2S")).await;
    assert!(!head.contains_key("grpc-status"));
    assert_eq!(code(&trailers), Code::DeadlineExceeded);
    // A call in time is left alone, and nonsense is refused.
    assert_eq!(code(&call(Act::Answer, Some("1H")).await.1), Code::Ok);
    assert_eq!(
        code(&call(Act::Answer, Some("soon")).await.0),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_panic_is_internal_for_its_own_call() {
    let (head, _) = call(Act::Panic, None).await;
    assert_eq!(code(&head), Code::Internal);
    let message = head.get("grpc-message").unwrap().to_str().unwrap();
    let id = head.get(REQUEST_ID).unwrap().to_str().unwrap();
    assert!(
        message.contains(id) && !message.contains("s3cret"),
        "{message}"
    );
    assert_eq!(code(&call(Act::Answer, None).await.1), Code::Ok);
}

/// Runs `work` and gives what was logged and counted meanwhile.
fn observed(work: impl Future<Output = ()>) -> (String, String) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .json()
        .finish();
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tracing::subscriber::with_default(subscriber, || {
        metrics::with_local_recorder(&recorder, || runtime.block_on(work));
    });
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    (log, metrics.render())
}

#[derive(Clone, Default)]
struct Log(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn one_event_and_the_counts_of_an_asset_call() {
    let (log, counts) = observed(async {
        call(Act::Answer, None).await;
    });
    let event: serde_json::Value = serde_json::from_str(log.trim()).unwrap();
    let fields = &event["fields"];
    for (field, want) in [
        ("rpc", "FetchBlob"),
        ("code", "OK"),
        ("inline_code", "ABORTED"),
        ("outcome", "fetched"),
        ("uri", "https://h/a?…"),
    ] {
        assert_eq!(fields[field], want, "{log}");
    }
    assert_eq!(fields["attempts"], 3);
    assert!(fields["duration"].is_f64() && fields["request_id"].is_string());
    for line in [
        r#"assetgate_asset_requests_total{rpc="FetchBlob",code="ABORTED",outcome="fetched"} 1"#,
        r#"grpc_code="OK"} 1"#,
        r#"grpc_server_started_total{grpc_service="build.bazel.remote.asset.v1.Fetch",grpc_method="FetchBlob",grpc_type="unary"} 1"#,
        "assetgate_asset_duration_seconds",
        "grpc_server_handling_seconds",
    ] {
        assert!(counts.contains(line), "{line} in\n{counts}");
    }
}

#[test]
fn calls_that_end_early_are_told_apart() {
    let (log, counts) = observed(async {
        call(Act::Refuse, None).await;
        call(Act::Panic, None).await;
        let hanging = stack(Act::Hang, &Dropped::default()).oneshot(request(None));
        let left = tokio::time::timeout(Duration::from_millis(5), hanging).await;
        assert!(left.is_err());
        let hanging = stack(Act::HangInBody, &Dropped::default()).oneshot(request(None));
        drop(hanging.await.unwrap());
    });
    let codes: Vec<String> = log
        .lines()
        .filter_map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["fields"]["code"].as_str().map(str::to_owned)
        })
        .collect();
    let want = ["INVALID_ARGUMENT", "INTERNAL", "CANCELLED", "CANCELLED"];
    assert_eq!(codes, want, "{log}");
    assert!(
        counts.contains(r#"code="INVALID_ARGUMENT",outcome="refused"} 1"#),
        "{counts}"
    );
    assert!(counts.contains(r#"grpc_code="Canceled"} 2"#), "{counts}");
    assert!(counts.contains("assetgate_panics_total 1"), "{counts}");
    assert!(!log.contains("s3cret"), "{log}");
}
