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
mod methods;
mod observer;
mod status;
mod tally;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response, header};
use hyper::body::Incoming;
use tonic::service::Routes;
use tower::Service;

pub use body::Body;
pub use fallback::Fallback;
pub use observer::Observer;
pub use status::not_grpc;

use tally::{Call, Tally};

use crate::budget::Share;
use crate::call::ConnectionId;
use crate::intake::Intake;
use crate::upstream::{Affinity, Pool, RequestBody, ResponseBody, TransportError};

/// Where forwarded calls go.
#[derive(Debug, Clone)]
pub enum Target {
    /// To upstream servers.
    Pool(Pool),
    /// To the embedded cache, in this process.
    Routes(Intake<Routes>),
}

/// Forwards the calls of one thread. Clones share everything.
#[derive(Debug, Clone)]
pub struct Forward {
    target: Target,
    /// Longest prefix first.
    routes: Vec<(Arc<str>, Target)>,
    tally: Arc<Tally>,
}

/// The forwarding of one downstream connection.
#[derive(Debug, Clone)]
pub struct Session {
    connection: ConnectionId,
    way: Way,
    routes: Vec<(Arc<str>, Way)>,
    tally: Arc<Tally>,
    /// What the connection may hold of calls that are answered here.
    share: Option<Share>,
}

#[derive(Debug, Clone)]
enum Way {
    Pool(Pool, Affinity),
    Routes(Intake<Routes>),
}

/// What a forwarded call comes to: an answer, or a reset to pass on.
pub type Answer = Result<Response<Body>, h2::Error>;

/// Whether a request is a gRPC call, by its content type.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

impl Forward {
    /// Forwards to `target`, counted by `observer`. Each thread needs one of its
    /// own: clones count on the same cache lines.
    #[must_use]
    pub fn new(target: Target, observer: Arc<Observer>) -> Self {
        Self {
            target,
            routes: Vec::new(),
            tally: observer.tally(),
        }
    }

    /// Calls of services whose full name begins with `service` go to `target`
    /// instead. The longest such beginning counts.
    #[must_use]
    pub fn with_route(mut self, service: &str, target: Target) -> Self {
        self.routes.push((format!("/{service}").into(), target));
        self.routes
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        self
    }

    /// The forwarding of a new downstream connection.
    #[must_use]
    pub fn session(&self) -> Session {
        let routes = self.routes.iter();
        Session {
            connection: ConnectionId::next(),
            way: Way::to(&self.target),
            routes: routes
                .map(|(prefix, target)| (Arc::clone(prefix), Way::to(target)))
                .collect(),
            tally: Arc::clone(&self.tally),
            share: None,
        }
    }
}

impl Way {
    fn to(target: &Target) -> Self {
        match target {
            Target::Pool(pool) => Self::Pool(pool.clone(), pool.affinity()),
            Target::Routes(routes) => Self::Routes(routes.clone()),
        }
    }
}

impl Session {
    /// The same, charging this share.
    #[must_use]
    pub fn charging(mut self, share: Share) -> Self {
        self.share = Some(share);
        self
    }

    fn way(&self, path: &str) -> &Way {
        let routed = self
            .routes
            .iter()
            .find(|(prefix, _)| path.starts_with(&**prefix));
        routed.map_or(&self.way, |(_, way)| way)
    }

    /// Forwards one call. The answer is an error when the upstream reset the
    /// stream: the same reset is due downstream.
    pub fn call(&self, request: Request<Incoming>) -> impl Future<Output = Answer> + Send + use<> {
        self.send(request.map(RequestBody::Passthrough))
    }

    /// Forwards a call that went through the router first.
    pub fn call_boxed(
        &self,
        request: Request<tonic::body::Body>,
    ) -> impl Future<Output = Answer> + Send + use<> {
        self.send(request.map(RequestBody::Boxed))
    }

    fn send(&self, request: Request<RequestBody>) -> impl Future<Output = Answer> + Send + use<> {
        let path = request.uri().path();
        let call = self.tally.start(path);
        match self.way(path) {
            Way::Pool(pool, affinity) => Forwarding::Pool {
                answer: pool.call(affinity, request),
                call: Some(call),
            },
            Way::Routes(routes) => {
                let mut request = request;
                request.extensions_mut().insert(self.connection);
                if let Some(share) = &self.share {
                    request.extensions_mut().insert(share.clone());
                }
                Forwarding::Routes(embedded(routes.clone(), request, call))
            }
        }
    }
}

/// A call being forwarded; written by hand, since an `async fn` would hold the
/// request twice and be copied with it.
#[pin_project::pin_project(project = ForwardingProj)]
enum Forwarding<F> {
    Pool {
        #[pin]
        answer: F,
        call: Option<Call>,
    },
    Routes(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl<F> Future for Forwarding<F>
where
    F: Future<Output = Result<Response<ResponseBody>, TransportError>>,
{
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.project() {
            ForwardingProj::Pool { answer, call } => {
                let answer = ready!(answer.poll(cx));
                match call.take() {
                    Some(call) => Poll::Ready(finish(answer, call)),
                    // Polled after it was done, which no caller does.
                    None => Poll::Pending,
                }
            }
            ForwardingProj::Routes(answer) => answer.as_mut().poll(cx).map(Ok),
        }
    }
}

/// An answer of the upstream, or ours in its place.
fn finish(result: Result<Response<ResponseBody>, TransportError>, mut call: Call) -> Answer {
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

/// Not an `async fn`: that would hold the request, to call with it later.
fn embedded(
    mut routes: Intake<Routes>,
    request: Request<RequestBody>,
    mut call: Call,
) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
    let request = request.map(|body| match body {
        RequestBody::Boxed(body) => body,
        body @ RequestBody::Passthrough(_) => tonic::body::Body::new(body),
    });
    let answer = routes.call(request);
    Box::pin(async move {
        let answer: Result<_, Infallible> = answer.await;
        let Ok(response) = answer;
        call.head(response.headers());
        response.map(|body| Body::observed(body, call))
    })
}
