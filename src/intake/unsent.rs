//! Answers that take much: their room is given back when the last of them was
//! sent, not when it was made.
//!
//! Not for: how much room that is, which only the service can tell.
//! Called by: the parent module.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::budget::Unsent;

/// The answer with its room, if the service put one beside it.
pub(super) fn keep(mut response: Response<Body>) -> Response<Body> {
    match response.extensions_mut().remove::<Unsent>() {
        None => response,
        Some(room) => response.map(|body| Body::new(Keeping { body, room })),
    }
}

/// A body that holds its room.
struct Keeping {
    body: Body,
    room: Unsent,
}

/// Bytes that hold the room of their answer: HTTP/2 takes a whole message from
/// the body when the window is open for one byte.
struct Kept {
    data: Bytes,
    _room: Unsent,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl http_body::Body for Keeping {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let room = &self.room;
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|data| {
                    Bytes::from_owner(Kept {
                        data,
                        _room: room.clone(),
                    })
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
