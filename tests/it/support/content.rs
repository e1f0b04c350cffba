//! Content and its names: digests, Subresource Integrity values, directories.

use assetgate::digest::{Digest, DigestFunction};
use assetgate::proto::rev2;
use base64::Engine as _;
use prost::Message;

use super::Function;

/// The SHA256 digest of some bytes.
pub fn digest_of(bytes: &[u8]) -> rev2::Digest {
    digest_in(Function::Sha256, bytes)
}

/// The digest of some bytes in any function Assetgate computes.
pub fn digest_in(function: Function, bytes: &[u8]) -> rev2::Digest {
    let function = DigestFunction::from_wire(function as i32).unwrap().unwrap();
    Digest::of(function, bytes).unwrap().to_wire()
}

/// `checksum.sri` of some bytes: `sri(Function::Sha256, b"..")`.
pub fn sri(function: Function, bytes: &[u8]) -> String {
    let raw = hex::decode(digest_in(function, bytes).hash).unwrap();
    let name = function.as_str_name().to_lowercase();
    format!(
        "{name}-{}",
        base64::engine::general_purpose::STANDARD.encode(raw)
    )
}

/// Bytes that look random and are the same every time.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// A directory under construction: its message, and the blobs of its closure.
#[derive(Clone, Default)]
pub struct Dir {
    message: rev2::Directory,
    files: Vec<Vec<u8>>,
    directories: Vec<Vec<u8>>,
}

impl Dir {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.message.files.push(rev2::FileNode {
            name: name.into(),
            digest: Some(digest_of(content)),
            ..Default::default()
        });
        self.message.files.sort_by(|a, b| a.name.cmp(&b.name));
        self.files.push(content.to_vec());
        self
    }

    pub fn dir(mut self, name: &str, child: &Dir) -> Self {
        self.message.directories.push(rev2::DirectoryNode {
            name: name.into(),
            digest: Some(child.digest()),
        });
        self.message.directories.sort_by(|a, b| a.name.cmp(&b.name));
        self.files.extend(child.files.iter().cloned());
        self.directories.extend(child.directory_blobs());
        self
    }

    /// The same directory without its closure, for trees that would not fit.
    pub fn reference(of: &Dir) -> Self {
        Self {
            message: of.message.clone(),
            ..Self::default()
        }
    }

    /// The encoded `Directory`.
    pub fn blob(&self) -> Vec<u8> {
        self.message.encode_to_vec()
    }

    /// Digest of the encoded `Directory`.
    pub fn digest(&self) -> rev2::Digest {
        digest_of(&self.blob())
    }

    /// Every `Directory` blob of the closure, the root first.
    pub fn directory_blobs(&self) -> Vec<Vec<u8>> {
        let mut all = vec![self.blob()];
        all.extend(self.directories.iter().cloned());
        all
    }

    /// Every blob of the closure.
    pub fn closure(&self) -> Vec<Vec<u8>> {
        let mut all = self.directory_blobs();
        all.extend(self.files.iter().cloned());
        all
    }
}
