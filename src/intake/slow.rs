//! A message that did not come at once, or is not small: read under the
//! budget, charged before it is decoded, and decoded elsewhere if it is large.
//!
//! Not for: messages of streams (`flow`).
//! Called by: the parent module.

use std::convert::Infallible;
use std::task::Poll;

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;

use super::collect::{Begun, Pieces, Resumed};
use super::prefix::LENGTH;
use super::{Calls, Intake, LARGE, MOST_STALLED, PATIENCE, PROGRESS, Prefix, STEP, refusal};
use super::{SMALL, SMALL_FACTOR};
use crate::budget::{Permit, Share};
use crate::proto::estimate::{Excess, Limits, Shape};
use crate::proto::{self, MAX_DECODED};

/// Reads the rest of a message and has it answered.
pub(super) async fn answer<S: Calls>(
    mut intake: Intake<S>,
    request: Request<Body>,
    begun: Begun,
    share: Share,
) -> Result<Response<Body>, Infallible> {
    let Some(shape) = Shape::of_request(request.uri().path()) else {
        // Forwarded, or refused, by the service.
        let request = request.map(|rest| Resumed::body(begun, rest));
        return intake.near.call(request).await;
    };
    let (parts, mut body) = request.into_parts();
    let mut begun = begun;
    if let Err(status) = begin(&mut begun, &mut body).await {
        return Ok(status.into_http());
    }
    if let Some((message, _held)) = begun.small(&share, Some(shape)) {
        let request = Request::from_parts(parts, super::whole(message));
        return intake.near.call(request).await;
    }
    let mut reading = Reading::new(body, share);
    let message = match reading.whole(begun).await {
        Ok(Whole::Message(message, trailers)) => (message, trailers),
        Ok(Whole::Unread(begun)) => {
            let body = Resumed::body(begun, reading.body);
            return intake.near.call(Request::from_parts(parts, body)).await;
        }
        Err(status) => return Ok(status.into_http()),
    };
    let Reading { permit, share, .. } = reading;
    let whole = Message {
        shape,
        pieces: message.0,
        permit,
        walked: None,
    };
    let request = Request::from_parts(parts, message.1);
    match intake.far {
        Some(far) if whole.pieces.length() as u64 > LARGE => {
            let (far, elsewhere) = (*far).clone();
            let there = elsewhere.clone();
            let answer = async move { large(far, request, whole, &share, &there).await };
            elsewhere.run(answer).await
        }
        _ => here(intake.near, request, whole).await,
    }
}

