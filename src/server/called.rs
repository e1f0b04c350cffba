//! What a call holds until its answer was sent: its place among those of its
//! connection that run, and room for its head.
//!
//! Not for: what is answered (`dispatch`).
//! Called by: `connection`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::Either;
use http::Response;
use http_body::{Frame, SizeHint};
use tower::BoxError;

use super::crowd::{Running, Watching};
use crate::budget::Permit;
use crate::forward::{Answer, Body};
use crate::net::Piece;

/// A call of a connection, or what is none as it may stay open for ever.
pub(super) type Under = Either<Running, Watching>;

/// What a call has until its answer was sent.
struct Held {
    _under: Under,
    /// Of its head.
    _room: Option<Box<Permit>>,
}

/// Waits for the answer of a call. By hand: a combinator would move the future
/// out of the way to drop it.
#[pin_project::pin_project]
pub(super) struct Called<F> {
    #[pin]
    answer: F,
    held: Option<Held>,
}

impl<F> Called<F> {
    pub(super) fn new(answer: F, under: Under, room: Option<Box<Permit>>) -> Self {
        let held = Held {
            _under: under,
            _room: room,
        };
        Self {
            answer,
            held: Some(held),
        }
    }
}

impl<F: Future<Output = Answer>> Future for Called<F> {
    type Output = Result<Response<Counted>, h2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.answer.poll(cx))?;
        let held = this.held.take();
        Poll::Ready(Ok(response.map(|body| Counted { body, _held: held })))
    }
}

/// An answer's body; its call runs until it is dropped.
#[pin_project::pin_project]
pub(super) struct Counted {
    #[pin]
    body: Body,
    _held: Option<Held>,
}

impl http_body::Body for Counted {
    type Data = Piece;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BoxError>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
