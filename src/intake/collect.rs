//! The bytes of one message as they come.
//!
//! Copied out of the frames they came in: a frame of one byte may keep the
//! whole buffer alive that it was read into.
//!
//! Not for: whether there is room for them (`slow`).
//! Called by: the parent module and `slow`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tonic::Status;
use tonic::body::Body;

use super::prefix::LENGTH;
use super::{MEDIUM, Prefix, SMALL, SMALL_FACTOR, STEP};
use crate::budget::{Share, Small};
use crate::proto::MAX_DECODED;
use crate::proto::estimate::{Limits, Shape};

/// What came of a body so far.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// The first frame, as it came.
    first: Option<Bytes>,
    /// What followed it, if anything did.
    next: Option<Next>,
}

/// What follows the first frame.
#[derive(Debug)]
enum Next {
    Frame(Frame<Bytes>),
    /// The body ended.
    End(Result<(), Status>),
}

impl Begun {
    /// Reads what is there: one frame of data, and the end if it is whole.
    pub(super) fn poll(&mut self, body: &mut Body, cx: &mut Context<'_>) {
        while self.next.is_none() && (self.first.is_none() || self.is_whole()) {
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                return;
            };
            match frame {
                None => self.next = Some(Next::End(Ok(()))),
                Some(Err(status)) => self.next = Some(Next::End(Err(status))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if self.first.is_none() => self.first = Some(data),
                    Ok(data) => self.next = Some(Next::Frame(Frame::data(data))),
                    Err(frame) => self.next = Some(Next::Frame(frame)),
                },
            }
            if self.next.is_none() && body.is_end_stream() {
                self.next = Some(Next::End(Ok(())));
            }
        }
    }

    fn is_whole(&self) -> bool {
        let first = self.first.as_deref().unwrap_or_default();
        let length = first.len().checked_sub(LENGTH).map(Prefix::Message);
        length.is_some() && Prefix::of(first) == length
    }

    /// Whether more of it would have to find room: a small message may wait
    /// for the end of its body, and one that did not begin takes none.
    pub(super) fn is_settled(&self) -> bool {
        let length = self.first.as_ref().map(Bytes::len);
        self.next.is_some() || length.is_some_and(|n| n > SMALL || !self.is_whole())
    }

    /// The whole message with its prefix, if the connection's own room for
    /// small ones has place for it. Without its shape only for the smallest.
    pub(super) fn small(&mut self, share: &Share, shape: Option<Shape>) -> Option<(Bytes, Small)> {
        let first = self.first.as_ref()?;
        let ended = matches!(self.next, Some(Next::End(Ok(()))));
        if first.len() > MEDIUM || !ended || !self.is_whole() {
            return None;
        }
        let length = first.len() as u64;
        let takes = if first.len() <= SMALL {
            length * SMALL_FACTOR
        } else {
            let limits = Limits::bytes(MAX_DECODED);
            length + shape?.estimate(&first[LENGTH..], limits).ok()?.bytes
        };
        let held = share.small(takes)?;
        Some((self.first.take()?, held))
    }

    /// What the first frame held.
    pub(super) fn first(&self) -> Option<&[u8]> {
        self.first.as_deref()
    }

    /// The frame after the first, or none if that is still to come; the end is
    /// no frame.
    pub(super) fn next(&mut self) -> Option<Result<Option<Frame<Bytes>>, Status>> {
        Some(match self.next.take()? {
            Next::Frame(frame) => Ok(Some(frame)),
            Next::End(end) => end.map(|()| None),
        })
    }
}

impl From<Pieces> for Begun {
    fn from(mut pieces: Pieces) -> Self {
        let bytes = pieces.message_and_prefix();
        Self {
            first: Some(bytes),
            next: None,
        }
    }
}

/// A body that was begun and goes on.
pub(super) struct Resumed {
    begun: Begun,
    rest: Body,
}

impl Resumed {
    pub(super) fn body(begun: Begun, rest: Body) -> Body {
        Body::new(Self { begun, rest })
    }
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(first) = self.begun.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(next) = self.begun.next() {
            return Poll::Ready(next.transpose());
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let nothing = self.begun.first.is_none() && self.begun.next.is_none();
        nothing && self.rest.is_end_stream()
    }
}

/// A message in pieces, each freed when it is read.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    full: VecDeque<Bytes>,
    last: BytesMut,
    length: usize,
}

impl Pieces {
    /// Bytes so far, the prefix among them.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, mut data: &[u8]) {
        self.length += data.len();
        while !data.is_empty() {
            if self.last.len() == self.last.capacity() {
                self.seal();
                self.last.reserve(data.len().clamp(4 << 10, STEP as usize));
            }
            let room = self.last.capacity() - self.last.len();
            let (now, later) = data.split_at(room.min(data.len()));
            self.last.extend_from_slice(now);
            data = later;
        }
    }

    fn seal(&mut self) {
        let last = std::mem::take(&mut self.last);
        if !last.is_empty() {
            self.full.push_back(last.freeze());
        }
    }

    pub(super) fn prefix(&self) -> Option<Prefix> {
        let mut start = [0; LENGTH];
        let mut bytes = self.full.iter().map(|b| &b[..]).chain([&self.last[..]]);
        let mut filled = 0;
        while filled < LENGTH {
            let piece = bytes.next()?;
            let n = piece.len().min(LENGTH - filled);
            start[filled..filled + n].copy_from_slice(&piece[..n]);
            filled += n;
        }
        Prefix::of(&start)
    }

    /// As a body that ends with these trailers.
    pub(super) fn into_body(mut self, trailers: Option<HeaderMap>) -> Body {
        self.seal();
        Body::new(Replay {
            pieces: self.full,
            trailers,
        })
    }

    /// All of it in one, for what is refused by its beginning.
    fn message_and_prefix(&mut self) -> Bytes {
        self.seal();
        let mut all = BytesMut::with_capacity(self.length);
        self.full
            .iter()
            .for_each(|piece| all.extend_from_slice(piece));
        all.freeze()
    }

    /// The message to look at.
    pub(super) fn message(&mut self) -> impl Buf + '_ {
        self.seal();
        let mut look = Look {
            pieces: &self.full,
            at: 0,
            from: 0,
            left: self.length,
        };
        look.advance(LENGTH.min(self.length));
        look
    }
}

/// Reads pieces without taking them.
struct Look<'a> {
    pieces: &'a VecDeque<Bytes>,
    at: usize,
    from: usize,
    left: usize,
}

impl Buf for Look<'_> {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.get(self.at).map_or(&[], |p| &p[self.from..])
    }

    fn advance(&mut self, mut count: usize) {
        self.left -= count;
        while count > 0 {
            let rest = self.chunk().len();
            if count < rest {
                self.from += count;
                return;
            }
            count -= rest;
            (self.at, self.from) = (self.at + 1, 0);
        }
    }
}

/// Hands pieces out again.
struct Replay {
    pieces: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Replay {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let data = self.pieces.pop_front().map(Frame::data);
        let frame = data.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none()
    }
}
