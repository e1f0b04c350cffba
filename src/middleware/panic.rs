//! A panic is INTERNAL for its own call, a counter and a log line, and never
//! the end of the connection or the process.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
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
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = Call::of(request.extensions());
        let path = request.uri().path().to_owned();
        let mut inner = self.inner.clone();
        std::mem::swap(&mut inner, &mut self.inner);
        // The service is dropped with the future, so nothing half-changed is
        // ever seen again.
        let answer = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
        let answer = answer.map(move |answer| {
            answer.unwrap_or_else(|_| {
                metrics::counter!("assetgate_panics_total").increment(1);
                // Not the panic's own text: nobody knows what is in it.
                tracing::error!(
                    rpc.path = path,
                    request_id = call.id(),
                    "a call panicked; only this call is affected"
                );
                Ok(answer::response(answer::panicked(&call)))
            })
        });
        answer.boxed()
    }
}
