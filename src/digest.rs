//! Digests, digest functions, instance names and their scope: values that
//! cannot be malformed, so that nothing below the edges checks again.
//!
//! Not for: Subresource Integrity (`asset::Integrity`), whose algorithms are
//! independent of the digest function.
//! Called by: everything above row 0.

mod fingerprint;
mod function;
mod hasher;
mod instance;

pub use fingerprint::{Fingerprint, Fingerprinter};
pub use function::DigestFunction;
pub use hasher::Hasher;
pub use instance::InstanceName;

use std::fmt;

use crate::proto::rev2;

/// What is wrong with a digest, a digest function or an instance name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The field is absent.
    #[error("a digest is required")]
    Missing,
    /// `size_bytes` is negative.
    #[error("size_bytes is {0}; it cannot be negative")]
    NegativeSize(i64),
    /// The hash is not lower-case hexadecimal.
    #[error("the hash is not lower-case hexadecimal")]
    NotHex,
    /// The hash has the wrong number of characters for its function.
    #[error("the hash has {got} characters; {function} has {want}")]
    WrongLength {
        /// The function the digest is meant to be of.
        function: DigestFunction,
        /// Characters a hash of that function has.
        want: usize,
        /// Characters seen.
        got: usize,
    },
    /// No digest function has hashes of this length.
    #[error("no digest function has hashes of {0} characters")]
    UnknownLength(usize),
    /// The numeric value is not a digest function of REv2.
    #[error("{0} is not a digest function")]
    UnknownFunction(i32),
    /// The instance name breaks a rule of REv2.
    #[error("instance name: {0}")]
    InstanceName(&'static str),
    /// The size is 0 and the hash is not that of no bytes: there can be no
    /// such content, and nobody would look for it.
    #[error("size_bytes is 0, and the hash is not that of no bytes")]
    NotOfNothing,
    /// The message does not have the form `hash/size`.
    #[error("not of the form HASH/SIZE")]
    NotADigest,
}

/// A content digest: hash and size, valid for some digest function.
///
/// The function itself travels in [`Scope`], once per request, as in REv2.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    hash: Box<str>,
    size: u64,
}

/// Bytes of the longest hash there is (SHA-512).
const LONGEST: usize = 64;

impl Digest {
    /// A digest of `function` from its lower-case hexadecimal hash.
    pub fn new(function: DigestFunction, hash: &str, size: u64) -> Result<Self, Error> {
        check_hash(function, hash)?;
        if i64::try_from(size).is_err() {
            return Err(Error::NegativeSize(-1));
        }
        Ok(Self {
            hash: hash.into(),
            size,
        })
    }

    /// A digest from raw hash bytes.
    pub fn from_raw(function: DigestFunction, raw: &[u8], size: u64) -> Result<Self, Error> {
        Self::new(function, &hex::encode(raw), size)
    }

    /// A digest as it stands in a message.
    pub fn from_wire(function: DigestFunction, wire: Option<&rev2::Digest>) -> Result<Self, Error> {
        let wire = wire.ok_or(Error::Missing)?;
        let size =
            u64::try_from(wire.size_bytes).map_err(|_| Error::NegativeSize(wire.size_bytes))?;
        Self::new(function, &wire.hash, size)
    }

    /// A digest out of a message that says what content is: no size of 0 with
    /// the hash of something, as content of no bytes counts as present without
    /// anybody being asked.
    pub fn of_content(
        function: DigestFunction,
        wire: Option<&rev2::Digest>,
    ) -> Result<Self, Error> {
        let digest = Self::from_wire(function, wire)?;
        // Hashed only where it matters: large directories have many digests.
        let nothing = digest.is_empty().then(|| Self::of(function, b"")).flatten();
        match nothing {
            Some(nothing) if digest != nothing => Err(Error::NotOfNothing),
            _ => Ok(digest),
        }
    }

    /// The digest as it stands in a message.
    #[must_use]
    pub fn to_wire(&self) -> rev2::Digest {
        rev2::Digest {
            hash: self.hash.to_string(),
            size_bytes: self.size_i64(),
        }
    }

    /// Lower-case hexadecimal hash.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The hash as bytes.
    #[must_use]
    pub fn raw(&self) -> Vec<u8> {
        hex::decode(&*self.hash).unwrap_or_default()
    }

    /// Whether the hash is these bytes.
    #[must_use]
    pub fn has_hash(&self, raw: &[u8]) -> bool {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let pairs = self.hash.as_bytes().chunks_exact(2);
        let of = |byte: &u8| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
        pairs.len() == raw.len() && pairs.zip(raw).all(|(pair, byte)| pair == of(byte))
    }

