//! Listeners, threads and connections, and what the parts are assembled into.
//!
//! Not for: what calls mean (`api`, `forward`).
//! Called by: `cli`.

mod accept;
mod allocator;
mod assembly;
mod backend;
mod called;
mod connection;
mod crowd;
mod descriptors;
mod dispatch;
mod doctor;
mod door;
mod ending;
mod explain;
mod heads;
mod listener;
mod lobby;
mod memory;
mod peer;
mod readiness;
mod run;
mod sniff;
mod stack;

pub use accept::{Serving, ThreadContext};
pub use connection::ConnectionSettings;
pub use crowd::ClientLimit;
pub use dispatch::{Dispatch, Native, is_ours};
pub use doctor::examine;
pub use explain::explain;
pub use listener::{BindError, Bound, Listener, ListenerSettings};
pub use memory::MemoryServer;
pub use peer::PeerInfo;
pub use run::run;

#[cfg(test)]
mod tests;
