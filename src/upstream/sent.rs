//! One call on one connection, and what is left of it if it fails.
//!
//! Not for: whether it is sent again (`pool`).
//! Called by: `pool`.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use h2::client::ResponseFuture;
use http::{Request, Response};
use tokio_util::task::AbortOnDropHandle;
use tower::BoxError;

use super::connection::Connection;
use super::load::Ticket;
use super::pump::Pump;
use super::transport_error::unprocessed;
use super::upload::Upload;
use super::{ResponseBody, TransportError};
use crate::net::Executor;

/// A call on its way.
pub(super) struct Sent {
    response: ResponseFuture,
    call: Option<Call>,
}

/// What belongs to a call while it is not answered.
struct Call {
    connection: Arc<Connection>,
    ticket: Ticket,
    /// To send it again.
    head: Request<()>,
    pump: Pump,
}

/// A call that failed.
pub(super) struct Failed {
    pub(super) connection: Arc<Connection>,
    pub(super) ticket: Ticket,
    pub(super) error: TransportError,
    /// The call itself if it may be sent again: if the upstream provably did
    /// not look at it, and all of it is still there.
    pub(super) request: Option<Request<Upload>>,
    /// Whether the upstream refused just this call, and not the connection.
    pub(super) alone: bool,
    /// Whether it was sent at all.
    pub(super) sent: bool,
}

/// How a call failed.
enum Broken {
    /// The upstream said so, or is gone.
    Answer(h2::Error),
    /// Its own body did, and the stream was reset.
    Body(BoxError),
    /// It was ended for standing still.
    Stalled,
}

impl Sent {
    /// Sends the call, now.
    pub(super) fn new(
        connection: Arc<Connection>,
        ticket: Ticket,
        request: Request<Upload>,
    ) -> Result<Self, Box<Failed>> {
        let (mut head, upload) = request.into_parts();
        head.uri = connection.target.direct(&head.uri);
        let head = Request::from_parts(head, ());
        let end = upload.is_end();
        match connection.send(head.clone(), end) {
            Ok((response, stream)) => {
                let pump = Pump::new(upload, stream, end, ticket.hold());
                let call = Some(Call {
                    connection,
                    ticket,
                    head,
                    pump,
                });
                Ok(Self { response, call })
            }
            Err(error) => Err(Box::new(Failed {
                error: TransportError::of(&error, &connection.load.address),
                connection,
                ticket,
                request: upload.rewind().map(|upload| head.map(|()| upload)),
                alone: false,
                sent: false,
            })),
        }
    }
}

impl Future for Sent {
    type Output = Result<Response<ResponseBody>, Box<Failed>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(call) = &mut this.call else {
            // Polled after it was done, which no caller does.
            return Poll::Pending;
        };
        let answer = match call.poll_body(cx) {
            Ok(()) => ready!(Pin::new(&mut this.response).poll(cx)).map_err(Broken::Answer),
            Err(broken) => Err(broken),
        };
        let Some(call) = this.call.take() else {
            return Poll::Pending;
        };
        Poll::Ready(match answer {
            Ok(response) => {
                let rest = rest(call.pump);
                Ok(response.map(|body| ResponseBody::new(body, call.ticket, rest)))
            }
            Err(broken) => Err(Box::new(call.fail(&broken))),
        })
    }
}

impl Call {
    /// Sends what can be sent of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        let watch = self.ticket.watch.as_ref();
        if watch.is_some_and(|watch| watch.ended(cx)) {
            return Err(Broken::Stalled);
        }
        match self.pump.poll(cx) {
            // The answer would only say that we have reset the stream.
            Poll::Ready(Err(error)) => Err(Broken::Body(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn fail(self, broken: &Broken) -> Failed {
        let (load, head) = (&self.ticket.load, self.head);
        let error = match broken {
            Broken::Answer(error) => TransportError::of(error, &load.address),
            Broken::Body(error) => TransportError::lost(&**error, &load.address),
            Broken::Stalled => load.stalled(),
        };
        let refusal = match broken {
            Broken::Answer(error) if unprocessed(error) => Some(error),
            _ => None,
        };
        let upload = refusal.and_then(|_| self.pump.into_upload().rewind());
        Failed {
            connection: self.connection,
            ticket: self.ticket,
            error,
            request: upload.map(|upload| head.map(|()| upload)),
            alone: refusal.is_some_and(h2::Error::is_reset),
            sent: true,
        }
    }
}

/// Sends what is left of the body of a call that is answered already, until the
/// answer ends or is not wanted any more.
///
/// By a task of its own: whoever reads the answer may be slow, and must not
/// keep the upstream from reading the request.
fn rest(mut pump: Pump) -> Option<AbortOnDropHandle<()>> {
    if pump.done() {
        return None;
    }
    pump.let_go();
    Some(Executor::spawn_owned(async move {
        // What goes wrong shows in the answer.
        drop(poll_fn(|cx| pump.poll(cx)).await);
    }))
}
