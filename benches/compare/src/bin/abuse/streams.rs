//! Attacks by what stays open: bodies that drip, uploads that pause, answers
//! that nobody reads, heads of a thousand streams.
//!
//! Not for: frames that no library would send (`frames`).
//! Called by: `attacks`.

use crate::attacks::Attack;
use crate::client::{Outgoing, Then, connect_windows};
use crate::memory::{LARGEST, filled};
use crate::stored::{FETCH_BLOB, HIT, blob, fetch, hash};
use bytes::{BufMut, Bytes, BytesMut};
use grpc_fwd_bench::wire::{self, field, framed, message};
use http::HeaderName;

const READ: &str = "/google.bytestream.ByteStream/Read";
const WRITE: &str = "/google.bytestream.ByteStream/Write";

/// 100 messages of 16 MiB: the first MiB at once, then a byte a second.
pub async fn drips(attack: Attack) {
    let mut body = framed(LARGEST);
    body.put_slice(&filled(4, LARGEST)[..1 << 20]);
    let body = body.freeze();
    let each = (0..100).map(|_| attack.once(FETCH_BLOB, Outgoing::drips(body.clone())));
    attack.hold(each).await;
}

/// 200 uploads of 64 MiB that stop after 256 KiB.
pub async fn uploads(attack: Attack) {
    let data = Bytes::from(vec![b'u'; 256 << 10]);
    let one = |n: u64| {
        let hash = hash(&n.to_le_bytes());
        let name = format!("uploads/6f1f3b5e-0000-4000-8000-{n:012x}/blobs/{hash}/67108864");
        let head = wire::write_head(Some(&name), 0, false, data.len());
        attack.once(WRITE, Outgoing::of([head, data.clone()], Then::Stay))
    };
    attack.hold((0..200).map(one)).await;
}

/// 1,000 reads of 4 MiB on one connection, none of them read.
pub async fn unread(attack: Attack) {
    let content = blob();
    let mut request = BytesMut::new();
    let name = format!("blobs/{}/{}", hash(&content), content.len());
    field(&mut request, 1, name.as_bytes());
    let body = message(&request);
    // The connection is the server's to fill, the streams are not.
    let conn = match connect_windows(attack.port, 1 << 16, 1 << 30).await {
        Ok(conn) => attack.over(conn),
        Err(error) => return attack.saw(error),
    };
    let one = async || match conn.head(READ, Outgoing::whole(body.clone())).await {
        Ok(answer) => {
            attack.saw("unread".into());
            std::future::pending::<()>().await;
            drop(answer);
        }
        Err(error) => attack.saw(error),
    };
    attack.hold((0..1000).map(|_| one())).await;
}

/// 1,000 streams with heads of 56 KiB and bodies that never come.
pub async fn heads(attack: Attack) {
    let entry = |n| {
        let name = HeaderName::try_from(format!("x-large-{n}")).expect("a name");
        (name, "h".repeat(1000))
    };
    let headers: Vec<_> = (0..54).map(entry).collect();
    let one = |_| {
        let body = Outgoing::stays(Bytes::from_static(b"\0\0"));
        attack.once_with(FETCH_BLOB, headers.clone(), body)
    };
    attack.hold((0..1000).map(one)).await;
}

/// Hundreds of asset calls, each of which may be worth a line of log.
pub async fn logged(attack: Attack) {
    let found = fetch(HIT);
    let missing = fetch("urn:fdc:bench.example:2026:nowhere");
    let each = (0..20).map(|n| {
        let body = if n % 2 == 0 { &found } else { &missing };
        attack.repeat(1, FETCH_BLOB, body)
    });
    attack.hold(each).await;
}
