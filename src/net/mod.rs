//! Sockets: what stands between an accepted or dialled stream and HTTP/2.
//!
//! Not for: HTTP/2 settings, who may connect, or which upstream to use
//! (`server`, `upstream`).
//! Called by: `server` for listeners, `upstream` for dialling.

mod addr;
mod buffered;
mod buffers;
mod coalesce;
mod executor;
mod frames;
mod memory;
mod meter;
mod outbox;
mod piece;
mod reload;
mod secret_file;
mod stream;
pub mod tls;

pub use addr::{AddrError, ListenAddr, host_port, remove_stale_socket, socket_path};
pub use buffered::Buffered;
pub use coalesce::{Coalesced, Conduct, FirstWords, Flushed};
pub use executor::Executor;
pub use memory::{MemoryDialer, MemoryStream, Wire};
pub use meter::Offence;
pub use piece::Piece;
pub use reload::Reloading;
pub use secret_file::{SecretFileError, exposed_mode, header_lines, read_secret};
pub use stream::{RawStream, Stream, keep_alive};
