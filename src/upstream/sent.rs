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

use super::connection::Connection;
use super::load::{Hold, Ticket};
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
    pub(super) error: TransportError,
    /// The call itself if it may be sent again: if the upstream provably did
    /// not look at it, and all of it is still there.
    pub(super) request: Option<Request<Upload>>,
    /// Whether it was sent at all.
    pub(super) sent: bool,
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
                let hold = Hold::new(Arc::clone(&connection.load));
                let pump = Pump::new(upload, stream, end, hold);
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
                request: upload.rewind().map(|upload| head.map(|()| upload)),
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
        let answer = match call.pump.poll(cx) {
            // The answer would only say that we have reset the stream.
            Poll::Ready(Err(error)) => Err((TransportError::lost(&*error, call.address()), false)),
            Poll::Ready(Ok(())) | Poll::Pending => ready!(Pin::new(&mut this.response).poll(cx))
                .map_err(|error| {
                    let unprocessed = unprocessed(&error);
                    (TransportError::of(&error, call.address()), unprocessed)
                }),
        };
        let Some(call) = this.call.take() else {
            return Poll::Pending;
        };
        Poll::Ready(match answer {
            Ok(response) => {
                let rest = rest(call.pump);
                Ok(response.map(|body| ResponseBody::new(body, call.ticket, rest)))
            }
            Err((error, unprocessed)) => Err(Box::new(call.fail(error, unprocessed))),
        })
    }
}

impl Call {
    fn address(&self) -> &Arc<str> {
        &self.ticket.load.address
    }

    fn fail(self, error: TransportError, unprocessed: bool) -> Failed {
        let upload = unprocessed.then(|| self.pump.into_upload().rewind());
        let head = self.head;
        Failed {
            connection: self.connection,
            error,
            request: upload.flatten().map(|upload| head.map(|()| upload)),
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
