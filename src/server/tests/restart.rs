//! Upstreams that go and come back under load: every call is accounted for, as
//! the clients saw it and as the stubs did.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::isolation::seconds;
use super::support::*;

const PATH: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";
const CLIENTS: usize = 4;
/// Calls at a time of one client.
const AT_A_TIME: usize = 8;

/// How a stub's connections end.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    /// By themselves never.
    Never,
    /// With a graceful GOAWAY after so many calls.
    After(usize),
}

/// One upstream server: which calls it saw, and which it answered.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<HashSet<String>>>,
    twice: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    /// Ends everything at once.
    kill: CancellationToken,
    /// Says GOAWAY on every connection, lets calls finish, listens no more.
    stop: CancellationToken,
}

impl Server {
    async fn start(address: SocketAddr, ends: Ends) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(64).unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            twice: Arc::default(),
            connections: Arc::default(),
            kill: CancellationToken::new(),
            stop: CancellationToken::new(),
        };
        let accepting = server.clone();
        tokio::spawn(async move {
            loop {
                let socket = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = accepting.kill.cancelled() => return,
                    () = accepting.stop.cancelled() => return,
                };
                accepting.connections.fetch_add(1, SeqCst);
                let serve = accepting.clone().serve(socket, ends);
                tokio::spawn(accepting.kill.clone().run_until_cancelled_owned(serve));
            }
        });
        server
    }

    async fn serve(self, socket: TcpStream, ends: Ends) {
        socket.set_nodelay(true).unwrap();
        let Ok(mut connection) = h2_server().handshake(socket).await else {
            return;
        };
        let (mut calls, mut ending) = (0, false);
        loop {
            let accepted = tokio::select! {
                accepted = connection.accept() => accepted,
                () = self.stop.cancelled(), if !ending => {
                    ending = true;
                    connection.graceful_shutdown();
                    continue;
                }
            };
            let Some(Ok((request, respond))) = accepted else {
                return;
            };
            calls += 1;
            if ends == Ends::After(calls) && !ending {
                ending = true;
                connection.graceful_shutdown();
            }
            let id = request.headers()["call-id"].to_str().unwrap().to_owned();
            if !self.seen.lock().insert(id) {
                self.twice.fetch_add(1, SeqCst);
            }
            // Not ended with the connection: it would reset the call before.
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                let Ok((body, _)) = read_all(request.into_body()).await else {
                    return;
                };
                let mut respond = respond;
                let Ok(mut stream) = respond.send_response(grpc_head(), false) else {
                    return;
                };
                if send_all(&mut stream, body, false).await.is_ok() {
                    drop(stream.send_trailers(ok_trailers()));
                }
            });
        }
    }

    fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    /// Ends it at once. What is in its socket by then was sent, although it
    /// will not see it: that is how long the outage is.
    fn dies(&self) -> Outage {
        self.kill.cancel();
        let now = Instant::now();
        (now, now + Duration::from_millis(50))
    }

    fn calls(&self) -> usize {
        self.seen.lock().len()
    }
}

/// A call as its client saw it.
#[derive(Clone)]
struct Seen {
    id: String,
    code: String,
    message: String,
    from: Instant,
    to: Instant,
}

/// Clients that call without a pause until told to stop.
struct Load {
    done: Arc<AtomicBool>,
    calls: Vec<tokio::task::JoinHandle<Vec<Seen>>>,
}

