//! The walk over wire bytes.
//!
//! Memory is counted as a 64-bit allocator gives it out, vectors at the
//! capacity to which doubling brings them.
//! Called by: `Shape::estimate`.

use bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::Limits;
use super::shape::{Field, Kind, Label, MessageShape};

/// Most repeated fields of one message (`build/shapes.rs` checks).
const SLOTS: usize = 16;
/// What an allocation costs beside its bytes.
const HEADER: u64 = 16;

/// What a vector of bytes begins with.
const LEAST_TEXT: u64 = 8;
/// Most fields of a message that are looked at to see that it is a plain one.
const PLAIN: usize = 3;

/// Why a walk ended early.
#[derive(Debug)]
pub(super) enum Stop {
    Malformed(&'static str),
    Depth,
    Bytes,
}

const KEY: Stop = Stop::Malformed("a key is no number, or has an unknown wire type");
const LENGTH: Stop = Stop::Malformed("a length is no number");
const NUMBER: Stop = Stop::Malformed("a number does not end");
const TOO_LONG: Stop = Stop::Malformed("a field is longer than what it stands in");
const OTHER_TYPE: Stop = Stop::Malformed("a field has another wire type than is defined");
const UNKNOWN: Stop = Stop::Malformed("an unknown field cannot be skipped");

/// The bytes that decoding takes.
pub(super) fn walk<B: Buf>(
    wire: &mut B,
    shape: &'static MessageShape,
    limits: Limits,
) -> Result<u64, Stop> {
    let mut walk = Walk {
        bytes: 0,
        limit: limits.bytes,
    };
    walk.take(shape.size as u64)?;
    walk.message(wire, 0, shape, limits.depth)?;
    Ok(walk.bytes)
}

struct Walk {
    bytes: u64,
    limit: u64,
}

/// How many elements each repeated field of a message has so far.
type Counts = [u64; SLOTS];

impl Walk {
    fn take(&mut self, bytes: u64) -> Result<(), Stop> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limit {
            return Err(Stop::Bytes);
        }
        Ok(())
    }

    /// One message, which ends where `end` bytes remain.
    fn message<B: Buf>(
        &mut self,
        wire: &mut B,
        end: usize,
        shape: &'static MessageShape,
        depth: usize,
    ) -> Result<(), Stop> {
        let mut counts: Counts = [0; SLOTS];
        while wire.remaining() > end {
            let (number, wire_type) = decode_key(wire).map_err(|_| KEY)?;
            match shape.field(number) {
                Some(field) if wire_type == WireType::LengthDelimited => {
                    let length = decode_varint(wire).map_err(|_| LENGTH)?;
                    let after = usize::try_from(length)
                        .ok()
                        .and_then(|length| wire.remaining().checked_sub(length))
                        .filter(|after| *after >= end)
                        .ok_or(TOO_LONG)?;
                    self.delimited(wire, after, field, &mut counts, depth)?;
                }
                Some(field) => self.number(wire, wire_type, field, &mut counts)?,
                None => skip_field(wire_type, number, wire, DecodeContext::default())
                    .map_err(|_| UNKNOWN)?,
            }
        }
        if wire.remaining() == end {
            Ok(())
        } else {
            Err(TOO_LONG)
        }
    }

    /// A field with a length: text, bytes, a message, or packed numbers.
    fn delimited<B: Buf>(
        &mut self,
        wire: &mut B,
        after: usize,
        field: &'static Field,
        counts: &mut Counts,
        depth: usize,
    ) -> Result<(), Stop> {
        let length = wire.remaining() - after;
        match field.kind {
            Kind::Message(shape) => {
                let depth = depth.checked_sub(1).ok_or(Stop::Depth)?;
                match field.label {
                    Label::Boxed => self.take(HEADER + shape.size as u64)?,
                    _ => self.elements(field, counts, 1)?,
                }
                if let Some(most) = of_plain(shape, length) {
                    self.take(most)?;
                    wire.advance(length);
                    return Ok(());
                }
                // Nearly always in one piece, which is faster to go through.
                match wire.chunk().get(..length) {
                    Some(mut part) => {
                        self.message(&mut part, 0, shape, depth)?;
                        wire.advance(length);
                    }
                    None => self.message(wire, after, shape, depth)?,
                }
            }
            Kind::Copied => {
                self.elements(field, counts, 1)?;
                if length > 0 {
                    self.take(HEADER + (length as u64).max(LEAST_TEXT))?;
                }
                wire.advance(length);
            }
            Kind::Shared => {
                self.elements(field, counts, 1)?;
                wire.advance(length);
            }
            Kind::Varint | Kind::Fixed32 | Kind::Fixed64 => {
                if !matches!(field.label, Label::Repeated { .. }) {
                    return Err(OTHER_TYPE);
                }
                let packed = match field.kind {
                    Kind::Fixed32 => length.div_ceil(4),
                    Kind::Fixed64 => length.div_ceil(8),
                    _ => ends(wire, length),
                };
                wire.advance(wire.remaining() - after);
                self.elements(field, counts, packed as u64)?;
            }
        }
        Ok(())
    }

