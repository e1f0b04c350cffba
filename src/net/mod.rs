//! Sockets: what stands between an accepted or dialled stream and HTTP/2.
//!
//! Not for: HTTP/2 settings, who may connect, or which upstream to use
//! (`server`, `upstream`).
//! Called by: `server` for listeners, `upstream` for dialling.

mod addr;
mod buffers;
mod coalesce;
mod executor;
mod memory;
mod stream;
pub mod tls;

pub use addr::{AddrError, ListenAddr, host_port, remove_stale_socket, socket_path};
pub use coalesce::{Coalesced, FirstWords, Flushed};
pub use executor::{ClientExecutor, Executor};
pub use memory::{MemoryDialer, MemoryStream, Wire};
pub use stream::{RawStream, Stream, keep_alive};
