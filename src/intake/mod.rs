//! Takes in the messages of calls that are answered in this process, under the
//! budget: a body is read while there is room for it, and given to its service
//! when it is whole.
//!
//! A small message that came with its call goes straight on. Any other is
//! charged as its bytes arrive; while there is no room it is not read, so that
//! HTTP/2 holds its sender back; one that stands still is ended. What decoding
//! it will take is charged before it is decoded, and large messages are decoded
//! on another runtime than the listener's. The permit lives as long as the
//! service works.
//!
//! Not for: forwarded calls, which pass without being held; what a message may
//! say (`api`, `embedded`), how large it may be (the codec).
//! Called by: `server::stack` around our own services, `server::backend` around
//! the embedded cache.

mod collect;
mod elsewhere;
mod flow;
mod prefix;
mod refusal;
mod slow;
#[cfg(test)]
mod tests;
mod unsent;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service};

pub use elsewhere::Elsewhere;
pub use refusal::too_many_headers;

use crate::budget::{Share, Small};
use collect::Begun;
use prefix::Prefix;

/// How long a body may make no progress while it could.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same for uploads, whose source may be an origin that pauses.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(120);

/// How long a body waits for room while no other of its connection makes
/// progress. Shorter than [`PATIENCE`]: who waits is gone before what stands
/// still gives its room back, which they would fill one after the other.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

/// What counts as progress: what comes slower than this in [`PATIENCE`] would
/// hold its memory for hours.
const PROGRESS: u64 = 64 << 10;

/// Bytes for which there must be room before more is read. As much as the
/// window of a stream and as a frame may have.
const STEP: u64 = 256 << 10;

/// Bodies of one connection that may be held back at a time. Each has up to the
/// window of its stream unread: together half of the connection's window of
/// 8 MiB, so that its other streams go on.
const MOST_STALLED: usize = 16;

/// Largest message that is taken to need so many times its bytes decoded,
/// without a look at it.
const SMALL: usize = 1 << 10;
const SMALL_FACTOR: u64 = 16;

/// Largest message that a connection's own room is for.
const MEDIUM: usize = 64 << 10;

/// Messages above this are decoded elsewhere.
const LARGE: u64 = 256 << 10;

/// Until when a body that begins to wait for room does so at least. The same
/// moment for all of a connection that wait behind what stands still: one that
/// went on a little later would hold what the others gave back.
fn wait_until(share: &Share) -> Instant {
    let (now, until) = (Instant::now(), share.last_progress() + ROOM_PATIENCE);
    if until > now {
        until
    } else {
        now + ROOM_PATIENCE
    }
}

/// Until when one that waited may do so further, if not in vain.
fn wait_longer(share: &Share) -> Option<Instant> {
    if share.is_held_up() {
        // By other connections.
        share.progressed();
    }
    let until = share.last_progress() + ROOM_PATIENCE;
    (until > Instant::now()).then_some(until)
}

/// A service of calls that are always taken, such as tonic's `Routes`.
pub trait Calls:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Calls for S where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// Makes [`Intake`]s.
#[derive(Debug, Clone)]
pub struct IntakeLayer<S> {
    far: Option<Arc<(S, Elsewhere)>>,
}

impl<S> IntakeLayer<S> {
    /// Large messages are decoded and answered by `far`, which lives there.
    #[must_use]
    pub fn new(far: S, elsewhere: Elsewhere) -> Self {
        Self {
            far: Some(Arc::new((far, elsewhere))),
        }
    }

    /// Everything stays on the runtime it came on.
    #[must_use]
    pub fn here() -> Self {
        Self { far: None }
    }
}

impl<S: Clone> Layer<S> for IntakeLayer<S> {
    type Service = Intake<S>;

    fn layer(&self, near: S) -> Intake<S> {
        Intake {
            near,
            far: self.far.clone(),
        }
    }
}

/// Calls a service with whole messages. Charges the [`Share`] in the call's
/// extensions; a call without one came from this process and passes as it is.
#[derive(Debug, Clone)]
pub struct Intake<S> {
    near: S,
    /// Shared, as every call clones this and few go there.
    far: Option<Arc<(S, Elsewhere)>>,
}

impl<S: Calls> Service<Request<Body>> for Intake<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Taking<S>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Taking<S> {
        let Some(share) = request.extensions().get::<Share>().cloned() else {
            return Taking::answering(self.near.call(request), None);
        };
        if let Some(patience) = flow::patience(request.uri().path()) {
            let request = request.map(|body| Body::new(flow::Flow::new(body, share, patience)));
            return Taking::answering(self.near.call(request), None);
        }
        Taking {
            phase: Phase::First(Some((self.clone(), request, share))),
        }
    }
}

/// Takes a message in and answers it.
#[pin_project::pin_project]
pub struct Taking<S: Calls> {
    #[pin]
    phase: Phase<S>,
}

#[allow(
    clippy::large_enum_variant,
    reason = "a box for each call costs more than its room does"
)]
#[pin_project::pin_project(project = PhaseProj)]
enum Phase<S: Calls> {
    /// Nothing was read yet.
    First(Option<(Intake<S>, Request<Body>, Share)>),
    /// The service has the message.
    Answering {
        #[pin]
        answer: S::Future,
        _held: Option<Small>,
    },
    /// The message did not come at once, or is not small.
    Slow(BoxFuture<'static, Result<Response<Body>, Infallible>>),
}

impl<S: Calls> Taking<S> {
    fn answering(answer: S::Future, held: Option<Small>) -> Self {
        Self {
            phase: Phase::Answering {
                answer,
                _held: held,
            },
        }
    }
}

impl<S: Calls> Future for Taking<S> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut phase = self.project().phase;
        loop {
            let next = match phase.as_mut().project() {
                PhaseProj::Answering { answer, .. } => return answer.poll(cx).map_ok(unsent::keep),
                PhaseProj::Slow(answer) => {
                    return answer.as_mut().poll(cx).map_ok(unsent::keep);
                }
                PhaseProj::First(call) => match call.take() {
                    Some((intake, request, share)) => intake.first(request, share, cx),
                    // Polled after it was done, which no caller does.
                    None => return Poll::Pending,
                },
            };
            phase.set(next);
        }
    }
}

impl<S: Calls> Intake<S> {
    /// Reads what came with the call.
    fn first(mut self, mut request: Request<Body>, share: Share, cx: &mut Context<'_>) -> Phase<S> {
        let mut begun = Begun::default();
        begun.poll(request.body_mut(), cx);
        if let Some((message, held)) = begun.small(&share, None) {
            let request = request.map(|_| whole(message));
            return Phase::Answering {
                answer: self.near.call(request),
                _held: Some(held),
            };
        }
        Phase::Slow(Box::pin(slow::answer(self, request, begun, share)))
    }
}

/// A body that is there already.
fn whole(message: Bytes) -> Body {
    Body::new(Full::new(message))
}
