//! Incremental hashing with any computable digest function.
//!
//! Not for: deciding which function applies (`Scope` says).

use sha2::Digest as _;

use super::{Digest, DigestFunction, in_hex};

/// Hashes bytes as they pass and counts them.
#[derive(Debug, Clone)]
pub struct Hasher {
    function: DigestFunction,
    state: State,
    size: u64,
}

#[derive(Debug, Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha1(sha1::Sha1),
    Md5(md5::Md5),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// A hasher, or `None` if Assetgate cannot compute `function`.
    #[must_use]
    pub fn new(function: DigestFunction) -> Option<Self> {
        let state = match function {
            DigestFunction::Sha256 => State::Sha256(sha2::Sha256::new()),
            DigestFunction::Sha1 => State::Sha1(sha1::Sha1::new()),
            DigestFunction::Md5 => State::Md5(md5::Md5::new()),
            DigestFunction::Sha384 => State::Sha384(sha2::Sha384::new()),
            DigestFunction::Sha512 => State::Sha512(sha2::Sha512::new()),
            DigestFunction::Blake3 => State::Blake3(Box::default()),
            _ => return None,
        };
        Some(Self {
            function,
            state,
            size: 0,
        })
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        match &mut self.state {
            State::Sha256(h) => h.update(bytes),
            State::Sha1(h) => h.update(bytes),
            State::Md5(h) => h.update(bytes),
            State::Sha384(h) => h.update(bytes),
            State::Sha512(h) => h.update(bytes),
            State::Blake3(h) => {
                h.update(bytes);
            }
        }
    }

    /// Bytes taken in so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The raw hash of all bytes taken in.
    #[must_use]
    pub fn finish_raw(self) -> Vec<u8> {
        match self.state {
            State::Sha256(h) => h.finalize().to_vec(),
            State::Sha1(h) => h.finalize().to_vec(),
            State::Md5(h) => h.finalize().to_vec(),
            State::Sha384(h) => h.finalize().to_vec(),
            State::Sha512(h) => h.finalize().to_vec(),
            State::Blake3(h) => h.finalize().as_bytes().to_vec(),
        }
    }

    /// The digest of all bytes taken in.
    #[must_use]
    pub fn finish(self) -> Digest {
        let size = self.size;
        let hash = in_hex(&self.finish_raw());
        Digest { hash, size }
    }

    /// The function this hasher computes.
    #[must_use]
    pub fn function(&self) -> DigestFunction {
        self.function
    }
}

impl Digest {
    /// The digest of `bytes`, or `None` if Assetgate cannot compute `function`.
    #[must_use]
    pub fn of(function: DigestFunction, bytes: &[u8]) -> Option<Self> {
        let mut hasher = Hasher::new(function)?;
        hasher.update(bytes);
        Some(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_abc_are_the_published_ones() {
        let want = [
            (DigestFunction::Sha256, "ba7816bf8f01cfea"),
            (DigestFunction::Sha1, "a9993e364706816a"),
            (DigestFunction::Md5, "900150983cd24fb0"),
            (DigestFunction::Sha384, "cb00753f45a35e8b"),
            (DigestFunction::Sha512, "ddaf35a193617aba"),
            (DigestFunction::Blake3, "6437b3ac38465133"),
        ];
        for (function, prefix) in want {
            let digest = Digest::of(function, b"abc").unwrap();
            assert!(digest.hash().starts_with(prefix), "{function}: {digest}");
            assert_eq!(digest.hash().len(), function.hex_length());
            assert_eq!(digest.size(), 3);
        }
    }

    #[test]
    fn what_is_not_computable_has_no_hasher() {
        for function in DigestFunction::all() {
            assert_eq!(Hasher::new(*function).is_some(), function.is_computable());
        }
    }
}
