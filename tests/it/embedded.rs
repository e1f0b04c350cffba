//! The embedded cache as its users meet it: what it keeps over a stop, a crash
//! and a full house.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::client::{upload_name, write_messages};
use crate::support::content::noise;
use crate::support::{
    Client, Code, Dir, Function, Origin, Proxy, Qualified as _, digest_of, eventually, fetch_blob,
    fetch_directory, hit, inline, push_blob, push_directory, sri,
};

#[tokio::test]
async fn a_restart_keeps_content_and_references() {
    let dir = TempDir::new().unwrap();
    let mut origin = Origin::new().file("/a", "content").start().await;
    let pinned = fetch_blob(&[origin.url("/a")])
        .qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    let tree = Dir::new().file("f", b"file");
    let large = noise(5 << 20, 21);
    let (proxy, client) = Proxy::new().data_dir(dir.path()).connected().await;
    client.upload_all(&tree.closure()).await;
    let name = upload_name(&digest_of(&large));
    client
        .write(write_messages(&name, &large, 1 << 20))
        .await
        .unwrap();
    client
        .push_directory(push_directory(&["urn:e:d"], tree.digest()))
        .await
        .unwrap();
    client
        .push_blob(push_blob(&["urn:e:l"], digest_of(&large)))
        .await
        .unwrap();
    hit(client.fetch_blob(pinned.clone()).await);
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(0));
    origin.stop().await;
    let (_proxy, client) = Proxy::new().data_dir(dir.path()).connected().await;
    assert_eq!(hit(client.fetch_blob(pinned).await), digest_of(b"content"));
    let root = hit(client.fetch_directory(fetch_directory(&["urn:e:d"])).await);
    assert_eq!(root, tree.digest());
    let digest = hit(client.fetch_blob(fetch_blob(&["urn:e:l"])).await);
    assert!(client.blob(&digest).await.unwrap() == large);
}

#[tokio::test]
async fn an_eviction_turns_hits_into_misses() {
    let proxy = Proxy::new().arg("--max-size").arg("16MiB");
    let (_proxy, client) = proxy.connected().await;
    let digest = client.upload(&noise(1 << 20, 31)).await;
    client
        .push_blob(push_blob(&["urn:e:old"], digest.clone()))
        .await
        .unwrap();
    assert_eq!(
        hit(client.fetch_blob(fetch_blob(&["urn:e:old"])).await),
        digest
    );
    for i in 0..30 {
        client.upload(&noise(1 << 20, 100 + i)).await;
    }
    inline(
        client.fetch_blob(fetch_blob(&["urn:e:old"])).await,
        Code::NotFound,
    );
    assert_eq!(client.missing(&[digest]).await.len(), 1);
}

#[tokio::test]
async fn what_is_used_is_evicted_last() {
    let proxy = Proxy::new().arg("--max-size").arg("16MiB");
    let (_proxy, client) = proxy.connected().await;
    let digest = client.upload(&noise(1 << 20, 32)).await;
    client
        .push_blob(push_blob(&["urn:e:used"], digest.clone()))
        .await
        .unwrap();
    for i in 0..30 {
        client.upload(&noise(1 << 20, 200 + i)).await;
        assert_eq!(
            hit(client.fetch_blob(fetch_blob(&["urn:e:used"])).await),
            digest
        );
    }
    assert_eq!(client.missing(&[digest]).await, []);
}

/// Pushes blobs named by number from `first` on, until the server is gone;
/// how many were acknowledged.
async fn push_until_gone(client: Client, first: u64) -> u64 {
    for number in first.. {
        let content = noise(20_000, number);
        let digest = digest_of(&content);
        let name = upload_name(&digest);
        if client
            .write(write_messages(&name, &content, 9_000))
            .await
            .is_err()
        {
            return number;
        }
        let push = push_blob(&[format!("urn:e:{number}")], digest);
        if client.push_blob(push).await.is_err() {
            return number;
        }
    }
    unreachable!()
}