    /// Size of the content in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Size of the content in bytes, as messages carry it.
    #[must_use]
    pub fn size_i64(&self) -> i64 {
        i64::try_from(self.size).unwrap_or(i64::MAX)
    }

    /// True for the digest of no bytes (which no cache has to store).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Path segments after `blobs/` in a `ByteStream` resource name (REv2,
    /// `ByteStream` API): `[function/]hash/size`, the function only where REv2
    /// says that it must not be omitted.
    #[must_use]
    pub fn resource_name(&self, function: DigestFunction) -> String {
        match function.resource_segment() {
            Some(segment) => format!("{segment}/{}/{}", self.hash, self.size),
            None => format!("{}/{}", self.hash, self.size),
        }
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hash, self.size)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Instance name and digest function: what every digest is relative to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Instance name of the request.
    pub instance: InstanceName,
    /// Digest function of the request.
    pub function: DigestFunction,
}

impl Scope {
    /// A scope.
    #[must_use]
    pub fn new(instance: InstanceName, function: DigestFunction) -> Self {
        Self { instance, function }
    }
}

/// A hash in hexadecimal. `hex::encode` does it a character at a time.
fn in_hex(raw: &[u8]) -> Box<str> {
    let mut digits = [0; 2 * LONGEST];
    let digits = &mut digits[..2 * raw.len().min(LONGEST)];
    let written = hex::encode_to_slice(raw, digits);
    // None is longer, and all digits are ASCII.
    let text = written.ok().and_then(|()| std::str::from_utf8(digits).ok());
    text.unwrap_or_default().into()
}

fn check_hash(function: DigestFunction, hash: &str) -> Result<(), Error> {
    let want = function.hex_length();
    if hash.len() != want {
        return Err(Error::WrongLength {
            function,
            want,
            got: hash.len(),
        });
    }
    if !hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Error::NotHex);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn wire(hash: &str, size_bytes: i64) -> rev2::Digest {
        rev2::Digest {
            hash: hash.into(),
            size_bytes,
        }
    }

    #[test]
    fn nothing_malformed_gets_in() {
        let f = DigestFunction::Sha256;
        let upper = HASH.to_uppercase();
        assert_eq!(Digest::from_wire(f, None), Err(Error::Missing));
        assert_eq!(
            Digest::from_wire(f, Some(&wire(HASH, -1))),
            Err(Error::NegativeSize(-1))
        );
        assert_eq!(
            Digest::from_wire(f, Some(&wire(&upper, 1))),
            Err(Error::NotHex)
        );
        assert!(matches!(
            Digest::from_wire(f, Some(&wire("ab", 1))),
            Err(Error::WrongLength {
                want: 64,
                got: 2,
                ..
            })
        ));
        assert!(matches!(
            Digest::new(f, HASH, u64::MAX),
            Err(Error::NegativeSize(_))
        ));
    }

    #[test]
    fn a_digest_of_no_bytes_has_the_hash_of_no_bytes() {
        for function in DigestFunction::all() {
            let Some(empty) = Digest::of(*function, b"") else {
                continue;
            };
            assert_eq!(
                Digest::of_content(*function, Some(&empty.to_wire())),
                Ok(empty)
            );
            let hash = "0".repeat(function.hex_length());
            let wrong = wire(&hash, 0);
            assert_eq!(
                Digest::of_content(*function, Some(&wrong)),
                Err(Error::NotOfNothing)
            );
        }
    }

    #[test]
    fn a_hash_is_compared_as_bytes() {
        let digest = Digest::new(DigestFunction::Sha256, HASH, 0).unwrap();
        let mut raw = digest.raw();
        assert!(digest.has_hash(&raw));
        assert!(!digest.has_hash(&raw[1..]));
        assert!(!digest.has_hash(&[&raw[..], &[0]].concat()));
        raw[31] ^= 1;
        assert!(!digest.has_hash(&raw));
    }

    #[test]
    fn round_trips_through_the_wire() {
        let d = Digest::new(DigestFunction::Sha256, HASH, 7).unwrap();
        assert_eq!(
            Digest::from_wire(DigestFunction::Sha256, Some(&d.to_wire())),
            Ok(d.clone())
        );
        assert_eq!(d.resource_name(DigestFunction::Sha256), format!("{HASH}/7"));
        assert_eq!(
            d.resource_name(DigestFunction::Blake3),
            format!("blake3/{HASH}/7")
        );
    }
}
