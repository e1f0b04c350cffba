//! Under what a reference is found.
//!
//! Not for: the bytes a key becomes (`store::encoding`).

use super::{
    AssetKind, BAZEL_CANONICAL_ID, CHECKSUM_SRI, Checksum, DIRECTORY, Qualifiers, RESOURCE_TYPE,
    Uri,
};
use crate::digest::Scope;

/// The key of one reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AssetKey {
    /// Instance name and digest function.
    pub scope: Scope,
    /// Blob or directory: two key spaces, which never mix.
    pub kind: AssetKind,
    /// The rest, by key space.
    pub space: KeySpace,
}

/// The key spaces. Writes are blind, so what may not replace each other stands
/// in spaces of its own: nothing but a push ever writes [`KeySpace::Exact`],
/// and an acknowledged push can only be replaced by a later one (promise P3).
///
/// # Why fetched and migrated content have their own
///
/// Both are recorded without a client having said so, possibly while somebody
/// pushes. Under the exact key they could replace a push that was acknowledged
/// a moment before, however carefully one looks first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySpace {
    /// What was pushed: one URI with exactly these qualifiers.
    Exact {
        /// The URI.
        uri: Uri,
        /// All identity qualifiers.
        qualifiers: Qualifiers,
    },
    /// The latest push for a URI with these qualifiers and more.
    Subset {
        /// The URI.
        uri: Uri,
        /// A proper subset of the pushed qualifiers.
        qualifiers: Qualifiers,
    },
    /// What an origin served for a URI, pinned by no checksum.
    Fetched {
        /// The URI.
        uri: Uri,
        /// All identity qualifiers, and the headers that select a representation.
        qualifiers: Qualifiers,
    },
    /// What another server's reference said, taken over as ours.
    Migrated {
        /// The URI.
        uri: Uri,
        /// All identity qualifiers.
        qualifiers: Qualifiers,
    },
    /// A checksum Assetgate verified itself, whatever the URI.
    Checksum {
        /// The verified hash.
        checksum: Checksum,
        /// The qualifiers in [`KeySpace::BESIDE_CHECKSUM`].
        qualifiers: Qualifiers,
    },
}

impl KeySpace {
    /// The letter of the space in key material (the public format).
    #[must_use]
    pub fn letter(&self) -> &'static str {
        match self {
            KeySpace::Exact { .. } => "E",
            KeySpace::Subset { .. } => "S",
            KeySpace::Fetched { .. } => "F",
            KeySpace::Migrated { .. } => "M",
            KeySpace::Checksum { .. } => "X",
        }
    }

    /// The name of the space in metrics and explanations.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            KeySpace::Exact { .. } => "exact",
            KeySpace::Subset { .. } => "subset",
            KeySpace::Fetched { .. } => "fetched",
            KeySpace::Migrated { .. } => "migrated",
            KeySpace::Checksum { .. } => "checksum",
        }
    }

    /// The URI, where one is part of the key.
    #[must_use]
    pub fn uri(&self) -> Option<&Uri> {
        match self {
            KeySpace::Exact { uri, .. }
            | KeySpace::Subset { uri, .. }
            | KeySpace::Fetched { uri, .. }
            | KeySpace::Migrated { uri, .. } => Some(uri),
            KeySpace::Checksum { .. } => None,
        }
    }

    /// The qualifiers of the key.
    #[must_use]
    pub fn qualifiers(&self) -> &Qualifiers {
        match self {
            KeySpace::Exact { qualifiers, .. }
            | KeySpace::Subset { qualifiers, .. }
            | KeySpace::Fetched { qualifiers, .. }
            | KeySpace::Migrated { qualifiers, .. }
            | KeySpace::Checksum { qualifiers, .. } => qualifiers,
        }
    }

    /// Qualifiers that stand beside a checksum in its key. Where a request has
    /// others, a checksum alone does not say which asset is meant.
    pub const BESIDE_CHECKSUM: [&'static str; 3] = [BAZEL_CANONICAL_ID, DIRECTORY, RESOURCE_TYPE];

    /// The checksum space for a request's qualifiers, or `None` if these hold
    /// more than a checksum and what may stand beside one.
    #[must_use]
    pub fn checksum(checksum: &Checksum, qualifiers: &Qualifiers) -> Option<Self> {
        let known = |n: &str| n == CHECKSUM_SRI || Self::BESIDE_CHECKSUM.contains(&n);
        qualifiers
            .iter()
            .all(|q| known(&q.name))
            .then(|| KeySpace::Checksum {
                checksum: checksum.clone(),
                qualifiers: qualifiers.only(&Self::BESIDE_CHECKSUM),
            })
    }
}
