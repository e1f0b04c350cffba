//! What one connection can make the program hold beside messages: headers of
//! calls that are not answered, answers that nobody reads.

use std::time::Duration;

use assetgate::proto::bytestream::ReadRequest;
use assetgate::proto::rev2::{
    ActionResult, BatchReadBlobsRequest, GetActionResultRequest, UpdateActionResultRequest,
};
use h2::SendStream;
use prost::Message as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::received::{FETCH_BLOB, MIB, half_calls, peak, put, slowest_hit, with_a_hit};
use crate::support::raw::{RawAnswer, RawUpstream, frame, receive};
use crate::support::{Client, Proxy, RawCall, RawClient, bounded, digest_of, fetch_blob};

const READ: &str = "/google.bytestream.ByteStream/Read";
const BATCH_READ: &str =
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs";
const GET: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";

/// A call whose head is as large in memory as one of 64 KiB can be.
fn of_many_headers(path: &str) -> RawCall {
    let digits = "abcdefghijklmnopqrstuvwxyz0123456789_-.";
    let names = digits
        .chars()
        .flat_map(|a| digits.chars().map(move |b| format!("{a}{b}")))
        .filter(|name| name != "te");
    let mut call = RawCall::new(path);
    for name in names {
        call = call.named(&name);
    }
    call
}

fn status(answer: &RawAnswer) -> Option<Status> {
    let headers = answer.trailers.as_ref().unwrap_or(&answer.headers);
    Status::from_header_map(headers).or_else(|| Status::from_header_map(&answer.headers))
}

/// Calls that were begun, and what keeps them so.
type Begun = (JoinSet<RawAnswer>, Vec<SendStream<bytes::Bytes>>);

/// Opens calls of many headers and leaves them so.
async fn open_many(attacker: &mut RawClient, path: &str) -> Begun {
    let mut calls = JoinSet::new();
    let mut open = Vec::new();
    for _ in 0..900 {
        let (answer, stream) = attacker.open(of_many_headers(path), false);
        open.push(stream);
        calls.spawn(receive(answer));
        tokio::task::yield_now().await;
    }
    (calls, open)
}

