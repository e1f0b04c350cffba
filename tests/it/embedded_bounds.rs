//! The embedded cache under clients that take more than their part, and over
//! files that changed under it.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use assetgate::proto::bytestream::WriteRequest;
use assetgate::proto::rev2;
use prost::Message as _;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::client::{upload_name, write_messages};
use crate::support::content::noise;
use crate::support::{Client, Code, Proxy, digest_of};

const MIB: usize = 1 << 20;

/// An upload that was begun and goes on while the sender is kept.
fn begin(client: &Client, content: &[u8], sent: usize) -> mpsc::Sender<WriteRequest> {
    let (sender, receiver) = mpsc::channel(1024);
    let name = upload_name(&digest_of(content));
    let mut messages = write_messages(&name, content, MIB / 4);
    messages.truncate(sent / (MIB / 4));
    for message in messages {
        sender.try_send(message).unwrap();
    }
    let request = client.request(ReceiverStream::new(receiver));
    let mut service = client.bytestream();
    tokio::spawn(async move { service.write(request).await });
    sender
}

#[tokio::test]
async fn uploads_under_way_leave_others_what_is_stored_and_room() {
    let proxy = Proxy::new().arg("--max-size").arg("64MiB");
    let (proxy, client) = proxy.connected().await;
    let mut stored = Vec::new();
    for seed in 0..48 {
        stored.push(client.upload(&noise(MIB, 1000 + seed)).await);
    }
    assert_eq!(client.missing(&stored).await, []);
    let greedy = proxy.client().await;
    let contents: Vec<_> = (0..8).map(|n| noise(8 * MIB, 2000 + n)).collect();
    let open: Vec<_> = contents
        .iter()
        .map(|content| begin(&greedy, content, 7 * MIB + MIB / 2))
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let gone = client.missing(&stored).await.len();
    assert!(gone <= 16, "8 open uploads evicted {gone} of 48 MiB");
    // Another client has room for a small one at once, and for one beyond its
    // share as soon as whoever holds that up was given up.
    let small = noise(MIB, 3000);
    let name = upload_name(&digest_of(&small));
    let begun = Instant::now();
    let written = client.write(write_messages(&name, &small, MIB / 4)).await;
    assert_eq!(written.unwrap().committed_size, MIB as i64);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "after {:?}",
        begun.elapsed()
    );
    let large = noise(20 * MIB, 3001);
    let name = upload_name(&digest_of(&large));
    let mut service = client.bytestream();
    let messages = tokio_stream::iter(write_messages(&name, &large, MIB / 4));
    let request = client.request(messages);
    let written = tokio::time::timeout(Duration::from_secs(50), service.write(request)).await;
    let written = written.expect("it is not held up for long").unwrap();
    assert_eq!(written.into_inner().committed_size, 20 * MIB as i64);
    drop(open);
}

#[tokio::test]
async fn many_uploads_larger_than_their_share_all_finish() {
    let proxy = Proxy::new().arg("--max-size").arg("64MiB");
    let (proxy, _client) = proxy.connected().await;
    let mut running = tokio::task::JoinSet::new();
    for n in 0..12 {
        let client = proxy.client().await;
        running.spawn(async move {
            let content = noise(9 * MIB, 4000 + n);
            let name = upload_name(&digest_of(&content));
            let messages = write_messages(&name, &content, MIB / 4);
            let request = client.request(tokio_stream::iter(messages));
            client.bytestream().write(request).await
        });
    }
    let all = tokio::time::timeout(Duration::from_secs(60), running.join_all()).await;
    for written in all.expect("none waits for ever") {
        assert_eq!(written.unwrap().into_inner().committed_size, 9 * MIB as i64);
    }
}

