//! Attacks on memory: messages that are never complete, that take fifty times
//! their size once decoded, or that name large trees.
//!
//! Not for: time (`calls`) and what stays open (`streams`).
//! Called by: `attacks`.

use crate::attacks::Attack;
use crate::client::Outgoing;
use crate::stored::{
    FETCH_BLOB, PUSH_DIRECTORY, UPDATE_RESULT, digest_of, hash, push, tree, update_result,
};
use bytes::{BufMut, Bytes, BytesMut};
use grpc_fwd_bench::wire::{field, framed, message, varint};

const BATCH_UPDATE: &str =
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs";
/// The largest message that is taken.
pub const LARGEST: usize = 16 << 20;

/// `length` bytes of empty messages in one repeated field.
fn empty_messages(number: u64, length: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(length);
    while out.len() < length {
        varint(&mut out, number << 3 | 2);
        out.put_u8(0);
    }
    out
}

/// 150 streams that each send a message of 16 MiB less its last byte.
pub async fn half_messages(attack: Attack) {
    let mut body = framed(LARGEST);
    varint(&mut body, 4 << 3 | 2);
    let length = LARGEST - 5;
    varint(&mut body, length as u64);
    body.put_bytes(b'a', LARGEST + 5 - 1 - body.len());
    let body = body.freeze();
    let each = (0..150).map(|_| attack.once(FETCH_BLOB, Outgoing::stays(body.clone())));
    attack.hold(each).await;
}

/// Action results of nothing but empty output files, `at_once` at a time.
pub async fn results(attack: Attack, at_once: usize) {
    let body = update_result("harm", &empty_messages(2, LARGEST - 256));
    attack.repeat(at_once, UPDATE_RESULT, &body).await;
}

/// Batches of nothing but empty blobs.
pub async fn batches(attack: Attack) {
    let body = message(&empty_messages(2, LARGEST - 16));
    attack.repeat(1, BATCH_UPDATE, &body).await;
}

/// Fetches with eight million qualifiers.
pub async fn qualifiers(attack: Attack) {
    let body = message(&empty_messages(5, LARGEST - 16));
    attack.repeat(1, FETCH_BLOB, &body).await;
}

/// Sixteen PushDirectories of a tree of 41 MiB, again and again.
pub async fn trees(attack: Attack) {
    let root = tree().pop().unwrap_or_default();
    let digest = digest_of(&hash(&root), root.len() as u64);
    let bodies: Vec<Bytes> = (0..16)
        .map(|n| push(&format!("urn:fdc:bench.example:2026:tree:{n}"), &digest))
        .collect();
    let each = bodies
        .iter()
        .map(|body| attack.repeat(1, PUSH_DIRECTORY, body));
    attack.hold(each).await;
}

/// One field of a message, of `length` times one byte.
pub fn filled(number: u64, length: usize) -> BytesMut {
    let mut out = BytesMut::new();
    field(&mut out, number, &vec![b'a'; length]);
    out
}
