//! Bodies nobody has to keep: a name, then the same block over and over.
//!
//! Not for: sending them.
//! Called by: `origin`, `blobs`, `download`.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

const HEAD: usize = 64;
const BLOCK: usize = 1 << 16;

/// The body of `size` bytes that belongs to `name`.
pub struct Made {
    head: Bytes,
    block: Bytes,
    at: u64,
    size: u64,
}

impl Made {
    pub fn new(block: &Bytes, name: &str, size: u64) -> Self {
        let mut head = vec![b'.'; HEAD];
        let length = name.len().min(HEAD);
        head[..length].copy_from_slice(&name.as_bytes()[..length]);
        Self {
            head: head.into(),
            block: block.clone(),
            at: 0,
            size,
        }
    }

    pub fn left(&self) -> u64 {
        self.size - self.at
    }
}

impl Iterator for Made {
    type Item = Bytes;
    fn next(&mut self) -> Option<Bytes> {
        let part = if self.at == 0 {
            &self.head
        } else {
            &self.block
        };
        let length = self.left().min(part.len() as u64);
        self.at += length;
        (length > 0).then(|| part.slice(..length as usize))
    }
}

/// What every body is made of; no zstd or gzip gets anything out of it.
pub fn block() -> Bytes {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(BLOCK);
    while out.len() < BLOCK {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.into()
}

pub fn sha256(parts: impl Iterator<Item = Bytes>) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&part);
    }
    context.finish().as_ref().to_vec()
}

pub fn hex(hash: &[u8]) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of a hash in hexadecimal.
///
/// # Panics
///
/// When it is none.
pub fn from_hex(hash: &str) -> Vec<u8> {
    let byte = |i| u8::from_str_radix(&hash[i..i + 2], 16).expect("a hash in hexadecimal");
    (0..hash.len()).step_by(2).map(byte).collect()
}
