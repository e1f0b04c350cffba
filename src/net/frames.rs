//! Walks the frame heads of an HTTP/2 byte stream, wherever it is cut.
//!
//! Not for: what a frame means (`meter`), nor for its payload.
//! Called by: `meter`.

/// Bytes before every payload: length, type, flags, stream.
pub(super) const HEAD: usize = 9;

/// A frame's type, as on the wire.
pub(super) mod kind {
    pub(in crate::net) const DATA: u8 = 0;
    pub(in crate::net) const HEADERS: u8 = 1;
    pub(in crate::net) const RST_STREAM: u8 = 3;
    pub(in crate::net) const SETTINGS: u8 = 4;
    pub(in crate::net) const PING: u8 = 6;
    pub(in crate::net) const GOAWAY: u8 = 7;
    pub(in crate::net) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::net) const CONTINUATION: u8 = 9;
}

/// The flags that are looked at.
pub(super) mod flag {
    pub(in crate::net) const END_STREAM: u8 = 0x1;
    pub(in crate::net) const END_HEADERS: u8 = 0x4;
    pub(in crate::net) const PADDED: u8 = 0x8;
}

/// What a frame says before its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// The head on the wire.
    pub(super) fn bytes(self) -> [u8; HEAD] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    fn parse(bytes: &[u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Where in the stream of frames we are.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Payload of the present frame still to come.
    payload: u32,
    /// The beginning of a head that was cut.
    head: [u8; HEAD],
    /// How much of it there is.
    have: usize,
}

impl Walk {
    /// A stream whose first frame comes after `bytes` of something else.
    pub(super) fn after(bytes: u32) -> Self {
        Self {
            payload: bytes,
            ..Self::default()
        }
    }

    /// Whether the next byte begins a frame.
    pub(super) fn at_boundary(&self) -> bool {
        self.payload == 0 && self.have == 0
    }

    /// Whether a head was begun and not completed.
    pub(super) fn in_head(&self) -> bool {
        self.have > 0
    }

    /// Tells `seen` every head that ends in `bytes`.
    pub(super) fn walk(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Head)) {
        loop {
            let skipped = bytes.len().min(self.payload as usize);
            bytes = &bytes[skipped..];
            self.payload -= u32::try_from(skipped).unwrap_or(self.payload);
            if bytes.is_empty() {
                return;
            }
            let head = match bytes.first_chunk::<HEAD>() {
                Some(whole) if self.have == 0 => {
                    bytes = &bytes[HEAD..];
                    Head::parse(whole)
                }
                _ => {
                    let more = bytes.len().min(HEAD - self.have);
                    self.head[self.have..self.have + more].copy_from_slice(&bytes[..more]);
                    self.have += more;
                    bytes = &bytes[more..];
                    if self.have < HEAD {
                        return;
                    }
                    self.have = 0;
                    Head::parse(&self.head)
                }
            };
            self.payload = head.length;
            seen(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_found_however_the_stream_is_cut() {
        let mut bytes = Vec::new();
        let wanted: Vec<Head> = [(0, 6), (8, 6), (300, 0), (1, 0), (70_000, 0x1f)]
            .into_iter()
            .enumerate()
            .map(|(index, (length, kind))| Head {
                length,
                kind,
                flags: 0x5,
                stream: 2 * index as u32 + 1,
            })
            .collect();
        for head in &wanted {
            bytes.extend_from_slice(&head.length.to_be_bytes()[1..]);
            bytes.extend_from_slice(&[head.kind, head.flags]);
            // The reserved bit is not part of the number.
            bytes.extend_from_slice(&(head.stream | 0x8000_0000).to_be_bytes());
            bytes.resize(bytes.len() + head.length as usize, 0xff);
        }
        for size in [1, 2, 8, 9, 10, 17, 1000, usize::MAX] {
            let mut walk = Walk::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(size.min(bytes.len())) {
                walk.walk(piece, |head| seen.push(head));
            }
            assert_eq!(seen, wanted, "pieces of {size}");
            assert!(walk.at_boundary() && !walk.in_head());
        }
        let mut walk = Walk::default();
        walk.walk(&bytes[..4], |_| panic!("no head yet"));
        assert!(walk.in_head());
    }
}
