//! Clients that flood, and a bystander on the same thread who must not notice.
//!
//! `SURVIVAL_SECONDS` says how long each flood lasts (1 without it): a client
//! that is told to go away comes back at once.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use super::attacker::*;
use super::support::*;
use crate::telemetry::Metrics;

const PATH: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";

/// What is sent at once.
const CHUNK: usize = 64 * 1024;

pub(super) fn duration() -> Duration {
    let seconds = std::env::var("SURVIVAL_SECONDS").map_or(1, |text| {
        text.parse()
            .expect("SURVIVAL_SECONDS is a number of seconds")
    });
    Duration::from_secs(seconds)
}

/// The value of a counter with a reason.
pub(super) fn counted(metric: &str, reason: &str) -> u64 {
    let rendered = Metrics::install().unwrap().render();
    let line = format!("{metric}{{reason=\"{reason}\"}} ");
    let value = rendered.lines().find_map(|l| l.strip_prefix(&line));
    value.map_or(0, |value| value.parse().unwrap())
}

pub(super) fn ended(reason: &str) -> u64 {
    counted("assetgate_connections_ended_total", reason)
}

/// Two floods at a time would measure each other.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A proxy, and a stub on a thread of its own: on the bystander's, what is
/// forwarded would hold up the bystander itself.
struct Ground {
    proxy: Proxy,
    _stub: Stub,
    threads: Option<Runtime>,
}

impl Ground {
    async fn start() -> Self {
        Metrics::install().unwrap();
        let threads = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let stub = threads.spawn(Stub::start(sink)).await.unwrap();
        Self {
            proxy: Proxy::start(&[&stub.url()]),
            _stub: stub,
            threads: Some(threads),
        }
    }

    async fn bystander(&self) -> Client {
        let socket = TcpStream::connect(self.proxy.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let bystander = Client::over(socket).await;
        bystander.call(request(PATH), "warm").await;
        bystander
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

async fn sink(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<bytes::Bytes>,
) {
    let mut body = request.into_body();
    while let Some(piece) = body.data().await {
        let Ok(piece) = piece else { return };
        drop(body.flow_control().release_capacity(piece.len()));
    }
    if let Ok(mut stream) = respond.send_response(grpc_head(), false) {
        drop(stream.send_trailers(ok_trailers()));
    }
}

/// Attacks from a thread of its own, again and again; returns what was heard
/// each time.
fn attack<N>(
    address: SocketAddr,
    opening: Vec<u8>,
    make: impl Fn() -> N + Send + 'static,
) -> tokio::sync::oneshot::Receiver<Vec<Heard>>
where
    N: FnMut() -> Vec<u8>,
{
    let (done, outcome) = tokio::sync::oneshot::channel();
    let until = Instant::now() + duration();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(async {
            let mut heard = Vec::new();
            while Instant::now() < until || heard.is_empty() {
                let mut attacker = Attacker::connect(address).await;
                attacker.send(&opening).await;
                attacker
                    .flood(make(), until.max(Instant::now() + Duration::from_secs(1)))
                    .await;
                heard.push(attacker.heard);
            }
            heard
        });
        drop(done.send(outcome));
    });
    outcome
}

/// Calls one after the other until `done`; how long each took, sorted.
async fn stand_by<T>(client: &Client, done: impl Future<Output = T>) -> (T, Vec<Duration>) {
    let mut took = Vec::new();
    let mut done = std::pin::pin!(done);
    loop {
        let started = Instant::now();
        let call = async {
            assert_eq!(client.call(request(PATH), "x").await.status().0, "0");
        };
        tokio::select! {
            biased;
            outcome = &mut done => {
                took.sort();
                return (outcome, took);
            }
            () = call => took.push(started.elapsed()),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn assert_unharmed(took: &[Duration]) {
    assert!(!took.is_empty(), "it was not served");
    let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
    println!(
        "bystander: {} calls, p50 {:?}, p99 {:?}",
        took.len(),
        at(50),
        at(99)
    );
    // Without optimization all of it is ten times slower, and a test run has
    // more threads than cores: there it only shows that nobody waits for the
    // end of a flood.
    let most = if cfg!(debug_assertions) { 1000 } else { 50 };
    assert!(at(99) < Duration::from_millis(most), "p99 {:?}", at(99));
}

/// A flood that ends in GOAWAY ENHANCE_YOUR_CALM, each time it is tried, and is
/// counted under one of `reasons`.
async fn told_off<N>(reasons: &[&str], opening: Vec<u8>, make: impl Fn() -> N + Send + 'static)
where
    N: FnMut() -> Vec<u8>,
{
    let _alone = ONE_AT_A_TIME.lock().await;
    let ground = Ground::start().await;
    let before: u64 = reasons.iter().map(|reason| ended(reason)).sum();
    let bystander = ground.bystander().await;
    let outcome = attack(ground.proxy.address, opening, make);
    let (heard, took) = stand_by(&bystander, outcome).await;
    let heard = heard.unwrap();
    println!("{reasons:?}: told off {} times", heard.len());
    for heard in &heard {
        let (code, debug) = heard.goaway.as_ref().expect("a GOAWAY");
        assert_eq!(*code, ENHANCE_YOUR_CALM, "{debug}");
        assert!(!debug.is_empty(), "it says why");
        assert!(heard.closed, "and closes");
    }
    assert_unharmed(&took);
    eventually("each is counted", || {
        let now: u64 = reasons.iter().map(|reason| ended(reason)).sum();
        now - before >= heard.len() as u64
    })
    .await;
}

/// Repeats one frame.
fn repeated(frame: Vec<u8>) -> impl Fn() -> Box<dyn FnMut() -> Vec<u8>> + Send + 'static {
    let chunk = frame.repeat(CHUNK / frame.len() + 1);
    move || {
        let chunk = chunk.clone();
        Box::new(move || chunk.clone())
    }
}

/// Begins a call on stream 1.
fn open_call() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &call_block(PATH))
}

#[tokio::test]
async fn a_ping_flood() {
    told_off(
        &["ping_flood"],
        vec![],
        repeated(frame(PING, 0, 0, &[7; 8])),
    )
    .await;
}

#[tokio::test]
async fn a_flood_of_answers_to_pings_nobody_sent() {
    told_off(
        &["ping_flood"],
        vec![],
        repeated(frame(PING, ACK, 0, &[7; 8])),
    )
    .await;
}

#[tokio::test]
async fn a_settings_flood() {
    // Each changes the window of every stream.
    let window = |size: u32| frame(SETTINGS, 0, 0, &[&[0, 4][..], &size.to_be_bytes()].concat());
    let both = [window(65_535), window(1 << 20)].concat();
    told_off(&["settings_flood"], vec![], repeated(both)).await;
}

#[tokio::test]
async fn a_window_update_flood() {
    let update = frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes());
    told_off(&["window_update_flood"], vec![], repeated(update)).await;
}

#[tokio::test]
async fn a_priority_flood() {
    let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]);
    told_off(&["useless_frame_flood"], open_call(), repeated(priority)).await;
}

