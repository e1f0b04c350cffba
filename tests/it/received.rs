//! What was received and is not yet answered: it has a bound, nobody else pays
//! for it, and it does not stay for ever.

use std::time::Duration;

use assetgate::proto::rev2::{
    ActionResult, OutputFile, UpdateActionResultRequest, batch_update_blobs_request,
};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::SendStream;
use prost::Message as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::raw::{RawAnswer, receive};
use crate::support::{
    Client, Dir, Proxy, RawCall, RawClient, Running, Upstream, bounded, digest_of, fetch_blob,
    fetch_directory, push_blob, push_directory,
};

pub const MIB: u64 = 1 << 20;
const FULL: usize = 16 << 20;
pub const FETCH_BLOB: &str = "/build.bazel.remote.asset.v1.Fetch/FetchBlob";
pub const UPDATE: &str = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";

/// A message that says it has `size` bytes and has `sent` of them: one field of
/// bytes that nobody knows.
fn part_of_message(size: usize, sent: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(sent + 16);
    out.put_u8(0);
    out.put_u32(size as u32);
    let head = out.len();
    // Field 100 of wire type 2.
    prost::encoding::encode_varint(100 << 3 | 2, &mut out);
    prost::encoding::encode_varint((size - 2 - 4) as u64, &mut out);
    out.resize(head + sent, b'x');
    out.freeze()
}

/// Sends as fast as the window allows and does not end the body.
async fn send_all(stream: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let given = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(given)) = given else { return };
        let part = data.split_to(given.min(data.len()));
        if stream.send_data(part, false).is_err() {
            return;
        }
    }
}

/// `streams` calls that each stop one byte before their end.
pub fn half_calls(client: &mut RawClient, path: &str, streams: usize) -> JoinSet<RawAnswer> {
    let body = part_of_message(FULL, FULL - 1);
    let mut calls = JoinSet::new();
    for _ in 0..streams {
        let (answer, mut stream) = client.open(RawCall::new(path), false);
        let body = body.clone();
        calls.spawn(async move {
            let answer = tokio::spawn(receive(answer));
            send_all(&mut stream, body).await;
            let answer = answer.await.unwrap();
            drop(stream);
            answer
        });
    }
    calls
}

/// The most that is resident while `during` runs.
pub async fn peak<T>(proxy: &Running, during: impl Future<Output = T>) -> (u64, T) {
    let mut most = proxy.resident();
    let mut during = std::pin::pin!(during);
    loop {
        tokio::select! {
            output = &mut during => return (most.max(proxy.resident()), output),
            () = sleep(Duration::from_millis(20)) => most = most.max(proxy.resident()),
        }
    }
}

