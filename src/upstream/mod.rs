//! The cache behind Assetgate. There is no storage trait: an [`Upstream`] is a
//! tower service of HTTP requests, and a remote cache, the embedded one and a
//! test double all become one.
//!
//! Two halves: transport (endpoints, connections, pools) and typed clients
//! ([`Cache`]). Unaware of assets.
//! Called by: `store`, `fetcher`, `forward`, `server`.

mod context;
mod error;

pub use context::CallContext;
pub use error::Error;

/// A cache as a service of HTTP requests: a pool of connections to a remote
/// one, or the routes of the embedded one.
pub type Upstream = tower::util::BoxCloneSyncService<
    http::Request<tonic::body::Body>,
    http::Response<tonic::body::Body>,
    tower::BoxError,
>;
