//! Gives every call an id and hands it back: in the response head, and in the
//! trailers, which is where most clients look for metadata of a finished call.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tower::{Layer, Service};

use super::Native;
use crate::call::Call;

/// Header and trailer that carry the id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("assetgate-request-id");

/// Makes [`CallService`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallLayer;

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> CallService<S> {
        CallService { inner }
    }
}

/// Marks each request with a [`Call`].
#[derive(Debug, Clone)]
pub struct CallService<S> {
    inner: S,
}

impl<S: Native> Service<Request<Body>> for CallService<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Marking<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let call = Call::new();
        let id = HeaderValue::from_str(call.id()).ok();
        request.extensions_mut().insert(call);
        Marking {
            answer: self.inner.call(request),
            id,
        }
    }
}

/// Waits for the answer, to mark it. No box: a hit passes all the layers.
#[pin_project::pin_project]
#[derive(Debug)]
pub struct Marking<F> {
    #[pin]
    answer: F,
    id: Option<HeaderValue>,
}

impl<F> Future for Marking<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.answer.poll(cx))?;
        let Some(id) = this.id.take() else {
            return Poll::Ready(Ok(response));
        };
        mark(response.headers_mut(), &id);
        Poll::Ready(Ok(response.map(|body| with_trailer(body, id))))
    }
}

fn mark(headers: &mut HeaderMap, id: &HeaderValue) {
    headers.insert(REQUEST_ID, id.clone());
}

fn with_trailer(body: Body, id: HeaderValue) -> Body {
    if http_body::Body::is_end_stream(&body) {
        return body;
    }
    Body::new(body.map_frame(move |frame| match frame.into_trailers() {
        Ok(mut trailers) => {
            mark(&mut trailers, &id);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }))
}
