//! Enforces `grpc-timeout` on native calls, which tonic's transport would do
//! if it were used.
//!
//! When it passes, the call is dropped and the caller is told so. Not for: the
//! time a fetch may take, which is another budget (`fetcher`).

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::{Native, answer};
use crate::call::TimeLimit;

const GRPC_TIMEOUT: &str = "grpc-timeout";

/// Makes [`DeadlineService`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        DeadlineService { inner }
    }
}

/// Ends calls at their deadline.
#[derive(Debug, Clone)]
pub struct DeadlineService<S> {
    inner: S,
}

impl<S: Native> Service<Request<Body>> for DeadlineService<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Timing<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match timeout(request.headers()) {
            Ok(None) => Timing::Unlimited(self.inner.call(request)),
            Ok(Some(timeout)) => {
                if timeout.is_zero() {
                    // It was over before it came: nothing is begun for it.
                    let status = answer::deadline_exceeded(timeout);
                    return Timing::Refused(Some(answer::response(status)));
                }
                let deadline = Instant::now() + timeout;
                request.extensions_mut().insert(TimeLimit(timeout));
                let answer = self.inner.call(request);
                Timing::Limited(Box::pin(limited(answer, timeout, deadline)))
            }
            Err(status) => Timing::Refused(Some(answer::response(*status))),
        }
    }
}

async fn limited<F>(
    answer: F,
    timeout: Duration,
    deadline: Instant,
) -> Result<Response<Body>, Infallible>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    match tokio::time::timeout_at(deadline, answer).await {
        Ok(answer) => Ok(answer?.map(|body| until(body, timeout, deadline))),
        Err(_) => Ok(answer::response(answer::deadline_exceeded(timeout))),
    }
}

/// Waits for the answer while there is time.
#[pin_project::pin_project(project = TimingProj)]
pub enum Timing<F> {
    /// The call has no deadline.
    Unlimited(#[pin] F),
    /// The call has one.
    Limited(BoxFuture<'static, Result<Response<Body>, Infallible>>),
    /// The call has no time at all, or says of it what makes no sense.
    Refused(Option<Response<Body>>),
}

impl<F> Future for Timing<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            TimingProj::Unlimited(answer) => answer.poll(cx),
            TimingProj::Limited(answer) => answer.as_mut().poll(cx),
            TimingProj::Refused(refusal) => match refusal.take() {
                Some(refusal) => Poll::Ready(Ok(refusal)),
                None => Poll::Pending,
            },
        }
    }
}

/// The value of `grpc-timeout`: up to eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Box<Status>> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(parse);
    parsed
        .map(Some)
        .ok_or_else(|| Box::new(answer::bad_timeout()))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

fn until(body: Body, timeout: Duration, deadline: Instant) -> Body {
    if http_body::Body::is_end_stream(&body) {
        return body;
    }
    Body::new(DeadlineBody {
        body,
        sleep: tokio::time::sleep_until(deadline),
        timeout,
        over: false,
    })
}

/// A body that ends with DEADLINE_EXCEEDED at the deadline.
#[pin_project::pin_project]
struct DeadlineBody {
    #[pin]
    body: Body,
    #[pin]
    sleep: Sleep,
    timeout: Duration,
    over: bool,
}

impl http_body::Body for DeadlineBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        if *this.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(this.sleep.poll(cx));
        *this.over = true;
        let mut trailers = HeaderMap::new();
        let status = answer::deadline_exceeded(*this.timeout);
        Poll::Ready(Some(
            status
                .add_header(&mut trailers)
                .map(|()| Frame::trailers(trailers)),
        ))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(parse("1S"), Some(Duration::from_secs(1)));
        assert_eq!(
            parse("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        assert_eq!(parse("5m"), Some(Duration::from_millis(5)));
        for bad in ["", "S", "1", "123456789S", "-1S", "1s", "1.5S", "é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
