//! Listeners, threads and connections, and what the parts are assembled into.
//!
//! Not for: what calls mean (`api`, `forward`).
//! Called by: `cli`.

mod accept;
mod connection;
mod dispatch;
mod listener;
mod peer;
mod sniff;

pub use accept::{Serving, ThreadContext};
pub use connection::ConnectionSettings;
pub use dispatch::{Dispatch, Native};
pub use listener::{BindError, Bound, Listener, ListenerSettings};
pub use peer::PeerInfo;

#[cfg(test)]
mod tests;
