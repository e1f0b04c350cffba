//! One client, or the upstream, stops reading a thousand streams: what others
//! notice of it, and what it costs. Prints figures for `tests/survival.sh`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::SendStream;
use h2::server::SendResponse;
use http::Request;
use tokio::time::Instant;

use super::support::*;
use crate::upstream::PoolSettings;

const UNARY: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";
/// Streams of one offender.
const MANY: usize = 1000;

/// How long load goes on.
pub(super) fn seconds() -> Duration {
    let seconds = std::env::var("SURVIVAL_SECONDS").ok();
    Duration::from_secs_f64(seconds.map_or(1.0, |s| s.parse().unwrap()))
}

/// Resident memory of this process: proxy, stub and clients.
fn resident_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() >> 10
}

/// `/large` answers 4 MiB, `/never` reads nothing of what it is sent and never
/// answers, all else is an echo.
async fn upstream(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    moved: Arc<AtomicUsize>,
) {
    moved.fetch_add(1, SeqCst);
    match request.uri().path() {
        "/large" => {
            let mut stream = respond.send_response(grpc_head(), false).unwrap();
            for _ in 0..64 {
                let piece = vec![1; 65536].into();
                if send_all(&mut stream, piece, false).await.is_err() {
                    return;
                }
                moved.fetch_add(1, SeqCst);
            }
            drop(stream.send_trailers(ok_trailers()));
        }
        "/never" => {
            let _unread = request;
            let _ = futures_util::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        }
        _ => echo(request, respond).await,
    }
}

/// Streams that stand still.
struct Still(Vec<(h2::client::ResponseFuture, SendStream<Bytes>)>);

impl Still {
    /// What the client is told of those that were ended.
    async fn told(self) -> Vec<(String, String)> {
        let (calls, _open): (Vec<_>, Vec<_>) = self.0.into_iter().unzip();
        let patience = Duration::from_secs(5);
        let answers = calls.into_iter().map(|response| {
            let answer = tokio::time::timeout(patience, read_answer(response));
            async { Some(answer.await.ok()?.unwrap().status()) }
        });
        let mut told: Vec<_> = join_all(answers).await.into_iter().flatten().collect();
        told.retain(|(code, _)| code != "0");
        told
    }
}

#[derive(Debug, Clone, Copy)]
enum Offence {
    /// Asks for answers and reads none.
    Reads,
    /// Sends what the upstream does not read.
    Writes,
}

impl Offence {
    async fn commit(self, client: &Client, streams: usize) -> Still {
        let calls = (0..streams).map(|_| async {
            let path = match self {
                Self::Reads => "/large",
                Self::Writes => "/never",
            };
            let (response, mut stream) = client.begin(request(path)).await;
            match self {
                Self::Reads => stream.send_data(Bytes::new(), true),
                Self::Writes => stream.send_data(vec![2; 40_000].into(), false),
            }
            .unwrap();
            (response, stream)
        });
        Still(join_all(calls).await)
    }
}

/// A stub that counts what it does.
struct Counting {
    stub: Stub,
    moved: Arc<AtomicUsize>,
}

impl std::ops::Deref for Counting {
    type Target = Stub;

    fn deref(&self) -> &Stub {
        &self.stub
    }
}

impl Counting {
    /// Waits until all that can stand still does.
    async fn settled(&self) {
        let mut before = usize::MAX;
        while before != self.moved.load(SeqCst) {
            before = self.moved.load(SeqCst);
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }
}

/// An upstream with windows as small as many have.
async fn stub() -> Counting {
    let moved = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&moved);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(64 << 10)
        .initial_connection_window_size(1 << 20)
        .max_concurrent_streams(2000);
    let any = "127.0.0.1:0".parse().unwrap();
    let stub = Stub::start_at(any, builder, move |request, respond| {
        upstream(request, respond, Arc::clone(&count))
    });
    let stub = stub.await;
    Counting { stub, moved }
}

fn capped(stub: &Counting, soft: usize, hard: usize) -> PoolSettings {
    let mut settings = pool_settings(&[&stub.url()]);
    (settings.soft_cap, settings.hard_cap) = (soft, hard);
    settings
}

async fn unary(client: &Client) -> Duration {
    let started = Instant::now();
    let body = Bytes::from(vec![7; 1000]);
    let answer = client.call(request(UNARY), body.clone()).await;
    assert_eq!((answer.status().0.as_str(), answer.body), ("0", body));
    started.elapsed()
}

