//! The future that sends what a connection collected, after every poll of it.
//!
//! Not for: what is collected (`coalesce`).
//! Called by: `server::connection`, `executor`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use super::Coalesced;

/// A connection future whose stream is flushed after every poll.
#[pin_project::pin_project]
#[derive(Debug)]
pub struct Flushed<F, S> {
    #[pin]
    connection: F,
    stream: Coalesced<S>,
}

impl<F, S> Flushed<F, S> {
    /// Wraps the future that drives HTTP/2 over `stream`.
    pub fn new(connection: F, stream: Coalesced<S>) -> Self {
        Self { connection, stream }
    }

    /// The wrapped future.
    pub fn connection(self: Pin<&mut Self>) -> Pin<&mut F> {
        self.project().connection
    }
}

impl<F, S> Future for Flushed<F, S>
where
    F: Future,
    S: AsyncRead + AsyncWrite + Unpin,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let output = this.connection.poll(cx);
        this.stream.flush(cx);
        output
    }
}
