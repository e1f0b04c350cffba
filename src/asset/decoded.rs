//! A text with its percent-encoding taken off (RFC 3986, section 2.1), however
//! often it was put on, that still knows where each byte stood.
//!
//! So what is found in it can be taken out of the text as it was written, and
//! all else stays as it is.
//! Not for: what is looked for (`cuts.rs`).
//! Called by: `cuts.rs`; `fetcher` (user info of URLs).

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;

/// So many times over an encoding is looked through. URLs within URLs within
/// URLs are met, deeper ones are not; and each level costs a walk.
pub(super) const DEPTH: u8 = 8;

/// Stands for a depth of what is still encoded then.
const TOO_DEEP: u8 = u8::MAX;

// Bytes that were looked at, counted where a test asks for it.
#[cfg(test)]
thread_local! {
    pub(super) static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[inline]
fn look_at(bytes: usize) {
    #[cfg(test)]
    LOOKED_AT.set(LOOKED_AT.get() + bytes);
    #[cfg(not(test))]
    let _ = bytes;
}

/// The bytes of a text, decoded, each with its depth: how often it was encoded.
pub(super) struct Decoded<'a> {
    raw: &'a [u8],
    looked_at: Cell<usize>,
    bytes: Cow<'a, [u8]>,
    /// Where in `raw` each byte begins, and its depth. Empty where nothing was
    /// encoded.
    places: Vec<(u32, u8)>,
}

impl<'a> Decoded<'a> {
    pub(super) fn new(raw: &'a [u8]) -> Self {
        let mut new = Self {
            raw,
            looked_at: Cell::new(0),
            bytes: Cow::Borrowed(raw),
            places: Vec::new(),
        };
        if (0..raw.len()).any(|at| encoded(raw, at).is_some()) {
            // No text has 4 GiB: messages have 16 MiB at most.
            let place = |at| (u32::try_from(at).unwrap_or(u32::MAX), 0);
            new.places = (0..raw.len()).map(place).collect();
            let more = (1..=DEPTH).all(|level| new.decode(level));
            if more {
                new.mark_too_deep();
            }
        }
        look_at(raw.len());
        new
    }

    /// Takes one encoding off, if there is one.
    fn decode(&mut self, level: u8) -> bool {
        look_at(self.bytes.len());
        let bytes = self.bytes.to_mut();
        let (mut from, mut to) = (0, 0);
        while from < bytes.len() {
            let (byte, place, taken) = match encoded(bytes, from) {
                Some(byte) => (byte, (self.places[from].0, level), 3),
                None => (bytes[from], self.places[from], 1),
            };
            (bytes[to], self.places[to]) = (byte, place);
            (from, to) = (from + taken, to + 1);
        }
        bytes.truncate(to);
        self.places.truncate(to);
        to < from
    }

    fn mark_too_deep(&mut self) {
        look_at(self.bytes.len());
        for at in 0..self.bytes.len() {
            if encoded(&self.bytes, at).is_some() {
                self.places[at].1 = TOO_DEEP;
            }
        }
    }

    /// Counts bytes that are looked at.
    pub(super) fn look_at(&self, bytes: usize) {
        self.looked_at.set(self.looked_at.get() + bytes);
        look_at(bytes);
    }

    pub(super) fn looked_at(&self) -> usize {
        self.looked_at.get()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The byte there; behind the end, a 0.
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    pub(super) fn depth(&self, at: usize) -> u8 {
        self.places.get(at).map_or(0, |place| place.1)
    }

    /// Whether an encoding begins there that was put on more often than is
    /// looked through.
    pub(super) fn is_too_deep(&self, at: usize) -> bool {
        self.depth(at) == TOO_DEEP
    }

    /// Where these bytes stand in the text as it was written.
    pub(super) fn written(&self, range: Range<usize>) -> Range<usize> {
        let place = |at: usize| match self.places.get(at) {
            Some((at, _)) => usize::try_from(*at).unwrap_or(usize::MAX),
            None if self.places.is_empty() => at,
            None => self.raw.len(),
        };
        place(range.start)..place(range.end)
    }
}

/// What is encoded at this place.
fn encoded(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    if *bytes.get(at)? != b'%' {
        return None;
    }
    u8::try_from(digit(at + 1)? << 4 | digit(at + 2)?).ok()
}

/// Without percent-encoding. What is no encoding stays.
pub(crate) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let decoded = encoded(text, at);
        out.push(decoded.unwrap_or(byte));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_knows_its_depth_and_where_it_stood() {
        let text = Decoded::new(b"a%3Db%2526%%32%36%zz");
        assert_eq!(text.bytes(0..text.len()), b"a=b&&%zz");
        let depths: Vec<u8> = (0..text.len()).map(|at| text.depth(at)).collect();
        assert_eq!(depths, [0, 1, 0, 2, 2, 0, 0, 0]);
        assert_eq!(text.written(1..3), 1..5);
        assert_eq!(text.written(3..4), 5..10);
        assert_eq!(text.written(4..8), 10..20);
        let plain = Decoded::new(b"100%");
        assert_eq!((plain.len(), plain.written(1..4)), (4, 1..4));
    }

    #[test]
    fn what_is_left_after_so_many_times_is_marked() {
        let deep = |times: u8| format!("a%{}3D", "25".repeat(usize::from(times) - 1));
        let text = deep(DEPTH);
        let text = Decoded::new(text.as_bytes());
        assert_eq!((text.bytes(0..2), text.depth(1)), (&b"a="[..], DEPTH));
        let text = deep(DEPTH + 1);
        let text = Decoded::new(text.as_bytes());
        assert_eq!(text.bytes(0..text.len()), b"a%3D");
        assert!(text.is_too_deep(1) && !text.is_too_deep(2));
    }

    #[test]
    fn what_is_no_encoding_stays() {
        assert_eq!(percent_decoded(b"%41%4%zz%+5%25%"), b"A%4%zz%+5%%");
    }
}