    /// A number that is not packed.
    fn number<B: Buf>(
        &mut self,
        wire: &mut B,
        wire_type: WireType,
        field: &'static Field,
        counts: &mut Counts,
    ) -> Result<(), Stop> {
        let length = match (&field.kind, wire_type) {
            (Kind::Varint, WireType::Varint) => {
                decode_varint(wire).map_err(|_| NUMBER)?;
                0
            }
            (Kind::Fixed32, WireType::ThirtyTwoBit) => 4,
            (Kind::Fixed64, WireType::SixtyFourBit) => 8,
            _ => return Err(OTHER_TYPE),
        };
        if wire.remaining() < length {
            return Err(TOO_LONG);
        }
        wire.advance(length);
        self.elements(field, counts, 1)
    }

    /// `more` elements of a repeated field; nothing if it is none.
    fn elements(&mut self, field: &Field, counts: &mut Counts, more: u64) -> Result<(), Stop> {
        let (slot, size, capacity): (_, _, fn(u64, u64) -> u64) = match field.label {
            Label::Single | Label::Boxed => return Ok(()),
            Label::Repeated { slot, size } => (slot, size as u64, in_vector),
            Label::Map { slot, size } => (slot, size as u64, in_table),
        };
        let count = counts.get_mut(slot).ok_or(OTHER_TYPE)?;
        // Vectors of four or more grow at powers of two only.
        let grows = *count < 4 || count.is_power_of_two();
        if more == 1 && !grows && matches!(field.label, Label::Repeated { .. }) {
            *count += 1;
            return Ok(());
        }
        let before = capacity(*count, size);
        *count += more;
        self.take(capacity(*count, size) - before)
    }
}

/// The most that a message of so many bytes takes beside its struct, if there is
/// no need to go through it: none of its few fields is there more than once, so
/// that its texts are no longer than it. Such are digests, of which there are
/// most.
fn of_plain(shape: &MessageShape, length: usize) -> Option<u64> {
    if shape.fields.len() > PLAIN {
        return None;
    }
    let mut texts = 0;
    for field in shape.fields {
        match (&field.label, &field.kind) {
            (Label::Single, Kind::Copied) => texts += HEADER + LEAST_TEXT,
            (Label::Single, Kind::Message(_)) => return None,
            (Label::Single, _) => {}
            _ => return None,
        }
    }
    // Two bytes each are their keys and lengths at least.
    Some(texts.min(length as u64 / 2 * (HEADER + LEAST_TEXT)) + length as u64)
}

/// Bytes of a vector that `count` elements were pushed to.
fn in_vector(count: u64, size: u64) -> u64 {
    if count == 0 {
        return 0;
    }
    let least = match size {
        0 | 1 => 8,
        2..=1024 => 4,
        _ => 1,
    };
    count.next_power_of_two().max(least) * size + HEADER
}

/// Bytes of a hash table that `count` entries were put in: buckets are 7/8
/// full at most, and have a byte each beside.
fn in_table(count: u64, size: u64) -> u64 {
    if count == 0 {
        return 0;
    }
    let buckets = (count * 8).div_ceil(7).next_power_of_two().max(4);
    buckets * (size + 1) + 2 * HEADER
}

/// How many numbers end in the next `length` bytes, which are taken.
fn ends(wire: &mut impl Buf, length: usize) -> usize {
    let mut left = length;
    let mut ends = 0;
    while left > 0 {
        let chunk = wire.chunk();
        let chunk = chunk.get(..left).unwrap_or(chunk);
        ends += chunk.iter().filter(|byte| **byte < 0x80).count();
        left -= chunk.len();
        let taken = chunk.len();
        wire.advance(taken);
    }
    ends
}