impl Load {
    async fn start(proxy: &Proxy) -> Self {
        let done = Arc::<AtomicBool>::default();
        let mut calls = Vec::new();
        for client in 0..CLIENTS {
            let connection = Client::connect(proxy.address).await;
            for worker in 0..AT_A_TIME {
                let (connection, done) = (connection.clone(), Arc::clone(&done));
                calls.push(tokio::spawn(async move {
                    let mut seen = Vec::new();
                    while !done.load(SeqCst) {
                        let id = format!("{client}-{worker}-{}", seen.len());
                        let (call, from) = (request(PATH).header("call-id", &id), Instant::now());
                        let answer = connection.call(call, id.clone()).await;
                        let (code, message) = answer.status();
                        if code == "0" {
                            assert_eq!(answer.body, id);
                        } else {
                            // As a client would, or it counts nothing else.
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                        let to = Instant::now();
                        seen.push(Seen {
                            id,
                            code,
                            message,
                            from,
                            to,
                        });
                    }
                    seen
                }));
            }
        }
        Self { done, calls }
    }

    async fn stop(self) -> Vec<Seen> {
        self.done.store(true, SeqCst);
        let all = soon(join_all(self.calls)).await;
        all.into_iter().flat_map(Result::unwrap).collect()
    }
}

/// When an upstream could not be reached.
type Outage = (Instant, Instant);

/// Checks what must hold whatever happens, and prints what did: a call that
/// failed was sent (a stub saw it), or was made while nothing could be reached;
/// none was sent twice.
fn account(case: &str, calls: &[Seen], servers: &[Server], outages: &[Outage]) -> usize {
    let saw = |id: &str| servers.iter().any(|server| server.seen.lock().contains(id));
    let failed: Vec<_> = calls.iter().filter(|call| call.code != "0").collect();
    let mut sent = 0;
    for call in &failed {
        assert_eq!(call.code, "14", "{}", call.message);
        let out = |(from, to): &Outage| call.from <= *to && *from <= call.to;
        if saw(&call.id) {
            sent += 1;
        } else {
            assert!(
                outages.iter().any(out),
                "lost: {}: {}",
                call.id,
                call.message
            );
        }
    }
    let twice: usize = servers.iter().map(|server| server.twice.load(SeqCst)).sum();
    assert_eq!(twice, 0, "sent twice");
    for call in calls.iter().filter(|call| call.code == "0") {
        assert!(saw(&call.id));
    }
    println!(
        "survival: {case}: {} calls, {} failed, {sent} of these had been sent",
        calls.len(),
        failed.len(),
    );
    failed.len()
}

async fn pause(part: u32) {
    tokio::time::sleep(seconds() / part).await;
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[tokio::test]
async fn goaways_under_load_cost_no_call() {
    let server = Server::start(any(), Ends::After(50)).await;
    let proxy = Proxy::start(&[&server.url()]);
    let load = Load::start(&proxy).await;
    pause(1).await;
    let calls = load.stop().await;
    let connections = server.connections.load(SeqCst);
    assert!(connections > CLIENTS, "{connections}");
    let case = format!("every connection says GOAWAY after 50 calls ({connections} did)");
    assert_eq!(account(&case, &calls, &[server], &[]), 0);
}

/// Restarts the upstream again and again, as `end` says, with a listener gone
/// for `gone`.
async fn restarts(case: &str, end: fn(&Server), gone: Duration) -> (Vec<Seen>, usize) {
    let mut servers = vec![Server::start(any(), Ends::Never).await];
    let proxy = Proxy::start(&[&servers[0].url()]);
    let load = Load::start(&proxy).await;
    let mut outages = Vec::new();
    let began = Instant::now();
    while began.elapsed() < seconds() {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let old = servers[servers.len() - 1].clone();
        let from = Instant::now();
        end(&old);
        tokio::time::sleep(gone).await;
        servers.push(Server::start(old.address, Ends::Never).await);
        let board = proxy.board.clone();
        let before = servers[servers.len() - 1].clone();
        eventually("a call again", || before.calls() > 0).await;
        assert!(board.status().reachable());
        outages.push((from, Instant::now()));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let calls = load.stop().await;
    // Back for good: the last ones of every worker are answered.
    let (_, healed) = outages[outages.len() - 1];
    let late = healed + Duration::from_millis(150);
    for call in calls.iter().filter(|call| call.from > late) {
        assert_eq!(call.code, "0", "{}", call.message);
    }
    let failed = account(case, &calls, &servers, &outages);
    (calls, failed)
}

#[tokio::test]
async fn a_graceful_restart_under_load_fails_only_calls_made_while_it_is_down() {
    let gone = Duration::from_millis(100);
    restarts(
        "graceful restarts, gone for 100 ms",
        |s| s.stop.cancel(),
        gone,
    )
    .await;
}

#[tokio::test]
async fn a_crash_under_load_fails_only_what_was_sent_or_came_while_it_was_down() {
    restarts("crashes, back at once", |s| s.kill.cancel(), Duration::ZERO).await;
    let gone = Duration::from_secs(1);
    let (calls, failed) = restarts("crashes, gone for 1 s", |s| s.kill.cancel(), gone).await;
    assert!(failed > 0 && failed < calls.len());
}

#[tokio::test]
async fn one_of_two_upstreams_dies_and_returns_and_gets_its_load_back() {
    let (one, two) = (
        Server::start(any(), Ends::Never).await,
        Server::start(any(), Ends::Never).await,
    );
    let proxy = Proxy::start(&[&one.url(), &two.url()]);
    let load = Load::start(&proxy).await;
    eventually("both are used", || one.calls() > 0 && two.calls() > 0).await;
    pause(2).await;
    let dies = one.dies();
    pause(2).await;
    let again = Server::start(one.address, Ends::Never).await;
    let used = again.clone();
    // The clients keep their connections to us; it is ours that move.
    eventually("its load is back", || used.calls() > 50).await;
    pause(4).await;
    let calls = load.stop().await;
    let servers = [one, two, again];
    let failed = account("one of two dies and returns", &calls, &servers, &[dies]);
    assert!(failed <= CLIENTS * AT_A_TIME, "more than were in flight");
}

#[tokio::test]
async fn two_of_three_upstreams_may_die_under_load() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Server::start(any(), Ends::Never).await);
    }
    let urls: Vec<_> = servers.iter().map(Server::url).collect();
    let proxy = Proxy::start(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    let load = Load::start(&proxy).await;
    let all = servers.clone();
    eventually("all are used", || all.iter().all(|s| s.calls() > 0)).await;
    let mut outages = Vec::new();
    for server in &servers[..2] {
        outages.push(server.dies());
        pause(3).await;
    }
    let calls = load.stop().await;
    let failed = account("two of three die", &calls, &servers, &outages);
    assert!(
        failed <= 2 * CLIENTS * AT_A_TIME,
        "more than were in flight"
    );
}

#[tokio::test]
async fn an_upstream_that_accepts_and_says_nothing_delays_calls_and_loses_none() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hole = format!("grpc://{}", silent.local_addr().unwrap());
    let server = Server::start(any(), Ends::Never).await;
    let mut settings = pool_settings(&[&hole, &server.url()]);
    settings.connect_timeout = Duration::from_millis(300);
    let proxy = Proxy::with(listener_settings(), settings);
    let load = Load::start(&proxy).await;
    let used = server.clone();
    eventually("calls", || used.calls() > 100).await;
    pause(1).await;
    let calls = load.stop().await;
    let waits = calls.iter().map(|call| call.to - call.from);
    let worst = waits.max().unwrap();
    let case = format!(
        "a black hole beside a server (worst wait {} ms)",
        worst.as_millis()
    );
    assert_eq!(account(&case, &calls, &[server], &[]), 0);
    assert!(worst < Duration::from_secs(3), "{worst:?}");
}
