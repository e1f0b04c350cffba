//! What the head of a call takes until the call is answered: its headers stay
//! that long, wherever it goes.
//!
//! Not for: how large one head may be, and how fast it must come (`connection`).
//! Called by: `dispatch`.

use http::Request;
use tonic::Status;

use crate::budget::{Permit, Share};
use crate::intake::too_many_headers;

/// What a header takes beside its name and value: its place in the map, which
/// grows by doubling, and what each text is allocated in.
const HEADER: usize = 320;

/// Calls of a connection at a time whose heads are not looked at: looking costs
/// each call, and nearly no client has more. Together they take some 12 MiB.
const UNSEEN: u32 = 64;

/// Heads up to this are not charged. With as many calls as a connection may
/// have it has 12 MiB of them; nearly every call has less than half of it.
const FREE: usize = 12 << 10;

/// Room for the head of this call in the connection's share, if it takes much
/// and is one of many: so many `calls` the connection has, with this one.
///
/// # Errors
/// There is none.
pub(super) fn room<B>(
    share: &Share,
    request: &Request<B>,
    calls: u32,
) -> Result<Option<Box<Permit>>, Status> {
    if calls <= UNSEEN {
        return Ok(None);
    }
    let takes = takes(request);
    if takes <= FREE {
        return Ok(None);
    }
    let room = share.try_reserve(takes as u64);
    // Boxed, so that the calls without one carry no place for it.
    room.map(|room| Some(Box::new(room)))
        .ok_or_else(too_many_headers)
}

fn takes<B>(request: &Request<B>) -> usize {
    let (headers, uri) = (request.headers(), request.uri());
    let target = uri.path().len()
        + uri.query().map_or(0, str::len)
        + uri.authority().map_or(0, |a| a.as_str().len());
    let texts = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    target + headers.len() * HEADER + texts.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budget, LEAST};

    fn call(headers: usize, length: usize) -> Request<()> {
        let mut call = Request::post("http://host.example/a.Service/Method");
        for _ in 0..headers {
            call = call.header("x", "y".repeat(length));
        }
        call.body(()).unwrap()
    }

    /// Of a call beyond those that are not looked at.
    fn room_of_one_more(share: &Share, call: &Request<()>) -> Result<Option<Box<Permit>>, Status> {
        room(share, call, UNSEEN + 1)
    }

    #[test]
    fn large_heads_are_charged_until_they_are_dropped() {
        let budget = Budget::new(LEAST);
        let share = budget.share();
        assert!(room_of_one_more(&share, &call(20, 100)).unwrap().is_none());
        let many = call(400, 0);
        assert!(room(&share, &many, UNSEEN).unwrap().is_none());
        let few = call(1, 60_000);
        for large in [&many, &few] {
            let mut held = Vec::new();
            while let Ok(room) = room_of_one_more(&share, large) {
                held.extend(room);
            }
            let used = budget.used();
            assert!(used > LEAST / 5 && used <= LEAST / 4, "{used}");
            assert!(
                room_of_one_more(&budget.share(), large).is_ok(),
                "another connection"
            );
        }
        assert_eq!(budget.used(), 0);
    }
}
