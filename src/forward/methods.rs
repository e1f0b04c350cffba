//! Finds the method of a call by its path, among those of the vendored
//! definitions; anything else is `other`: a client could otherwise make as many
//! series as it likes.
//!
//! Done for every forwarded call, hence by a table of our own: a few words of
//! the path pick a slot, one comparison decides. The table never changes, so
//! that no path can be made for which it is slow.
//!
//! Not for: calls we answer ourselves (`middleware`).
//! Called by: `tally`, `observer`.

use prost::Message;
use prost_types::FileDescriptorSet;

use crate::proto::{FILE_DESCRIPTOR_SET, grpc_type};

/// Slots per method: most lookups end at the first one.
const SPACE: usize = 8;

/// A method as metrics name it.
#[derive(Debug)]
pub(super) struct Method {
    /// What requests of it ask for; empty for `other`.
    path: String,
    pub(super) service: String,
    pub(super) name: String,
    pub(super) kind: &'static str,
}

/// All methods; the first is `other`.
#[derive(Debug)]
pub(super) struct Methods {
    all: Vec<Method>,
    /// Numbers of methods, 0 where there is none. Methods that want the same
    /// slot stand in the next free ones.
    slots: Vec<u16>,
}

impl Methods {
    /// Those of the vendored definitions.
    pub(super) fn vendored() -> Self {
        // Built with the program and checked by the test below.
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
        let mut all = vec![Method {
            path: String::new(),
            service: "other".to_owned(),
            name: "other".to_owned(),
            kind: "other",
        }];
        for file in &set.file {
            for service in &file.service {
                let full = format!("{}.{}", file.package(), service.name());
                all.extend(service.method.iter().map(|method| Method {
                    path: format!("/{full}/{}", method.name()),
                    service: full.clone(),
                    name: method.name().to_owned(),
                    kind: grpc_type(method),
                }));
            }
        }
        Self::new(all)
    }

    fn new(all: Vec<Method>) -> Self {
        let mut slots = vec![0; (all.len() * SPACE).next_power_of_two()];
        for (number, method) in (0_u16..).zip(&all).skip(1) {
            let mut slot = slot(&method.path);
            while slots[slot & (slots.len() - 1)] != 0 {
                slot += 1;
            }
            let length = slots.len();
            slots[slot & (length - 1)] = number;
        }
        Self { all, slots }
    }

    /// The number of the method that has this path.
    pub(super) fn find(&self, path: &str) -> u16 {
        let mut slot = slot(path);
        loop {
            let number = self.slots[slot & (self.slots.len() - 1)];
            if number == 0 || self.all[usize::from(number)].path == path {
                return number;
            }
            slot += 1;
        }
    }

    /// All of them, in the order of their numbers.
    pub(super) fn all(&self) -> &[Method] {
        &self.all
    }
}

/// Where to look first: by the length and the last letters, in which the paths
/// of methods differ most.
fn slot(path: &str) -> usize {
    let last = path
        .as_bytes()
        .last_chunk()
        .map_or(0, |last| u64::from_le_bytes(*last));
    let mixed = (last ^ path.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_and_nothing_else() {
        let methods = Methods::vendored();
        assert!(methods.all().len() > 20, "{methods:?}");
        for (number, method) in methods.all().iter().enumerate().skip(1) {
            assert_eq!(usize::from(methods.find(&method.path)), number);
            let cut = &method.path[..method.path.len() - 1];
            let mut other = method.path.clone();
            // Same length and last letters, so the same slot.
            other.replace_range(1..2, "X");
            for unknown in [cut, &other, &format!("{}x", method.path)] {
                assert_eq!(methods.find(unknown), 0, "{unknown}");
            }
        }
        for unknown in ["", "/", "/a/b", "*", "//////////////////////////////"] {
            assert_eq!(methods.find(unknown), 0, "{unknown}");
        }
        let long = "/a".repeat(32 * 1024);
        assert_eq!(methods.find(&long), 0);
    }

    #[test]
    fn methods_that_want_the_same_slot_are_told_apart() {
        let make = |path: &str| Method {
            path: path.to_owned(),
            service: String::new(),
            name: String::new(),
            kind: "",
        };
        let paths = ["", "/a/Operation", "/b/Operation", "/c/Operation"];
        let methods = Methods::new(paths.map(make).into());
        for (number, path) in (0..).zip(paths) {
            assert_eq!(methods.find(path), number, "{path}");
        }
        assert_eq!(methods.find("/d/Operation"), 0);
    }

    #[test]
    fn no_lookup_takes_more_than_a_few_steps() {
        let slots = Methods::vendored().slots;
        let twice = slots.iter().chain(&slots);
        let (mut run, mut longest) = (0, 0);
        for number in twice {
            run = if *number == 0 { 0 } else { run + 1 };
            longest = longest.max(run);
        }
        assert!(longest <= 4, "{longest} methods stand in a row");
    }
}
