//! The room that unfinished uploads may take of the cache: an eighth, shared
//! between connections, and all there is for one upload at a time.
//!
//! An upload takes room as its bytes arrive. Where its connection has no more,
//! it is not read until there is, or until it is its turn to go beyond: of all
//! uploads one may, evicting as it grows, so that there is always one that can
//! finish.
//!
//! Not for: space on the disk (`store.rs` reserves that).
//! Called by: `write.rs`, `uploads.rs`.

use super::shares::{Permit, Shares};
use crate::call::ConnectionId;

/// What part of the cache unfinished uploads may take.
const PART: u64 = 8;

/// The room of all uploads.
#[derive(Debug)]
pub(super) struct Rooms {
    shared: Shares,
    beyond: Shares,
}

/// The room of one upload; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    connection: ConnectionId,
    shared: Option<Permit>,
    beyond: Option<Permit>,
}

impl Room {
    /// None yet.
    pub(super) fn new(connection: ConnectionId) -> Self {
        Self {
            connection,
            shared: None,
            beyond: None,
        }
    }

    /// Whether it is enough for an upload of `bytes` so far.
    pub(super) fn covers(&self, bytes: u64) -> bool {
        self.is_beyond() || bytes <= self.shared.as_ref().map_or(0, Permit::amount)
    }

    /// Whether this is the upload that may take all there is.
    pub(super) fn is_beyond(&self) -> bool {
        self.beyond.is_some()
    }
}

impl Rooms {
    /// The room in a cache of `max_size` bytes.
    pub(super) fn new(max_size: u64) -> Self {
        Self {
            shared: Shares::new(max_size / PART),
            beyond: Shares::with_whole(1),
        }
    }

    /// Waits until the room of an upload is enough for `bytes`.
    pub(super) async fn extend(&self, room: &mut Room, bytes: u64) {
        if room.covers(bytes) {
            return;
        }
        let more = bytes - room.shared.as_ref().map_or(0, Permit::amount);
        tokio::select! {
            biased;
            permit = self.shared.acquire(room.connection, more) => match &mut room.shared {
                Some(shared) => shared.merge(permit),
                none => *none = Some(permit),
            },
            permit = self.beyond.acquire(room.connection, 1) => {
                room.beyond = Some(permit);
                room.shared = None;
            }
        }
    }

    /// Whether an upload goes beyond.
    pub(super) fn beyond_is_held(&self) -> bool {
        self.beyond.is_held()
    }

    /// Whether others wait for it.
    pub(super) fn beyond_is_wanted(&self) -> bool {
        self.beyond.is_wanted()
    }
}
