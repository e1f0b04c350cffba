//! The messages of a stream, each charged while it comes and while it is with
//! the service.
//!
//! Not for: calls of one message (`slow`).
//! Called by: the parent module.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;

use super::prefix::LENGTH;
use super::{MOST_STALLED, PATIENCE, PROGRESS, Prefix, STEP, UPLOAD_PATIENCE, refusal};
use crate::budget::{Permit, Share, Stall};

const WRITE: &str = "/google.bytestream.ByteStream/Write";

/// How long a stream of messages may stand still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    time: Duration,
    /// Between messages, too.
    always: bool,
}

/// That of a method whose requests are streams.
pub(super) fn patience(path: &str) -> Option<Patience> {
    if path == WRITE {
        return Some(Patience {
            time: UPLOAD_PATIENCE,
            always: true,
        });
    }
    path.starts_with("/grpc.reflection.").then_some(Patience {
        time: PATIENCE,
        always: false,
    })
}

/// Where a stream is.
#[derive(Debug, Default)]
struct Place {
    /// The prefix as far as it came.
    prefix: Vec<u8>,
    /// Bytes of the message that are still to come.
    missing: u64,
}

impl Place {
    fn is_within(&self) -> bool {
        self.missing > 0 || !self.prefix.is_empty()
    }

    /// Goes on by these bytes; whether a message ended in them.
    fn advance(&mut self, mut data: &[u8]) -> bool {
        let mut ended = false;
        while !data.is_empty() {
            if self.missing > 0 {
                let n = usize::try_from(self.missing).map_or(data.len(), |m| m.min(data.len()));
                self.missing -= n as u64;
                data = &data[n..];
                ended |= self.missing == 0;
                continue;
            }
            let n = (LENGTH - self.prefix.len()).min(data.len());
            self.prefix.extend_from_slice(&data[..n]);
            data = &data[n..];
            if let Some(prefix) = Prefix::of(&self.prefix) {
                self.prefix.clear();
                match prefix {
                    Prefix::Message(length) => self.missing = length as u64,
                    // The service ends the call there.
                    Prefix::Refused => return true,
                }
                ended |= self.missing == 0;
            }
        }
        ended
    }
}

/// A body of messages.
pub(super) struct Flow {
    body: Body,
    share: Share,
    patience: Patience,
    idle: Pin<Box<Sleep>>,
    place: Place,
    /// Bytes since there last was progress.
    since: u64,
    /// Of the message that is coming, and of those before it in its frame.
    permit: Option<Permit>,
    received: u64,
    /// What is waited for.
    asked: Option<(u64, Stall)>,
}

impl Flow {
    pub(super) fn new(body: Body, share: Share, patience: Patience) -> Self {
        Self {
            body,
            share,
            patience,
            idle: Box::pin(tokio::time::sleep(patience.time)),
            place: Place::default(),
            since: 0,
            permit: None,
            received: 0,
            asked: None,
        }
    }

    fn progressed(&mut self) {
        self.since = 0;
        self.share.progressed();
        let until = Instant::now() + self.patience.time;
        self.idle.as_mut().reset(until);
    }

    /// Whether the next frame may be read.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if !self.place.is_within() {
            // The service has what came, and asks for more.
            self.permit = None;
            self.received = 0;
            return Poll::Ready(Ok(()));
        }
        let Some(permit) = &mut self.permit else {
            return Poll::Ready(Ok(()));
        };
        let more = match &self.asked {
            Some((more, _)) => *more,
            None => {
                let want = self.received + self.place.missing.min(STEP);
                want.saturating_sub(permit.bytes())
            }
        };
        if more == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.asked.is_none() {
            if permit.try_grow(more) {
                return Poll::Ready(Ok(()));
            }
            match self.share.stall(MOST_STALLED) {
                Some(stall) => {
                    self.asked = Some((more, stall));
                    let until = super::wait_until(&self.share);
                    self.idle.as_mut().reset(until);
                }
                None => return Poll::Ready(Err(refusal::crowded())),
            }
        }
        while self.idle.as_mut().poll(cx).is_ready() {
            match super::wait_longer(&self.share) {
                Some(later) => self.idle.as_mut().reset(later),
                None => return Poll::Ready(Err(refusal::crowded())),
            }
        }
        ready!(permit.poll_grow(cx, more));
        self.asked = None;
        // It was ours that time.
        self.progressed();
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, data: &[u8]) {
        let length = data.len() as u64;
        self.received += length;
        self.since += length;
        let ended = self.place.advance(data);
        let permit = self.permit.get_or_insert_with(|| self.share.claim());
        permit.charge(self.received.saturating_sub(permit.bytes()));
        if !self.place.is_within() {
            permit.complete();
        }
        if ended || self.since >= PROGRESS {
            self.progressed();
        }
    }
}

impl http_body::Body for Flow {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Err(status) = ready!(this.poll_room(cx)) {
            return Poll::Ready(Some(Err(status)));
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                this.take(data);
            }
            return Poll::Ready(frame);
        }
        if !this.patience.always && !this.place.is_within() {
            return Poll::Pending;
        }
        ready!(this.idle.as_mut().poll(cx));
        let status = refusal::stalled(this.received, this.patience.time);
        Poll::Ready(Some(Err(status)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
