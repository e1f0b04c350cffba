//! The whole path over real sockets: a client, our listener, a stub upstream.

#![allow(
    clippy::disallowed_methods,
    reason = "the tasks of a test end with its runtime"
)]

mod attacker;
mod calls;
mod failures;
mod floods;
mod floods_slow;
mod isolation;
mod listener;
mod memory;
mod pressure;
mod restart;
mod routes;
mod sockets;
mod support;
