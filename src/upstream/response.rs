//! The body of an upstream's answer: h2's, with what the connection needs to
//! know about it.
//!
//! Not for: what a client is told when it breaks off (`forward::body`).
//! Called by: `sent` makes them, `forward` and the typed clients read them.

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
    /// None where the call's watch has it.
    answer: Option<Answer>,
    ticket: Ticket,
}

/// What holds a share of the connection's windows until it is dropped.
#[derive(Debug)]
pub(super) struct Answer {
    incoming: RecvStream,
    /// Whether only trailers can come.
    data_done: bool,
    /// Sends the rest of the request; ends with this.
    _rest: Option<AbortOnDropHandle<()>>,
}

/// A frame of an answer; none at its end.
pub(super) type Polled = Poll<Result<Option<Frame<Bytes>>, h2::Error>>;

impl Answer {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
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

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }
}

impl ResponseBody {
    pub(super) fn new(
        incoming: RecvStream,
        ticket: Ticket,
        rest: Option<AbortOnDropHandle<()>>,
    ) -> Self {
        let answer = Answer {
            incoming,
            data_done: false,
            _rest: rest,
        };
        let answer = match &ticket.watch {
            Some(watch) => {
                watch.keep(answer);
                None
            }
            None => Some(answer),
        };
        Self { answer, ticket }
    }

    /// `None` when the call was ended for standing still.
    fn poll(&mut self, cx: &mut Context<'_>) -> Option<Polled> {
        match (&mut self.answer, &self.ticket.watch) {
            (Some(answer), _) => Some(answer.poll_frame(cx)),
            (None, Some(watch)) => watch.poll_frame(cx),
            (None, None) => None,
        }
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
        let Some(polled) = this.poll(cx) else {
            return Poll::Ready(Some(Err(this.ticket.load.stalled())));
        };
        Poll::Ready(match ready!(polled) {
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
        match (&self.answer, &self.ticket.watch) {
            (Some(answer), _) => answer.is_end_stream(),
            (None, Some(watch)) => watch.is_end_stream(),
            (None, None) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        // Hidden: hyper would make a content-length of it.
        SizeHint::default()
    }
}
