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

/// The key spaces. A third one, for subsets of pushed qualifiers, has its
/// place here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySpace {
    /// One URI with exactly these qualifiers.
    Exact {
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
