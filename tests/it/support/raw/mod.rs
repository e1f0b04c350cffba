//! HTTP/2 by hand, on both sides of the program: what a forwarder may not
//! change is checked where nothing else interprets it.

mod client;
mod server;

pub use client::{RawAnswer, RawCall, RawClient, receive};
pub use server::RawUpstream;

use bytes::{BufMut as _, Bytes, BytesMut};

/// A message in gRPC framing.
pub fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 5);
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.extend_from_slice(message);
    out.freeze()
}
