//! Forwarding as the router's fallback: what no service of ours is registered
//! for.
//!
//! The prefix check of `server::dispatch` is a short cut to the same: it spares
//! the router and a box per call.
//!
//! Not for: the common path.
//! Called by: the router; `api::health` for names of other services.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use super::{Forward, Session};
use crate::upstream::Upstream;

/// Forwards whatever it is called with. A call goes the way of the downstream
/// connection it came over, if its extensions hold that [`Session`].
#[derive(Debug, Clone)]
pub struct Fallback {
    shared: Session,
}

impl Forward {
    /// This as a service for the router's fallback.
    #[must_use]
    pub fn into_fallback(self) -> Fallback {
        Fallback {
            shared: self.session(),
        }
    }
}

impl Fallback {
    /// The same for a typed client. A call whose request holds the extensions
    /// of the call it is made for goes the way of that one's connection.
    #[must_use]
    pub fn into_upstream(self) -> Upstream {
        let service = self
            .map_request(|request: Request<Body>| request.map(axum::body::Body::new))
            .map_response(|response: Response<axum::body::Body>| response.map(Body::new))
            .map_err(|never: Infallible| match never {});
        Upstream::new(service)
    }
}

impl Service<Request<axum::body::Body>> for Fallback {
    type Response = Response<axum::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<axum::body::Body>) -> Self::Future {
        let own = request.extensions().get::<Session>();
        let session = own.unwrap_or(&self.shared).clone();
        Box::pin(async move {
            let request = request.map(tonic::body::Body::new);
            Ok(match session.call_boxed(request).await {
                Ok(response) => response.map(|body| {
                    axum::body::Body::new(body.map_frame(|frame| frame.map_data(Bytes::from)))
                }),
                // The router cannot pass a reset on before there is an answer;
                // as the first thing in a body it can.
                Err(reset) => {
                    let reset = futures_util::stream::iter([Err::<Bytes, _>(reset)]);
                    Response::new(axum::body::Body::from_stream(reset))
                }
            })
        })
    }
}
