//! The places of the admin port. When all are taken, the connection that has
//! asked for nothing the longest makes room for a newcomer: nobody is kept out
//! by those that say nothing, say it slowly, or do not read what they are told.
//!
//! Not for: how long one may take (`serve`).
//! Called by: `serve`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// So many places; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// Who waits for a request; the first has for the longest time.
    idle: BTreeMap<u64, CancellationToken>,
}

impl Taken {
    fn insert(&mut self, leave: CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        self.idle.insert(number, leave);
        number
    }
}

/// One of them, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    taken: Arc<Mutex<Taken>>,
    number: Mutex<u64>,
    leave: CancellationToken,
    _slot: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(places: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(places)),
            taken: Arc::default(),
        }
    }

    /// Takes a place, if need be somebody else's; that is free as soon as the
    /// other's task has ended. `None` when the semaphore was closed, by nobody.
    pub(super) async fn take(&self) -> Option<Place> {
        let slot = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => {
                if let Some((_, longest)) = self.taken.lock().idle.pop_first() {
                    longest.cancel();
                }
                Arc::clone(&self.free).acquire_owned().await.ok()?
            }
        };
        let leave = CancellationToken::new();
        let number = self.taken.lock().insert(leave.clone());
        Some(Place {
            taken: Arc::clone(&self.taken),
            number: Mutex::new(number),
            leave,
            _slot: slot,
        })
    }
}

impl Place {
    /// A request came: it is the last to go, unless it is on its way already.
    pub(super) fn asks(&self) {
        let mut taken = self.taken.lock();
        let mut number = self.number.lock();
        if let Some(leave) = taken.idle.remove(&number) {
            *number = taken.insert(leave);
        }
    }

    /// Waits until its place is needed.
    pub(super) async fn needed(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let number = *self.number.lock();
        self.taken.lock().idle.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_asked_last_goes_last_and_its_place_is_taken_when_it_is_gone() {
        let places = Places::new(2);
        let [first, second] = [places.take().await, places.take().await].map(Option::unwrap);
        first.asks();
        let mut third = Box::pin(places.take());
        assert!((&mut third).now_or_never().is_none());
        second.needed().now_or_never().expect("it is told");
        assert!(first.needed().now_or_never().is_none());
        // What it says now changes nothing.
        second.asks();
        drop(second);
        let third = (&mut third).now_or_never().flatten().unwrap();
        let mut fourth = Box::pin(places.take());
        assert!((&mut fourth).now_or_never().is_none());
        first.needed().now_or_never().expect("it is told");
        drop((first, third, fourth));
        assert!(places.taken.lock().idle.is_empty());
        assert_eq!(places.free.available_permits(), 2);
    }
}
