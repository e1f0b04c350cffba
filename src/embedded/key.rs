//! The name of a stored file: what the index is keyed by, and the path it
//! has on disk. One derives from the other both ways, so the index can be
//! rebuilt from a directory listing.
//!
//! Not for: reading or writing the file (`disk.rs`).
//! Called by: everything in `embedded`.

use std::path::PathBuf;

use crate::digest::{Digest, DigestFunction, InstanceName};

/// Marks a key as an Action Cache entry; blobs carry their digest function.
const ACTION: u8 = u8::MAX;
const SIZE_BITS: u32 = 56;

/// What stands for no digit, and shows in any number it is put together with.
const NO_DIGIT: u8 = u8::MAX;

/// What each character is worth as a hexadecimal digit: requests and Trees have
/// thousands of hashes.
static DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut n = 0;
    while n < 16 {
        digits[b"0123456789abcdef"[n] as usize] = n as u8;
        digits[b"0123456789ABCDEF"[n] as usize] = n as u8;
        n += 1;
    }
    digits
};

/// A blob (digest function, hash, size) or an Action Cache entry, in 40 bytes.
///
/// Hashes longer than 32 bytes (SHA-384, SHA-512) are represented by their
/// BLAKE3, hashes shorter by themselves with zeros behind; the function is
/// part of the key, so nothing collides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    hash: [u8; 32],
    /// Tag in the top byte, size below.
    meta: u64,
}

impl Key {
    /// The key of a blob. CAS content is shared by all instance names: a
    /// digest says everything about a blob, and whoever knows it may read it.
    pub(super) fn blob(function: DigestFunction, digest: &Digest) -> Self {
        Self::from_hex(function, digest.hash().as_bytes(), digest.size())
            .unwrap_or_else(|| Self::new(function, [0; 32], digest.size()))
    }

    /// The key of a blob from its hash as text; `None` if that is malformed.
    pub(super) fn from_hex(function: DigestFunction, hash: &[u8], size: u64) -> Option<Self> {
        if hash.len() != function.hex_length() {
            return None;
        }
        let mut raw = [0; 64];
        let raw = raw.get_mut(..hash.len() / 2)?;
        let mut wrong = 0;
        for (byte, digits) in raw.iter_mut().zip(hash.as_chunks().0) {
            let [high, low] = digits.map(|digit| DIGITS[usize::from(digit)]);
            wrong |= high | low;
            *byte = high << 4 | low;
        }
        if wrong == NO_DIGIT {
            return None;
        }
        let mut short = [0; 32];
        if raw.len() > short.len() {
            short = *blake3::hash(raw).as_bytes();
        } else {
            short.get_mut(..raw.len())?.copy_from_slice(raw);
        }
        Some(Self::new(function, short, size))
    }

    fn new(function: DigestFunction, hash: [u8; 32], size: u64) -> Self {
        let tag = u64::from(function.to_wire().unsigned_abs() as u8) << SIZE_BITS;
        let size = size.min((1 << SIZE_BITS) - 1);
        let meta = tag | size;
        Self { hash, meta }
    }

    /// The key of the Action Cache entry of `action` at `instance`.
    pub(super) fn action(
        instance: &InstanceName,
        function: DigestFunction,
        action: &Digest,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        for field in [instance.as_str(), function.name(), action.hash()] {
            hasher.update(&(field.len() as u64).to_be_bytes());
            hasher.update(field.as_bytes());
        }
        hasher.update(&action.size().to_be_bytes());
        let hash = *hasher.finalize().as_bytes();
        let meta = u64::from(ACTION) << SIZE_BITS;
        Self { hash, meta }
    }

