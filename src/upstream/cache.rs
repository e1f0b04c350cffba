//! The cache as calls: content, Action Cache entries, and its limits.
//!
//! The calls use only what every cache has: no GetTree, no QueryWriteStatus,
//! no offsets or limits of reads. They stand beside the messages they are
//! about: `cas.rs`, `byte_stream.rs`, `tree.rs`, `action_cache.rs`,
//! `limits.rs`.
//! Called by: `store`, `fetcher`, `resolver`, `api`.

use std::sync::Arc;

use super::{Upstream, channel::Channel, limits::Known};

/// Typed clients of one cache. Cheap to clone; clones share what is known of
/// the cache's limits.
#[derive(Clone)]
pub struct Cache {
    pub(super) channel: Channel,
    pub(super) known: Arc<Known>,
}

impl Cache {
    /// Typed clients of a cache.
    #[must_use]
    pub fn new(upstream: Upstream) -> Self {
        Self {
            channel: Channel::new(upstream),
            known: Arc::default(),
        }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache")
    }
}

#[cfg(test)]
mod tests;