/// A Tree of so many files that are all the same.
fn tree(files: usize, file: &rev2::Digest) -> Vec<u8> {
    let node = |n| rev2::FileNode {
        name: format!("{n:08}"),
        digest: Some(file.clone()),
        ..Default::default()
    };
    let root = rev2::Directory {
        files: (0..files).map(node).collect(),
        ..Default::default()
    };
    rev2::Tree {
        root: Some(root),
        children: Vec::new(),
    }
    .encode_to_vec()
}

async fn store_result(client: &Client, name: &[u8], result: rev2::ActionResult) -> rev2::Digest {
    let action = digest_of(name);
    let request = rev2::UpdateActionResultRequest {
        action_digest: Some(action.clone()),
        action_result: Some(result),
        ..Default::default()
    };
    client.ac().update_action_result(request).await.unwrap();
    action
}

fn get_result(action: &rev2::Digest) -> rev2::GetActionResultRequest {
    rev2::GetActionResultRequest {
        action_digest: Some(action.clone()),
        ..Default::default()
    }
}

#[tokio::test]
async fn queued_checks_of_trees_delay_nobody_else() {
    let (proxy, client) = Proxy::new().connected().await;
    let file = client.upload(b"file").await;
    let tree = tree(40_000, &file);
    let stored = client.upload(&tree).await;
    let directory = rev2::OutputDirectory {
        path: "out".into(),
        tree_digest: Some(stored),
        ..Default::default()
    };
    let large = rev2::ActionResult {
        output_directories: vec![directory],
        ..Default::default()
    };
    let small = rev2::ActionResult {
        stdout_digest: Some(file),
        ..Default::default()
    };
    let large = store_result(&client, b"large", large).await;
    let small = store_result(&client, b"small", small).await;
    let begun = Instant::now();
    client
        .ac()
        .get_action_result(get_result(&large))
        .await
        .unwrap();
    let one = begun.elapsed();
    let greedy = proxy.client().await;
    let mut queued = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let (mut ac, large) = (greedy.ac(), large.clone());
        queued.spawn(async move { ac.get_action_result(get_result(&large)).await });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    client
        .ac()
        .get_action_result(get_result(&small))
        .await
        .unwrap();
    let waited = begun.elapsed();
    assert!(
        waited < Duration::from_millis(500),
        "waited {waited:?} behind checks of {one:?} each"
    );
    queued.abort_all();
}

#[tokio::test]
async fn results_and_trees_that_need_room_of_their_own_are_answered_and_checked() {
    let (_proxy, client) = Proxy::new().connected().await;
    let file = client.upload(b"file").await;
    // Above 8 MiB, which one check may hold, and above 64 KiB, which one answer may.
    let tree = tree(120_000, &file);
    assert!(tree.len() > 9 * MIB, "{}", tree.len());
    let stored = digest_of(&tree);
    let messages = write_messages(&upload_name(&stored), &tree, MIB);
    client.write(messages).await.unwrap();
    let directory = rev2::OutputDirectory {
        path: "out".into(),
        tree_digest: Some(stored),
        ..Default::default()
    };
    let outputs = |absent: &[rev2::Digest]| {
        let digests = std::iter::repeat_n(&file, 1500).chain(absent);
        let output = |(n, digest): (usize, &rev2::Digest)| rev2::OutputFile {
            path: format!("{n:08}"),
            digest: Some(digest.clone()),
            ..Default::default()
        };
        digests.enumerate().map(output).collect()
    };
    let both = rev2::ActionResult {
        output_directories: vec![directory],
        output_files: outputs(&[]),
        ..Default::default()
    };
    let incomplete = rev2::ActionResult {
        output_files: outputs(&[digest_of(b"absent")]),
        ..both.clone()
    };
    let large = store_result(&client, b"both", both.clone()).await;
    for _ in 0..3 {
        let answer = client.ac().get_action_result(get_result(&large)).await;
        assert!(answer.unwrap().into_inner() == both);
    }
    let incomplete = store_result(&client, b"incomplete", incomplete).await;
    let answer = client.ac().get_action_result(get_result(&incomplete)).await;
    assert_eq!(answer.unwrap_err().code(), Code::NotFound);
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all
}

