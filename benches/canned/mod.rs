//! A client and an upstream that speak HTTP/2 from memory, with the proxy
//! between them on one thread: no sockets, no timers, nothing left to chance.
//!
//! A peer is no task. It is a state that sits behind the stream the proxy reads
//! and writes: what the proxy writes is answered at once, for the next read. It
//! speaks frames that were encoded before and looks at frame heads only, so
//! that next to nothing is spent on it; and all of it has `canned` in its
//! name, by which `tests/instructions.py` tells it from the proxy.
//!
//! Not for: testing what HTTP/2 allows; a peer knows its one call.
//! Called by: the benchmarks beside it.

mod frames;
mod peer;
mod proxy;

pub(crate) use frames::Call;
pub(crate) use peer::Peer;
pub(crate) use proxy::Proxy;
