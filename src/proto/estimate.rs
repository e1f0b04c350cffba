//! What decoding a message will take, told from its wire bytes before any of
//! it is decoded: one walk by the descriptors that counts levels and bytes and
//! stops at the first excess. Two bytes on the wire can make a struct of 150.
//!
//! The walk allocates nothing. What it calls malformed, prost refuses too; a
//! text that is not UTF-8 is left to prost.
//! Not for: limits of our own API (`api/limits.rs`).
//! Called by: the codec, and whoever decodes what others wrote.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod shape;
mod table;
mod walk;

use bytes::Buf;

pub use shape::{Field, Kind, Label, MessageShape, Shaped};

/// Levels of messages within messages that prost decodes.
pub const MAX_DEPTH: usize = 100;

/// Most bytes of memory that one byte on the wire makes: two make an element,
/// and the first of a vector makes room for four.
const MOST_PER_BYTE: u64 = 2048;

/// How a message is laid out, on the wire and in memory.
#[derive(Debug, Clone, Copy)]
pub struct Shape(&'static MessageShape);

/// What a walk stops at.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of memory that decoding may take.
    pub bytes: u64,
    /// Levels of messages within the message.
    pub depth: usize,
}

impl Limits {
    /// So many bytes, and the levels that prost decodes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self {
            bytes,
            depth: MAX_DEPTH,
        }
    }
}

/// What decoding a message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes of memory beside the wire bytes, which `bytes` fields share.
    pub bytes: u64,
}

/// Why a message is not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// These bytes are no such message.
    #[error("the bytes are no {name}: {reason}")]
    Malformed {
        /// Full name of the message.
        name: &'static str,
        /// What is wrong with them.
        reason: &'static str,
    },
    /// Messages within messages, too many levels of them.
    #[error("the {name} has more than {limit} levels of messages within messages")]
    Depth {
        /// Full name of the message.
        name: &'static str,
        /// Levels that are allowed.
        limit: usize,
    },
    /// Too many parts, however small on the wire.
    #[error(
        "the {name} of {wire} bytes would take more than {limit} bytes of memory once decoded: send fewer parts in one message"
    )]
    Bytes {
        /// Full name of the message.
        name: &'static str,
        /// Bytes that are allowed.
        limit: u64,
        /// Bytes on the wire.
        wire: usize,
    },
}

impl Shape {
    /// Of a type of message.
    #[must_use]
    pub fn of<M: Shaped>() -> Self {
        M::shape()
    }

    /// Of a message written down by hand.
    #[must_use]
    pub const fn by_hand(shape: &'static MessageShape) -> Self {
        Self(shape)
    }

    /// Of the message with this full name, as in `google.rpc.Status`.
    #[must_use]
    pub fn named(full_name: &str) -> Option<Self> {
        let index = table::NAMED.binary_search_by(|shape| shape.name.cmp(full_name));
        Some(Self(table::NAMED.get(index.ok()?)?))
    }

    /// Of the request of the method with this path, as in
    /// `/google.bytestream.ByteStream/Write`.
    #[must_use]
    pub fn of_request(method_path: &str) -> Option<Self> {
        let index = table::REQUESTS.binary_search_by(|(path, _)| (*path).cmp(method_path));
        Some(Self(table::REQUESTS.get(index.ok()?)?.1))
    }

    /// The full name of the message.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether a message of so many bytes fits whatever is in it, so that there
    /// is no need to look: nearly every one does.
    #[must_use]
    pub const fn always_fits(wire: usize, bytes: u64) -> bool {
        (wire as u64 + 1).saturating_mul(MOST_PER_BYTE) <= bytes
    }

    /// What decoding these bytes takes, within 2x of what an allocator gives
    /// out for it.
    ///
    /// # Errors
    /// The first limit that is met, or that the bytes are no such message.
    pub fn estimate(self, mut wire: impl Buf, limits: Limits) -> Result<Estimate, Excess> {
        let length = wire.remaining();
        #[cfg(test)]
        WALKS.lock().push((self.0.name, length));
        let bytes = walk::walk(&mut wire, self.0, limits).map_err(|stop| match stop {
            walk::Stop::Malformed(reason) => Excess::Malformed {
                name: self.0.name,
                reason,
            },
            walk::Stop::Depth => Excess::Depth {
                name: self.0.name,
                limit: limits.depth,
            },
            walk::Stop::Bytes => Excess::Bytes {
                name: self.0.name,
                limit: limits.bytes,
                wire: length,
            },
        })?;
        Ok(Estimate { bytes })
    }
}

/// The walks of all tests: names and lengths.
#[cfg(test)]
pub(crate) static WALKS: parking_lot::Mutex<Vec<(&str, usize)>> =
    parking_lot::Mutex::new(Vec::new());

#[cfg(test)]
mod tests;
