//! The pool as a tower service, for typed clients.
//!
//! Not for: the forward path, which calls the pool itself (one box less).
//! Called by: `server::assembly`, which hands it to the typed clients.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

use super::{Affinity, Pool, RequestBody};

/// Where our own calls go: a pool of connections, or the embedded cache's
/// routes. An error that is a [`super::TransportError`] means that no answer
/// came.
pub type Upstream = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

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
        BoxCloneSyncService::new(self.into_service().map_err(Into::into))
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
        let this = self.clone();
        Box::pin(async move {
            let request = request.map(RequestBody::Boxed);
            let response = this.pool.call(&this.affinity, request).await?;
            Ok(response.map(Body::new))
        })
    }
}
