//! A connection to an origin, plain or TLS, as hyper wants it.
//!
//! Called by: `connector`, `tunnel`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;

use super::connections::Place;

/// Bytes in both directions.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A socket, or TLS over one.
pub(super) type BoxIo = Box<dyn Io>;

/// One connection.
pub(super) struct Stream {
    io: TokioIo<BoxIo>,
    h2: bool,
    /// Requests on it are for a proxy, which wants whole URLs.
    proxied: bool,
    place: Place,
}

impl Stream {
    pub(super) fn plain(io: BoxIo, proxied: bool, place: Place) -> Self {
        Self {
            io: TokioIo::new(io),
            h2: false,
            proxied,
            place,
        }
    }

    pub(super) fn tls(tls: TlsStream<BoxIo>, place: Place) -> Self {
        let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Self {
            io: TokioIo::new(Box::new(tls)),
            h2,
            proxied: false,
            place,
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new()
            .proxy(self.proxied)
            .extra(self.place.handle());
        if self.h2 {
            connected.negotiated_h2()
        } else {
            connected
        }
    }
}

/// One that has to end says that its peer has gone, and sends nothing more.
impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.place.poll_ending(cx) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.place.is_ending() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
