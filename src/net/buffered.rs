//! Large reads below TLS.
//!
//! rustls asks its socket for 4 KiB at a time, which is four or five system
//! calls for each of a peer's 16 KiB records.
//!
//! Not for: plain connections (`coalesce` reads ahead itself).
//! Called by: `stream`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffers;

/// A stream that is read ahead, and written as it is.
#[derive(Debug)]
pub struct Buffered<S> {
    stream: S,
    /// Bytes read and not yet taken, if any: `read.0[read.1..read.2]`.
    read: Option<(Box<[u8]>, usize, usize)>,
}

impl<S> Buffered<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Self {
        Self { stream, read: None }
    }

    fn take(&mut self, out: &mut ReadBuf<'_>) {
        if let Some((buffer, from, to)) = &mut self.read {
            let length = out.remaining().min(*to - *from);
            out.put_slice(&buffer[*from..*from + length]);
            *from += length;
            if from == to {
                self.give_up_buffer();
            }
        }
    }

    fn give_up_buffer(&mut self) {
        if let Some((buffer, _, _)) = self.read.take() {
            buffers::return_read(buffer);
        }
    }
}

impl<S> Drop for Buffered<S> {
    fn drop(&mut self) {
        self.give_up_buffer();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Buffered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read.is_none() {
            let mut buffer = buffers::lend_read();
            let mut filled = ReadBuf::new(&mut buffer);
            let read = Pin::new(&mut this.stream).poll_read(cx, &mut filled);
            let length = filled.filled().len();
            if !matches!(read, Poll::Ready(Ok(()))) {
                buffers::return_read(buffer);
                ready!(read)?;
                return Poll::Pending;
            }
            this.read = Some((buffer, 0, length));
        }
        this.take(out);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Buffered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn small_reads_are_served_from_one_large_one_to_the_end() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut near = Buffered::new(near);
        far.write_all(&[1; 10_000]).await.unwrap();
        let mut got = [0; 4096];
        near.read_exact(&mut got).await.unwrap();
        assert_eq!(near.read.as_ref().map(|read| read.2), Some(10_000));
        near.read_exact(&mut got).await.unwrap();
        near.read_exact(&mut got[..1808]).await.unwrap();
        assert!(near.read.is_none(), "idle: no buffer");
        near.write_all(b"answer").await.unwrap();
        far.read_exact(&mut got[..6]).await.unwrap();
        assert_eq!(&got[..6], b"answer");
        drop(far);
        assert_eq!(near.read(&mut got).await.unwrap(), 0);
    }
}