fn file_of(dir: &Path, digest: &rev2::Digest) -> PathBuf {
    let name = format!("{}-{}", digest.hash, digest.size_bytes);
    let found = files(dir).into_iter().find(|path| path.ends_with(&name));
    found.expect("a file named by its digest")
}

/// One bit of a file changes in place.
fn flip(path: &Path, at: u64) {
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
}

async fn batch_read(client: &Client, digest: &rev2::Digest) -> i32 {
    let request = rev2::BatchReadBlobsRequest {
        digests: vec![digest.clone()],
        ..Default::default()
    };
    let answer = client.cas().batch_read_blobs(request).await.unwrap();
    let first = answer.into_inner().responses.remove(0);
    first.status.map_or(0, |status| status.code)
}

/// How a blob is read.
const WAYS: [&str; 5] = ["whole", "small", "zstd", "batch", "offset"];

async fn read(client: &Client, way: &str, digest: &rev2::Digest) -> Code {
    let blob = format!("{}/{}", digest.hash, digest.size_bytes);
    let name = match way {
        "zstd" => format!("compressed-blobs/zstd/{blob}"),
        _ => format!("blobs/{blob}"),
    };
    let read = match way {
        "batch" => return batch_read(client, digest).await.into(),
        "offset" => client.read_part(&name, 100, 500).await,
        _ => client.read(&name).await,
    };
    read.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn a_flipped_bit_is_never_served_and_the_next_write_heals() {
    let dir = TempDir::new().unwrap();
    let (proxy, client) = Proxy::new().data_dir(dir.path()).connected().await;
    let mut served = Vec::new();
    for (n, way) in WAYS.into_iter().enumerate() {
        let size = if way == "whole" || way == "zstd" {
            3 * MIB
        } else {
            70_000
        };
        let content = noise(size, 5000 + n as u64);
        let digest = client.upload(&content).await;
        assert_eq!(read(&client, way, &digest).await, Code::Ok, "{way}");
        flip(&file_of(dir.path(), &digest), 300);
        if read(&client, way, &digest).await != Code::NotFound {
            served.push(way);
            continue;
        }
        assert_eq!(
            client.missing(std::slice::from_ref(&digest)).await.len(),
            1,
            "{way}"
        );
        client.upload(&content).await;
        assert!(client.blob(&digest).await.unwrap() == content, "{way}");
    }
    assert!(served.is_empty(), "served with a flipped bit: {served:?}");
    let metrics = proxy.metrics().await;
    let found = metrics.sum("assetgate_embedded_corrupt_total", &[]);
    assert_eq!(found, WAYS.len() as f64);
}

#[tokio::test]
async fn presence_does_not_claim_what_a_read_would_refuse() {
    let dir = TempDir::new().unwrap();
    let (_proxy, client) = Proxy::new().data_dir(dir.path()).connected().await;
    let cut = client.upload(&noise(MIB, 6000)).await;
    let gone = client.upload(&noise(MIB, 6001)).await;
    let named = client.upload(&noise(MIB, 6002)).await;
    let result = rev2::ActionResult {
        stdout_digest: Some(named.clone()),
        ..Default::default()
    };
    let action = store_result(&client, b"named", result).await;
    client
        .ac()
        .get_action_result(get_result(&action))
        .await
        .unwrap();
    let shorten = |digest: &rev2::Digest| {
        let file = std::fs::File::options()
            .write(true)
            .open(file_of(dir.path(), digest));
        file.unwrap().set_len(1000).unwrap();
    };
    shorten(&cut);
    shorten(&named);
    std::fs::remove_file(file_of(dir.path(), &gone)).unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let missing = client.missing(&[cut.clone(), gone.clone()]).await;
    assert_eq!(missing, [cut, gone]);
    let answer = client.ac().get_action_result(get_result(&action)).await;
    assert_eq!(answer.unwrap_err().code(), Code::NotFound);
}
