//! The end of a client's stream: what it did, a last word, and time to hear it.
//!
//! Not for: when a connection ends (`server::connection`).
//! Called by: `server::connection`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Coalesced;
use crate::net::buffers;
use crate::net::frames::{Head, kind};
use crate::net::meter::Offence;

/// How a client behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conduct {
    /// What it did, if it was too much. Nothing is read since.
    pub offence: Option<Offence>,
    /// What it began and left unfinished while we wait for it, as a number that
    /// is another for another thing. DATA is never meant.
    pub unfinished: Option<u64>,
    /// Whether what was sent ends with a frame, so that [`Coalesced::go_away`]
    /// can say something.
    pub between_frames: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Coalesced<S> {
    /// How the client behaves.
    #[must_use]
    pub fn conduct(&self) -> Conduct {
        let inner = self.inner.lock();
        // Bytes that HTTP/2 has not taken yet are not the client's delay.
        let waiting = inner.waiting && inner.read.is_none();
        inner
            .meter
            .as_ref()
            .map_or_else(Conduct::default, |meter| Conduct {
                offence: meter.offence(),
                unfinished: meter.unfinished().filter(|_| waiting),
                between_frames: meter.may_send(),
            })
    }

    /// Queues a GOAWAY, unless a frame that is half sent makes that impossible.
    /// HTTP/2 must not write any more.
    pub fn go_away(&self, code: u32, debug: &str) {
        let mut inner = self.inner.lock();
        let Some(meter) = inner.meter.as_ref().filter(|meter| meter.may_send()) else {
            return;
        };
        let last_stream = meter.last_stream().to_be_bytes();
        let code = code.to_be_bytes();
        let parts = [&last_stream[..], &code, debug.as_bytes()];
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let head = Head {
            length: u32::try_from(length).unwrap_or(0),
            kind: kind::GOAWAY,
            flags: 0,
            stream: 0,
        };
        inner.write.append(&head.bytes());
        for part in parts {
            inner.write.append(part);
        }
    }

    /// Sends what was collected, then ends our direction.
    pub fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }

    /// Reads and forgets; returns how much, 0 at the end. A socket that is
    /// closed with unread bytes is reset, and our last word may be lost.
    pub fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut inner = self.inner.lock();
        if let Some((buffer, _, _)) = inner.read.take() {
            buffers::return_read(buffer);
        }
        let mut buffer = buffers::lend_read();
        let mut filled = ReadBuf::new(&mut buffer);
        let result = Pin::new(&mut inner.stream).poll_read(cx, &mut filled);
        let length = filled.filled().len();
        buffers::return_read(buffer);
        result.map_ok(|()| length)
    }
}