    /// The hash, as a name for checksums to bind to.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.hash
    }

    /// True for an Action Cache entry.
    pub(super) fn is_action(&self) -> bool {
        (self.meta >> SIZE_BITS) as u8 == ACTION
    }

    /// The digest function of a blob.
    pub(super) fn function(&self) -> Option<DigestFunction> {
        let tag = (self.meta >> SIZE_BITS) as u8;
        DigestFunction::from_wire(i32::from(tag)).ok().flatten()
    }

    /// The size of a blob; 0 for an Action Cache entry.
    pub(super) fn size(&self) -> u64 {
        self.meta & ((1 << SIZE_BITS) - 1)
    }

    /// Path below the cache directory.
    pub(super) fn path(&self) -> PathBuf {
        let mut name = [0; 64];
        let length = match self.function() {
            Some(function) => (function.hex_length() / 2).min(self.hash.len()),
            None => self.hash.len(),
        };
        // As long as it has to be: two digits for each byte.
        let name = name.get_mut(..2 * length).unwrap_or_default();
        let hash = self.hash.get(..length).unwrap_or_default();
        hex::encode_to_slice(hash, name).unwrap_or_default();
        let name = str::from_utf8(name).unwrap_or_default();
        let shard = name.get(..2).unwrap_or_default();
        let mut path = String::with_capacity(128);
        match self.function() {
            None => path.push_str("ac"),
            Some(function) => {
                path.push_str("cas/");
                path.push_str(&function.name().to_lowercase());
            }
        }
        for part in ["/", shard, "/", name] {
            path.push_str(part);
        }
        if !self.is_action() {
            path.push('-');
            path.push_str(&self.size().to_string());
        }
        path.into()
    }

    /// The blob a file in the directory of `function` holds, by its name.
    pub(super) fn of_blob_file(function: DigestFunction, name: &str) -> Option<Self> {
        let (hash, size) = name.split_once('-')?;
        let canonical = size == "0" || size.starts_with(|c| matches!(c, '1'..='9'));
        let size: u64 = size.parse().ok().filter(|_| canonical)?;
        let length = (function.hex_length() / 2).min(32);
        Some(Self::new(function, decode(hash, length)?, size))
    }

    /// The Action Cache entry a file holds, by its name.
    pub(super) fn of_action_file(name: &str) -> Option<Self> {
        let hash = decode(name, 32)?;
        let meta = u64::from(ACTION) << SIZE_BITS;
        Some(Self { hash, meta })
    }
}

/// Lower-case hexadecimal of `length` bytes, with zeros behind.
fn decode(text: &str, length: usize) -> Option<[u8; 32]> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let mut hash = [0; 32];
    hex::decode_to_slice(text, hash.get_mut(..length)?).ok()?;
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_hexadecimal_digits_whatever_stands_in_it() {
        let right = "00ff0123456789abcdefABCDEF9f8e7d6c5b4a3928170605f4e3d2c1b0a99887";
        let key = |hash: &[u8]| Key::from_hex(DigestFunction::Sha256, hash, 1);
        let read = key(right.as_bytes()).unwrap();
        assert_eq!(read.hash[..], hex::decode(right).unwrap()[..]);
        for at in [0, 1, 30, 63] {
            for byte in 0..=u8::MAX {
                let mut hash = right.as_bytes().to_owned();
                hash[at] = byte;
                let expected = hex::decode(&hash).ok();
                assert_eq!(key(&hash).map(|key| key.hash.to_vec()), expected);
            }
        }
        assert_eq!(key(&right.as_bytes()[1..]), None);
    }

    #[test]
    fn a_file_name_leads_back_to_its_key() {
        for function in DigestFunction::all().iter().copied() {
            let Some(digest) = Digest::of(function, b"abc") else {
                continue;
            };
            let key = Key::blob(function, &digest);
            let path = key.path();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(Key::of_blob_file(function, name), Some(key), "{name}");
            assert!(!key.is_action());
            assert_eq!((key.function(), key.size()), (Some(function), 3));
        }
        let digest = Digest::of(DigestFunction::Sha256, b"abc").unwrap();
        let key = Key::action(&InstanceName::default(), DigestFunction::Sha256, &digest);
        let path = key.path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(Key::of_action_file(name), Some(key));
        assert!(key.is_action());
    }

    #[test]
    fn foreign_file_names_are_no_keys() {
        let hash = "ab".repeat(32);
        let f = DigestFunction::Sha256;
        assert!(Key::of_blob_file(f, &format!("{hash}-5")).is_some());
        for bad in [
            hash.clone(),
            format!("{hash}-"),
            format!("{hash}-+5"),
            format!("{hash}-05"),
            format!("{hash}-5-6"),
            format!("{}-5", &hash[2..]),
            format!("{}-5", hash.to_uppercase()),
            "notes.txt".to_owned(),
        ] {
            assert_eq!(Key::of_blob_file(f, &bad), None, "{bad}");
        }
    }

    #[test]
    fn function_hash_size_and_instance_all_count() {
        let f = DigestFunction::Sha256;
        let one = Digest::of(f, b"abc").unwrap();
        let longer = Digest::new(f, one.hash(), 4).unwrap();
        assert_ne!(Key::blob(f, &one), Key::blob(f, &longer));
        assert_ne!(Key::blob(f, &one), Key::blob(DigestFunction::Blake3, &one));
        let at = |name: &str| Key::action(&InstanceName::new(name).unwrap(), f, &one);
        assert_ne!(at(""), at("a"));
        assert_ne!(
            Key::action(&InstanceName::default(), f, &longer),
            Key::action(&InstanceName::default(), f, &one)
        );
    }
}
