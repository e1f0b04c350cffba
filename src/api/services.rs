//! The native services as one, by path.
//!
//! Fetch and Push are called directly and the rest through tonic's router: that
//! costs more than looking a reference up.
//!
//! Not for: which calls are native at all (`server::dispatch`).
//! Called by: `server::stack`.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

use super::fetch::FetchService;
use super::push::PushService;
use crate::fetcher::Fetcher;
use crate::proto::asset::fetch_server::{self, FetchServer};
use crate::proto::asset::push_server::{self, PushServer};
use crate::resolver::Announce;
use crate::store::AssetStore;

/// Every native service.
pub struct Services<S, F, A> {
    pub(super) fetch: FetchServer<FetchService<S, F, A>>,
    pub(super) push: PushServer<PushService<S, F, A>>,
    pub(super) others: Routes,
}

impl<S, F, A> Services<S, F, A> {
    /// The same, with a change to the router of what is neither Fetch nor Push:
    /// a fallback that forwards.
    #[must_use]
    pub fn map_others(mut self, change: impl FnOnce(Routes) -> Routes) -> Self {
        self.others = change(self.others).prepare();
        self
    }
}

impl<S, F, A> Clone for Services<S, F, A> {
    fn clone(&self) -> Self {
        Self {
            fetch: self.fetch.clone(),
            push: self.push.clone(),
            others: self.others.clone(),
        }
    }
}

impl<S, F, A> std::fmt::Debug for Services<S, F, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Services")
    }
}

impl<S: AssetStore, F: Fetcher, A: Announce> Service<Request<Body>> for Services<S, F, A> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // As all of them always are.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        if is_method_of(path, fetch_server::SERVICE_NAME) {
            self.fetch.call(request)
        } else if is_method_of(path, push_server::SERVICE_NAME) {
            self.push.call(request)
        } else {
            self.others.call(request).boxed()
        }
    }
}

/// Whether a path is `/SERVICE/METHOD`, as tonic's router has it.
fn is_method_of(path: &str, service: &str) -> bool {
    let rest = path.strip_prefix('/').and_then(|p| p.strip_prefix(service));
    let method = rest.and_then(|rest| rest.strip_prefix('/'));
    method.is_some_and(|method| !method.is_empty())
}
