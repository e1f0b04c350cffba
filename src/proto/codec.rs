//! The prost codec with one difference: a message that cannot be decoded is
//! INVALID_ARGUMENT, as the client sent it, and never INTERNAL.
//!
//! On the client side of a call the same failure means that the *server* sent
//! nonsense; the status carries [`Undecodable`] as its source, so that
//! `upstream::Error` can tell.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Largest message a native (not forwarded) call may carry: 16 MiB.
pub const MAX_NATIVE_MESSAGE: usize = 16 << 20;

/// What buffers begin with: most messages are small, and larger ones say how
/// large they are before they come.
const BUFFER: usize = 512;
/// Encoded bytes that are sent before further messages of a stream are encoded.
const YIELD: usize = 32 << 10;

/// Why a message could not be decoded.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the message cannot be decoded: {0}")]
pub struct Undecodable(#[from] prost::DecodeError);

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
    U: Message + Default + Send + 'static,
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

impl<U: Message + Default> Decoder for ProstDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buf).map(Some).map_err(undecodable)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, YIELD)
    }
}

/// The status of a message that cannot be decoded.
pub fn undecodable(cause: prost::DecodeError) -> Status {
    let cause = Undecodable(cause);
    let mut status = Status::invalid_argument(cause.to_string());
    status.set_source(std::sync::Arc::new(cause));
    status
}
