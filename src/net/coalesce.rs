//! Holds back the many small writes of an HTTP/2 connection and sends them
//! once per poll of that connection.
//!
//! h2 writes and flushes every DATA frame of 256 bytes or more on its own.
//! Collecting them is worth 10-28 % of the CPU of a unary call and 16-33 % of a
//! stream's, more than any other single measure. The connection future has to
//! be wrapped in [`Flushed`], else nothing is ever sent.
//!
//! What a connection may read in one poll is limited, lest others on its thread
//! wait; a client's stream is judged on the way (`meter`).
//!
//! Not for: protocols that wait for a flush in the middle of a poll.
//! Called by: `server::connection`, `upstream::connection`.

mod farewell;
mod flushed;
mod turn;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use farewell::Conduct;
pub use flushed::Flushed;

use super::buffers::{self, SIZE};
use super::meter::Meter;
use super::outbox::Outbox;
use super::piece;
use turn::{Direct, TURN, admit, wait_for_next_turn};

/// A stream with collected writes and buffered reads; clones share it.
#[derive(Debug)]
pub struct Coalesced<S> {
    inner: Arc<Mutex<Inner<S>>>,
}

#[derive(Debug)]
struct Inner<S> {
    stream: S,
    /// Bytes read and not yet taken, if any: `read.0[read.1..read.2]`.
    read: Option<(Box<[u8]>, usize, usize)>,
    /// Bytes accepted and not yet sent.
    write: Outbox,
    /// Whether the stream itself (TLS) may hold bytes to be flushed.
    unflushed: bool,
    /// How much may still be read in this poll.
    turn: usize,
    /// Whether the next turn was asked for.
    yielded: bool,
    /// Whether the last read found nothing: the peer is waited for.
    waiting: bool,
    /// Who judges what the peer sends, if anybody.
    meter: Option<Meter>,
    /// What a flush outside of a write met; the next write reports it.
    error: Option<io::Error>,
    /// What the peer's first bytes were, once there are some.
    first: Option<FirstWords>,
    /// Who waits for them.
    listener: Option<Waker>,
}

/// What a peer said first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstWords {
    /// An HTTP/2 SETTINGS frame, as every HTTP/2 server must.
    Http2,
    /// Something else.
    Other,
    /// Nothing: it closed the connection.
    Nothing,
}

impl<S> Clone for Coalesced<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Coalesced<S> {
    /// Wraps a stream from which nothing was read yet.
    pub fn new(stream: S) -> Self {
        Self::build(stream, &[], None)
    }

    /// Wraps the stream of a client whose HTTP/2 preface, `already`, was read
    /// (no longer than a buffer). What follows is judged.
    pub fn with_client(stream: S, already: &[u8]) -> Self {
        let meter = Meter::new(u32::try_from(already.len()).unwrap_or(0));
        Self::build(stream, already, Some(meter))
    }

    fn build(stream: S, already: &[u8], meter: Option<Meter>) -> Self {
        let read = (!already.is_empty()).then(|| {
            let mut buffer = buffers::lend_read();
            let length = already.len().min(SIZE);
            buffer[..length].copy_from_slice(&already[..length]);
            (buffer, 0, length)
        });
        Self {
            inner: Arc::new(Mutex::new(Inner {
                first: None,
                listener: None,
                stream,
                read,
                write: Outbox::default(),
                unflushed: false,
                turn: TURN,
                yielded: false,
                waiting: false,
                meter,
                error: None,
            })),
        }
    }

    /// Ends a poll of the connection: sends what was collected, as far as the
    /// socket takes it. When it does not take all, the task is woken once it
    /// takes more.
    pub fn flush(&self, cx: &mut Context<'_>) {
        piece::forget();
        let mut inner = self.inner.lock();
        inner.turn = TURN;
        inner.yielded = false;
        if let Poll::Ready(Err(error)) = inner.poll_drain(cx) {
            // The connection learns of it at its next write; it may be waiting
            // for something else, so make sure that there is a next poll.
            inner.error = Some(error);
            inner.write.clear();
            cx.waker().wake_by_ref();
        }
    }

