//! The cache behind Assetgate. There is no storage trait: an [`Upstream`] is a
//! tower service of HTTP requests, and a remote cache, the embedded one and a
//! test double all become one.
//!
//! Two halves: transport (endpoints, connections, pools) and typed clients
//! ([`Cache`]). Unaware of assets.
//! Called by: `store`, `fetcher`, `forward`, `server`.

mod action_cache;
mod byte_stream;
mod cas;
mod channel;
mod context;
#[cfg(test)]
pub(crate) mod double;
mod error;
mod limits;
mod tree;

use std::sync::Arc;

pub use context::CallContext;
pub use error::Error;
pub use limits::{Compressor, Limits};
pub use tree::{Closure, TreeNode, WalkError};

/// A cache as a service of HTTP requests: a pool of connections to a remote
/// one, or the routes of the embedded one.
pub type Upstream = tower::util::BoxCloneSyncService<
    http::Request<tonic::body::Body>,
    http::Response<tonic::body::Body>,
    tower::BoxError,
>;

/// The cache as calls: content, Action Cache entries, and its limits. The
/// calls use only what every cache has: no GetTree, no QueryWriteStatus, no
/// offsets, no limits of reads.
#[derive(Clone)]
pub struct Cache {
    channel: channel::Channel,
    limits: Arc<limits::Known>,
}

impl Cache {
    /// Typed clients of a cache.
    #[must_use]
    pub fn new(upstream: Upstream) -> Self {
        Self {
            channel: channel::Channel::new(upstream),
            limits: Arc::default(),
        }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache")
    }
}
