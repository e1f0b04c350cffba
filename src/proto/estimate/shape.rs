//! How a message is laid out: its fields, and the size of its Rust type.
//!
//! Called by: the table that `build.rs` writes, messages written by hand, and
//! the walk.

use super::Shape;

/// A type of message whose layout is known.
pub trait Shaped {
    /// Its layout.
    fn shape() -> Shape;
}

/// One message.
#[derive(Debug)]
pub struct MessageShape {
    /// Full name.
    pub name: &'static str,
    /// Bytes of its Rust type.
    pub size: usize,
    /// Its fields, by number.
    pub fields: &'static [Field],
}

/// One field.
#[derive(Debug)]
pub struct Field {
    /// Its number on the wire.
    pub number: u32,
    /// What it holds.
    pub kind: Kind,
    /// How often, and where that lies.
    pub label: Label,
}

/// What a field holds.
#[derive(Debug)]
pub enum Kind {
    /// A number of varying length.
    Varint,
    /// Four bytes.
    Fixed32,
    /// Eight bytes.
    Fixed64,
    /// Text or bytes that are copied.
    Copied,
    /// Bytes that stay where they are.
    Shared,
    /// A message.
    Message(&'static MessageShape),
}

/// How often a field is there, and where what it holds lies.
#[derive(Debug)]
pub enum Label {
    /// Once, within the message.
    Single,
    /// Once, in memory of its own.
    Boxed,
    /// In a vector.
    Repeated {
        /// Which of the message's repeated fields this is.
        slot: usize,
        /// Bytes of an element.
        size: usize,
    },
    /// In a hash table.
    Map {
        /// Which of the message's repeated fields this is.
        slot: usize,
        /// Bytes of a key and its value.
        size: usize,
    },
}

impl MessageShape {
    /// The field with this number.
    pub(super) fn field(&self, number: u32) -> Option<&'static Field> {
        // Most messages number their fields from 1 without a gap.
        let likely = self.fields.get((number as usize).wrapping_sub(1));
        if let Some(field) = likely.filter(|field| field.number == number) {
            return Some(field);
        }
        let index = self.fields.binary_search_by_key(&number, |f| f.number);
        self.fields.get(index.ok()?)
    }
}
