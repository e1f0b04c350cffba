//! What an asset is: URIs, qualifiers, integrity, keys and references.
//!
//! Pure values: no I/O, no messages. The words are the Remote Asset API's; a
//! *reference* is what bb-remote-asset calls an asset, a *key* is what it
//! calls an asset reference.
//! Not for: how a key becomes an Action Cache entry (`store::encoding`).
//! Called by: `store`, `fetcher`, `resolver`, `api`.

mod cuts;
mod decoded;
mod headers;
mod integrity;
mod key;
mod key_headers;
mod qualifiers;
mod reference;
mod scrub;
mod secret_names;
mod signed;
mod uri;

pub(crate) use decoded::percent_decoded;
pub use headers::{
    HeaderError, OriginHeaders, SecretValue, is_forbidden_header, is_selecting_header,
};
#[cfg(any(test, fuzzing))]
pub use integrity::fuzz;
pub use integrity::{Algorithm, Checksum, Integrity, IntegrityError, IntegrityHasher};
pub use key::{AssetKey, KeySpace};
pub use key_headers::{KeyHeader, KeyHeaders};
pub use qualifiers::{
    BAZEL_AUTH_HEADERS, BAZEL_CANONICAL_ID, CHECKSUM_SRI, DIRECTORY, Qualifier, Qualifiers,
    RESOURCE_TYPE, Role, VCS_BRANCH, VCS_COMMIT, kept_len,
};
pub use reference::{AssetReference, Source, Validators};
pub use scrub::scrub;
pub use secret_names::{SecretParameter, declare_secret_parameters};
pub use uri::Uri;
pub(crate) use uri::backslash_in_authority;

/// Blob or directory. A value, so that no path is written twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AssetKind {
    /// The asset is one blob; its digest is the blob's.
    Blob,
    /// The asset is a tree; its digest is that of the root `Directory`.
    Directory,
}

impl AssetKind {
    /// `blob` or `directory`, as in keys, logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AssetKind::Blob => "blob",
            AssetKind::Directory => "directory",
        }
    }
}

impl std::fmt::Display for AssetKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
