//! Uploads to the embedded cache that stand still, and those they would hold up.

use std::time::{Duration, Instant};

use assetgate::proto::bytestream::WriteRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::client::{upload_name, write_messages};
use crate::support::content::noise;
use crate::support::{Client, Code, Proxy, Running, digest_of};

const MIB: usize = 1 << 20;

/// An upload that stands still before its end.
struct Holder {
    sender: mpsc::Sender<WriteRequest>,
    size: i64,
    rest: Vec<WriteRequest>,
    end: tokio::task::JoinHandle<Result<i64, tonic::Status>>,
}

impl Holder {
    /// Of so many MiB and a little, of which so many are sent.
    fn new(client: &Client, seed: u64, size: usize, sent: usize) -> Self {
        let content = Self::content(seed, size);
        let name = upload_name(&digest_of(&content));
        Self::named(client, &name, &content, sent)
    }

    fn content(seed: u64, size: usize) -> Vec<u8> {
        let mut content = noise(MIB, 7000 + seed).repeat(size);
        content.extend(seed.to_le_bytes());
        content
    }

    fn named(client: &Client, name: &str, content: &[u8], sent: usize) -> Self {
        let mut messages = write_messages(name, content, MIB / 4);
        let rest = messages.split_off(sent * 4);
        let (sender, receiver) = mpsc::channel(1024);
        for message in messages {
            sender.try_send(message).unwrap();
        }
        let request = client.request(ReceiverStream::new(receiver));
        let mut service = client.bytestream();
        let end = tokio::spawn(async move {
            let written = service.write(request).await?;
            Ok(written.into_inner().committed_size)
        });
        Self {
            sender,
            size: content.len() as i64,
            rest,
            end,
        }
    }
}

/// How long an upload takes on a connection of its own.
async fn honest(proxy: &Running, size: usize, seed: u64) -> Duration {
    let client = proxy.client().await;
    let content = noise(size * MIB, seed);
    let name = upload_name(&digest_of(&content));
    let messages = write_messages(&name, &content, MIB / 4);
    let begun = Instant::now();
    let written = client.write(messages).await.unwrap();
    assert_eq!(written.committed_size, (size * MIB) as i64);
    begun.elapsed()
}

#[tokio::test]
async fn uploads_that_stand_still_hold_up_none_that_gets_on() {
    let proxy = Proxy::new().arg("--max-size").arg("64MiB");
    let (proxy, _) = proxy.connected().await;
    let mut holders = Vec::new();
    for n in 0..12 {
        holders.push(Holder::new(&proxy.client().await, n, 30, 29));
    }
    let begun = Instant::now();
    let mut seed = 8000;
    while begun.elapsed() < Duration::from_secs(16) {
        for (size, limit) in [(4, 3), (2, 3), (8, 3)] {
            seed += 1;
            let took = honest(&proxy, size, seed).await;
            let at = begun.elapsed();
            assert!(took.as_secs() < limit, "{size} MiB: {took:?} at {at:?}");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // Who goes on finishes, or is told to come again.
    for holder in &mut holders {
        for message in holder.rest.drain(..) {
            holder.sender.send(message).await.ok();
        }
    }
    for (n, holder) in holders.into_iter().enumerate() {
        let end = tokio::time::timeout(Duration::from_secs(30), holder.end).await;
        match end.expect("it ends").unwrap() {
            Ok(size) => assert_eq!(size, holder.size, "{n}"),
            Err(status) => assert_eq!(status.code(), Code::Aborted, "{n}: {status:?}"),
        }
    }
}

#[tokio::test]
async fn small_uploads_that_stand_still_hold_up_none_for_long() {
    let proxy = Proxy::new().arg("--max-size").arg("64MiB");
    let (proxy, _) = proxy.connected().await;
    let mut holders = Vec::new();
    for n in 0..24 {
        let client = proxy.client().await;
        for m in 0..4 {
            holders.push(Holder::new(&client, n * 4 + m, 5, 4));
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    for seed in 8100..8110 {
        let took = honest(&proxy, 4, seed).await;
        let at = begun.elapsed();
        assert!(took.as_secs() < 3, "{took:?} at {at:?}");
    }
    drop(holders);
}

#[tokio::test]
async fn uploads_begun_anew_under_their_name_hold_up_none_either() {
    let proxy = Proxy::new().arg("--max-size").arg("64MiB");
    let (proxy, _) = proxy.connected().await;
    let content = Holder::content(0, 30);
    let name = upload_name(&digest_of(&content));
    let mut holders = Vec::new();
    for _ in 0..3 {
        let client = proxy.client().await;
        holders.push(Holder::named(&client, &name, &content, 29));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let large = tokio::time::timeout(Duration::from_secs(12), honest(&proxy, 10, 9000));
    large.await.expect("it is not held up for long");
    drop(holders);
}
