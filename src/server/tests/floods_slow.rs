//! Clients that begin something and do not go on, that open more connections
//! than there may be, or send headers nobody wants; the bystander, again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::attacker::*;
use super::floods::{counted, ended};
use super::sockets::certificates;
use super::support::*;
use crate::net::tls::{ServerFiles, ServerTls};
use crate::server::ListenerSettings;
use crate::server::connection::refused as refused_by;
use crate::server::sniff::PREFACE;
use crate::telemetry::Metrics;

const PATH: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";

/// How long a client may take in these tests.
const PATIENT: Duration = Duration::from_millis(400);

fn impatient() -> ListenerSettings {
    let mut settings = listener_settings();
    settings.connection.handshake_timeout = PATIENT;
    settings
}

async fn start(settings: ListenerSettings) -> (Stub, Proxy) {
    Metrics::install().unwrap();
    let stub = Stub::start(echo).await;
    let proxy = Proxy::with(settings, pool_settings(&[&stub.url()]));
    (stub, proxy)
}

fn refused(reason: &str) -> u64 {
    counted("assetgate_connections_refused_total", reason)
}

/// Whether it can call over a new connection.
async fn assert_served(proxy: &Proxy) {
    let bystander = Client::connect(proxy.address).await;
    assert_eq!(bystander.call(request(PATH), "x").await.body, "x");
}

/// Sends `bytes`, byte by byte when `trickle`, until it is told off for being
/// slow; no sooner and not much later than it may be.
async fn stalls(settled: bool, bytes: Vec<u8>, trickle: bool) {
    let (_stub, proxy) = start(impatient()).await;
    let before = ended("stalled");
    let mut attacker = if settled {
        Attacker::connect(proxy.address).await
    } else {
        let mut attacker = Attacker::silent(proxy.address).await;
        attacker.send(PREFACE).await;
        attacker
    };
    let started = tokio::time::Instant::now();
    if trickle {
        let mut bytes = bytes.into_iter();
        let next = || vec![bytes.next().expect("it takes for ever")];
        let mut next = next;
        // One at a time, for as long as the server listens.
        while attacker.heard.goaway.is_none() {
            attacker.send(&next()).await;
            let said = attacker.listen(|heard| heard.goaway.is_some());
            drop(tokio::time::timeout(Duration::from_millis(20), said).await);
        }
    } else {
        attacker.send(&bytes).await;
    }
    assert_served(&proxy).await;
    let heard = attacker.listen(|_| false).await;
    let took = started.elapsed();
    assert_eq!(
        heard.goaway,
        Some((ENHANCE_YOUR_CALM, "stalled".to_owned()))
    );
    assert!(took >= PATIENT * 9 / 10, "{took:?}");
    assert!(took < PATIENT + PATIENCE / 4, "{took:?}");
    eventually("it is counted", || ended("stalled") > before).await;
}

#[tokio::test]
async fn nothing_after_the_preface() {
    stalls(false, vec![], false).await;
}

#[tokio::test]
async fn a_frame_head_that_does_not_end() {
    stalls(true, vec![0, 0, 8, PING], false).await;
}

#[tokio::test]
async fn a_header_block_that_trickles() {
    let block = [call_block(PATH), field("x", &"y".repeat(10_000))].concat();
    stalls(true, frame(HEADERS, END_HEADERS, 1, &block), true).await;
}

#[tokio::test]
async fn a_header_block_that_does_not_end() {
    stalls(true, frame(HEADERS, 0, 1, &call_block(PATH)), false).await;
}

#[tokio::test]
async fn a_settings_frame_that_does_not_end() {
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]);
    stalls(true, settings[..12].to_vec(), false).await;
}