/// The same, and waits until all of it has arrived.
async fn fill(attacker: &mut RawClient, path: &str) -> Begun {
    let begun = open_many(attacker, path).await;
    sleep(Duration::from_secs(6)).await;
    begun
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_headers_of_calls_without_an_answer_have_a_bound() {
    let upstream = RawUpstream::start().await;
    let proxy = Proxy::new().upstream_at(&upstream.url()).start().await;
    for path in [FETCH_BLOB, "/some.Service/Hang"] {
        let idle = proxy.resident();
        let mut attacker = RawClient::connect(proxy.address()).await;
        let (most, (mut calls, open)) = peak(&proxy, fill(&mut attacker, path)).await;
        let grown = most.saturating_sub(idle) / MIB;
        let refused = std::iter::from_fn(|| calls.try_join_next()).map(Result::unwrap);
        let refused: Vec<_> = refused.filter(|a| a.grpc_status() == Some("8")).collect();
        println!("{path}: {grown} MiB, {} refused", refused.len());
        assert!(grown < 130, "{path}: {grown} MiB over idle");
        assert!(refused.len() > 100, "{path}: {}", refused.len());
        for answer in &refused {
            let again = status(answer).unwrap().get_details_retry_info();
            assert!(again.is_some_and(|a| a.retry_delay.is_some()), "{answer:?}");
        }
        // Others of the same connection go on.
        let answer = attacker
            .call(RawCall::new("/some.Service/Echo").message(b"x"))
            .await;
        assert_eq!(answer.grpc_status(), Some("0"), "{answer:?}");
        drop((open, calls, attacker));
        sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_headers_that_arrive_at_once_are_not_all_taken_at_once() {
    let upstream = RawUpstream::start().await;
    for path in [FETCH_BLOB, "/some.Service/Hang"] {
        let proxy = Proxy::new().upstream_at(&upstream.url()).start().await;
        let idle = proxy.resident();
        let mut attacker = RawClient::connect(proxy.address()).await;
        // So that they wait in its socket.
        proxy.pause();
        let (mut calls, open) = open_many(&mut attacker, path).await;
        sleep(Duration::from_secs(1)).await;
        proxy.go_on();
        // More is refused than this, one answer after the other.
        for _ in 0..100 {
            let refused = bounded("a refusal", calls.join_next())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(refused.grpc_status(), Some("8"), "{refused:?}");
        }
        let grown = proxy.peak().saturating_sub(idle) / MIB;
        println!("{path}: {grown} MiB");
        assert!(grown < 130, "{path}: {grown} MiB over idle");
        drop(open);
    }
}

/// What each kind of answer is asked with, of what was stored for it.
async fn stored(client: &Client) -> Vec<(&'static str, usize, Vec<u8>)> {
    let content = vec![b'c'; 3 << 20];
    put(client, &content).await;
    let digest = digest_of(&content);
    let read = ReadRequest {
        resource_name: format!("blobs/{}/{}", digest.hash, digest.size_bytes),
        ..Default::default()
    };
    let batch = BatchReadBlobsRequest {
        digests: vec![digest],
        ..Default::default()
    };
    let action = digest_of(b"an action");
    let update = UpdateActionResultRequest {
        action_digest: Some(action.clone()),
        action_result: Some(ActionResult {
            stdout_raw: vec![b'x'; 3 << 20].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    client.ac().update_action_result(update).await.unwrap();
    let get = GetActionResultRequest {
        action_digest: Some(action),
        ..Default::default()
    };
    vec![
        (READ, 800, read.encode_to_vec()),
        (BATCH_READ, 100, batch.encode_to_vec()),
        (GET, 100, get.encode_to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_answers_that_nobody_reads_have_a_bound() {
    let (proxy, bystander) = with_a_hit().await;
    for (path, count, message) in stored(&bystander).await {
        let idle = proxy.resident();
        // One byte makes HTTP/2 take a whole message.
        let mut attacker = RawClient::with_window(proxy.address(), 1).await;
        let mut unread = JoinSet::new();
        let fill = async {
            for _ in 0..count {
                let (answer, mut stream) = attacker.open(RawCall::new(path), false);
                stream.send_data(frame(&message), true).unwrap();
                unread.spawn(answer);
                tokio::task::yield_now().await;
            }
            slowest_hit(&bystander, Instant::now() + Duration::from_secs(5)).await
        };
        let (most, slowest) = peak(&proxy, fill).await;
        let grown = most.saturating_sub(idle) / MIB;
        println!("{path}: {grown} MiB, slowest hit {slowest:?}");
        assert!(grown < 100, "{path}: {grown} MiB over idle");
        // Who reads is served meanwhile.
        let mut reader = RawClient::connect(proxy.address()).await;
        let answer = reader.call(RawCall::new(path).message(&message)).await;
        assert_eq!(answer.grpc_status(), Some("0"), "{path}");
        assert!(
            answer.body.len() >= 3 << 20,
            "{path}: {}",
            answer.body.len()
        );
        drop((unread, attacker));
        sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_answers_that_nobody_reads_have_a_bound_over_all_connections() {
    let (proxy, bystander) = with_a_hit().await;
    let (path, _, message) = stored(&bystander).await.swap_remove(1);
    let idle = proxy.resident();
    let mut attackers = Vec::new();
    let mut unread = JoinSet::new();
    let fill = async {
        for _ in 0..12 {
            let mut attacker = RawClient::with_window(proxy.address(), 1).await;
            for _ in 0..30 {
                let (answer, mut stream) = attacker.open(RawCall::new(path), false);
                stream.send_data(frame(&message), true).unwrap();
                unread.spawn(answer);
                tokio::task::yield_now().await;
            }
            attackers.push(attacker);
        }
        slowest_hit(&bystander, Instant::now() + Duration::from_secs(5)).await
    };
    let (most, slowest) = peak(&proxy, fill).await;
    let grown = most.saturating_sub(idle) / MIB;
    println!("{grown} MiB, slowest hit {slowest:?}");
    // 64 MiB and an answer for whoever finds none of it left; it was 32 for each.
    assert!(grown < 150, "{grown} MiB over idle");
    let mut reader = RawClient::connect(proxy.address()).await;
    let answer = reader.call(RawCall::new(path).message(&message)).await;
    assert_eq!(answer.grpc_status(), Some("0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_many_reads_of_one_connection_all_end() {
    let (proxy, client) = with_a_hit().await;
    let (_, _, message) = stored(&client).await.swap_remove(0);
    let mut reader = RawClient::connect(proxy.address()).await;
    let mut calls = JoinSet::new();
    for _ in 0..150 {
        let (answer, mut stream) = reader.open(RawCall::new(READ), false);
        stream.send_data(frame(&message), true).unwrap();
        calls.spawn(receive(answer));
    }
    bounded("all of them", async {
        while let Some(answer) = calls.join_next().await {
            let answer = answer.unwrap();
            assert_eq!(answer.grpc_status(), Some("0"));
            assert!(answer.body.len() >= 3 << 20);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_received_memory_is_what_is_configured_and_who_finds_none_is_told_when_to_come_again() {
    let proxy = Proxy::new().config("[limits]\nreceived_memory = \"24MiB\"\n");
    let (proxy, client) = proxy.connected().await;
    put(&client, b"content").await;
    let idle = proxy.resident();
    let mut attacker = RawClient::connect(proxy.address()).await;
    let mut calls = half_calls(&mut attacker, FETCH_BLOB, 60);
    let (most, ()) = peak(&proxy, sleep(Duration::from_secs(3))).await;
    let grown = most.saturating_sub(idle) / MIB;
    println!("{grown} MiB");
    assert!(grown < 50, "{grown} MiB over idle");
    let refused = std::iter::from_fn(|| calls.try_join_next()).map(Result::unwrap);
    let refused: Vec<_> = refused.filter(|a| a.grpc_status() == Some("8")).collect();
    assert!(refused.len() > 20, "{}", refused.len());
    for answer in &refused {
        let again = status(answer).unwrap().get_details_retry_info();
        assert!(again.is_some_and(|a| a.retry_delay.is_some()), "{answer:?}");
    }
    let counted = proxy.metrics().await;
    let counted = counted.sum("assetgate_received_refused_total", &["reason=\"no_room\""]);
    assert!(counted >= refused.len() as f64, "{counted}");
    let small =
        attacker.call(RawCall::new(FETCH_BLOB).message(&fetch_blob(&[""; 0]).encode_to_vec()));
    assert_eq!(small.await.grpc_status(), Some("3"));
}
