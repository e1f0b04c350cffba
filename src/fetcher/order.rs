//! What a download is asked to do, and what it comes to.
//!
//! Called by: `mirrors` (makes orders), `downloads`, `download`, `deposit`.

use std::time::SystemTime;

use http::HeaderName;

use super::Known;
use super::hashes::Hashes;
use super::target::Target;
use crate::asset::{Checksum, Integrity, KeyHeaders, SecretValue, Uri, Validators};
use crate::digest::{Digest, Scope};
use crate::upstream::CallContext;

/// What is to be downloaded, and for whom it is stored.
pub(super) struct Order {
    pub(super) context: CallContext,
    pub(super) scope: Scope,
    pub(super) integrity: Option<Integrity>,
    /// As it was asked for.
    pub(super) uri: Uri,
    pub(super) target: Target,
    pub(super) headers: Vec<(HeaderName, SecretValue)>,
    pub(super) known: Option<Known>,
    pub(super) key_headers: KeyHeaders,
    pub(super) hashes: Hashes,
    /// Bytes accepted.
    pub(super) limit: u64,
}

/// Content of one URL. It is in the cache, or was said to be current.
#[derive(Debug, Clone)]
pub(super) struct Landed {
    pub(super) digest: Digest,
    /// Hashes computed over the served bytes.
    pub(super) computed: Vec<Checksum>,
    pub(super) validators: Validators,
    pub(super) not_modified: bool,
    pub(super) started_at: SystemTime,
    /// Credentials of this service went along.
    pub(super) lent: bool,
}

/// What a download took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    /// Bytes of bodies.
    pub(super) bytes: u64,
    /// Requests, redirects not counted.
    pub(super) requests: u32,
}

impl Order {
    /// The digest of content of this size, if the checksum leaves no other.
    pub(super) fn fixed(&self, size: u64) -> Option<Digest> {
        match self.integrity.as_ref()?.checksums() {
            [one] if one.algorithm().function() == self.scope.function => {
                Digest::from_raw(self.scope.function, one.raw(), size).ok()
            }
            _ => None,
        }
    }
}