async fn read(client: &Client) -> Duration {
    let started = Instant::now();
    let answer = client.call(request("/large"), "").await;
    assert_eq!(
        (answer.status().0.as_str(), answer.body.len()),
        ("0", 4 << 20)
    );
    started.elapsed()
}

/// A bystander's calls for as long as the load goes on, and what they took.
async fn watch(bystander: &Client, case: &str, before: usize) {
    let (mut unaries, mut reads) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while started.elapsed() < seconds() || reads.is_empty() {
        unaries.push(unary(bystander).await);
        reads.push(read(bystander).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let calls = unaries.len();
    unaries.sort_unstable();
    reads.sort_unstable();
    let (unary_median, unary_worst) = (unaries[calls / 2], unaries[calls - 1]);
    let (read_median, read_worst) = (reads[calls / 2], reads[calls - 1]);
    let after = resident_mib();
    println!(
        "isolation: {case}: {calls} rounds, bystander's unary call {unary_median:.1?} (worst \
         {unary_worst:.1?}), 4 MiB read {read_median:.1?} (worst {read_worst:.1?}), \
         resident {before} -> {after} MiB",
    );
    // Far from a hang, with room for a loaded machine.
    assert!(unary_worst < Duration::from_secs(2) && read_worst < Duration::from_secs(4));
    // Other tests may run in this process.
    assert!(after < before + 300, "{before} -> {after} MiB");
}

async fn below_the_cap(offence: Offence) {
    let stub = stub().await;
    let proxy = Proxy::start(&[&stub.url()]);
    let offender = Client::connect(proxy.address).await;
    let bystander = Client::connect(proxy.address).await;
    unary(&bystander).await;
    let before = resident_mib();
    let _still = offence.commit(&offender, MANY).await;
    stub.settled().await;
    watch(&bystander, &format!("own connections, {offence:?}"), before).await;
    assert_eq!(stub.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn a_thousand_unread_answers_on_a_connection_of_its_own_hurt_nobody() {
    below_the_cap(Offence::Reads).await;
}

#[tokio::test]
async fn a_thousand_untaken_bodies_on_a_connection_of_its_own_hurt_nobody() {
    below_the_cap(Offence::Writes).await;
}

/// Two clients that share the one connection below the cap.
async fn sharing(proxy: &Proxy, stub: &Counting) -> (Client, Client) {
    let offender = Client::connect(proxy.address).await;
    let bystander = Client::connect(proxy.address).await;
    unary(&offender).await;
    unary(&bystander).await;
    assert_eq!(stub.connections.load(SeqCst), 1, "shared");
    (offender, bystander)
}

async fn above_the_cap(offence: Offence) {
    let stub = stub().await;
    let mut settings = capped(&stub, 1, 8);
    settings.stall_limit = Duration::from_secs(3600);
    let proxy = Proxy::with(listener_settings(), settings);
    let (offender, bystander) = sharing(&proxy, &stub).await;
    let before = resident_mib();
    let still = offence.commit(&offender, MANY / 2).await;
    // By now everybody can know.
    stub.settled().await;
    // New calls of the offender's own stay where its others are.
    let more = offence.commit(&offender, MANY / 2).await;
    watch(
        &bystander,
        &format!("one shared connection, {offence:?}"),
        before,
    )
    .await;
    assert_eq!(stub.connections.load(SeqCst), 2, "one for the others");

    // The offender goes, and its connection serves again.
    drop((still, more, offender));
    let next = Client::connect(proxy.address).await;
    eventually("its calls end", || proxy.board.status().connections <= 2).await;
    for _ in 0..20 {
        unary(&next).await;
        unary(&bystander).await;
    }
    assert_eq!(stub.connections.load(SeqCst), 2, "no third");
}

#[tokio::test]
async fn above_the_cap_unread_answers_do_not_stop_new_calls_of_others() {
    above_the_cap(Offence::Reads).await;
}

#[tokio::test]
async fn above_the_cap_untaken_bodies_do_not_stop_new_calls_of_others() {
    above_the_cap(Offence::Writes).await;
}

/// A call that is sent before anybody can know waits for the offender's, but
/// not longer than these may stand still.
async fn sent_too_early(offence: Offence) {
    let stub = stub().await;
    let mut settings = capped(&stub, 1, 2);
    settings.stall_limit = Duration::from_millis(700);
    let proxy = Proxy::with(listener_settings(), settings);
    let (offender, bystander) = sharing(&proxy, &stub).await;
    let still = offence.commit(&offender, 200).await;
    // The window is full, and nobody has stood still for long enough.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    let (unary_took, read_took) = tokio::join!(unary(&bystander), read(&bystander));
    println!(
        "isolation: sent too early, {offence:?}: the calls may stand still for 700 ms, the \
         bystander's waited {} and {} ms",
        unary_took.as_millis(),
        read_took.as_millis()
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    let told = still.told().await;
    assert!(told.len() >= 16, "{}", told.len());
    for (code, message) in told {
        assert_eq!(code, "14");
        assert!(message.contains("stood still for too long"), "{message}");
        assert!(!message.contains(&stub.address.to_string()), "{message}");
    }
}

#[tokio::test]
async fn unread_answers_give_way_to_calls_that_wait_for_them() {
    sent_too_early(Offence::Reads).await;
}

#[tokio::test]
async fn untaken_bodies_give_way_to_calls_that_wait_for_them() {
    sent_too_early(Offence::Writes).await;
}

/// With every connection there may be congested, calls go over these, and wait
/// no longer than the stall limit.
async fn at_the_hard_cap(offence: Offence) {
    let stub = stub().await;
    let mut settings = capped(&stub, 1, 2);
    settings.stall_limit = Duration::from_millis(700);
    let proxy = Proxy::with(listener_settings(), settings);
    let mut offenders = Vec::new();
    for _ in 0..4 {
        let offender = Client::connect(proxy.address).await;
        unary(&offender).await;
        let still = offence.commit(&offender, 100).await;
        offenders.push((offender, still));
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let bystander = Client::connect(proxy.address).await;
    let mut worst = Duration::ZERO;
    let started = Instant::now();
    while started.elapsed() < seconds() {
        worst = worst.max(unary(&bystander).await);
        worst = worst.max(read(&bystander).await);
    }
    println!(
        "isolation: 4 offenders at the hard cap, {offence:?}: the bystander waited {} ms at most",
        worst.as_millis()
    );
    assert_eq!(stub.connections.load(SeqCst), 2, "never more");
    assert!(worst < Duration::from_secs(5), "{worst:?}");
}

#[tokio::test]
async fn at_the_hard_cap_unread_answers_delay_others_for_a_bounded_time() {
    at_the_hard_cap(Offence::Reads).await;
}

#[tokio::test]
async fn at_the_hard_cap_untaken_bodies_delay_others_for_a_bounded_time() {
    at_the_hard_cap(Offence::Writes).await;
}

#[tokio::test]
async fn a_slow_reader_that_shares_a_connection_is_left_alone() {
    let stub = stub().await;
    let mut settings = capped(&stub, 1, 2);
    settings.stall_limit = Duration::from_millis(600);
    let proxy = Proxy::with(listener_settings(), settings);
    let (slow, bystander) = sharing(&proxy, &stub).await;
    let Still(calls) = Offence::Reads.commit(&slow, 24).await;
    // Every one moves now and then, for more than twice the limit.
    let reads = calls.into_iter().map(|(response, _)| async {
        let mut body = soon(response).await.unwrap().into_body();
        let mut length = 0;
        let started = Instant::now();
        while let Some(piece) = soon(body.data()).await {
            let piece = piece.unwrap();
            length += piece.len();
            body.flow_control().release_capacity(piece.len()).unwrap();
            if started.elapsed() < Duration::from_millis(1500) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let trailers = soon(body.trailers()).await.unwrap().unwrap();
        assert_eq!(
            (length, &trailers["grpc-status"]),
            (4 << 20, &"0".parse().unwrap())
        );
    });
    let beside = async {
        for _ in 0..50 {
            unary(&bystander).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(join_all(reads), beside);
}

#[tokio::test]
async fn clients_that_come_together_stay_below_the_cap() {
    let stub = stub().await;
    let proxy = Proxy::with(listener_settings(), capped(&stub, 2, 10));
    let clients = (0..8).map(|_| async {
        let client = Client::connect(proxy.address).await;
        unary(&client).await;
        client
    });
    let clients = join_all(clients).await;
    assert_eq!(stub.connections.load(SeqCst), 2);
    drop(clients);
}
