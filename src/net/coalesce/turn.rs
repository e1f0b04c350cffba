//! How much of a connection one poll may read.
//!
//! HTTP/2 reads for as long as there is something, which with tiny frames is
//! for ever; everybody else on the thread waits meanwhile.
//!
//! Not for: whether what is read is acceptable (`meter`).
//! Called by: `coalesce`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::Inner;
use crate::net::meter::{Meter, Seen};

/// What may be read in one poll of a connection, as bytes: a quarter of a
/// millisecond of bulk DATA, and several times what a thread is handed at once
/// by a peer that waits for answers.
pub(super) const TURN: usize = 512 * 1024;

/// What a frame costs of a turn beside its bytes: the smallest take h2 as long
/// as this many bytes of bulk DATA.
const FRAME: usize = 1024;

/// What a call costs of a turn beside that: each is decoded, started, sent on
/// and, in a flood, reset before the turn is over.
const CALL: usize = 3 * 1024;

/// What a byte of a header block costs of a turn beside that: names and values
/// are decoded, kept apart and looked at by whoever answers. 900 short ones, of
/// 11 KiB, take as long as 700 KiB of bulk DATA.
const HEAD: usize = 32;

/// Takes `bytes` off the turn and has them judged. When they are an offence
/// they are not passed on, nor is anything after them: whoever polls the
/// connection asks for it and ends it.
pub(super) fn admit(meter: &mut Option<Meter>, turn: &mut usize, bytes: &[u8]) -> bool {
    let seen = meter
        .as_mut()
        .map_or_else(Seen::default, |meter| meter.receive(bytes));
    let work = seen.frames * FRAME + seen.calls * CALL + seen.heads * HEAD;
    *turn = turn.saturating_sub(bytes.len() + work);
    meter.as_ref().is_none_or(|meter| meter.offence().is_none())
}

/// Waking the task oneself would put it before the sockets of the others, which
/// are looked at only when no task is left; `yield_now` waits for that.
pub(super) fn wait_for_next_turn<T>(cx: &mut Context<'_>) -> Poll<T> {
    let mut next = std::pin::pin!(tokio::task::yield_now());
    if next.as_mut().poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
    Poll::Pending
}

/// The stream itself, read without our buffer.
pub(super) struct Direct<'a, S>(pub(super) &'a mut Inner<S>);

impl<S: AsyncRead + Unpin> AsyncRead for Direct<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &mut *self.0;
        let before = out.filled().len();
        let result = Pin::new(&mut inner.stream).poll_read(cx, out);
        inner.waiting = result.is_pending();
        let read = &out.filled()[before..];
        if admit(&mut inner.meter, &mut inner.turn, read) {
            result
        } else {
            Poll::Pending
        }
    }
}
