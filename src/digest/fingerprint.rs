//! Hashes of what may be secret, under a key of this process: enough to tell
//! whether two requests are the same, and of no use to anybody else.
//!
//! They live in memory only and are shown nowhere.
//! Not for: keys of references, which every replica must be able to make
//! (`store`).
//! Called by: `resolver` and `fetcher`, to share what is under way.

use std::hash::Hasher;

/// A hash of something that may be secret. Has no `Debug`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// Makes fingerprints that only this process can make.
pub struct Fingerprinter {
    key: [u8; 32],
}

impl Default for Fingerprinter {
    fn default() -> Self {
        let mut key = [0; 32];
        // 122 random bits each.
        key[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        key[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        Self { key }
    }
}

impl Fingerprinter {
    /// The fingerprint of everything that `feed` feeds in.
    pub fn make(&self, feed: impl FnOnce(&mut Keyed)) -> Fingerprint {
        let mut hasher = Keyed(blake3::Hasher::new_keyed(&self.key));
        feed(&mut hasher);
        Fingerprint(*hasher.0.finalize().as_bytes())
    }
}

/// A cryptographic hash behind the interface that values can be fed to.
pub struct Keyed(blake3::Hasher);

impl Hasher for Keyed {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Required, and used by nobody here: the whole hash is taken.
    fn finish(&self) -> u64 {
        let mut first = [0; 8];
        self.0.finalize_xof().fill(&mut first);
        u64::from_le_bytes(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hash as _;

    #[test]
    fn the_same_is_the_same_in_one_process_only() {
        let (one, other) = (Fingerprinter::default(), Fingerprinter::default());
        let of = |by: &Fingerprinter, text: &str| by.make(|hasher| text.hash(hasher));
        assert!(of(&one, "a") == of(&one, "a"));
        assert!(of(&one, "a") != of(&one, "b"));
        assert!(of(&one, "a") != of(&other, "a"));
    }
}
