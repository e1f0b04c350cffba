//! Counts native calls and writes one log event per asset call, when the call
//! has really ended: with its trailers, or because the caller left.
//!
//! Not for: forwarded calls, which are neither logged nor counted here.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::Native;
use super::methods::Method;
use crate::call::{Call, code_name};

/// Makes [`ObserveService`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct ObserveLayer;

impl<S> Layer<S> for ObserveLayer {
    type Service = ObserveService<S>;

    fn layer(&self, inner: S) -> ObserveService<S> {
        ObserveService { inner }
    }
}

/// Observes calls.
#[derive(Debug, Clone)]
pub struct ObserveService<S> {
    inner: S,
}

impl<S: Native> Service<Request<Body>> for ObserveService<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let observation = Observation::begin(&request);
        let answer = self.inner.call(request);
        let answer = answer.map(|answer| Ok(observe(answer?, observation)));
        answer.boxed()
    }
}

fn observe(response: Response<Body>, mut observation: Observation) -> Response<Body> {
    if let Some(code) = code_of(response.headers()) {
        observation.end(code);
        return response;
    }
    response.map(|body| Body::new(ObservedBody { body, observation }))
}

/// The code in headers or trailers, if they hold one.
fn code_of(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get("grpc-status")?;
    Some(Code::from_bytes(status.as_bytes()))
}

/// One call under way. Dropped before its end, it counts as cancelled.
struct Observation {
    call: Call,
    method: &'static Method,
    started: Instant,
    ended: bool,
}

impl Observation {
    fn begin(request: &Request<Body>) -> Self {
        let method = Method::of(request.uri().path());
        metrics::counter!(
            "grpc_server_started_total",
            "grpc_service" => method.service.as_str(),
            "grpc_method" => method.name.as_str(),
            "grpc_type" => method.kind,
        )
        .increment(1);
        Self {
            call: Call::of(request.extensions()),
            method,
            started: Instant::now(),
            ended: false,
        }
    }

    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let labels = [
            ("grpc_service", self.method.service.as_str()),
            ("grpc_method", self.method.name.as_str()),
            ("grpc_type", self.method.kind),
        ];
        metrics::histogram!("grpc_server_handling_seconds", &labels).record(seconds);
        let [service, method, kind] = labels;
        let labels = [service, method, kind, ("grpc_code", go_name(code))];
        metrics::counter!("grpc_server_handled_total", &labels).increment(1);
        if let Some(rpc) = self.method.asset_rpc() {
            self.report(rpc, code, seconds);
        }
    }

    fn report(&self, rpc: &'static str, code: Code, seconds: f64) {
        let report = self.call.report();
        let outcome = match (report.outcome, code) {
            ("", Code::InvalidArgument | Code::Unimplemented) => "refused",
            ("", _) => "failed",
            (outcome, _) => outcome,
        };
        let code = code_name(code);
        metrics::counter!("assetgate_asset_requests_total",
            "rpc" => rpc, "code" => report.inline_code.unwrap_or(code), "outcome" => outcome)
        .increment(1);
        metrics::histogram!("assetgate_asset_duration_seconds",
            "rpc" => rpc, "outcome" => outcome)
        .record(seconds);
        tracing::info!(
            rpc,
            code,
            inline_code = report.inline_code,
            outcome,
            missed = report.missed,
            kind = report.kind,
            uri = report.uri,
            origin_host = report.origin_host,
            bytes = report.bytes,
            origin_bytes = report.origin_bytes,
            duration = seconds,
            attempts = report.attempts,
            request_id = self.call.id(),
            tool = report.tool,
            invocation_id = report.invocation_id,
            error = report.message,
            "asset call"
        );
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// Code names of the grpc-ecosystem metrics, which are Go's.
fn go_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// A body that tells its observation how the call ended.
#[pin_project::pin_project]
struct ObservedBody {
    #[pin]
    body: Body,
    observation: Observation,
}

impl http_body::Body for ObservedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.observation
                        .end(code_of(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(status)) => this.observation.end(status.code()),
            None => this.observation.end(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
