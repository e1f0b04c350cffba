//! The digest functions of REv2: their hash lengths, names and whether
//! Assetgate can compute them.
//!
//! Not for: hashing (`hasher.rs`).

use std::fmt;

use super::Error;
use crate::proto::rev2::digest_function::Value;

/// A digest function of REv2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DigestFunction {
    /// SHA-256, the default.
    Sha256,
    /// SHA-1.
    Sha1,
    /// MD5.
    Md5,
    /// Microsoft's VSO-Hash.
    Vso,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// Murmur3 (128 bit).
    Murmur3,
    /// SHA-256 as a tree hash.
    Sha256Tree,
    /// BLAKE3.
    Blake3,
    /// Git's SHA-1 over a blob header.
    GitSha1,
}

use DigestFunction as F;

const ALL: [F; 10] = [
    F::Sha256,
    F::Sha1,
    F::Md5,
    F::Vso,
    F::Sha384,
    F::Sha512,
    F::Murmur3,
    F::Sha256Tree,
    F::Blake3,
    F::GitSha1,
];

impl DigestFunction {
    /// Every function of REv2.
    #[must_use]
    pub fn all() -> &'static [DigestFunction] {
        &ALL
    }

    /// The function of a `digest_function` field; `None` where it is unset.
    pub fn from_wire(value: i32) -> Result<Option<Self>, Error> {
        let value = Value::try_from(value).map_err(|_| Error::UnknownFunction(value))?;
        if value == Value::Unknown {
            return Ok(None);
        }
        let found = ALL.into_iter().find(|f| f.to_value() == value);
        found.map(Some).ok_or(Error::UnknownFunction(value as i32))
    }

    /// The number of the function in messages.
    #[must_use]
    pub fn to_wire(self) -> i32 {
        self.to_value() as i32
    }

    fn to_value(self) -> Value {
        match self {
            F::Sha256 => Value::Sha256,
            F::Sha1 => Value::Sha1,
            F::Md5 => Value::Md5,
            F::Vso => Value::Vso,
            F::Sha384 => Value::Sha384,
            F::Sha512 => Value::Sha512,
            F::Murmur3 => Value::Murmur3,
            F::Sha256Tree => Value::Sha256tree,
            F::Blake3 => Value::Blake3,
            F::GitSha1 => Value::Gitsha1,
        }
    }

    /// Name as REv2 spells it, upper case.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.to_value().as_str_name()
    }

    /// Characters of a hash in hexadecimal.
    #[must_use]
    pub fn hex_length(self) -> usize {
        match self {
            F::Md5 | F::Murmur3 => 32,
            F::Sha1 | F::GitSha1 => 40,
            F::Sha256 | F::Sha256Tree | F::Blake3 => 64,
            F::Vso => 66,
            F::Sha384 => 96,
            F::Sha512 => 128,
        }
    }

    /// The segment that names the function in resource names; `None` where
    /// REv2 says that it must be omitted.
    #[must_use]
    pub fn resource_segment(self) -> Option<&'static str> {
        match self {
            F::Sha256Tree => Some("sha256tree"),
            F::Blake3 => Some("blake3"),
            F::GitSha1 => Some("gitsha1"),
            _ => None,
        }
    }

    /// Whether a request may leave the function out, so that it is inferred
    /// from the length of the hash (REv2, `digest_function`).
    #[must_use]
    pub fn may_be_omitted(self) -> bool {
        self.resource_segment().is_none()
    }

    /// Whether Assetgate can hash with it. Others work as names of content
    /// that somebody else hashed.
    #[must_use]
    pub fn is_computable(self) -> bool {
        !matches!(self, F::Vso | F::Murmur3 | F::Sha256Tree | F::GitSha1)
    }

    /// The function a hash of `hex_length` characters is of, if the request
    /// does not say: one that may be omitted, and where two have that length
    /// the one in `announced`.
    pub fn infer(hex_length: usize, announced: &[DigestFunction]) -> Result<Self, Error> {
        let fits = |f: &F| f.may_be_omitted() && f.hex_length() == hex_length;
        let known = announced.iter().copied().find(|f| fits(f));
        known
            .or_else(|| ALL.into_iter().find(|f| fits(f)))
            .ok_or(Error::UnknownLength(hex_length))
    }
}

impl fmt::Display for DigestFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_of_the_protocol_is_known() {
        for number in 1..=20 {
            if let Ok(value) = Value::try_from(number) {
                let function = DigestFunction::from_wire(number).unwrap().unwrap();
                assert_eq!(function.to_wire(), value as i32);
            }
        }
        assert_eq!(DigestFunction::from_wire(0), Ok(None));
        assert_eq!(
            DigestFunction::from_wire(99),
            Err(Error::UnknownFunction(99))
        );
    }

    #[test]
    fn an_omitted_function_is_inferred_from_length_and_announcement() {
        assert_eq!(F::infer(64, &[F::Blake3]), Ok(F::Sha256));
        assert_eq!(F::infer(32, &[F::Sha256, F::Murmur3]), Ok(F::Murmur3));
        assert_eq!(F::infer(32, &[]), Ok(F::Md5));
        assert_eq!(F::infer(40, &[F::GitSha1]), Ok(F::Sha1));
        assert_eq!(F::infer(63, &[]), Err(Error::UnknownLength(63)));
    }
}
