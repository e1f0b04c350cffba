//! The body of an upstream's answer: h2's, with what the connection needs to
//! know about it.
//!
//! Not for: what a client is told when it breaks off (`forward::body`).
//! Called by: `pool` makes them, `forward` and the typed clients read them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use super::TransportError;
use super::load::Ticket;

/// An answer as it comes in.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: RecvStream,
    /// Whether only trailers can come.
    data_done: bool,
    ticket: Ticket,
    /// Sends the rest of the request; ends with this.
    _rest: Option<AbortOnDropHandle<()>>,
}

impl ResponseBody {
    pub(super) fn new(
        incoming: RecvStream,
        ticket: Ticket,
        rest: Option<AbortOnDropHandle<()>>,
    ) -> Self {
        Self {
            incoming,
            data_done: false,
            ticket,
            _rest: rest,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, h2::Error>> {
        if !self.data_done {
            if let Some(piece) = ready!(self.incoming.poll_data(cx)) {
                let piece = piece?;
                // The reader has asked for it: room for as much more.
                self.incoming.flow_control().release_capacity(piece.len())?;
                return Poll::Ready(Ok(Some(Frame::data(piece))));
            }
            self.data_done = true;
        }
        let trailers = ready!(self.incoming.poll_trailers(cx))?;
        Poll::Ready(Ok(trailers.map(Frame::trailers)))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = TransportError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransportError>>> {
        let this = &mut *self;
        this.ticket.asked();
        let frame = ready!(this.poll(cx));
        Poll::Ready(match frame {
            Ok(frame) => {
                // Trailers are the end: nobody comes back after them.
                if frame.as_ref().is_some_and(Frame::is_data) {
                    this.ticket.gave();
                }
                frame.map(Ok)
            }
            // An answer that ended early, which the RFC allows (9113, 8.1).
            Err(error) if error.reason() == Some(h2::Reason::NO_ERROR) => None,
            Err(error) => Some(Err(TransportError::of(&error, &this.ticket.load.address))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Hidden: hyper would make a content-length of it.
        SizeHint::default()
    }
}
