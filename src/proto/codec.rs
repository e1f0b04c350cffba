//! The prost codec with two differences: what decoding will take is told
//! before it ([`estimate`](super::estimate)), and a message that cannot be
//! decoded is INVALID_ARGUMENT, as the client sent it, or RESOURCE_EXHAUSTED,
//! and never INTERNAL.
//!
//! On the client side of a call the same failure means that the *server* sent
//! nonsense; the status carries [`Undecodable`] as its source, so that
//! `upstream::Error` can tell.

use std::cell::Cell;
use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

use super::estimate::{Excess, Limits, Shape, Shaped};

/// Largest message a native (not forwarded) call may carry: 16 MiB.
pub const MAX_NATIVE_MESSAGE: usize = 16 << 20;

/// Most memory that a message may take once it is decoded: 96 MiB, six times
/// what one may be on the wire. Lists of digests and action results take two to
/// five times their size; what takes more was made for that.
pub const MAX_DECODED: u64 = 96 << 20;

/// What buffers begin with: most messages are small, and larger ones say how
/// large they are before they come.
const BUFFER: usize = 512;
/// Encoded bytes that are sent before further messages of a stream are encoded.
const YIELD: usize = 32 << 10;

/// Why a message was not decoded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Undecodable {
    /// It was not begun.
    #[error("the message cannot be decoded: {0}")]
    Unfit(#[from] Excess),
    /// It failed.
    #[error("the message cannot be decoded: {0}")]
    Failed(#[from] prost::DecodeError),
}

impl From<Undecodable> for Status {
    fn from(cause: Undecodable) -> Self {
        let code = match cause {
            Undecodable::Unfit(Excess::Bytes { .. }) => Code::ResourceExhausted,
            _ => Code::InvalidArgument,
        };
        let mut status = Status::new(code, cause.to_string());
        status.set_source(std::sync::Arc::new(cause));
        status
    }
}

/// Decodes a message that takes at most `limit` bytes of memory.
///
/// # Errors
/// Why it is not decoded.
pub fn decode<M>(wire: impl Buf + Clone, limit: u64) -> Result<M, Undecodable>
where
    M: Message + Shaped + Default,
{
    check::<M>(wire.clone(), limit)?;
    Ok(M::decode(wire)?)
}

fn check<M: Shaped>(wire: impl Buf, limit: u64) -> Result<(), Excess> {
    if !Shape::always_fits(wire.remaining(), limit) {
        Shape::of::<M>().estimate(wire, Limits::bytes(limit))?;
    }
    Ok(())
}

/// A message that fits, as the walk over its bytes has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Walked {
    /// Full name of the message.
    name: &'static str,
    length: usize,
}

tokio::task_local! {
    /// The message that a service is called with.
    static WALKED: Cell<Option<Walked>>;
}

/// Runs a call. If its request has been walked and fits in [`MAX_DECODED`], its
/// `length` is given and the codec does not walk it again. That holds for one
/// message of this kind and length: whatever else the call decodes comes later.
pub fn walked<F: Future>(
    shape: Shape,
    length: Option<usize>,
    call: F,
) -> impl Future<Output = F::Output> {
    let name = shape.name();
    let walked = length.map(|length| Walked { name, length });
    WALKED.scope(Cell::new(walked), call)
}

/// Whether this is the message that was walked; no other is from now on.
fn was_walked<M: Shaped>(length: usize) -> bool {
    let this = Walked {
        name: Shape::of::<M>().name(),
        length,
    };
    WALKED.try_with(Cell::take).ok().flatten() == Some(this)
}

/// Codec of every generated client and service.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Shaped + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder(PhantomData)
    }
}

/// Writes messages.
#[derive(Debug)]
pub struct ProstEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for ProstEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(item.encoded_len());
        item.encode(buf)
            .map_err(|e| Status::internal(format!("the message does not fit its buffer: {e}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, YIELD)
    }
}

/// Reads messages.
#[derive(Debug)]
pub struct ProstDecoder<U>(PhantomData<U>);

impl<U: Message + Shaped + Default> Decoder for ProstDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // All of it: messages are received whole, in one piece.
        let length = buf.remaining();
        if !Shape::always_fits(length, MAX_DECODED) && !was_walked::<U>(length) {
            check::<U>(buf.chunk(), MAX_DECODED).map_err(Undecodable::from)?;
        }
        Ok(Some(U::decode(buf).map_err(Undecodable::from)?))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, YIELD)
    }
}
