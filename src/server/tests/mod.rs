//! The whole path over real sockets: a client, our listener, a stub upstream.

#![allow(
    clippy::disallowed_methods,
    reason = "the tasks of a test end with its runtime"
)]

mod calls;
mod failures;
mod isolation;
mod listener;
mod pressure;
mod restart;
mod routes;
mod sockets;
mod support;
