//! Which upstream addresses are down, and the board on which all pools of an
//! upstream report it.
//!
//! Not for: gRPC health of our own services (`server`, `admin`).
//! Called by: `pool`; the board is read by `admin`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::target::Address;

/// What is dialled: an address, or the name of an endpoint that does not
/// resolve.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Address(Address),
    Name(usize),
}

/// The addresses that could not be reached when last tried, as one pool sees it.
#[derive(Debug, Default)]
pub(super) struct Health {
    down: HashMap<Place, (Arc<str>, Arc<str>)>,
}

impl Health {
    pub(super) fn is_down(&self, place: &Place) -> bool {
        self.down.contains_key(place)
    }

    /// Any address that is down, with the reason.
    pub(super) fn any(&self) -> Option<(Arc<str>, Arc<str>)> {
        self.down.values().next().cloned()
    }

    pub(super) fn all_up(&self) -> bool {
        self.down.is_empty()
    }

    /// Returns whether that is new.
    pub(super) fn set_down(&mut self, place: Place, label: Arc<str>, reason: Arc<str>) -> bool {
        self.down.insert(place, (label, reason)).is_none()
    }

    /// Returns whether that is new.
    pub(super) fn set_up(&mut self, place: &Place) -> bool {
        self.down.remove(place).is_some()
    }

    /// Forgets addresses that the name does not resolve to any more.
    pub(super) fn keep(&mut self, known: impl Fn(&Place) -> bool) {
        self.down.retain(|place, _| known(place));
    }
}

/// How an upstream is doing, over all threads. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Notes>);

#[derive(Debug, Default)]
struct Notes {
    connections: AtomicUsize,
    last_error: Mutex<Option<Arc<str>>>,
}

/// What a [`Board`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardStatus {
    /// Open connections. A pool that was asked to keep one always has one
    /// while the upstream can be reached.
    pub connections: usize,
    /// Why the last connection was lost or not made, unless one was made since.
    pub last_error: Option<Arc<str>>,
}

impl BoardStatus {
    /// Whether the upstream can be reached.
    #[must_use]
    pub fn reachable(&self) -> bool {
        self.connections > 0
    }
}

impl Board {
    /// How the upstream is doing now.
    #[must_use]
    pub fn status(&self) -> BoardStatus {
        BoardStatus {
            connections: self.0.connections.load(Relaxed),
            last_error: self.0.last_error.lock().clone(),
        }
    }

    pub(super) fn opened(&self) {
        self.0.connections.fetch_add(1, Relaxed);
        *self.0.last_error.lock() = None;
        metrics::counter!("assetgate_upstream_connections_opened_total").increment(1);
        metrics::gauge!("assetgate_upstream_connections").increment(1.0);
    }

    /// A connection that was open ended, in good order if there is no reason.
    pub(super) fn closed(&self, reason: Option<&str>) {
        self.0.connections.fetch_sub(1, Relaxed);
        metrics::gauge!("assetgate_upstream_connections").decrement(1.0);
        if let Some(reason) = reason {
            *self.0.last_error.lock() = Some(reason.into());
            metrics::counter!("assetgate_upstream_connections_lost_total").increment(1);
        }
    }

    pub(super) fn failed(&self, reason: &str) {
        *self.0.last_error.lock() = Some(reason.into());
        metrics::counter!("assetgate_upstream_dial_failures_total").increment(1);
    }
}
