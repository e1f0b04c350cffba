//! Counts native calls and writes one log event per asset call, when the call
//! has really ended: with its trailers, or because the caller left.
//!
//! Not for: forwarded calls, which are neither logged nor counted here.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::Native;
use super::methods::Method;
use super::series::{self, Asset};
use crate::call::{Call, Report, code_name};

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
    type Future = Observing<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let observation = Observation::begin(&request);
        Observing {
            answer: self.inner.call(request),
            observation: Some(observation),
        }
    }
}

/// Waits for the answer, to observe it.
#[pin_project::pin_project]
#[derive(Debug)]
pub struct Observing<F> {
    #[pin]
    answer: F,
    observation: Option<Observation>,
}

impl<F> Future for Observing<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let response = ready!(this.answer.poll(cx))?;
        Poll::Ready(Ok(match this.observation.take() {
            Some(observation) => observe(response, observation),
            None => response,
        }))
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
#[derive(Debug)]
struct Observation {
    call: Call,
    method: &'static Method,
    started: Instant,
    ended: bool,
}

impl Observation {
    fn begin(request: &Request<Body>) -> Self {
        let method = Method::of(request.uri().path());
        series::started(method);
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
        let asset = self.method.asset_rpc().map(|rpc| {
            let tell = |report: &Report| tell(rpc, code, seconds, self.call.id(), report);
            self.call.read(tell)
        });
        series::ended(self.method, code, asset, seconds);
    }
}

/// Writes the log event of an asset call; returns its labels.
fn tell(rpc: &'static str, code: Code, seconds: f64, id: &str, report: &Report) -> Asset {
    let outcome = match (report.outcome, code) {
        ("", Code::InvalidArgument | Code::Unimplemented) => "refused",
        ("", _) => "failed",
        (outcome, _) => outcome,
    };
    let code = code_name(code);
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
        request_id = id,
        tool = report.tool,
        invocation_id = report.invocation_id,
        error = report.message,
        "asset call"
    );
    if let Some(reason) = report.missed {
        metrics::counter!("assetgate_fetch_misses_total", "reason" => reason).increment(1);
    }
    Asset {
        rpc,
        code: report.inline_code.unwrap_or(code),
        outcome,
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
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