#[tokio::test]
async fn a_crash_loses_nothing_acknowledged_and_corrupts_nothing() {
    let dir = TempDir::new().unwrap();
    let mut acknowledged = 0;
    for _ in 0..3 {
        let (proxy, client) = Proxy::new().data_dir(dir.path()).connected().await;
        for number in 0..acknowledged {
            let uri = format!("urn:e:{number}");
            let digest = hit(client.fetch_blob(fetch_blob(&[uri])).await);
            assert!(client.blob(&digest).await.unwrap() == noise(20_000, number));
        }
        let pushing = tokio::spawn(push_until_gone(client.clone(), acknowledged));
        let enough = format!("urn:e:{}", acknowledged + 20);
        eventually("some pushes", async || {
            let answer = client.fetch_blob(fetch_blob(&[&enough])).await.unwrap();
            (answer.status.unwrap().code == 0).then_some(())
        })
        .await;
        proxy.kill();
        acknowledged = pushing.await.unwrap();
    }
    assert!(acknowledged > 60);
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all
}

#[tokio::test]
async fn a_shortened_file_is_a_miss() {
    let dir = TempDir::new().unwrap();
    let content = noise(123_457, 41);
    let (proxy, client) = Proxy::new().data_dir(dir.path()).connected().await;
    let digest = client.upload(&content).await;
    client
        .push_blob(push_blob(&["urn:e:a"], digest.clone()))
        .await
        .unwrap();
    proxy.kill();
    let stored = files(dir.path())
        .into_iter()
        .find(|path| std::fs::read(path).is_ok_and(|bytes| bytes == content));
    let file = std::fs::File::options()
        .write(true)
        .open(stored.expect("a plain file"));
    file.unwrap().set_len(1000).unwrap();
    let (_proxy, client) = Proxy::new().data_dir(dir.path()).connected().await;
    assert_eq!(client.missing(&[digest]).await.len(), 1);
    inline(
        client.fetch_blob(fetch_blob(&["urn:e:a"])).await,
        Code::NotFound,
    );
}

#[tokio::test]
async fn r1_compressed_reads_and_writes() {
    let (_proxy, client) = Proxy::new().connected().await;
    let content = noise(300_000, 51).repeat(3);
    let digest = digest_of(&content);
    let packed = zstd::encode_all(&*content, 3).unwrap();
    let name = format!(
        "compressed-blobs/zstd/{}/{}",
        digest.hash, digest.size_bytes
    );
    let messages = write_messages(
        &upload_name(&digest).replace("blobs/", "compressed-blobs/zstd/"),
        &packed,
        100_000,
    );
    client.write(messages).await.unwrap();
    assert!(client.blob(&digest).await.unwrap() == content);
    let read = client.read(&name).await.unwrap();
    assert!(zstd::decode_all(&*read).unwrap() == content);
    let tail = client.read_part(&name, 899_000, 0).await.unwrap();
    assert!(zstd::decode_all(&*tail).unwrap() == content[899_000..]);
    let limited = client.read_part(&name, 0, 10).await.unwrap_err();
    assert_eq!(limited.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn r2_an_interrupted_write_is_resumed() {
    use assetgate::proto::bytestream::QueryWriteStatusRequest;
    let (_proxy, client) = Proxy::new().connected().await;
    let content = noise(1_000_000, 61);
    let digest = digest_of(&content);
    let name = upload_name(&digest);
    let mut messages = write_messages(&name, &content, 100_000);
    let rest = messages.split_off(4);
    client.write(messages).await.ok();
    let ask = QueryWriteStatusRequest {
        resource_name: name.clone(),
    };
    let status = client.query_write_status(ask.clone()).await.unwrap();
    assert_eq!((status.committed_size, status.complete), (400_000, false));
    let mut rest = rest;
    rest[0].resource_name = name;
    let answer = client.write(rest).await.unwrap();
    assert_eq!(answer.committed_size, 1_000_000);
    let status = client.query_write_status(ask).await.unwrap();
    assert_eq!((status.committed_size, status.complete), (1_000_000, true));
    assert!(client.blob(&digest).await.unwrap() == content);
}
