//! Holds back the many small writes of an HTTP/2 connection and sends them
//! once per poll of that connection.
//!
//! h2 writes and flushes every DATA frame of 256 bytes or more on its own.
//! Collecting them is worth 10-28 % of the CPU of a unary call and 16-33 % of a
//! stream's, more than any other single measure. The connection future has to
//! be wrapped in [`Flushed`], else nothing is ever sent.
//!
//! Not for: protocols that wait for a flush in the middle of a poll.
//! Called by: `server::connection`, `upstream::connection`.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffers::{self, SIZE};
use super::outbox::Outbox;

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
        Self::with_read(stream, &[])
    }

    /// Wraps a stream from which `already` was read (a sniffed preface; no
    /// longer than a buffer).
    pub fn with_read(stream: S, already: &[u8]) -> Self {
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
                error: None,
            })),
        }
    }

    /// Sends what was collected, as far as the socket takes it. When it does
    /// not take all, the task is woken once it takes more.
    pub fn flush(&self, cx: &mut Context<'_>) {
        let mut inner = self.inner.lock();
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
                return Poll::Ready(Ok(accepted));
            }
            self.unflushed = true;
            ready!(self.write.poll_send(&mut self.stream, cx))?;
        }
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        mut out: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_none() {
            // Large enough to spare the copy through our buffer.
            if out.remaining() >= SIZE && self.first.is_some() {
                let mut stream = TokioIo::new(&mut self.stream);
                return Read::poll_read(Pin::new(&mut stream), cx, out);
            }
            let mut buffer = buffers::lend_read();
            let mut filled = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.stream).poll_read(cx, &mut filled) {
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
            out.put_slice(&buffer[*from..*from + length]);
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

/// A connection future whose stream is flushed after every poll.
#[pin_project::pin_project]
#[derive(Debug)]
pub struct Flushed<F, S> {
    #[pin]
    connection: F,
    stream: Coalesced<S>,
}

impl<F, S> Flushed<F, S> {
    /// Wraps the future that drives HTTP/2 over `stream`.
    pub fn new(connection: F, stream: Coalesced<S>) -> Self {
        Self { connection, stream }
    }

    /// The wrapped future.
    pub fn connection(self: Pin<&mut Self>) -> Pin<&mut F> {
        self.project().connection
    }
}

impl<F, S> Future for Flushed<F, S>
where
    F: Future,
    S: AsyncRead + AsyncWrite + Unpin,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let output = this.connection.poll(cx);
        this.stream.flush(cx);
        output
    }
}

#[cfg(test)]
#[path = "coalesce_tests.rs"]
mod tests;
