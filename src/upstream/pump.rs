//! Sends the body of a request over an HTTP/2 stream, as fast as the upstream
//! takes it and no faster.
//!
//! Not for: what the body is (`upload`), the answer (`response`).
//! Called by: `sent`.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http_body::Frame;
use tower::BoxError;

use super::load::Hold;
use super::upload::Upload;
use crate::net::Piece;

/// A body being sent.
#[derive(Debug)]
pub(super) struct Pump {
    upload: Upload,
    stream: SendStream<Piece>,
    /// A piece that waits for window.
    waiting: Option<Bytes>,
    /// Whether all was sent, or no more is wanted.
    done: bool,
    hold: Hold,
}

impl Pump {
    /// For a stream whose head was sent; `done` if that was all.
    pub(super) fn new(upload: Upload, stream: SendStream<Piece>, done: bool, hold: Hold) -> Self {
        Self {
            upload,
            stream,
            waiting: None,
            done,
            hold,
        }
    }

    pub(super) fn done(&self) -> bool {
        self.done
    }

    /// The body, for sending it again.
    pub(super) fn into_upload(self) -> Upload {
        self.upload
    }

    /// The upstream answered: nothing will be sent again.
    pub(super) fn let_go(&mut self) {
        self.upload.let_go();
    }

    /// Sends what can be sent. Ready when all of it was, or when the upstream
    /// wants no more, which its answer explains. An error is the body's own,
    /// and has reset the stream.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        while !self.done {
            if let Some(piece) = self.waiting.take() {
                if self.poll_window(cx).is_pending() {
                    self.waiting = Some(piece);
                    return Poll::Pending;
                }
                self.hold.asked();
                self.send(piece);
                continue;
            }
            match ready!(self.upload.poll_frame(cx)) {
                Some(Ok(frame)) => self.take(frame),
                Some(Err(error)) => {
                    self.done = true;
                    self.stream.send_reset(h2::Reason::CANCEL);
                    return Poll::Ready(Err(error));
                }
                None => {
                    self.done = true;
                    // Too late if the upstream has reset the stream.
                    drop(self.stream.send_data(Piece::default(), true));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, frame: Frame<Bytes>) {
        let piece = match frame.into_data() {
            Ok(piece) => piece,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.done = true;
                    drop(self.stream.send_trailers(trailers));
                }
                return;
            }
        };
        self.hold.passes(piece.len());
        // h2 keeps the last piece until there is window for it: nearly always
        // there is, and it is the only one of most calls.
        if self.upload.is_end() || piece.is_empty() {
            return self.send(piece);
        }
        // One byte claims a share of the connection's window; the whole piece
        // would keep it from streams that could send theirs.
        self.stream.reserve_capacity(1);
        if self.stream.capacity() > 0 {
            return self.send(piece);
        }
        self.waiting = Some(piece);
        // From here on it is the upstream that does not read.
        self.hold.gave();
    }

    fn send(&mut self, piece: Bytes) {
        let last = self.upload.is_end();
        let sent = self.stream.send_data(piece.into(), last);
        // It fails if the upstream has reset the stream.
        self.done = last || sent.is_err();
    }

    /// Waits until something may be sent, or nothing ever will be.
    fn poll_window(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            }
        }
        Poll::Ready(())
    }
}
