//! Resource names of `ByteStream`: what to read, or what to write.
//!
//! Not for: names of other shapes (log streams); this cache has none.
//! Called by: `read.rs`, `write.rs`.

use std::fmt;

use super::request::ANNOUNCED;
use crate::digest::{Digest, DigestFunction, InstanceName};

/// Longest name that is looked at. Free text may follow the digest of an
/// upload.
const MAX_BYTES: usize = 16 << 10;

/// Why a name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// It names something this cache does not have.
    #[error("it names no blob")]
    Foreign,
    /// It begins as a blob's name does, and goes on wrongly.
    #[error("{0}")]
    Malformed(String),
}

/// A blob, and how its bytes travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    /// Digest function, named or inferred from the length of the hash.
    pub(super) function: DigestFunction,
    /// Digest of the (uncompressed) content.
    pub(super) digest: Digest,
    /// Whether the bytes are a zstd stream.
    pub(super) zstd: bool,
}

impl Blob {
    /// The name of a blob to read.
    pub(super) fn parse_read(name: &str) -> Result<Self, Error> {
        let (keyword, mut rest) = split(name)?;
        if keyword == "uploads" {
            return Err(malformed("this is a name for writing"));
        }
        let blob = Self::parse(keyword, &mut rest)?;
        match rest.next() {
            None => Ok(blob),
            Some(_) => Err(malformed("something follows the size")),
        }
    }

    /// The name of an upload. Text after the size is ignored.
    pub(super) fn parse_write(name: &str) -> Result<Self, Error> {
        let (keyword, mut rest) = split(name)?;
        if keyword != "uploads" {
            return Err(malformed("this is a name for reading"));
        }
        let id = rest.next().unwrap_or_default();
        uuid::Uuid::try_parse(id).map_err(|_| malformed("`uploads` is not followed by a UUID"))?;
        let keyword = rest.next().unwrap_or_default();
        Self::parse(keyword, &mut rest)
    }

    /// What follows the keyword: `[compressor/][function/]hash/size`.
    fn parse<'a>(keyword: &str, rest: &mut impl Iterator<Item = &'a str>) -> Result<Self, Error> {
        let zstd = match keyword {
            "blobs" => false,
            "compressed-blobs" => match rest.next() {
                Some("zstd") => true,
                other => {
                    let other = other.unwrap_or_default();
                    return Err(malformed(format_args!(
                        "the compressor {other:?} is not supported; zstd is"
                    )));
                }
            },
            _ => return Err(malformed("`blobs` or `compressed-blobs` is missing")),
        };
        let mut hash = rest.next().unwrap_or_default();
        let named = ANNOUNCED.iter().find(|f| f.name().to_lowercase() == hash);
        if named.is_some() {
            hash = rest.next().unwrap_or_default();
        }
        let function = match named {
            Some(function) => *function,
            None => DigestFunction::infer(hash.len(), &ANNOUNCED).map_err(malformed)?,
        };
        let size = rest.next().unwrap_or_default();
        let decimal = !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit());
        let size = size.parse().ok().filter(|_| decimal);
        let size = size.ok_or_else(|| malformed("the size is not a decimal number"))?;
        let digest = Digest::new(function, hash, size).map_err(malformed)?;
        Ok(Self {
            function,
            digest,
            zstd,
        })
    }
}

/// Checks the instance name, which ends at the first keyword.
fn split(name: &str) -> Result<(&str, std::str::Split<'_, char>), Error> {
    if name.is_empty() {
        return Err(malformed("it is empty"));
    }
    if name.len() > MAX_BYTES {
        return Err(malformed("it is longer than 16 KiB"));
    }
    let mut rest = name.split('/');
    let mut length = 0;
    for segment in rest.by_ref() {
        if InstanceName::KEYWORDS.contains(&segment) {
            let instance = name.get(..length).unwrap_or_default();
            let known = ["blobs", "compressed-blobs", "uploads"].contains(&segment);
            if !known {
                return Err(Error::Foreign);
            }
            check_instance(instance)?;
            return Ok((segment, rest));
        }
        length += segment.len() + 1;
    }
    Err(Error::Foreign)
}

/// `prefix` is empty or ends in a slash.
fn check_instance(prefix: &str) -> Result<(), Error> {
    if prefix == "/" {
        return Err(malformed("it begins with a slash"));
    }
    let instance = prefix.strip_suffix('/').unwrap_or(prefix);
    InstanceName::new(instance).map(drop).map_err(malformed)
}

fn malformed(reason: impl fmt::Display) -> Error {
    Error::Malformed(reason.to_string())
}

#[cfg(test)]
mod tests;