/// Waits for the first frame, and for the end if that is all there is.
async fn begin(begun: &mut Begun, body: &mut Body) -> Result<(), Status> {
    let settled = std::future::poll_fn(|cx| {
        begun.poll(body, cx);
        if begun.is_settled() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    let came = tokio::time::timeout(PATIENCE, settled).await;
    came.map_err(|_| refusal::stalled(0, PATIENCE))
}

/// A message that has been received.
struct Message {
    shape: Shape,
    pieces: Pieces,
    permit: Permit,
    /// Its length, once it was seen to fit.
    walked: Option<usize>,
}

impl Message {
    /// How much memory decoding takes.
    fn estimate(&mut self) -> Result<u64, Status> {
        let length = self.pieces.length();
        if length <= SMALL {
            return Ok(length as u64 * SMALL_FACTOR);
        }
        let limits = Limits::bytes(MAX_DECODED);
        match self.shape.estimate(self.pieces.message(), limits) {
            Ok(estimate) => {
                self.walked = length.checked_sub(LENGTH);
                Ok(estimate.bytes)
            }
            Err(excess @ Excess::Bytes { .. }) => Err(refusal::too_many_parts(&excess)),
            // The codec says what is wrong with it.
            Err(_) => Ok(0),
        }
    }

    /// Room for that.
    async fn reserve(&mut self, bytes: u64) {
        self.permit.grow(bytes).await;
        self.permit.complete();
    }

    /// Calls a service with it. Charged until that is answered.
    async fn answer<S: Calls>(
        self,
        mut service: S,
        request: Request<Option<HeaderMap>>,
    ) -> Result<Response<Body>, Infallible> {
        let pieces = self.pieces;
        let request = request.map(|trailers| pieces.into_body(trailers));
        let _held = self.permit;
        let call = service.call(request);
        proto::walked(self.shape, self.walked, call).await
    }
}

async fn here<S: Calls>(
    service: S,
    request: Request<Option<HeaderMap>>,
    mut message: Message,
) -> Result<Response<Body>, Infallible> {
    match message.estimate() {
        Ok(bytes) => message.reserve(bytes).await,
        Err(status) => return Ok(status.into_http()),
    }
    message.answer(service, request).await
}

/// Takes turns for what keeps a thread busy: the walk, and the first poll, in
/// which the service decodes.
async fn large<S: Calls>(
    service: S,
    request: Request<Option<HeaderMap>>,
    mut message: Message,
    share: &Share,
    elsewhere: &super::Elsewhere,
) -> Result<Response<Body>, Infallible> {
    let estimate = {
        let _turn = elsewhere.turn(share).await;
        message.estimate()
    };
    match estimate {
        Ok(bytes) => message.reserve(bytes).await,
        Err(status) => return Ok(status.into_http()),
    }
    let mut answer = std::pin::pin!(message.answer(service, request));
    let first = {
        let _turn = elsewhere.turn(share).await;
        futures_util::poll!(answer.as_mut())
    };
    match first {
        Poll::Ready(answer) => answer,
        Poll::Pending => answer.await,
    }
}

/// Ready when no body of the connection made progress for as long as one waits
/// for that: what holds its room stands still.
async fn waited_in_vain(share: &Share) {
    let mut until = super::wait_until(share);
    loop {
        tokio::time::sleep_until(until).await;
        match super::wait_longer(share) {
            None => return,
            Some(later) => until = later,
        }
    }
}

/// What became of a body.
enum Whole {
    /// One message, and how the body ended.
    Message(Pieces, Option<HeaderMap>),
    /// None that the service would take: it says why.
    Unread(Begun),
}

/// A body being read.
struct Reading {
    body: Body,
    share: Share,
    permit: Permit,
    pieces: Pieces,
    /// When there is to be progress, and how many bytes that are.
    until: Instant,
    mark: u64,
}

impl Reading {
    fn new(body: Body, share: Share) -> Self {
        Self {
            permit: share.claim(),
            body,
            share,
            pieces: Pieces::default(),
            until: Instant::now() + PATIENCE,
            mark: PROGRESS,
        }
    }

    /// Reads to the end.
    async fn whole(&mut self, mut begun: Begun) -> Result<Whole, Status> {
        if let Some(first) = begun.first() {
            if let Some(Prefix::Refused) = Prefix::of(first) {
                return Ok(Whole::Unread(begun));
            }
            // There is room for it below, or it is one of few that wait.
            self.pieces.push(first);
        }
        let mut next = begun.next();
        let trailers = loop {
            let frame = match next.take() {
                Some(frame) => frame?,
                None => self.frame().await?,
            };
            match frame.map(http_body::Frame::into_data) {
                None => break None,
                Some(Ok(data)) => self.take(&data)?,
                Some(Err(frame)) => break frame.into_trailers().ok(),
            }
            if matches!(self.pieces.prefix(), Some(Prefix::Refused)) {
                let pieces = std::mem::take(&mut self.pieces);
                return Ok(Whole::Unread(Begun::from(pieces)));
            }
        };
        self.room(0).await?;
        let pieces = std::mem::take(&mut self.pieces);
        Ok(Whole::Message(pieces, trailers))
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Status> {
        self.pieces.push(data);
        if self.is_over() {
            return Err(refusal::two_messages());
        }
        let received = self.pieces.length() as u64;
        let excess = received.saturating_sub(self.permit.bytes());
        self.permit.charge(excess);
        if received >= self.mark {
            self.progressed();
        }
        Ok(())
    }

    fn progressed(&mut self) {
        self.share.progressed();
        self.until = Instant::now() + PATIENCE;
        self.mark = self.pieces.length() as u64 + PROGRESS;
    }

    /// Bytes that are still to come; none if that is not known yet.
    fn missing(&self) -> Option<usize> {
        match self.pieces.prefix()? {
            Prefix::Message(length) => Some((length + LENGTH).saturating_sub(self.pieces.length())),
            Prefix::Refused => Some(0),
        }
    }

    /// Whether there is more than one message.
    fn is_over(&self) -> bool {
        let length = self.pieces.length();
        matches!(self.pieces.prefix(), Some(Prefix::Message(n)) if n + LENGTH < length)
    }

    /// The next frame, once there is room for it.
    async fn frame(&mut self) -> Result<Option<http_body::Frame<bytes::Bytes>>, Status> {
        let step = self.missing().map_or(STEP, |n| STEP.min(n as u64));
        self.room(step).await?;
        match timeout_at(self.until, self.body.frame()).await {
            Ok(frame) => frame.transpose(),
            Err(_) => Err(refusal::stalled(self.pieces.length() as u64, PATIENCE)),
        }
    }

    /// Sees to it that so many more bytes may come.
    async fn room(&mut self, step: u64) -> Result<(), Status> {
        let want = self.pieces.length() as u64 + step;
        let more = want.saturating_sub(self.permit.bytes());
        if more == 0 || self.permit.try_grow(more) {
            return Ok(());
        }
        let stall = self.share.stall(MOST_STALLED);
        let _stall = stall.ok_or_else(refusal::crowded)?;
        let begun = Instant::now();
        tokio::select! {
            // What one that is refused gives back is not for those that are
            // due, too.
            biased;
            () = waited_in_vain(&self.share) => return Err(refusal::crowded()),
            () = self.permit.grow(more) => {}
        }
        // It was ours that time.
        self.until += begun.elapsed();
        Ok(())
    }
}
