//! Gives every call an id and hands it back: in the response head, and in the
//! trailers, which is where most clients look for metadata of a finished call.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
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
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let call = Call::new();
        let id = HeaderValue::from_str(call.id());
        request.extensions_mut().insert(call);
        let answer = self.inner.call(request);
        let marked = answer.map(move |answer| {
            let mut response = answer?;
            let Ok(id) = id else { return Ok(response) };
            mark(response.headers_mut(), &id);
            Ok(response.map(|body| with_trailer(body, id)))
        });
        marked.boxed()
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
