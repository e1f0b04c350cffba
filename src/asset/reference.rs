//! What a key leads to.

use std::time::SystemTime;

use super::{AssetKind, Checksum, Qualifiers};
use crate::digest::Digest;

/// Where a reference comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A client pushed it: a claim.
    Push,
    /// Assetgate fetched it from the origin.
    Fetch,
}

/// The origin's validators (RFC 9110, section 8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`
    pub etag: Option<String>,
    /// `Last-Modified`
    pub last_modified: Option<String>,
}

/// A stored answer: this key means that content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetReference {
    /// Blob or directory.
    pub kind: AssetKind,
    /// Digest of the blob, or of the root `Directory`.
    pub digest: Digest,
    /// The URI it was pushed under or fetched from, redacted.
    pub uri: String,
    /// The identity qualifiers it was pushed or fetched with.
    pub qualifiers: Qualifiers,
    /// Time of the push, or when the retrieval started.
    pub content_time: SystemTime,
    /// From when on it no longer holds.
    pub expire_at: Option<SystemTime>,
    /// Pushed or fetched.
    pub source: Source,
    /// For conditional requests.
    pub validators: Validators,
    /// Hashes Assetgate computed over the bytes itself. Of an entry that was
    /// read a claim like any other, unless it [vouches](Self::vouches_for).
    pub verified: Vec<Checksum>,
    /// Of an entry that was read: when it was signed, if a valid MAC says so.
    /// Of one to be written: when to say that it was, if later than
    /// `content_time`.
    pub signed_at: Option<SystemTime>,
    /// Further blobs to keep alive with it (`references_blobs` of a push).
    pub referenced_blobs: Vec<Digest>,
    /// Further trees to keep alive with it (`references_directories`).
    pub referenced_directories: Vec<Digest>,
}

impl AssetReference {
    /// Whether Assetgate verified that its content has this checksum: only what
    /// we signed and fetched says so, as a signature over a push is one over
    /// what a client claimed. `None` if it says nothing about the algorithm.
    #[must_use]
    pub fn vouches_for(&self, checksum: &Checksum) -> Option<bool> {
        if self.signed_at.is_none() || self.source != Source::Fetch {
            return None;
        }
        let same = |c: &&Checksum| c.algorithm() == checksum.algorithm();
        self.verified.iter().find(same).map(|c| c == checksum)
    }

    /// Whether it has expired at `now`.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expire_at.is_some_and(|at| at <= now)
    }

    /// Whether it is as young as `oldest_content_accepted` asks for.
    #[must_use]
    pub fn is_fresh(&self, oldest_accepted: Option<SystemTime>) -> bool {
        oldest_accepted.is_none_or(|oldest| self.content_time >= oldest)
    }
}
