//! The transparent path: everything we do not answer ourselves goes to the
//! upstream cache as the same HTTP/2 request, and comes back as its answer.
//!
//! Nothing is decoded, buffered whole or limited in size; no header is added,
//! renamed or dropped but what HTTP/2 itself demands; `grpc-timeout` passes
//! unchanged and is not enforced here; cancelling is dropping, both ways.
//!
//! Not for: the Remote Asset API (`api`), connections (`upstream`, `server`).
//! Called by: `server::dispatch`, and the router as its fallback.

mod body;
mod fallback;
mod observer;
mod status;

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderMap, Request, Response, header};
use hyper::body::Incoming;
use tonic::service::Routes;
use tower::Service;

pub use body::Body;
pub use fallback::Fallback;
pub use observer::Observer;
pub use status::not_grpc;

use crate::upstream::{Affinity, Pool, RequestBody, ResponseBody, TransportError};

/// Where forwarded calls go.
#[derive(Debug, Clone)]
pub enum Target {
    /// To upstream servers.
    Pool(Pool),
    /// To the embedded cache, in this process.
    Routes(Routes),
}

/// Forwards calls. Clones share everything.
#[derive(Debug, Clone)]
pub struct Forward {
    target: Target,
    observer: Arc<Observer>,
}

/// The forwarding of one downstream connection.
#[derive(Debug, Clone)]
pub struct Session {
    way: Way,
    observer: Arc<Observer>,
}

#[derive(Debug, Clone)]
enum Way {
    Pool(Pool, Affinity),
    Routes(Routes),
}

/// Whether a request is a gRPC call, by its content type.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

impl Forward {
    /// Forwards to `target`, counted by `observer`.
    #[must_use]
    pub fn new(target: Target, observer: Arc<Observer>) -> Self {
        let target = match target {
            Target::Routes(routes) => Target::Routes(routes.prepare()),
            pool => pool,
        };
        Self { target, observer }
    }

    /// The forwarding of a new downstream connection.
    #[must_use]
    pub fn session(&self) -> Session {
        Session {
            way: match &self.target {
                Target::Pool(pool) => Way::Pool(pool.clone(), pool.affinity()),
                Target::Routes(routes) => Way::Routes(routes.clone()),
            },
            observer: Arc::clone(&self.observer),
        }
    }
}

impl Session {
    /// Forwards one call.
    ///
    /// # Errors
    /// When the upstream reset the stream: the same reset is due downstream.
    pub async fn call(&self, request: Request<Incoming>) -> Result<Response<Body>, h2::Error> {
        let call = self.observer.start(request.uri().path());
        match &self.way {
            Way::Pool(pool, affinity) => {
                let request = request.map(RequestBody::from);
                finish(pool.call(affinity, request).await, call)
            }
            Way::Routes(routes) => {
                let request = request.map(tonic::body::Body::new);
                Ok(embedded(routes.clone(), request, call).await)
            }
        }
    }

    /// Forwards a call that went through the router first.
    ///
    /// # Errors
    /// As [`Session::call`].
    pub async fn call_boxed(
        &self,
        request: Request<tonic::body::Body>,
    ) -> Result<Response<Body>, h2::Error> {
        let call = self.observer.start(request.uri().path());
        match &self.way {
            Way::Pool(pool, affinity) => {
                let request = request.map(RequestBody::Boxed);
                finish(pool.call(affinity, request).await, call)
            }
            Way::Routes(routes) => Ok(embedded(routes.clone(), request, call).await),
        }
    }
}

/// An answer of the upstream, or ours in its place.
fn finish(
    result: Result<Response<ResponseBody>, TransportError>,
    mut call: observer::Call,
) -> Result<Response<Body>, h2::Error> {
    match result {
        Ok(response) => {
            call.head(response.headers());
            Ok(response.map(|body| Body::passthrough(body, call)))
        }
        Err(TransportError::Reset { reason, .. }) => {
            call.end(tonic::Code::Unknown);
            Err(reason.into())
        }
        Err(error) => {
            let status = status::of(&error);
            call.end(status.code());
            Ok(status::trailers_only(&status))
        }
    }
}

async fn embedded(
    mut routes: Routes,
    request: Request<tonic::body::Body>,
    mut call: observer::Call,
) -> Response<Body> {
    let answer: Result<_, Infallible> = routes.call(request).await;
    let Ok(response) = answer;
    call.head(response.headers());
    response.map(|body| Body::observed(body, call))
}
