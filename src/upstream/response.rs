//! The body of an upstream's answer: hyper's, with what the connection needs
//! to know about it.
//!
//! Not for: what a client is told when it breaks off (`forward::body`).
//! Called by: `pool` makes them, `forward` and the typed clients read them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::TransportError;
use super::load::Ticket;

/// An answer as it comes in.
#[derive(Debug)]
pub struct ResponseBody {
    /// None where the call's watch has it.
    incoming: Option<Incoming>,
    ticket: Ticket,
}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, ticket: Ticket) -> Self {
        let incoming = match &ticket.watch {
            Some(watch) => {
                watch.keep(incoming);
                None
            }
            None => Some(incoming),
        };
        Self { incoming, ticket }
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
        let polled = match (&mut this.incoming, &this.ticket.watch) {
            (Some(incoming), _) => Pin::new(incoming).poll_frame(cx),
            (None, Some(watch)) => match watch.poll_frame(cx) {
                Some(polled) => polled,
                None => return Poll::Ready(Some(Err(this.ticket.load.stalled()))),
            },
            (None, None) => Poll::Ready(None),
        };
        Poll::Ready(match ready!(polled) {
            Some(Ok(frame)) => {
                // Trailers are the end: nobody comes back after them.
                if frame.is_data() {
                    this.ticket.gave();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(TransportError::of(&error, &this.ticket.load.address))),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        match (&self.incoming, &self.ticket.watch) {
            (Some(incoming), _) => incoming.is_end_stream(),
            (None, Some(watch)) => watch.is_end_stream(),
            (None, None) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        // Hidden: hyper would make a content-length of it.
        SizeHint::default()
    }
}
