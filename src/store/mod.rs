//! References: what a key leads to, kept as synthetic Action Cache entries in
//! the cache itself. Unaware of origins.
//!
//! Called by: `resolver`.

mod action_cache;
mod compat;
mod content;
mod encoding;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod hostile;
mod mac;
mod migrate;
mod overwrite;
mod presence;
mod probe;
mod record;
#[cfg(test)]
mod tests;
mod tree;

use std::future::Future;

pub use action_cache::{ActionCacheStore, ReferenceSettings};
pub use mac::{MacKeyError, MacKeys};
pub use probe::{
    CHECKS, Carrier, Condition, Finding, Line, Modes, Overwrite, OwnContext, ProbeTarget, Prober,
    ProberSettings, Probes, Report, Told, Writes, probe,
};

use crate::asset::{Algorithm, AssetKey, AssetKind, AssetReference, Checksum};
use crate::digest::{Digest, Scope};
use crate::upstream::{self, CallContext};

/// Where references are kept.
pub trait AssetStore: Send + Sync + 'static {
    /// Looks a key up. A hit is complete: its content is in the CAS at this
    /// moment, under the instance name of the key (promise P2). Freshness and
    /// expiry are checked by the caller. Any doubt about an entry is a miss;
    /// a cache that cannot be asked is an error.
    fn get(
        &self,
        context: &CallContext,
        key: &AssetKey,
    ) -> impl Future<Output = Result<Lookup, Error>> + Send;

    /// What [`AssetStore::get`] would find, with all that led to it. Records
    /// nothing, counts nothing.
    fn explain(
        &self,
        context: &CallContext,
        key: &AssetKey,
    ) -> impl Future<Output = Result<Explained, Error>> + Send;

    /// Records one reference under all `keys`, which are of one scope and
    /// kind. Keys of subsets are written first and the first of the others
    /// last, so that a hit on it means that the whole push was written.
    fn put(
        &self,
        context: &CallContext,
        keys: &[AssetKey],
        reference: &AssetReference,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Reads a blob back and hashes it with these algorithms, without having it
    /// in memory; `None` if it is gone. Content that does not have its digest
    /// is an error.
    fn hashes(
        &self,
        context: &CallContext,
        scope: &Scope,
        digest: &Digest,
        algorithms: &[Algorithm],
    ) -> impl Future<Output = Result<Option<Vec<Checksum>>, Error>> + Send;

    /// Whether content that was fetched a moment ago is in the CAS now. False
    /// where that cannot be told without what a reference says of it.
    fn is_present(
        &self,
        context: &CallContext,
        scope: &Scope,
        kind: AssetKind,
        digest: &Digest,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
}

/// The outcome of a look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// A reference whose content is present.
    Hit(Box<AssetReference>),
    /// Nothing usable.
    Miss(Miss),
}

/// What stands under a key, and what it is taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Digest of the Action that is the key.
    pub action: Digest,
    /// What the entry says, if it is one of ours that fits the key.
    pub reference: Option<Box<AssetReference>>,
    /// What it is taken for.
    pub lookup: Lookup,
    /// What exactly does not fit, or how the content was found to be present.
    pub detail: &'static str,
    /// Of an entry that fits: it has no outputs, as the content is elsewhere.
    pub detached: bool,
    /// Of an entry that fits: its MAC was asked for, and is valid.
    pub signed: bool,
}

impl Explained {
    fn nothing(action: Digest) -> Self {
        Self {
            action,
            reference: None,
            lookup: Lookup::Miss(Miss::Absent),
            detail: "",
            detached: false,
            signed: false,
        }
    }

    fn about(mut self, reference: &AssetReference) -> Self {
        self.reference = Some(Box::new(reference.clone()));
        self
    }

    fn miss(mut self, miss: Miss) -> Self {
        self.lookup = Lookup::Miss(miss);
        self
    }

    fn unusable(mut self, why: &'static str) -> Self {
        self.detail = why;
        self.miss(Miss::Unusable)
    }

    fn expired(mut self, why: &'static str) -> Self {
        self.detail = why;
        self.miss(Miss::Expired)
    }

    fn hit(mut self, reference: AssetReference, proof: &'static str) -> Self {
        self.detail = proof;
        self.lookup = Lookup::Hit(Box::new(reference));
        self
    }
}

/// Why a look-up is a miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Miss {
    /// No entry under the key (or the cache withholds an incomplete one).
    Absent,
    /// An entry that is not one of ours, or that does not fit its key.
    Unusable,
    /// The entry is there and content it names is gone.
    Incomplete,
    /// The entry says that it no longer holds: it has expired, or was
    /// withdrawn by a later push.
    Expired,
}

impl Miss {
    /// The reason as explanations name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Miss::Absent => "absent",
            Miss::Unusable => "unusable",
            Miss::Incomplete => "incomplete",
            Miss::Expired => "expired",
        }
    }
}

/// Why a reference could not be read or recorded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The cache failed.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// Content to be recorded is not in the CAS.
    #[error("not in the CAS: {}", list(.0))]
    Missing(Vec<Digest>),
    /// The root digest of a pushed directory is not that of a `Directory`.
    #[error("{0} is not a Directory message: {1}")]
    NotADirectory(Digest, String),
    /// The tree is larger than Assetgate records.
    #[error("the directory is too large to be recorded: {0}")]
    TooLarge(String),
}

fn list(digests: &[Digest]) -> String {
    let shown: Vec<String> = digests.iter().take(5).map(ToString::to_string).collect();
    let more = digests.len().saturating_sub(shown.len());
    let tail = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{tail}", shown.join(", "))
}

/// Hash of the Action that is a key, in the namespace without a name.
#[cfg(test)]
pub(crate) fn action_hash(key: &AssetKey) -> String {
    let encoded = encoding::encode_key("", key, key.scope.function).unwrap();
    encoded.action.0.hash().to_owned()
}
