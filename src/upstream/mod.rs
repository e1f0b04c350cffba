//! The cache behind us: typed clients for our own calls, and the transport
//! that both they and the forward path use.
//!
//! There is no `Upstream` trait: [`Upstream`] is a boxed tower service of HTTP
//! requests, which a [`Pool`] and the embedded cache's routes both turn into.
//!
//! Not for: what references look like (`store`), content of origins
//! (`fetcher`).
//! Called by: `forward`, `store`, `fetcher`, `server`.

mod connection;
mod context;
mod dial;
mod endpoint;
mod error;
mod health;
mod load;
mod open;
mod pool;
mod replay;
mod response;
mod service;
mod settings;
mod target;
mod transport_error;
mod upkeep;

pub use context::CallContext;
pub use endpoint::{Endpoint, EndpointError};
pub use error::Error;
pub use health::{Board, BoardStatus};
pub use pool::{Affinity, Pool};
pub use replay::{ReplayableIncoming, RequestBody};
pub use response::ResponseBody;
pub use service::{PoolService, Upstream};
pub use settings::PoolSettings;
pub use transport_error::TransportError;
