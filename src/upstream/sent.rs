//! One call on one connection, and what is left of it if it fails.
//!
//! Not for: whether it is sent again (`pool`).
//! Called by: `pool`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::sync::oneshot;

use super::connection::Connection;
use super::load::Ticket;
use super::replay::{Replay, RequestBody};
use super::transport_error::{h2_error, unprocessed};
use super::{ResponseBody, TransportError};

/// How long hyper may take to drop the body of a call that was refused.
const BODY_COMES_BACK: Duration = Duration::from_secs(1);

/// What hyper fails with; it may hold the request.
type SendError = TrySendError<Request<RequestBody>>;

/// A call on its way.
#[pin_project::pin_project]
pub(super) struct Sent<F> {
    #[pin]
    answer: F,
    call: Option<Call>,
}

/// What belongs to a call while it is not answered.
struct Call {
    connection: Arc<Connection>,
    ticket: Ticket,
    /// To send it again; none for bodies that cannot be had back.
    copy: Option<(Copied, oneshot::Receiver<Replay>)>,
}

/// A call that failed.
pub(super) struct Failed {
    pub(super) connection: Arc<Connection>,
    ticket: Ticket,
    copy: Option<(Copied, oneshot::Receiver<Replay>)>,
    /// None: it was ended for standing still.
    error: Option<SendError>,
}

/// The head of a call.
struct Copied {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
}

impl Sent<()> {
    /// Sends the call, now.
    pub(super) fn new(
        connection: Arc<Connection>,
        ticket: Ticket,
        mut request: Request<RequestBody>,
    ) -> Sent<impl Future<Output = Result<Response<Incoming>, SendError>> + use<>> {
        let back = request.body_mut().arm(&ticket);
        let copy = back.map(|back| (Copied::of(&request), back));
        *request.uri_mut() = connection.target.direct(request.uri());
        Sent {
            answer: connection.send(request),
            call: Some(Call {
                connection,
                ticket,
                copy,
            }),
        }
    }
}

impl<F> Future for Sent<F>
where
    F: Future<Output = Result<Response<Incoming>, SendError>>,
{
    type Output = Result<Response<ResponseBody>, Failed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let watch = this
            .call
            .as_ref()
            .and_then(|call| call.ticket.watch.as_ref());
        let answer = if watch.is_some_and(|watch| watch.ended(cx)) {
            Err(None)
        } else {
            ready!(this.answer.poll(cx)).map_err(Some)
        };
        let Some(call) = this.call.take() else {
            // Polled after it was done, which no caller does.
            return Poll::Pending;
        };
        Poll::Ready(match answer {
            Ok(response) => Ok(response.map(|body| ResponseBody::new(body, call.ticket))),
            Err(error) => Err(Failed {
                connection: call.connection,
                ticket: call.ticket,
                copy: call.copy,
                error,
            }),
        })
    }
}

/// What is left of a call that failed.
pub(super) struct Recovered {
    pub(super) error: TransportError,
    /// The call itself, if it may be sent again: if the upstream provably did
    /// not look at it, and all of it is still there.
    pub(super) request: Option<Request<RequestBody>>,
    /// Whether the upstream refused just this call, and not the connection.
    pub(super) alone: bool,
    pub(super) ticket: Ticket,
}

impl Failed {
    /// What the call failed with, and what can be had back.
    pub(super) async fn recover(self) -> Recovered {
        let Self {
            ticket,
            copy,
            error,
            ..
        } = self;
        let mut recovered = Recovered {
            error: ticket.load.stalled(),
            request: None,
            alone: false,
            ticket,
        };
        let Some(mut error) = error else {
            return recovered;
        };
        let address = &recovered.ticket.load.address;
        recovered.error = TransportError::of(error.error(), address);
        // hyper hands back what it never began to send.
        recovered.request = error.take_message();
        if recovered.request.is_some() {
            return recovered;
        }
        let error = error.into_error();
        if let Some(h2) = h2_error(&error).filter(|h2| unprocessed(h2))
            && let Some((copy, back)) = copy
            && let Ok(Ok(replay)) = tokio::time::timeout(BODY_COMES_BACK, back).await
        {
            recovered.alone = h2.is_reset();
            recovered.request = Some(Request::from_parts(copy.into_head(), replay.into()));
        }
        recovered
    }
}

impl Copied {
    fn of(request: &Request<RequestBody>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
        }
    }

    fn into_head(self) -> Parts {
        let mut head = Request::new(()).into_parts().0;
        head.method = self.method;
        head.uri = self.uri;
        head.version = self.version;
        head.headers = self.headers;
        head
    }
}
