//! A piece of a body on its way to a socket, which nobody has to copy.
//!
//! Collecting writes (`coalesce`) needs them to outlive the call in which h2
//! hands them over, and h2 hands over borrowed slices. So a piece leaves a
//! handle to its memory where it is asked for the slice, just before the write,
//! and the write finds there whose memory the slice is.
//!
//! Not for: what a body consists of.
//! Called by: the bodies of `forward` and `upstream` are made of it, `outbox`
//! claims it.

use std::cell::RefCell;

use bytes::{Buf, Bytes};

/// Shorter pieces are cheaper to copy than to keep.
pub(super) const SHARED: usize = 2048;

thread_local! {
    /// The piece whose slice was asked for last.
    static OFFERED: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
}

/// A piece of a body.
#[derive(Debug, Clone, Default)]
pub struct Piece(Bytes);

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Piece> for Bytes {
    fn from(piece: Piece) -> Self {
        piece.0
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.0.len()
    }

    fn chunk(&self) -> &[u8] {
        if self.0.len() >= SHARED {
            OFFERED.set(self.0.clone());
        }
        &self.0
    }

    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }
}

/// Lets go of a piece that was asked for and not written: it may be the last
/// that holds what others wait for.
pub(super) fn forget() {
    drop(OFFERED.take());
}

/// A handle to the memory of `slice`, if it is that of the piece which was
/// asked last. The handle left behind keeps that memory from being used for
/// anything else, so equal addresses are equal bytes.
pub(super) fn claim(slice: &[u8]) -> Option<Bytes> {
    let offered = OFFERED.take();
    let (whole, part) = (offered.as_ptr_range(), slice.as_ptr_range());
    (whole.start <= part.start && part.end <= whole.end).then(|| offered.slice_ref(slice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slice_that_was_asked_for_can_be_claimed_once() {
        let bytes = Bytes::from(vec![7; SHARED + 10]);
        let mut piece = Piece::from(bytes.clone());
        piece.advance(10);
        let slice = &piece.chunk()[5..];
        let claimed = claim(slice).unwrap();
        assert_eq!(claimed.as_ptr(), bytes[15..].as_ptr(), "the same memory");
        assert_eq!(claimed.len(), SHARED - 5);
        assert!(claim(slice).is_none());
    }

    #[test]
    fn a_piece_that_is_not_written_is_let_go() {
        let bytes = Bytes::from(vec![7; SHARED]);
        let piece = Piece::from(bytes.clone());
        piece.chunk();
        drop(piece);
        assert!(!bytes.is_unique());
        forget();
        assert!(bytes.is_unique());
    }

    #[test]
    fn other_memory_and_short_pieces_are_not() {
        let piece = Piece::from(Bytes::from(vec![7; SHARED]));
        let other = vec![7; SHARED];
        piece.chunk();
        assert!(claim(&other).is_none(), "equal bytes elsewhere");
        let short = Piece::from(Bytes::from(vec![7; SHARED - 1]));
        assert!(claim(short.chunk()).is_none());
    }
}
