//! Whether this server should get traffic, kept up to date for `/readyz`.
//!
//! Not for: gRPC health (`api::health`), which says whether services serve.
//! Called by: `run`.

use std::time::Duration;

use tokio::sync::watch;

use super::backend::Backend;
use crate::admin::Readiness;
use crate::drain::Drain;
use crate::upstream::Board;

/// How often the state of the connections is looked at.
const EVERY: Duration = Duration::from_millis(250);

/// The state now, and the task that keeps it up to date.
pub(super) fn watch(
    backend: &Backend,
    stopping: Drain,
) -> (watch::Receiver<Readiness>, impl Future<Output = ()> + use<>) {
    let board = backend.board().cloned();
    let (sender, receiver) = watch::channel(now(board.as_ref(), &stopping));
    let keep = async move {
        let mut tick = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stopping.started(), if !stopping.is_started() => {}
            }
            let state = now(board.as_ref(), &stopping);
            sender.send_if_modified(|old| {
                let changed = *old != state;
                *old = state;
                changed
            });
        }
    };
    (receiver, keep)
}

fn now(board: Option<&Board>, stopping: &Drain) -> Readiness {
    if stopping.is_started() {
        return Readiness::unready(
            "stopping: running calls are finished, new ones belong elsewhere",
        );
    }
    let Some(status) = board.map(Board::status) else {
        return Readiness::ready();
    };
    if status.reachable() {
        return Readiness::ready();
    }
    match status.last_error {
        Some(error) => Readiness::unready(format!("the cache cannot be reached: {error}")),
        None => Readiness::unready("no connection to the cache yet"),
    }
}
