//! A panic is INTERNAL for its own call, a counter and a log line, and never
//! the end of the connection or the process.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response, Uri};
use tonic::body::Body;
use tower::{Layer, Service};

use super::{Native, answer};
use crate::call::Call;

/// Makes [`CatchPanicService`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct CatchPanicLayer;

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanicService<S>;

    fn layer(&self, inner: S) -> CatchPanicService<S> {
        CatchPanicService { inner }
    }
}

/// Catches panics of calls.
#[derive(Debug, Clone)]
pub struct CatchPanicService<S> {
    inner: S,
}

impl<S: Native> Service<Request<Body>> for CatchPanicService<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Catching<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = Call::of(request.extensions());
        let path = request.uri().clone();
        // A service that panicked is not called again where it could be seen
        // half changed: the stack is cloned for every call.
        let inner = AssertUnwindSafe(|| self.inner.call(request));
        Catching {
            answer: catch_unwind(inner).ok(),
            call,
            path,
        }
    }
}

/// Waits for the answer, and catches the panic if there is one instead.
#[pin_project::pin_project]
#[derive(Debug)]
pub struct Catching<F> {
    /// None after a panic.
    #[pin]
    answer: Option<F>,
    call: Call,
    path: Uri,
}

impl<F> Future for Catching<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if let Some(answer) = this.answer.as_mut().as_pin_mut() {
            // Dropped if it panics, so nothing half-changed is ever seen again.
            if let Ok(polled) = catch_unwind(AssertUnwindSafe(|| answer.poll(cx))) {
                return polled;
            }
            this.answer.set(None);
        }
        metrics::counter!("assetgate_panics_total").increment(1);
        // Not the panic's own text: nobody knows what is in it.
        tracing::error!(
            rpc.path = this.path.path(),
            request_id = this.call.id(),
            "a call panicked; only this call is affected"
        );
        let refusal = answer::response(answer::panicked(this.call));
        Poll::Ready(Ok(refusal))
    }
}