#[tokio::test]
async fn content_may_be_as_slow_as_it_is() {
    let (_stub, proxy) = start(impatient()).await;
    let mut slow = Attacker::connect(proxy.address).await;
    slow.send(&frame(HEADERS, END_HEADERS, 1, &call_block(PATH)))
        .await;
    let message = frame(DATA, END_STREAM, 1, &[0; 8]);
    // The head comes whole, as no network cuts it for long.
    slow.send(&message[..9]).await;
    for byte in &message[9..] {
        tokio::time::sleep(PATIENT / 3).await;
        slow.send(&[*byte]).await;
    }
    let heard = slow.listen(|heard| heard.heads.len() == 2).await;
    assert_eq!((heard.data, heard.goaway.as_ref()), (8, None));
    // Nor is silence between frames a fault.
    tokio::time::sleep(PATIENT * 2).await;
    slow.send(&frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        3,
        &call_block(PATH),
    ))
    .await;
    assert!(
        slow.listen(|heard| heard.heads.len() == 4)
            .await
            .goaway
            .is_none()
    );
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_begin_or_end() {
    let dir = certificates();
    let mut settings = impatient();
    let tls = ServerTls::server(ServerFiles {
        cert: dir.path().join("localhost.pem"),
        key: dir.path().join("localhost.key"),
        client_ca: None,
    });
    settings.tls = Some(tls.unwrap());
    let (_stub, proxy) = start(settings).await;
    let before = refused("timeout");
    for begun in [&b""[..], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]] {
        let mut attacker = Attacker::silent(proxy.address).await;
        attacker.send(begun).await;
        assert!(attacker.listen(|_| false).await.closed);
    }
    eventually("both are counted", || refused("timeout") >= before + 2).await;
}

/// Resident memory of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test]
async fn a_thousand_half_header_blocks_cost_what_they_sent() {
    let mut settings = impatient();
    settings.connection.handshake_timeout = Duration::from_secs(3);
    let (_stub, proxy) = start(settings).await;
    let bystander = Client::connect(proxy.address).await;
    bystander.call(request(PATH), "warm").await;
    let (before, stalled) = (resident(), ended("stalled"));
    let block = field("x", &"y".repeat(60_000));
    let half = [
        frame(HEADERS, 0, 1, &call_block(PATH)),
        frame(CONTINUATION, 0, 1, &block[..30_000]),
    ]
    .concat();
    let mut attackers = Vec::new();
    for _ in 0..1000 {
        let mut attacker = Attacker::connect(proxy.address).await;
        attacker.send(&half).await;
        attackers.push(attacker);
    }
    assert_eq!(bystander.call(request(PATH), "x").await.body, "x");
    let grown = resident().saturating_sub(before) >> 20;
    println!("1,000 half header blocks: {grown} MiB");
    assert!(grown < 300, "{grown} MiB");
    eventually("all are gone", || ended("stalled") >= stalled + 1000).await;
    for attacker in &mut attackers {
        let heard = attacker.listen(|_| false).await;
        assert_eq!(heard.goaway.as_ref().unwrap().0, ENHANCE_YOUR_CALM);
    }
}

/// One call with these fields besides; then another on the same connection, to
/// see that only the first was refused.
async fn refused_with_431(fields: Vec<u8>) {
    let (_stub, proxy) = start(listener_settings()).await;
    let mut client = Attacker::connect(proxy.address).await;
    let block = [call_block(PATH), fields].concat();
    client
        .send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))
        .await;
    client
        .send(&frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            3,
            &call_block(PATH),
        ))
        .await;
    let heard = client
        .listen(|heard| {
            heard
                .heads
                .iter()
                .filter(|(stream, _)| *stream == 3)
                .count()
                == 2
        })
        .await;
    assert!(heard.has_status(1, "431"), "{heard:?}");
    assert!(heard.has_status(3, "200"), "{heard:?}");
    assert!(heard.goaway.is_none());
    assert_served(&proxy).await;
}

#[tokio::test]
async fn a_header_that_is_too_large_is_refused_alone() {
    refused_with_431(field("x", &"y".repeat(70_000))).await;
}

#[tokio::test]
async fn headers_that_are_too_many_are_refused_alone() {
    refused_with_431(
        (0..2500)
            .flat_map(|n| field(&format!("x{n}"), "y"))
            .collect(),
    )
    .await;
}

