//! What a connection has to send and has not sent yet: short writes copied
//! behind each other, long ones shared.
//!
//! Copying everything would touch every byte of a body once more: 10-15 % of
//! the CPU of a forwarded read.
//!
//! Not for: when it is sent (`coalesce`).
//! Called by: `coalesce`.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::buffers::{self, SIZE};
use super::piece::{SHARED, claim};

/// How much may wait. More per system call gains nothing.
const LIMIT: usize = 256 * 1024;

/// How many parts go into one system call.
const SLICES: usize = 64;

/// Bytes to send, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    parts: VecDeque<Part>,
    /// The bytes of all [`Part::Copied`]; no capacity while there are none.
    copied: Vec<u8>,
    /// How much of `copied` was sent.
    sent: usize,
    /// Bytes in all parts.
    length: usize,
}

#[derive(Debug)]
enum Part {
    /// So many of the copied bytes.
    Copied(usize),
    Shared(Bytes),
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Takes as much of the slices as there is room for.
    pub(super) fn accept(&mut self, slices: &[IoSlice<'_>]) -> usize {
        let mut accepted = 0;
        for slice in slices {
            let taken = self.push(slice);
            accepted += taken;
            if taken < slice.len() {
                break;
            }
        }
        accepted
    }

    fn push(&mut self, slice: &[u8]) -> usize {
        let room = LIMIT.saturating_sub(self.length);
        if slice.len() >= SHARED
            && slice.len() <= room
            && let Some(bytes) = claim(slice)
        {
            self.parts.push_back(Part::Shared(bytes));
            self.length += slice.len();
            return slice.len();
        }
        let taken = slice
            .len()
            .min(room)
            .min(SIZE.saturating_sub(self.copied.len()));
        if taken > 0 {
            self.copy(&slice[..taken]);
        }
        taken
    }

    /// Takes all of `bytes`, room or not: for a last word.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.copy(bytes);
    }

    fn copy(&mut self, bytes: &[u8]) {
        if self.copied.capacity() == 0 {
            self.copied = buffers::lend_write();
        }
        self.copied.extend_from_slice(bytes);
        self.length += bytes.len();
        match self.parts.back_mut() {
            Some(Part::Copied(length)) => *length += bytes.len(),
            _ => self.parts.push_back(Part::Copied(bytes.len())),
        }
    }

    /// Sends everything.
    pub(super) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let sent = ready!(self.poll_write(stream, cx))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        let mut from = self.sent;
        if let ([Part::Copied(length)], []) = self.parts.as_slices() {
            return stream.poll_write(cx, &self.copied[from..from + length]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(match part {
                Part::Shared(bytes) => bytes,
                Part::Copied(length) => {
                    let start = from;
                    from += length;
                    &self.copied[start..from]
                }
            });
            count += 1;
        }
        stream.poll_write_vectored(cx, &slices[..count])
    }

    fn advance(&mut self, mut sent: usize) {
        self.length -= sent;
        while sent > 0 {
            let (done, length) = match self.parts.front_mut() {
                Some(Part::Shared(bytes)) => {
                    let length = sent.min(bytes.len());
                    bytes.advance(length);
                    (bytes.is_empty(), length)
                }
                Some(Part::Copied(left)) => {
                    let length = sent.min(*left);
                    *left -= length;
                    self.sent += length;
                    (*left == 0, length)
                }
                None => break,
            };
            sent -= length;
            if done {
                self.parts.pop_front();
            }
        }
        if self.sent == self.copied.len() {
            self.give_up_buffer();
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.length = 0;
        self.give_up_buffer();
    }

    fn give_up_buffer(&mut self) {
        self.sent = 0;
        if self.copied.capacity() > 0 {
            buffers::return_write(std::mem::take(&mut self.copied));
        }
    }
}

#[cfg(test)]
impl Outbox {
    pub(super) fn holds_nothing(&self) -> bool {
        self.parts.is_empty() && self.copied.capacity() == 0
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.give_up_buffer();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Piece;
    use proptest::prelude::*;
    use std::task::Waker;

    /// A socket that takes what it is told to, and then would block.
    #[derive(Default)]
    struct Socket {
        got: Vec<u8>,
        takes: VecDeque<usize>,
    }

    impl AsyncWrite for Socket {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let Some(most) = self.takes.pop_front() else {
                return Poll::Pending;
            };
            let before = self.got.len();
            for buf in bufs {
                let room = most - (self.got.len() - before);
                self.got.extend_from_slice(&buf[..buf.len().min(room)]);
            }
            Poll::Ready(Ok(self.got.len() - before))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn send(outbox: &mut Outbox, socket: &mut Socket) {
        let sent = outbox.poll_send(socket, &mut Context::from_waker(Waker::noop()));
        assert!(!matches!(sent, Poll::Ready(Err(_))));
    }

    proptest! {
        /// Whatever is written comes out in order, however it is cut and
        /// whether it is copied or shared.
        #[test]
        fn everything_comes_out_in_order(
            writes in prop::collection::vec((1..9000usize, 0..20usize), 1..60),
            takes in prop::collection::vec(1..50_000usize, 1..40),
        ) {
            let (mut outbox, mut socket) = (Outbox::default(), Socket::default());
            socket.takes = takes.into();
            let mut wanted = Vec::new();
            for (index, (size, head)) in writes.into_iter().enumerate() {
                let body: Vec<u8> = (0..size).map(|at| (at + index) as u8).collect();
                let head = vec![index as u8; head];
                wanted.extend_from_slice(&head);
                wanted.extend_from_slice(&body);
                let (mut head, mut piece) = (Bytes::from(head), Piece::from(Bytes::from(body)));
                while head.has_remaining() || piece.has_remaining() {
                    let slices = [IoSlice::new(&head), IoSlice::new(piece.chunk())];
                    let accepted = outbox.accept(&slices);
                    prop_assert!(outbox.length <= LIMIT);
                    if accepted == 0 {
                        socket.takes.push_back(30_000);
                        send(&mut outbox, &mut socket);
                    }
                    let of_head = accepted.min(head.len());
                    head.advance(of_head);
                    piece.advance(accepted - of_head);
                }
                send(&mut outbox, &mut socket);
            }
            socket.takes = vec![LIMIT; 20].into();
            send(&mut outbox, &mut socket);
            prop_assert!(socket.got == wanted);
            prop_assert!(outbox.holds_nothing());
        }
    }

    #[test]
    fn long_pieces_are_shared_and_short_ones_copied() {
        let (long, short) = (Bytes::from(vec![1; SHARED]), Bytes::from(vec![2; 100]));
        let mut outbox = Outbox::default();
        for bytes in [&short, &long] {
            let piece = Piece::from(bytes.clone());
            assert_eq!(outbox.accept(&[IoSlice::new(piece.chunk())]), bytes.len());
        }
        assert_eq!(outbox.copied, short);
        let [Part::Copied(100), Part::Shared(shared)] = outbox.parts.make_contiguous() else {
            panic!("{:?}", outbox.parts);
        };
        assert_eq!(shared.as_ptr(), long.as_ptr());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut outbox = Outbox::default();
        let bytes = Bytes::from(vec![1; 16 * 1024]);
        let mut accepted = 0;
        loop {
            let piece = Piece::from(bytes.clone());
            match outbox.accept(&[IoSlice::new(piece.chunk())]) {
                0 => break,
                more => accepted += more,
            }
        }
        assert_eq!(accepted, LIMIT);
    }
}
