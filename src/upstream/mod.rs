//! The cache behind us: typed clients for our own calls, and the transport
//! that both they and the forward path use.
//!
//! There is no `Upstream` trait: [`Upstream`] is a boxed tower service of HTTP
//! requests, which a [`Pool`] and the embedded cache's routes both turn into.
//!
//! Not for: what references look like (`store`), content of origins
//! (`fetcher`).
//! Called by: `forward`, `store`, `fetcher`, `server`.

mod action_cache;
mod byte_stream;
mod cache;
mod cas;
mod channel;
mod compress;
mod connection;
mod context;
mod credential;
mod dial;
#[cfg(test)]
pub(crate) mod double;
mod endpoint;
mod error;
mod get_tree;
mod health;
mod limits;
mod load;
mod open;
mod outgoing;
mod pool;
mod pump;
mod quoted;
mod read_back;
mod response;
mod sent;
mod service;
mod settings;
mod stalls;
mod target;
mod transport_error;
mod tree;
mod unary;
mod upkeep;
mod upload;
mod watch;

pub use cache::Cache;
pub use context::{CallContext, Identity};
pub use credential::{Credential, CredentialError, ServiceCredential};
pub use endpoint::{Endpoint, EndpointError};
pub use error::Error;
pub use health::{Board, BoardStatus};
pub use limits::{Compressor, Limits};
pub use pool::{Affinity, Pool};
pub use response::ResponseBody;
pub use service::{PoolService, Upstream};
pub use settings::PoolSettings;
pub use transport_error::TransportError;
pub use tree::{Closure, MAX_DIRECTORIES, TreeNode, WalkError, estimate_tree, grow_for_trees};
pub use upload::RequestBody;
