//! Who gets a place among a listener's connections. Where all are taken, a
//! client that says nothing makes room, or else a connection without a call,
//! and it does so at once: while it closes in good order it holds a spare
//! place, of which there are few, so that whoever comes next need not wait.
//!
//! Not for: accepting (`accept`); who is silent (`lobby`) and who is idle
//! (`crowd`).
//! Called by: `accept`.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::crowd::{ClientLimit, Crowd, Member};
use super::lobby::{Guest, Lobby};

/// How long a client may have to say something before it makes room: a burst is
/// accepted before any of it was heard.
const GRACE: Duration = Duration::from_millis(50);

/// How long it may take until a place is free that somebody has to leave now.
const MAKING_ROOM: Duration = Duration::from_millis(100);

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Door {
    limit: ClientLimit,
    slots: Arc<Semaphore>,
    /// For those that were told to leave.
    spare: Arc<Semaphore>,
    spares: usize,
    lobby: Arc<Lobby>,
    crowd: Arc<Crowd>,
}

/// How many places there are beyond so many, for connections that close. Also
/// how many may take the places of idle ones before they have said anything.
pub(super) fn spares(connections: usize) -> usize {
    (connections / 8).clamp(1, 32)
}

impl Door {
    pub(super) fn new(connections: usize, limit: ClientLimit) -> Self {
        let spares = spares(connections);
        Self {
            limit,
            slots: Arc::new(Semaphore::new(connections)),
            spare: Arc::new(Semaphore::new(spares)),
            spares,
            lobby: Arc::default(),
            crowd: Arc::default(),
        }
    }

    /// Lets a client in, or says in a word (a metric's label) why not. Closing
    /// a connection above the limit tells its client at once; leaving it in
    /// the backlog would let it wait for nothing.
    pub(super) async fn admit(
        &self,
        address: Option<SocketAddr>,
    ) -> Result<(Guest, Member), &'static str> {
        let client = self.limit.client(address);
        let full = |client| self.crowd.count(client) >= self.limit.connections;
        let slot = match client {
            Some(own) if full(own) => self.idlest(client).await.ok_or("client_limit")?,
            _ => self.slot().await.ok_or("limit")?,
        };
        Ok((self.lobby.enter(), self.crowd.enter(client, slot)))
    }

    /// A place, if need be of a client that has had time to say something, or
    /// else of one that has no call. Of the latter not many go for those that
    /// were not heard yet.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let mut freed = pin!(Arc::clone(&self.slots).acquire_owned());
        loop {
            if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
                return Some(slot);
            }
            let oldest = self.lobby.oldest();
            if oldest.is_some_and(|since| since.elapsed() >= GRACE) && self.lobby.show_out_oldest()
            {
                return tokio::time::timeout(MAKING_ROOM, freed).await.ok()?.ok();
            }
            if self.lobby.len() < self.spares
                && let Some(slot) = self.idlest(None).await
            {
                return Some(slot);
            }
            let since = oldest?;
            tokio::select! {
                biased;
                slot = &mut freed => return slot.ok(),
                () = self.lobby.left() => {}
                () = tokio::time::sleep_until(since + GRACE) => {}
            }
        }
    }

    /// The place of the connection that is idle longest; of this client, if one
    /// is named.
    async fn idlest(&self, client: Option<IpAddr>) -> Option<OwnedSemaphorePermit> {
        let spare = match Arc::clone(&self.spare).try_acquire_owned() {
            Ok(spare) => spare,
            Err(_) => {
                self.crowd.hurry();
                let spare = Arc::clone(&self.spare).acquire_owned();
                tokio::time::timeout(MAKING_ROOM, spare).await.ok()?.ok()?
            }
        };
        self.crowd.displace_idlest(client, spare)
    }
}
