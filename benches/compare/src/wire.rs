//! The few messages these programs send and read, in protobuf's wire format.
//!
//! Not for: any other message.
//! Called by: `fetch`, `abuse`.

use base64::Engine;
use bytes::{BufMut, Bytes, BytesMut};

/// Appends a number.
pub fn varint(out: &mut BytesMut, mut n: u64) {
    while n > 0x7f {
        out.put_u8(n as u8 | 0x80);
        n >>= 7;
    }
    out.put_u8(n as u8);
}

/// Appends a field of bytes.
pub fn field(out: &mut BytesMut, number: u64, value: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, value.len() as u64);
    out.put_slice(value);
}

/// The five bytes before a gRPC message of `length` bytes.
#[must_use]
pub fn framed(length: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(5 + length.min(1 << 16));
    out.put_u8(0);
    out.put_u32(length as u32);
    out
}

/// A message as a gRPC message.
#[must_use]
pub fn message(message: &[u8]) -> Bytes {
    let mut out = framed(message.len());
    out.put_slice(message);
    out.freeze()
}

/// A FetchBlobRequest for `uri`, pinned by `sha256`, as a gRPC message.
#[must_use]
pub fn fetch_blob(uri: &str, sha256: &[u8]) -> Bytes {
    let sri = base64::engine::general_purpose::STANDARD.encode(sha256);
    let (mut qualifier, mut request) = (BytesMut::new(), BytesMut::new());
    field(&mut qualifier, 1, b"checksum.sri");
    field(&mut qualifier, 2, format!("sha256-{sri}").as_bytes());
    field(&mut request, 4, uri.as_bytes());
    field(&mut request, 5, &qualifier);
    message(&request)
}

/// All of a WriteRequest but the `length` bytes of data at its end, as a gRPC message.
#[must_use]
pub fn write_head(name: Option<&str>, offset: u64, last: bool, length: usize) -> Bytes {
    let mut request = BytesMut::new();
    if let Some(name) = name {
        field(&mut request, 1, name.as_bytes());
    }
    varint(&mut request, 2 << 3);
    varint(&mut request, offset);
    if last {
        varint(&mut request, 3 << 3);
        varint(&mut request, 1);
    }
    varint(&mut request, 10 << 3 | 2);
    varint(&mut request, length as u64);
    let mut out = framed(request.len() + length);
    out.put_slice(&request);
    out.freeze()
}

/// A field's value.
pub enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, as far as it can be read.
#[must_use]
pub fn fields(mut message: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut out = vec![];
    while let Some(tag) = take_varint(&mut message) {
        let value = match tag & 7 {
            0 => take_varint(&mut message).map(Value::Number),
            2 => take_varint(&mut message)
                .and_then(|n| message.split_off(..n as usize))
                .map(Value::Bytes),
            _ => None,
        };
        let Some(value) = value else { break };
        out.push((tag >> 3, value));
    }
    out
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let byte = *from.split_off_first()?;
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

/// What a FetchBlobResponse says: its digest as `HASH/SIZE`, or its status.
///
/// # Errors
///
/// The status, when it is not OK.
pub fn fetched(message: &[u8]) -> Result<String, String> {
    let (mut status, mut digest) = (None, String::new());
    for (number, value) in fields(message) {
        match (number, value) {
            (1, Value::Bytes(m)) => status = failed(m),
            (5, Value::Bytes(m)) => digest = digest_of(m),
            _ => {}
        }
    }
    status.map_or(Ok(digest), Err)
}

fn failed(status: &[u8]) -> Option<String> {
    let (mut code, mut text) = (0, String::new());
    for (number, value) in fields(status) {
        match (number, value) {
            (1, Value::Number(n)) => code = n,
            (2, Value::Bytes(m)) => text = String::from_utf8_lossy(m).into_owned(),
            _ => {}
        }
    }
    (code != 0).then(|| format!("status {code}: {text}"))
}

fn digest_of(message: &[u8]) -> String {
    let (mut hash, mut size) = (String::new(), 0);
    for (number, value) in fields(message) {
        match (number, value) {
            (1, Value::Bytes(m)) => hash = String::from_utf8_lossy(m).into_owned(),
            (2, Value::Number(n)) => size = n,
            _ => {}
        }
    }
    format!("{hash}/{size}")
}
