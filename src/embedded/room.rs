//! The room that unfinished uploads may take of the cache: an eighth, shared
//! between connections; another eighth for one at a time whose blob is no
//! larger than that; and all there is for one other upload at a time.
//!
//! An upload takes room as its bytes arrive. Where its connection has no more,
//! it is not read until there is, or until it is its turn to go beyond,
//! evicting as it grows, so that there is always one that can finish.
//!
//! Not for: space on the disk (`store.rs` reserves that).
//! Called by: `write.rs`, `uploads.rs`.

use super::shares::{Permit, Shares};
use super::turns::{Lane, Turn, Turns, Wanted};
use crate::call::ConnectionId;

/// What part of the cache unfinished uploads may take.
const PART: u64 = 8;

/// The room of all uploads.
#[derive(Debug)]
pub(super) struct Rooms {
    shared: Shares,
    beyond: Turns,
}

/// The room of one upload; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    connection: ConnectionId,
    /// Of the blob.
    size: u64,
    shared: Option<Permit>,
    beyond: Option<Turn>,
}

impl Room {
    /// None yet, for a blob of this size.
    pub(super) fn new(connection: ConnectionId, size: u64) -> Self {
        Self {
            connection,
            size,
            shared: None,
            beyond: None,
        }
    }

    /// Whether it is enough for an upload of `bytes` so far.
    pub(super) fn covers(&self, bytes: u64) -> bool {
        self.beyond.is_some() || bytes <= self.shared()
    }

    /// How much it has of what is shared.
    pub(super) fn shared(&self) -> u64 {
        self.shared.as_ref().map_or(0, Permit::amount)
    }

    /// The turn it has to go beyond that.
    pub(super) fn beyond(&self) -> Option<Lane> {
        self.beyond.as_ref().map(|turn| turn.lane)
    }
}

impl Rooms {
    /// The room in a cache of `max_size` bytes.
    pub(super) fn new(max_size: u64) -> Self {
        Self {
            shared: Shares::new(max_size / PART),
            beyond: Turns::new(max_size / PART),
        }
    }

    /// Waits until the room of an upload is enough for `bytes`.
    pub(super) async fn extend(&self, room: &mut Room, bytes: u64) {
        if room.covers(bytes) {
            return;
        }
        let more = bytes - room.shared();
        tokio::select! {
            biased;
            permit = self.shared.acquire(room.connection, more) => match &mut room.shared {
                Some(shared) => shared.merge(permit),
                none => *none = Some(permit),
            },
            turn = self.beyond.take(room.connection, room.size, more) => {
                room.beyond = Some(turn);
                room.shared = None;
            }
        }
    }

    /// What those need that wait.
    pub(super) fn wanted(&self) -> Wanted {
        self.beyond.wanted()
    }
}
