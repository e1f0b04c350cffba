//! What the resolver is asked and what it answers.
//!
//! Not for: checking input (`api::convert` does, before).

use std::time::SystemTime;

use super::Missed;
use crate::asset::{AssetKind, Qualifiers, Uri};
use crate::digest::{Digest, DigestFunction, InstanceName};
use crate::fetcher::FetchRequest;

/// A fetch.
#[derive(Debug, Clone)]
pub struct Query {
    /// What is asked for, as an origin would be asked. Without URIs it is a
    /// lookup by checksum only.
    pub request: FetchRequest,
    /// Whether a caller who leaves may come back for the answer, so that the
    /// fetch goes on meanwhile.
    pub comes_back: bool,
}

/// A push.
#[derive(Debug, Clone)]
pub struct Push {
    /// Blob or directory.
    pub kind: AssetKind,
    /// Instance name of the request.
    pub instance: InstanceName,
    /// The digest function, if the request says.
    pub function: Option<DigestFunction>,
    /// At least one.
    pub uris: Vec<Uri>,
    /// The identity qualifiers.
    pub qualifiers: Qualifiers,
    /// The blob, or the root `Directory`.
    pub digest: Digest,
    /// From when on the reference no longer holds; a time in the past
    /// withdraws it.
    pub expire_at: Option<SystemTime>,
    /// Further blobs to keep alive.
    pub referenced_blobs: Vec<Digest>,
    /// Further trees to keep alive.
    pub referenced_directories: Vec<Digest>,
}

/// A successful fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Blob or directory.
    pub kind: AssetKind,
    /// Content that is in the CAS.
    pub digest: Digest,
    /// Which URI of the request it was found under; `None` if there are none.
    pub uri_index: Option<usize>,
    /// What the asset was pushed or fetched with (H5).
    pub qualifiers: Qualifiers,
    /// How it was found.
    pub outcome: Outcome,
    /// What it took.
    pub stats: Stats,
}

/// How a call was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A reference with exactly the qualifiers of the request.
    HitExact,
    /// A reference under a checksum Assetgate verified.
    HitChecksum,
    /// The latest push with these qualifiers and more.
    HitSubset,
    /// A reference of another server that was taken over.
    HitMigrated,
    /// The origin.
    Fetched,
    /// What the origin served before, which it confirmed.
    Revalidated,
    /// The origin, which an earlier identical request had asked.
    Joined,
}

impl Outcome {
    /// The outcome as in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Outcome::HitExact => "hit_exact",
            Outcome::HitChecksum => "hit_checksum",
            Outcome::HitSubset => "hit_subset",
            Outcome::HitMigrated => "hit_migrated",
            Outcome::Fetched => "fetched",
            Outcome::Revalidated => "revalidated",
            Outcome::Joined => "joined",
        }
    }
}

/// What an answer took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes received from origins.
    pub origin_bytes: u64,
    /// Requests sent to origins.
    pub attempts: u32,
    /// Why the cache did not answer, if it did not.
    pub missed: Option<Missed>,
}
