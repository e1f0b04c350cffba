//! Attacks on time: calls that are cheap to make and dear to answer.
//!
//! Not for: what stays open (`streams`).
//! Called by: `attacks`.

use crate::attacks::Attack;
use crate::client::Outgoing;
use crate::memory::LARGEST;
use crate::stored::{CHECKED, FETCH_BLOB, GET_RESULT, get_result};
use bytes::{BufMut, BytesMut};
use grpc_fwd_bench::wire::{field, message};
use http::HeaderName;

/// Fetches of 64 URIs of 256 KiB, percent-encoded to the last letter.
pub async fn uris(attack: Attack) {
    let uri = format!(
        "https://origin.example/{}",
        "%41".repeat((256 << 10) / 3 - 16)
    );
    let mut request = BytesMut::new();
    for _ in 0..64 {
        field(&mut request, 4, uri.as_bytes());
    }
    assert!(request.len() <= LARGEST, "too large to be taken");
    attack.repeat(1, FETCH_BLOB, &message(&request)).await;
}

/// Fetches that fail, with 900 entries of metadata.
pub async fn metadata(attack: Attack) {
    let entry = |n| {
        let name = format!("x-entry-{n}");
        (HeaderName::try_from(name).expect("a name"), "v".to_owned())
    };
    let headers: Vec<_> = (0..900).map(entry).collect();
    let one = async || {
        loop {
            let body = Outgoing::whole(message(b""));
            attack.once_with(FETCH_BLOB, headers.clone(), body).await;
        }
    };
    attack.hold((0..10).map(|_| one())).await;
}

/// Messages of nothing but groups in groups.
pub async fn nested(attack: Attack) {
    let mut request = BytesMut::new();
    request.put_bytes(15 << 3 | 3, LARGEST / 2);
    request.put_bytes(15 << 3 | 4, LARGEST / 2);
    attack.repeat(1, FETCH_BLOB, &message(&request)).await;
}

/// 300 entries at once, each of which is checked by reading a Tree of 8 MiB.
pub async fn checks(attack: Attack) {
    let bodies: Vec<_> = (0..CHECKED)
        .map(|n| get_result(&format!("checked-{n}")))
        .collect();
    let each = bodies.iter().map(|body| attack.repeat(1, GET_RESULT, body));
    attack.hold(each).await;
}
