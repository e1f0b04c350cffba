//! What stands before each message of a gRPC body: a byte that says whether it
//! is compressed, and its length.
//!
//! Not for: decoding.
//! Called by: the parent and its other parts.

use crate::proto::MAX_NATIVE_MESSAGE;

/// Bytes of it.
pub(super) const LENGTH: usize = 5;

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    /// A message of so many bytes.
    Message(usize),
    /// What no service of ours takes: longer than it may be, or compressed.
    Refused,
}

impl Prefix {
    /// Of the first bytes of a body, once there are enough.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let (flag, length) = bytes.split_first()?;
        let length = u32::from_be_bytes(*length.first_chunk::<4>()?);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Some(if *flag == 0 && length <= MAX_NATIVE_MESSAGE {
            Self::Message(length)
        } else {
            Self::Refused
        })
    }
}
