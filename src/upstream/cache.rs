//! The cache as calls: content, Action Cache entries, and its limits.
//!
//! The calls use only what every cache has: no GetTree, no QueryWriteStatus,
//! no offsets or limits of reads. They stand beside the messages they are
//! about: `cas.rs`, `byte_stream.rs`, `tree.rs`, `action_cache.rs`,
//! `limits.rs`.
//! Called by: `store`, `fetcher`, `resolver`, `api`.

use std::sync::Arc;

use super::{Upstream, channel::Channel, compress::Compression, limits::Known};
use crate::budget::Share;
use crate::digest::{Digest, Scope};
use crate::proto::rev2;

/// Gives a complete Action Cache entry without a call, or says nothing.
pub(super) type AtHand = dyn Fn(&Scope, &Digest) -> Option<rev2::ActionResult> + Send + Sync;

/// Typed clients of one cache. Cheap to clone; clones share what is known of
/// the cache's limits.
#[derive(Clone)]
pub struct Cache {
    pub(super) channel: Channel,
    pub(super) known: Arc<Known>,
    pub(super) at_hand: Option<Arc<AtHand>>,
    pub(super) compression: Arc<Compression>,
    /// What trees that are being looked at may hold.
    pub(super) trees: Option<Share>,
}

impl Cache {
    /// Typed clients of a cache.
    #[must_use]
    pub fn new(upstream: Upstream) -> Self {
        Self {
            channel: Channel::new(upstream),
            known: Arc::default(),
            at_hand: None,
            compression: Arc::new(Compression::new(true)),
            trees: None,
        }
    }

    /// The same, with trees that are charged to this share.
    #[must_use]
    pub fn charging(mut self, trees: Share) -> Self {
        self.trees = Some(trees);
        self
    }

    /// The same, to which nothing is sent compressed although it announces
    /// that it could be.
    #[must_use]
    pub fn without_zstd(mut self) -> Self {
        self.compression = Arc::new(Compression::new(false));
        self
    }

    /// The same, of a cache in this process that may have entries in memory:
    /// `look` gives one as GetActionResult would, or `None`, and then the cache
    /// is called.
    #[must_use]
    pub fn with_entries_at_hand(
        mut self,
        look: impl Fn(&Scope, &Digest) -> Option<rev2::ActionResult> + Send + Sync + 'static,
    ) -> Self {
        self.at_hand = Some(Arc::new(look));
        self
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache")
    }
}

#[cfg(test)]
mod tests;
