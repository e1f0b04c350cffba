//! The body of a request on its way upstream, which can be had back while
//! little of it was sent.
//!
//! A call that the upstream provably never looked at (REFUSED_STREAM, above
//! GOAWAY's last stream) is sent again on another connection. hyper owns the
//! body by then, so the body returns itself when it is dropped, together with
//! the pieces that were read from it.
//!
//! Not for: deciding whether to send again (`pool`).
//! Called by: `forward` makes them, `pool` arms and replays them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::load::{Hold, Ticket};

/// How much of a body is kept for sending it again.
const KEPT: usize = 64 * 1024;

/// What an upstream call carries.
#[pin_project::pin_project(project = RequestBodyProj)]
#[derive(Debug)]
pub enum RequestBody {
    /// The body of a forwarded call, passed on as it comes.
    Passthrough(ReplayableIncoming),
    /// A body of our own.
    Boxed(#[pin] tonic::body::Body),
}

impl From<Incoming> for RequestBody {
    fn from(incoming: Incoming) -> Self {
        Self::Passthrough(ReplayableIncoming {
            replay: Replay {
                incoming: Some(incoming),
                kept: Vec::new(),
                kept_bytes: 0,
            },
            next: 0,
            back: None,
            hold: None,
        })
    }
}

impl RequestBody {
    /// Prepares the body for being sent over a connection. The receiver yields
    /// it again once that connection has dropped it, unless too much of it was
    /// read or the sender of the body cannot do that.
    pub(super) fn arm(&mut self, ticket: &Ticket) -> Option<oneshot::Receiver<Replay>> {
        match self {
            Self::Boxed(_) => None,
            Self::Passthrough(body) => {
                let (sender, receiver) = oneshot::channel();
                body.back = Some(sender);
                body.hold = Some(ticket.hold());
                Some(receiver)
            }
        }
    }
}

/// A body and everything that was read from it.
#[derive(Debug)]
pub(super) struct Replay {
    incoming: Option<Incoming>,
    kept: Vec<Bytes>,
    kept_bytes: usize,
}

impl From<Replay> for RequestBody {
    fn from(replay: Replay) -> Self {
        Self::Passthrough(ReplayableIncoming {
            replay,
            next: 0,
            back: None,
            hold: None,
        })
    }
}

/// An incoming body that keeps its beginning until it is known that it will
/// not be needed again.
#[derive(Debug)]
pub struct ReplayableIncoming {
    replay: Replay,
    /// The next kept piece to give out, below `kept.len()` only in a replay.
    next: usize,
    /// Where the body goes when it is dropped.
    back: Option<oneshot::Sender<Replay>>,
    hold: Option<Hold>,
}

impl ReplayableIncoming {
    fn keep(&mut self, piece: &Bytes) {
        let Some(back) = &self.back else { return };
        // Closed: the upstream answered, so nothing will be sent again.
        if back.is_closed() || self.replay.kept_bytes + piece.len() > KEPT {
            self.stop_keeping();
            return;
        }
        self.replay.kept_bytes += piece.len();
        self.replay.kept.push(piece.clone());
        self.next += 1;
    }

    fn stop_keeping(&mut self) {
        self.back = None;
        self.replay.kept = Vec::new();
        self.next = 0;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(piece) = self.replay.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let Some(incoming) = &mut self.replay.incoming else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(piece) => self.keep(piece),
                // gRPC requests have none; what has is not sent again.
                None => self.stop_keeping(),
            },
            Some(Err(_)) => self.stop_keeping(),
            None => {}
        }
        Poll::Ready(frame)
    }
}

impl Drop for ReplayableIncoming {
    fn drop(&mut self) {
        if let Some(back) = self.back.take()
            && !back.is_closed()
        {
            let replay = Replay {
                incoming: self.replay.incoming.take(),
                kept: std::mem::take(&mut self.replay.kept),
                kept_bytes: self.replay.kept_bytes,
            };
            // Nobody waits for it: the call is over.
            drop(back.send(replay));
        }
    }
}

impl Body for ReplayableIncoming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(hold) = &mut self.hold {
            hold.asked();
        }
        let frame = ready!(self.poll(cx));
        let end = self.is_end_stream();
        if let (Some(Ok(frame)), Some(hold)) = (&frame, &mut self.hold) {
            hold.passes(frame.data_ref().map_or(0, Bytes::len));
            if !end {
                hold.gave();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.next >= self.replay.kept.len()
            && self
                .replay
                .incoming
                .as_ref()
                .is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // Hidden: hyper would make a content-length of it.
        SizeHint::default()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = tower::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tower::BoxError>>> {
        match self.project() {
            RequestBodyProj::Passthrough(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            RequestBodyProj::Boxed(body) => body.poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Passthrough(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
