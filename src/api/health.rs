//! grpc.health.v1.Health. The empty name and the asset services are ours;
//! about any other service the cache is asked.
//!
//! Not for: whether this process should get traffic at all (`/readyz`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use super::status::unreachable;
use crate::drain::Drain;
use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::health_client::HealthClient;
use crate::proto::health::health_server::{Health, HealthServer};
use crate::proto::health::{HealthCheckRequest, HealthCheckResponse};
use crate::proto::{MAX_NATIVE_MESSAGE, Undecodable};
use crate::upstream::{CallContext, Upstream};

const FETCH: &str = "build.bazel.remote.asset.v1.Fetch";
const PUSH: &str = "build.bazel.remote.asset.v1.Push";

/// The cache, with its transport errors as statuses. (A type of its own: the
/// compiler cannot see that futures over the boxed error are `Send`.)
#[derive(Clone)]
struct Cache(Upstream);

impl Service<http::Request<Body>> for Cache {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.0.poll_ready(cx).map_err(unreachable)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request).map_err(unreachable).boxed()
    }
}

/// Watches of other services at a time, on each listener thread.
const WATCHES: usize = 64;

/// The health service. `upstream` is the way of forwarded calls: what is asked
/// of others may take as long as it likes, and look-ups shall not wait for it.
pub(super) struct HealthService {
    drain: Drain,
    upstream: Upstream,
    push: bool,
    /// Of other services.
    watches: Arc<Semaphore>,
}

impl HealthService {
    pub(super) fn new(drain: Drain, upstream: Upstream, push: bool) -> Self {
        Self {
            drain,
            upstream,
            push,
            watches: Arc::new(Semaphore::new(WATCHES)),
        }
    }

    pub(super) fn into_server(self) -> HealthServer<Self> {
        HealthServer::new(self).max_decoding_message_size(MAX_NATIVE_MESSAGE)
    }

    /// The status of one of our services, or `None` for somebody else's.
    fn own(&self, service: &str) -> Option<ServingStatus> {
        let serves = match service {
            "" | FETCH => true,
            PUSH => self.push,
            _ => return None,
        };
        Some(if serves && !self.drain.is_started() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        })
    }

    fn client(&self) -> HealthClient<Cache> {
        HealthClient::new(Cache(self.upstream.clone()))
    }

    /// Its extensions tell over which connection it came.
    fn forwarded<M>(request: Request<M>) -> Request<M> {
        let context = CallContext::from_caller(request.metadata());
        let (_, extensions, message) = request.into_parts();
        let mut forwarded = context.request(message);
        *forwarded.extensions_mut() = extensions;
        forwarded
    }

    /// A place among the watches of other services.
    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.watches).try_acquire_owned();
        place.map_err(|_| {
            Status::resource_exhausted(format!(
                "{WATCHES} watches of other services than Assetgate's are open already; Check asks once"
            ))
        })
    }
}

/// The status of a call that was passed on. An answer that cannot be decoded
/// is the cache's fault, not the caller's.
fn from_cache(status: Status) -> Status {
    match std::error::Error::source(&status) {
        Some(source) if source.is::<Undecodable>() => {
            Status::internal(format!("the cache's health: {source}"))
        }
        _ => status,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status as i32,
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if let Some(status) = self.own(&request.get_ref().service) {
            return Ok(Response::new(response(status)));
        }
        let checked = self.client().check(Self::forwarded(request)).await;
        checked.map_err(from_cache)
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    /// Our own names: the status now, and one more message when draining
    /// begins, after which the stream ends so that the connection can.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let Some(status) = self.own(&request.get_ref().service) else {
            let place = self.place()?;
            let watched = self.client().watch(Self::forwarded(request)).await;
            let pass = |answers: Streaming<_>| {
                let passed = answers.map_err(from_cache);
                passed.inspect(move |_| _ = &place).boxed()
            };
            return Ok(watched.map_err(from_cache)?.map(pass));
        };
        let now = futures_util::stream::iter([Ok(response(status))]);
        let drain = self.drain.clone();
        let later = futures_util::stream::once(async move {
            drain.started().await;
            Ok(response(ServingStatus::NotServing))
        });
        let stream: Self::WatchStream = match status {
            ServingStatus::Serving => now.chain(later).boxed(),
            _ => now.chain(later.skip(1)).boxed(),
        };
        Ok(Response::new(stream))
    }
}