/// How long the slowest of some fetches took, which all are hits.
pub async fn slowest_hit(client: &Client, until: Instant) -> Duration {
    let mut slowest = Duration::ZERO;
    while Instant::now() < until {
        let begun = Instant::now();
        client.fetch_blob(fetch_blob(&["urn:t:hit"])).await.unwrap();
        slowest = slowest.max(begun.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
    slowest
}

pub async fn put(client: &Client, content: &[u8]) {
    use assetgate::proto::rev2::BatchUpdateBlobsRequest;
    let request = batch_update_blobs_request::Request {
        digest: Some(digest_of(content)),
        data: Bytes::copy_from_slice(content),
        ..Default::default()
    };
    let batch = BatchUpdateBlobsRequest {
        requests: vec![request],
        ..Default::default()
    };
    client.batch_update_blobs(batch).await.unwrap();
}

/// A proxy over its own cache, in which `urn:t:hit` is a hit.
pub async fn with_a_hit() -> (Running, Client) {
    let (proxy, client) = Proxy::new().connected().await;
    put(&client, b"content").await;
    let push = push_blob(&["urn:t:hit"], digest_of(b"content"));
    client.push_blob(push).await.unwrap();
    client.fetch_blob(fetch_blob(&["urn:t:hit"])).await.unwrap();
    (proxy, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_bodies_that_stop_before_their_end_hold_little_and_not_for_ever() {
    for path in [FETCH_BLOB, UPDATE] {
        let (proxy, bystander) = with_a_hit().await;
        let idle = proxy.resident();
        let mut attacker = RawClient::connect(proxy.address()).await;
        let mut calls = half_calls(&mut attacker, path, 150);
        let until = Instant::now() + Duration::from_secs(8);
        let same_connection = async {
            let mut answered = 0;
            while Instant::now() < until {
                let message = fetch_blob(&["urn:t:hit"]).encode_to_vec();
                let answer = attacker.call(RawCall::new(FETCH_BLOB).message(&message));
                assert_eq!(bounded("an answer", answer).await.grpc_status(), Some("0"));
                answered += 1;
                sleep(Duration::from_millis(50)).await;
            }
            answered
        };
        let (most, (slowest, answered)) = peak(&proxy, async {
            tokio::join!(slowest_hit(&bystander, until), same_connection)
        })
        .await;
        let grown = (most - idle) / MIB;
        println!("{path}: {grown} MiB, slowest {slowest:?}, {answered} on the same connection");
        assert!(grown < 120, "{path}: {grown} MiB over idle");
        assert!(answered > 20, "{path}: {answered}");
        let mut ends = std::collections::BTreeMap::<String, usize>::new();
        let all = async {
            while let Some(answer) = calls.join_next().await {
                let status = answer.unwrap().grpc_status().unwrap_or("none").to_owned();
                *ends.entry(status).or_default() += 1;
            }
        };
        let ended = timeout(Duration::from_secs(22), all).await;
        println!("{path}: ended {ends:?}, all of them: {}", ended.is_ok());
        let count = |code: &str| ends.get(code).copied().unwrap_or_default();
        assert!(count("4") > 0, "{path}: {ends:?}");
        assert_eq!(count("4") + count("8"), 150, "{path}: {ends:?}");
    }
}

#[tokio::test]
async fn p9_a_body_that_drips_ends_after_ten_seconds() {
    let (proxy, _client) = with_a_hit().await;
    let mut attacker = RawClient::connect(proxy.address()).await;
    for path in [FETCH_BLOB, UPDATE] {
        let (answer, mut stream) = attacker.open(RawCall::new(path), false);
        let begun = Instant::now();
        let answer = tokio::spawn(receive(answer));
        send_all(&mut stream, part_of_message(1 << 20, 300 << 10)).await;
        while !answer.is_finished() && begun.elapsed() < Duration::from_secs(25) {
            send_all(&mut stream, Bytes::from_static(b"x")).await;
            sleep(Duration::from_millis(500)).await;
        }
        assert!(answer.is_finished(), "{path}: held for 25 s");
        let answer = answer.await.unwrap();
        assert_eq!(answer.grpc_status(), Some("4"), "{path}: {answer:?}");
        assert!(begun.elapsed() >= Duration::from_secs(9), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_large_message_goes_through_beside_connections_that_hold_all_they_may() {
    let (proxy, client) = with_a_hit().await;
    let mut attacks = Vec::new();
    for _ in 0..4 {
        let mut attacker = RawClient::connect(proxy.address()).await;
        attacks.push((half_calls(&mut attacker, FETCH_BLOB, 40), attacker));
    }
    sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    let result = ActionResult {
        stdout_raw: vec![b'x'; 15_900 << 10].into(),
        ..Default::default()
    };
    let request = UpdateActionResultRequest {
        action_digest: Some(digest_of(b"an action")),
        action_result: Some(result),
        ..Default::default()
    };
    let mut cache = client.ac().max_decoding_message_size(usize::MAX);
    let answer = bounded("an answer", cache.update_action_result(request)).await;
    println!("{:?} after {:?}", answer.as_ref().err(), begun.elapsed());
    answer.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_two_hundred_messages_half_sent_all_finish() {
    let (proxy, _client) = with_a_hit().await;
    let size = 3 << 20;
    let whole = part_of_message(size, size);
    let (half_sent, half_seen) = tokio::sync::mpsc::channel::<()>(1);
    let (go, going) = tokio::sync::watch::channel(false);
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let mut client = RawClient::connect(proxy.address()).await;
        for _ in 0..10 {
            let (answer, mut stream) = client.open(RawCall::new(FETCH_BLOB), false);
            let (mut rest, mut going) = (whole.clone(), going.clone());
            let half_sent = half_sent.clone();
            calls.spawn(async move {
                let answer = tokio::spawn(receive(answer));
                let half = rest.split_to(size / 2);
                send_all(&mut stream, half).await;
                drop(half_sent);
                going.wait_for(|go| *go).await.unwrap();
                send_all(&mut stream, rest).await;
                stream.send_data(Bytes::new(), true).ok();
                answer.await.unwrap()
            });
        }
    }
    drop(half_sent);
    let mut half_seen = half_seen;
    // Some are not read before others have finished.
    timeout(Duration::from_secs(5), half_seen.recv()).await.ok();
    go.send_replace(true);
    let mut ends = std::collections::BTreeMap::<String, usize>::new();
    bounded("all of them", async {
        while let Some(answer) = calls.join_next().await {
            let status = answer.unwrap().grpc_status().unwrap_or("none").to_owned();
            *ends.entry(status).or_default() += 1;
        }
    })
    .await;
    // They name no URI: as a message each has been read whole.
    assert_eq!(ends.get("3"), Some(&200), "{ends:?}");
}

/// An ActionResult of as many empty output files as fit.
fn many_parts() -> Vec<u8> {
    let result = ActionResult {
        output_files: vec![OutputFile::default(); (FULL - 200) / 2],
        ..Default::default()
    };
    let request = UpdateActionResultRequest {
        action_digest: Some(digest_of(b"an action")),
        action_result: Some(result),
        ..Default::default()
    };
    request.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_messages_of_many_parts_cost_little_and_hold_up_nobody() {
    let (proxy, bystander) = with_a_hit().await;
    let idle = proxy.resident();
    let message = Bytes::from(many_parts());
    let mut calls = JoinSet::new();
    for _ in 0..5 {
        let mut attacker = RawClient::connect(proxy.address()).await;
        let call = RawCall::new(UPDATE).message(&message);
        calls.spawn(async move { attacker.call(call).await });
    }
    let (most, slowest) = peak(&proxy, async {
        let until = Instant::now() + Duration::from_secs(4);
        let slowest = slowest_hit(&bystander, until).await;
        while let Some(answer) = calls.join_next().await {
            let status = answer.unwrap().grpc_status().map(ToOwned::to_owned);
            assert!(matches!(status.as_deref(), Some("3" | "8")), "{status:?}");
        }
        slowest
    })
    .await;
    let grown = (most - idle) / MIB;
    println!("{grown} MiB, slowest {slowest:?}");
    assert!(grown < 320, "{grown} MiB over idle");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_trees_of_pushed_directories_are_looked_at_a_few_at_a_time() {
    let (proxy, client) = with_a_hit().await;
    let mut root = Dir::new();
    for directory in 0..10 {
        // Names as long as to make a megabyte of few nodes.
        let files = (0..3_000).fold(Dir::new(), |dir, file| {
            let name = format!("{directory}-{file}-{:0>220}", file);
            dir.file(&name, b"content")
        });
        put(&client, &files.blob()).await;
        root = root.dir(&format!("d{directory}"), &Dir::reference(&files));
    }
    put(&client, &root.blob()).await;
    let idle = proxy.resident();
    let pushes = async {
        let mut pushes = JoinSet::new();
        for push in 0..8 {
            let (client, digest) = (client.clone(), root.digest());
            let uri = format!("urn:t:tree:{push}");
            pushes.spawn(async move {
                let push = push_directory(&[&uri], digest);
                client.push_directory(push).await
            });
        }
        while let Some(pushed) = pushes.join_next().await {
            pushed.unwrap().unwrap();
        }
    };
    let (most, ()) = peak(&proxy, pushes).await;
    let grown = (most - idle) / MIB;
    println!("{grown} MiB");
    assert!(grown < 200, "{grown} MiB over idle");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_trees_that_look_ups_check_are_of_the_budget() {
    let cache = Upstream::start();
    cache.check_completeness(false);
    let config = "[limits]\nreceived_memory = \"24MiB\"\n";
    let start = || Proxy::new().upstream(&cache).config(config).connected();
    let (pushing, client) = start().await;
    let mut root = Dir::new();
    for i in 0..80 {
        let sub = (0..1000).fold(Dir::new(), |dir, j| {
            dir.file(&format!("f{j}"), format!("{i} {j}").as_bytes())
        });
        root = root.dir(&format!("d{i}"), &sub);
    }
    cache.put_all(&root.closure());
    // One Tree of 6 MiB, in 40 entries.
    let uris: Vec<String> = (0..40).map(|i| format!("urn:t:tree:{i}")).collect();
    let push = push_directory(&uris, root.digest());
    client.push_directory(push).await.unwrap();
    let digest = cache.put(b"content");
    client
        .push_blob(push_blob(&["urn:t:hit"], digest))
        .await
        .unwrap();
    drop(pushing);
    let (proxy, client) = start().await;
    let looked_at = async || {
        let fetch = fetch_directory(&uris[..1]);
        let answer = client.fetch_directory(fetch).await.unwrap();
        assert_eq!(answer.root_directory_digest, Some(root.digest()));
    };
    let bystander = proxy.client().await;
    let hit = || bystander.fetch_blob(fetch_blob(&["urn:t:hit"]));
    hit().await.unwrap();
    let before = proxy.resident();
    cache.delay("FindMissingBlobs", Duration::from_secs(20));
    let mut calls = JoinSet::new();
    for uri in &uris {
        let (client, fetch) = (client.clone(), fetch_directory(&[uri]));
        calls.spawn(async move { client.fetch_directory(fetch).await });
    }
    let (most, ()) = peak(&proxy, sleep(Duration::from_secs(8))).await;
    let grown = (most.saturating_sub(before)) / MIB;
    assert!(grown < 100, "{grown} MiB");
    calls.shutdown().await;
    cache.delay("FindMissingBlobs", Duration::ZERO);
    timeout(Duration::from_secs(5), hit())
        .await
        .unwrap()
        .unwrap();
    looked_at().await;
}
