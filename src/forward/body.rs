//! The body of an answer on its way to the client.
//!
//! Not for: request bodies (`upstream::RequestBody`).
//! Called by: `forward`; `server::dispatch` for answers of our own.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tower::BoxError;

use super::status;
use super::tally::Call;
use crate::net::Piece;
use crate::upstream::{ResponseBody, TransportError};

/// An answer's body: polled straight, never boxed on the forward path.
#[pin_project::pin_project(project = Kind)]
#[derive(Debug)]
pub enum Body {
    /// The upstream's, as it comes in.
    Passthrough {
        /// What comes in.
        body: ResponseBody,
        /// Learns the outcome.
        call: Call,
        /// Whether the end, or ours in its place, was handed out.
        ended: bool,
    },
    /// The embedded cache's.
    Observed {
        /// What the service answers.
        #[pin]
        body: tonic::body::Body,
        /// Learns the outcome.
        call: Call,
    },
    /// One of our own services'.
    Native(#[pin] tonic::body::Body),
    /// None.
    Empty,
}

impl Body {
    pub(super) fn passthrough(body: ResponseBody, call: Call) -> Self {
        Self::Passthrough {
            body,
            call,
            ended: false,
        }
    }

    pub(super) fn observed(body: tonic::body::Body, call: Call) -> Self {
        Self::Observed { body, call }
    }
}

/// What the client is told when the upstream breaks off: its own reset, or
/// else trailers that say why. A bare reset reads as INTERNAL or UNKNOWN at
/// clients, and they would not try again.
fn broken_off(error: &TransportError, call: &mut Call) -> Result<Frame<Piece>, BoxError> {
    if let TransportError::Reset { reason, .. } = error {
        call.end(tonic::Code::Unknown);
        // hyper resets the client's stream with the reason it finds in this.
        return Err(h2::Error::from(*reason).into());
    }
    let status = status::of(error);
    call.end(status.code());
    Ok(Frame::trailers(status::trailers(&status)))
}

fn outcome<E>(frame: Option<&Result<Frame<Bytes>, E>>, call: &mut Call) {
    match frame {
        Some(Ok(frame)) => {
            if let Some(trailers) = frame.trailers_ref() {
                call.trailers(trailers);
            }
        }
        Some(Err(_)) | None => call.end(tonic::Code::Unknown),
    }
}

fn pieces(frame: Result<Frame<Bytes>, tonic::Status>) -> Result<Frame<Piece>, BoxError> {
    Ok(frame?.map_data(Piece::from))
}

impl http_body::Body for Body {
    type Data = Piece;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BoxError>>> {
        match self.project() {
            Kind::Passthrough { body, call, ended } => {
                if *ended {
                    return Poll::Ready(None);
                }
                let frame = ready!(Pin::new(body).poll_frame(cx));
                outcome(frame.as_ref(), call);
                Poll::Ready(match frame {
                    Some(Ok(frame)) => Some(Ok(frame.map_data(Piece::from))),
                    Some(Err(error)) => {
                        *ended = true;
                        Some(broken_off(&error, call))
                    }
                    None => None,
                })
            }
            Kind::Observed { body, call } => {
                let frame = ready!(body.poll_frame(cx));
                outcome(frame.as_ref(), call);
                Poll::Ready(frame.map(pieces))
            }
            Kind::Native(body) => body.poll_frame(cx).map(|frame| frame.map(pieces)),
            Kind::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Passthrough { body, ended, .. } => *ended || body.is_end_stream(),
            Self::Observed { body, .. } | Self::Native(body) => body.is_end_stream(),
            Self::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        // Hidden: hyper would make a content-length of it.
        SizeHint::default()
    }
}
