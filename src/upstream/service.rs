//! The pool as a tower service, for typed clients.
//!
//! Not for: the forward path, which calls the pool itself (one box less).
//! Called by: `server::assembly`, which hands it to the typed clients.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::TryFutureExt as _;
use http::{Request, Response};
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};

use super::channel::vetted;
use super::{Affinity, Pool, RequestBody};

/// Where our own calls go: a pool of connections, or another service, such as
/// the embedded cache's routes. An error that is a [`super::TransportError`]
/// means that no answer came.
#[derive(Debug, Clone)]
pub struct Upstream(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// The common one, which costs no more boxes than it must.
    Pool(PoolService),
    Other(BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>),
}

impl Upstream {
    /// Calls go to any service.
    #[must_use]
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = BoxError>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        Self(Kind::Other(BoxCloneSyncService::new(service)))
    }

    /// For tonic's clients, which panic over status details that are not
    /// Base64: drops those.
    #[must_use]
    pub fn vetted(self) -> Self {
        Self::new(self.map_response(vetted))
    }
}

impl Service<Request<Body>> for Upstream {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.0 {
            // Whether a stream is free is known when the connection is chosen.
            Kind::Pool(_) => Poll::Ready(Ok(())),
            Kind::Other(service) => service.poll_ready(cx),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match &mut self.0 {
            Kind::Pool(pool) => Box::pin(pool.answer(request).map_err(Into::into)),
            Kind::Other(service) => service.call(request),
        }
    }
}

/// A pool whose calls share one claim on its connections.
#[derive(Debug, Clone)]
pub struct PoolService {
    pool: Pool,
    affinity: Affinity,
}

impl Pool {
    /// A service over this pool, with a connection apart from those of
    /// forwarded calls.
    #[must_use]
    pub fn into_service(self) -> PoolService {
        let affinity = self.affinity();
        PoolService {
            pool: self,
            affinity,
        }
    }

    /// The same, boxed for typed clients.
    #[must_use]
    pub fn into_upstream(self) -> Upstream {
        Upstream(Kind::Pool(self.into_service()))
    }
}

impl Service<Request<Body>> for PoolService {
    type Response = Response<Body>;
    type Error = super::TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Whether a stream is free is known when the connection is chosen.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.answer(request))
    }
}

impl PoolService {
    fn answer(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, super::TransportError>> + Send + use<> {
        let request = request.map(RequestBody::Boxed);
        let answer = self.pool.call(&self.affinity, request);
        answer.map_ok(|response| response.map(Body::new))
    }
}
