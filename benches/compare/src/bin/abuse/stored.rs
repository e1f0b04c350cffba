//! What the cache holds before the attacks: what the bystander asks for, and
//! the trees that attacks point at. Everything is made up from numbers, so no
//! program has to tell another what it stored.
//!
//! Not for: messages that harm (`memory`, `calls`, `streams`).
//! Called by: `main`, and by whoever asks for what is stored.

use crate::client::{Conn, Outgoing, call, connect, write};
use aws_lc_rs::digest::{SHA256, digest};
use bytes::{Bytes, BytesMut};
use grpc_fwd_bench::args::Args;
use grpc_fwd_bench::wire::{field, message, varint};

pub const FETCH_BLOB: &str = "/build.bazel.remote.asset.v1.Fetch/FetchBlob";
pub const PUSH_BLOB: &str = "/build.bazel.remote.asset.v1.Push/PushBlob";
pub const PUSH_DIRECTORY: &str = "/build.bazel.remote.asset.v1.Push/PushDirectory";
pub const GET_RESULT: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";
pub const UPDATE_RESULT: &str = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";
pub const HIT: &str = "urn:fdc:bench.example:2026:bystander";
/// Entries whose check has to read one of `TREES` Trees.
pub const CHECKED: u64 = 300;
const TREES: u64 = 6;

/// Content that is the same in every process.
pub fn blob() -> Bytes {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(4 << 20);
    while out.len() < 4 << 20 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.into()
}

/// The SHA-256 of content, in hexadecimal.
pub fn hash(content: &[u8]) -> String {
    let hash = digest(&SHA256, content);
    hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// A Digest message.
pub fn digest_of(hash: &str, size: u64) -> BytesMut {
    let mut out = BytesMut::new();
    field(&mut out, 1, hash.as_bytes());
    varint(&mut out, 2 << 3);
    varint(&mut out, size);
    out
}

fn node(name: &str, digest: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    field(&mut out, 1, name.as_bytes());
    field(&mut out, 2, digest);
    out
}

/// A Directory of about `bytes` bytes, all of whose files are `blob`.
fn directory(number: u64, bytes: usize) -> Bytes {
    let content = blob();
    let file = digest_of(&hash(&content), content.len() as u64);
    let (mut out, mut n) = (BytesMut::new(), 0);
    while out.len() < bytes {
        field(&mut out, 1, &node(&format!("{number:04}-{n:08}"), &file));
        n += 1;
    }
    out.freeze()
}

/// The directories of a tree of 41 MiB, its root last.
pub fn tree() -> Vec<Bytes> {
    let mut all: Vec<_> = (0..41).map(|n| directory(n, 1 << 20)).collect();
    let mut root = BytesMut::new();
    for (n, child) in all.iter().enumerate() {
        let digest = digest_of(&hash(child), child.len() as u64);
        field(&mut root, 2, &node(&format!("{n:04}"), &digest));
    }
    all.push(root.freeze());
    all
}

/// A Tree message of 8 MiB.
fn tree_message(number: u64) -> Bytes {
    let mut out = BytesMut::new();
    field(&mut out, 1, &directory(1000 + number, 8 << 20));
    out.freeze()
}

/// The digest of a made-up action.
pub fn action(name: &str) -> BytesMut {
    digest_of(&hash(name.as_bytes()), name.len() as u64)
}

/// A GetActionResultRequest.
pub fn get_result(name: &str) -> Bytes {
    let mut out = BytesMut::new();
    field(&mut out, 2, &action(name));
    message(&out)
}

/// An UpdateActionResultRequest.
pub fn update_result(name: &str, result: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    field(&mut out, 2, &action(name));
    field(&mut out, 3, result);
    message(&out)
}

/// The result that the bystander asks for.
pub fn result() -> Bytes {
    let mut out = BytesMut::new();
    field(&mut out, 5, b"what the bystander has to be answered");
    out.freeze()
}

/// A FetchBlobRequest for one URI.
pub fn fetch(uri: &str) -> Bytes {
    let mut out = BytesMut::new();
    field(&mut out, 4, uri.as_bytes());
    message(&out)
}

/// A PushBlobRequest or PushDirectoryRequest for one URI.
pub fn push(uri: &str, digest: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    field(&mut out, 2, uri.as_bytes());
    field(&mut out, 5, digest);
    message(&out)
}

async fn upload(conn: &mut Conn, content: &Bytes) -> Result<String, String> {
    let (hash, size) = (hash(content), content.len());
    let uuid = "6f1f3b5e-0000-4000-8000-000000000001";
    write(
        conn,
        &format!("uploads/{uuid}/blobs/{hash}/{size}"),
        content,
    )
    .await?;
    Ok(hash)
}

/// Stores all of it at the cache, and the bystander's reference at the front too.
pub async fn store(a: &Args) -> Result<(), String> {
    let mut conn = connect(a.num("--port", 0) as u16).await?;
    let content = blob();
    let found = upload(&mut conn, &content).await?;
    let request = push(HIT, &digest_of(&found, content.len() as u64));
    call(&mut conn, PUSH_BLOB, Outgoing::whole(request)).await?;
    let request = update_result("bystander", &result());
    call(&mut conn, UPDATE_RESULT, Outgoing::whole(request)).await?;
    for directory in tree() {
        upload(&mut conn, &directory).await?;
    }
    let mut trees = vec![];
    for number in 0..TREES {
        let tree = tree_message(number);
        trees.push(digest_of(
            &upload(&mut conn, &tree).await?,
            tree.len() as u64,
        ));
    }
    for n in 0..CHECKED {
        let (mut directory, mut result) = (BytesMut::new(), BytesMut::new());
        field(&mut directory, 1, b"out");
        field(&mut directory, 3, &trees[(n % TREES) as usize]);
        field(&mut result, 3, &directory);
        let request = update_result(&format!("checked-{n}"), &result);
        call(&mut conn, UPDATE_RESULT, Outgoing::whole(request)).await?;
    }
    Ok(())
}