#[tokio::test]
async fn a_header_bomb_is_an_error_of_the_connection() {
    let (_stub, proxy) = start(listener_settings()).await;
    let before = ended("enhance_your_calm");
    let mut client = Attacker::connect(proxy.address).await;
    // An entry of 4,000 bytes for the dynamic table, then its index, often.
    let mut entry = field("x", &"y".repeat(4_000));
    entry[0] = 0x40;
    let block = [call_block(PATH), entry, vec![0x80 | 62; 60_000]].concat();
    client.send(&frame(HEADERS, END_HEADERS, 1, &block)).await;
    let heard = client.listen(|_| false).await;
    let (code, debug) = heard.goaway.as_ref().expect("a GOAWAY");
    assert_eq!(*code, ENHANCE_YOUR_CALM, "{debug}");
    assert_served(&proxy).await;
    eventually("it is counted", || ended("enhance_your_calm") > before).await;
}

#[tokio::test]
async fn broken_rules_are_counted_by_the_name_of_the_error() {
    let (_stub, proxy) = start(listener_settings()).await;
    let oversized = [&[0xff, 0xff, 0xff, DATA, 0][..], &1u32.to_be_bytes()].concat();
    for (bytes, code, reason) in [
        (frame(DATA, 0, 0, b"x"), 1, "protocol_error"),
        (oversized, 6, "frame_size_error"),
    ] {
        let before = ended(reason);
        let mut client = Attacker::connect(proxy.address).await;
        client.send(&bytes).await;
        let heard = client.listen(|_| false).await;
        assert_eq!(heard.goaway.as_ref().map(|(code, _)| *code), Some(code));
        eventually("it is counted", || ended(reason) > before).await;
    }
    assert_served(&proxy).await;
}

#[test]
fn refusals_are_counted_each_and_logged_now_and_then() {
    Metrics::install().unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || Lines(Arc::clone(&sink)))
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..1000 {
            refused_by("a_test", "192.0.2.1:5".parse().ok());
        }
    });
    assert_eq!(refused("a_test"), 1000);
    let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains("192.0.2.1:5") && text.contains("a_test"),
        "{text}"
    );
}

/// Where a test's log goes.
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn sockets_that_say_nothing_make_room_for_clients_that_do() {
    let mut settings = listener_settings();
    settings.max_connections = 50;
    let (_stub, proxy) = start(settings).await;
    let before = refused("crowded_out");
    let bystander = Client::connect(proxy.address).await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(TcpStream::connect(proxy.address).await.unwrap());
        if silent.len() % 100 == 0 {
            assert_served(&proxy).await;
        }
    }
    assert_eq!(bystander.call(request(PATH), "x").await.body, "x");
    eventually("they made room", || refused("crowded_out") >= before + 400).await;
    // The oldest were closed, the newest wait for their own time-out.
    let mut byte = [0];
    assert_eq!(soon(silent[0].read(&mut byte)).await.unwrap(), 0);
    assert!(silent[499].try_read(&mut byte).is_err());
}

#[tokio::test]
async fn clients_above_the_limit_are_refused_and_those_within_stay() {
    let mut settings = listener_settings();
    settings.max_connections = 20;
    let (_stub, proxy) = start(settings).await;
    let before = refused("limit");
    let mut clients = Vec::new();
    // Each with a call: one without would give way.
    for _ in 0..20 {
        let client = Client::connect(proxy.address).await;
        let call = client.begin(request(PATH)).await;
        clients.push((client, call));
    }
    for _ in 0..200 {
        let mut above = Attacker::connect(proxy.address).await;
        assert!(above.listen(|_| false).await.closed);
    }
    for (client, (response, mut stream)) in clients {
        stream.send_data("x".into(), true).unwrap();
        assert_eq!(read_answer(response).await.unwrap().body, "x");
        assert_eq!(client.call(request(PATH), "x").await.body, "x");
    }
    assert!(refused("limit") >= before + 200);
}