#[tokio::test]
async fn a_flood_of_frames_nobody_knows() {
    let unknown = frame(0xee, 0xff, 9, b"what is this");
    told_off(&["useless_frame_flood"], vec![], repeated(unknown)).await;
}

#[tokio::test]
async fn a_flood_of_large_frames_nobody_knows() {
    let unknown = frame(0xee, 0, 0, &[1; 200_000]);
    told_off(&["useless_frame_flood"], vec![], repeated(unknown)).await;
}

#[tokio::test]
async fn a_flood_of_empty_data() {
    told_off(
        &["empty_data_flood", "enhance_your_calm"],
        open_call(),
        repeated(frame(DATA, 0, 1, &[])),
    )
    .await;
}

#[tokio::test]
async fn a_flood_of_data_of_one_byte() {
    told_off(
        &["empty_data_flood", "enhance_your_calm"],
        open_call(),
        repeated(frame(DATA, 0, 1, &[1])),
    )
    .await;
}

#[tokio::test]
async fn a_continuation_flood() {
    let begin = frame(HEADERS, 0, 1, &call_block(PATH));
    let more = frame(CONTINUATION, 0, 1, &field("x", "y"));
    told_off(&["enhance_your_calm"], begin, repeated(more)).await;
}

#[tokio::test]
async fn a_header_block_without_end_in_large_frames() {
    let begin = frame(HEADERS, 0, 1, &call_block(PATH));
    let more = frame(CONTINUATION, 0, 1, &field("x", &"y".repeat(60_000)));
    told_off(&["header_block_too_large"], begin, repeated(more)).await;
}

#[tokio::test]
async fn a_rapid_reset_flood() {
    let block = call_block(PATH);
    told_off(&["reset_flood", "enhance_your_calm"], vec![], move || {
        let block = block.clone();
        let mut stream = 1;
        move || {
            let mut chunk = Vec::new();
            while chunk.len() < CHUNK {
                chunk.extend(frame(HEADERS, END_HEADERS, stream, &block));
                chunk.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
                stream += 2;
            }
            chunk
        }
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_calls_above_the_limit_on_streams() {
    let block = call_block(PATH);
    told_off(&["enhance_your_calm"], vec![], move || {
        let block = block.clone();
        let mut stream = 1;
        move || {
            let mut chunk = Vec::new();
            while chunk.len() < CHUNK {
                chunk.extend(frame(HEADERS, END_HEADERS, stream, &block));
                stream += 2;
            }
            chunk
        }
    })
    .await;
}

/// The smallest messages there are, as fast as they go. They are served, unless
/// so many wait for the server behind that h2 finds them too many.
#[tokio::test]
async fn a_stream_of_empty_messages_at_full_speed() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let ground = Ground::start().await;
    let bystander = ground.bystander().await;
    let outcome = attack(
        ground.proxy.address,
        open_call(),
        repeated(frame(DATA, 0, 1, &[0; 5])),
    );
    let (heard, took) = stand_by(&bystander, outcome).await;
    for heard in heard.unwrap() {
        if let Some((code, debug)) = heard.goaway {
            assert_eq!(code, ENHANCE_YOUR_CALM);
            assert_eq!(debug, "too_many_data_frames");
        }
        assert!(heard.resets.is_empty());
    }
    assert_unharmed(&took);
}