    /// Waits for the peer's first bytes, while something else reads.
    pub fn poll_first(&self, cx: &mut Context<'_>) -> Poll<FirstWords> {
        let mut inner = self.inner.lock();
        match inner.first {
            Some(first) => Poll::Ready(first),
            None => {
                inner.listener = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<S> Inner<S> {
    /// Notes the first bytes of the peer.
    fn hear(&mut self, bytes: &[u8]) {
        if self.first.is_some() {
            return;
        }
        // The fourth byte of a frame is its type.
        self.first = Some(match bytes.get(3) {
            Some(0x4) => FirstWords::Http2,
            None if bytes.is_empty() => FirstWords::Nothing,
            // Cut into tiny pieces: HTTP/2 itself will find out.
            None => FirstWords::Http2,
            Some(_) => FirstWords::Other,
        });
        if let Some(listener) = self.listener.take() {
            listener.wake();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    /// Sends everything that was collected.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.write.is_empty() {
            self.unflushed = true;
            ready!(self.write.poll_send(&mut self.stream, cx))?;
        }
        if self.unflushed {
            if Pin::new(&mut self.stream).poll_flush(cx)?.is_pending() {
                return Poll::Pending;
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Collects as much of `bufs` as there is room for; sends what was
    /// collected before when there is none.
    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Err(error));
        }
        loop {
            let accepted = self.write.accept(bufs);
            if accepted > 0 || bufs.iter().all(|buf| buf.is_empty()) {
                self.note_sent(bufs, accepted);
                return Poll::Ready(Ok(accepted));
            }
            self.unflushed = true;
            ready!(self.write.poll_send(&mut self.stream, cx))?;
        }
    }

    /// Tells the meter which bytes of `bufs` were accepted.
    fn note_sent(&mut self, bufs: &[IoSlice<'_>], mut accepted: usize) {
        let Some(meter) = &mut self.meter else { return };
        for buf in bufs {
            let length = buf.len().min(accepted);
            meter.send(&buf[..length]);
            accepted -= length;
        }
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        mut out: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turn == 0 {
            // HTTP/2 reads again for each call that it hands on, in one poll.
            if self.yielded {
                return Poll::Pending;
            }
            self.yielded = true;
            return wait_for_next_turn(cx);
        }
        if self.read.is_none() {
            // Large enough to spare the copy through our buffer.
            if out.remaining() >= SIZE && self.first.is_some() {
                let mut direct = TokioIo::new(Direct(self));
                return Read::poll_read(Pin::new(&mut direct), cx, out);
            }
            let mut buffer = buffers::lend_read();
            let mut filled = ReadBuf::new(&mut buffer);
            let result = Pin::new(&mut self.stream).poll_read(cx, &mut filled);
            self.waiting = result.is_pending();
            match result {
                Poll::Ready(Ok(())) if !filled.filled().is_empty() => {
                    let length = filled.filled().len();
                    self.hear(&buffer[..length]);
                    self.read = Some((buffer, 0, length));
                }
                other => {
                    if other.is_ready() {
                        self.hear(&[]);
                    }
                    buffers::return_read(buffer);
                    return other;
                }
            }
        }
        if let Some((buffer, from, to)) = &mut self.read {
            let length = out.remaining().min(*to - *from);
            let piece = &buffer[*from..*from + length];
            if !admit(&mut self.meter, &mut self.turn, piece) {
                return Poll::Pending;
            }
            out.put_slice(piece);
            *from += length;
            if from == to
                && let Some((buffer, _, _)) = self.read.take()
            {
                buffers::return_read(buffer);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Drop for Inner<S> {
    fn drop(&mut self) {
        if let Some((buffer, _, _)) = self.read.take() {
            buffers::return_read(buffer);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Read for Coalesced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner.lock().poll_fill(cx, out)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for Coalesced<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner.lock().poll_accept(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner.lock().poll_accept(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sent at the end of the poll, by `Flushed`.
        match self.inner.lock().error.take() {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        match inner.poll_drain(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut inner.stream).poll_shutdown(cx),
            other => other,
        }
    }
}

#[cfg(test)]
#[path = "coalesce_tests.rs"]
mod tests;
