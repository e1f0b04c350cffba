//! Which calls we answer ourselves and which are forwarded, by their path.
//!
//! There is one router, with forwarding as its fallback. The prefix check is a
//! short cut to that same fallback, which spares forwarded calls the router
//! and a box each.
//!
//! Not for: the layers around our own services (`server::stack`).
//! Called by: `connection`; `server::assembly` makes one per thread.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use tower::Service;
use tower::util::BoxCloneSyncService;

use super::{PeerInfo, heads};
use crate::budget::{Budget, Permit, Share};
use crate::forward::{Answer, Body, Forward, Session, is_grpc, not_grpc};

/// Our own services, with the layers around them.
pub type Native =
    BoxCloneSyncService<Request<tonic::body::Body>, Response<tonic::body::Body>, Infallible>;

/// What is ours. Whole service names rather than package prefixes: a service
/// of the same package that we do not have is forwarded like any other,
/// without passing the layers of our own.
const OURS: [&str; 5] = [
    "/build.bazel.remote.asset.v1.Fetch/",
    "/build.bazel.remote.asset.v1.Push/",
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

/// What a thread does with calls.
#[derive(Debug, Clone)]
pub struct Dispatch {
    forward: Forward,
    native: Option<Native>,
    budget: Budget,
}

/// The same for one connection.
#[derive(Debug)]
pub(super) struct Desk {
    session: Session,
    native: Option<Native>,
    peer: Arc<PeerInfo>,
    share: Share,
}

impl Dispatch {
    /// Calls of our own services go to `native`, all others to `forward`.
    #[must_use]
    pub fn new(forward: Forward, native: Native) -> Self {
        Self {
            forward,
            native: Some(native),
            budget: Budget::default(),
        }
    }

    /// Everything is forwarded.
    #[must_use]
    pub fn forward_only(forward: Forward) -> Self {
        Self {
            forward,
            native: None,
            budget: Budget::default(),
        }
    }

    /// The same, with connections that share this budget.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    pub(super) fn desk(&self, peer: PeerInfo) -> Desk {
        let share = self.budget.share();
        Desk {
            session: self.forward.session().charging(share.clone()),
            native: self.native.clone(),
            peer: Arc::new(peer),
            share,
        }
    }
}

impl Desk {
    pub(super) fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// Answers one call, of so many that the connection has. What comes beside the answer is to be held until it
    /// was sent.
    pub(super) fn answer(
        &self,
        request: Request<Incoming>,
        calls: u32,
    ) -> (
        Option<Box<Permit>>,
        impl Future<Output = Answer> + Send + use<>,
    ) {
        match heads::room(&self.share, &request, calls) {
            Ok(room) => (room, self.admitted(request)),
            Err(status) => {
                let refusal = status.into_http().map(Body::Native);
                (None, Answering::Now(Some(refusal)))
            }
        }
    }

    fn admitted(
        &self,
        request: Request<Incoming>,
    ) -> Answering<impl Future<Output = Answer> + Send + use<>> {
        if !is_grpc(request.headers()) {
            return Answering::Now(Some(not_grpc()));
        }
        match &self.native {
            Some(native) if is_ours(request.uri().path()) => {
                Answering::Native(self.answer_ourselves(native.clone(), request))
            }
            _ => Answering::Forward(self.session.call(request)),
        }
    }

    fn answer_ourselves(
        &self,
        mut native: Native,
        mut request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        let extensions = request.extensions_mut();
        extensions.insert(Arc::clone(&self.peer));
        extensions.insert(self.share.clone());
        // For what the router does not know.
        extensions.insert(self.session.clone());
        let answer = native.call(request.map(tonic::body::Body::new));
        Box::pin(async move {
            let Ok(response) = answer.await;
            response.map(Body::Native)
        })
    }
}

/// One of the ways to answer; a forwarded call costs no box.
#[pin_project::pin_project(project = AnsweringProj)]
enum Answering<F> {
    Now(Option<Response<Body>>),
    Native(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
    Forward(#[pin] F),
}

impl<F: Future<Output = Answer>> Future for Answering<F> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match self.project() {
            AnsweringProj::Now(response) => response
                .take()
                .map_or(Poll::Pending, |response| Poll::Ready(Ok(response))),
            AnsweringProj::Native(answer) => answer.as_mut().poll(cx).map(Ok),
            AnsweringProj::Forward(answer) => answer.poll(cx),
        }
    }
}

/// Whether one of our own services answers the call, when there are any.
#[must_use]
pub fn is_ours(path: &str) -> bool {
    OURS.iter().any(|prefix| path.starts_with(prefix))
}

/// Whether it is a call that stays open for as long as the client likes, while
/// nothing is done for it.
pub(super) fn is_watch(path: &str) -> bool {
    let of_grpc = path.strip_prefix("/grpc.");
    of_grpc.is_some_and(|rest| rest == "health.v1.Health/Watch" || rest.starts_with("reflection."))
}
