//! Who gives way where all places are taken: on the admin port, at the limit on
//! connections, and at the limit on those of one client.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use assetgate::proto::health::HealthCheckRequest;
use assetgate::proto::health::health_client::HealthClient;
use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tonic::Streaming;

use crate::support::{Client, Proxy, Running, admin, bounded, eventually};

/// More than the admin port has places for.
const MANY: usize = 140;

#[tokio::test]
async fn who_says_nothing_or_half_keeps_nobody_from_the_admin_port() {
    let proxy = Proxy::new().start().await;
    let mut holders = Vec::new();
    for n in 0..MANY {
        let mut socket = TcpStream::connect(proxy.admin()).await.unwrap();
        let said: &[u8] = match n % 4 {
            0 => b"",
            1 => b"GET /livez HTTP/1.1\r\nHost: loc",
            2 => b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf",
            // A whole one, whose connection is kept.
            _ => b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        };
        socket.write_all(said).await.unwrap();
        holders.push(socket);
    }
    for path in ["/livez", "/readyz", "/metrics", "/status", "/"] {
        let got = timeout(Duration::from_secs(4), admin::get(proxy.admin(), path)).await;
        let got = got.unwrap_or_else(|_| panic!("{path} waits behind {MANY} silent ones"));
        assert_eq!(got.0, 200, "{path}");
    }
    // And all of them end, whether or not somebody wants their places.
    let ended = async {
        for mut holder in holders {
            let mut rest = Vec::new();
            holder.read_to_end(&mut rest).await.ok();
        }
    };
    let ended = timeout(Duration::from_secs(15), ended).await;
    ended.expect("heads have 10 s");
}

/// A connection that speaks HTTP/2 and then neither reads nor answers.
async fn deaf(address: SocketAddr) -> TcpStream {
    bounded("a deaf client", async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
        socket.write_all(greeting).await.unwrap();
        socket.read_exact(&mut [0; 9]).await.unwrap();
        socket
    })
    .await
}

/// A connection from some address that carries a call.
struct Caller {
    send: SendRequest<Bytes>,
    call: Option<(ResponseFuture, SendStream<Bytes>)>,
}

impl Caller {
    async fn connect(from: Option<IpAddr>, to: SocketAddr) -> Option<Self> {
        let socket = match to {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = socket.unwrap();
        if let Some(from) = from {
            socket.bind((from, 0).into()).unwrap();
        }
        let stream = bounded("a connection", socket.connect(to)).await.ok()?;
        let greeted = bounded("a greeting", h2::client::handshake(stream));
        let (send, connection) = greeted.await.ok()?;
        tokio::spawn(async move { connection.await.ok() });
        let mut caller = Self { send, call: None };
        caller.answered().await.then_some(caller)
    }

    fn request(method: &str) -> http::Request<()> {
        let call = http::Request::post(format!("http://assetgate.test/{method}"));
        let call = call.header("content-type", "application/grpc");
        call.header("te", "trailers").body(()).unwrap()
    }

    /// Whether a call gets any answer.
    async fn answered(&mut self) -> bool {
        let Ok(mut send) = bounded("a stream", self.send.clone().ready()).await else {
            return false;
        };
        let Ok((answer, _)) = send.send_request(Self::request("test.Echo/Echo"), true) else {
            return false;
        };
        bounded("any answer", answer).await.is_ok()
    }

    /// Waits until its connection has ended: what is called on the way to that
    /// is answered still.
    async fn leaves(&mut self, why: &str) {
        for _ in 0..100 {
            if !self.answered().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it stays: {why}");
    }

    /// Begins a call that goes on until it is let go, and sees to it that the
    /// server knows of it.
    async fn hold(&mut self) {
        self.begin("google.bytestream.ByteStream/Write").await;
    }

    async fn begin(&mut self, method: &str) {
        let request = Self::request(method);
        self.call = Some(self.send.send_request(request, false).unwrap());
        assert!(self.answered().await, "another call beside it");
    }
}

#[tokio::test]
async fn newcomers_take_the_places_of_the_deaf_all_at_once() {
    let proxy = Proxy::new()
        .arg("--max-connections")
        .arg("24")
        .start()
        .await;
    let mut all = Vec::new();
    for _ in 0..24 {
        all.push(deaf(proxy.address()).await);
    }
    let begun = Instant::now();
    let mut arriving = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let to = proxy.address();
        arriving.spawn(async move { Caller::connect(None, to).await });
    }
    let got = arriving.join_all().await;
    let waited = begun.elapsed();
    let kept_out = got.iter().filter(|caller| caller.is_none()).count();
    assert_eq!(kept_out, 0, "of 12, in {waited:?}");
    assert!(waited < Duration::from_secs(2), "after {waited:?}");
    let open = eventually("those that had to leave", async || {
        let open = proxy.metrics().await.sum("assetgate_connections", &[]);
        (open <= 24.0).then_some(open)
    })
    .await;
    assert!(open >= 12.0, "{open}");
}

/// A connection that begins a call when it is told to go, and never ends it.
async fn stubborn(address: SocketAddr) {
    let mut socket = deaf(address).await;
    // HEADERS of stream 1: POST, http, a path and a content type.
    let mut call = b"\0\0\x3a\x01\x04\0\0\0\x01\x83\x86\x04\x23".to_vec();
    call.extend(b"/google.bytestream.ByteStream/Write\x0f\x10\x10application/grpc");
    tokio::spawn(async move {
        let mut heard = Vec::new();
        // Length, type, flags and stream of GOAWAY.
        while !heard.windows(9).any(|w| w == b"\0\0\x08\x07\0\0\0\0\0") {
            if socket.read_buf(&mut heard).await.unwrap_or(0) == 0 {
                return;
            }
        }
        socket.write_all(&call).await.ok();
        while socket.read_buf(&mut heard).await.unwrap_or(0) > 0 {}
    });
}

#[tokio::test]
async fn who_begins_a_call_when_told_to_go_keeps_no_place() {
    let proxy = Proxy::new().arg("--max-connections").arg("8").start().await;
    for _ in 0..8 {
        stubborn(proxy.address()).await;
    }
    let begun = Instant::now();
    let mut callers = Vec::new();
    while callers.len() < 8 {
        if let Some(mut caller) = Caller::connect(None, proxy.address()).await {
            caller.hold().await;
            callers.push(caller);
        }
        let (waited, n) = (begun.elapsed(), callers.len());
        assert!(waited < Duration::from_secs(12), "{n} of 8 got in");
    }
}

/// A client that watches the health of this service.
async fn watching(proxy: &Running) -> (Client, Streaming<impl Sized + 'static>) {
    let client = proxy.client().await;
    let mut health = HealthClient::new(client.channel());
    let watch = health.watch(HealthCheckRequest::default());
    let mut watch = bounded("a watch", watch).await.unwrap().into_inner();
    bounded("the status", watch.message()).await.unwrap();
    (client, watch)
}

#[tokio::test]
async fn a_watch_keeps_no_place_from_newcomers() {
    let proxy = Proxy::new().arg("--max-connections").arg("6").start().await;
    let mut busy = Caller::connect(None, proxy.address()).await.unwrap();
    busy.hold().await;
    let mut reflecting = Caller::connect(None, proxy.address()).await.unwrap();
    let service = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    reflecting.begin(service).await;
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(watching(&proxy).await);
    }
    let mut idle = Caller::connect(None, proxy.address()).await.unwrap();
    // So that the server knows that it speaks, and has seen the end of that.
    assert!(idle.answered().await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let first = Caller::connect(None, proxy.address()).await;
    let mut first = first.expect("the idle one gave way");
    idle.leaves("it had no watch").await;
    first.hold().await;
    for (n, (client, watch)) in watches.iter_mut().enumerate() {
        let next = timeout(Duration::from_millis(200), watch.message()).await;
        assert!(next.is_err(), "watch {n} was broken");
        // A call: it is in use after the others.
        if n == 0 {
            client.get_capabilities(Default::default()).await.unwrap();
        }
    }
    let mut newcomers = Vec::new();
    for n in 0..3 {
        let newcomer = Caller::connect(None, proxy.address()).await;
        let mut newcomer = newcomer.unwrap_or_else(|| panic!("newcomer {n} was kept out"));
        newcomer.hold().await;
        newcomers.push(newcomer);
    }
    // In the order of their last calls.
    reflecting.leaves("reflection is no call").await;
    for (n, (_, watch)) in watches.iter_mut().enumerate().skip(1) {
        let next = bounded("the end of a watch", watch.message()).await;
        assert!(!matches!(next, Ok(Some(_))), "watch {n}");
    }
    let next = timeout(Duration::from_millis(200), watches[0].1.message()).await;
    assert!(next.is_err(), "the one whose client called goes last");
    for caller in newcomers.iter_mut().chain([&mut busy, &mut first]) {
        assert!(caller.answered().await, "who has a call stays");
    }
}

/// What gives the test below addresses of its own, of which no host knows.
const NAMESPACE: &str = "\
    ip link set lo up
    for a in 192.0.2.1 192.0.2.7 192.0.2.8 192.0.2.66; do ip addr add $a/32 dev lo; done
    for a in 1::1 2::7 2::8 3::7; do ip -6 addr add 2001:db8:0:$a/128 dev lo nodad; done
    exec \"$0\" --exact places::in_a_namespace --ignored --nocapture --test-threads 1";

#[test]
fn a_client_has_so_many_connections_and_its_idle_ones_give_way_first() {
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-ec", NAMESPACE])
        .arg(std::env::current_exe().unwrap())
        .output()
        .expect("this test needs `unshare` of util-linux");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success() && out.contains("1 passed"),
        "this test needs a network namespace (root or user namespaces) and `ip` of iproute2:\n\
         {out}\n{err}"
    );
}

/// As many connections of one client as there can be, with calls.
async fn fill(from: &str, to: SocketAddr, least: usize) -> Vec<Caller> {
    let mut held = Vec::new();
    while held.len() < 20 {
        let Some(mut caller) = Caller::connect(Some(from.parse().unwrap()), to).await else {
            break;
        };
        caller.hold().await;
        held.push(caller);
    }
    assert!(held.len() >= least, "{from}: only {}", held.len());
    held
}

#[tokio::test]
#[ignore = "run by the test above, in a namespace"]
async fn in_a_namespace() {
    let proxy = Proxy::new().listen("[::]:0").config(
        "[listen]\nmax_connections = 100\nmax_connections_per_client = 3\n\
         fronts = [\"192.0.2.64/26\"]\n",
    );
    let proxy = proxy.start().await;
    let port = proxy.address().port();
    let [v4, v6]: [SocketAddr; 2] = ["192.0.2.1", "2001:db8:0:1::1"]
        .map(|address| (address.parse::<IpAddr>().unwrap(), port).into());
    let mut greedy = fill("192.0.2.7", v4, 3).await;
    assert_eq!(greedy.len(), 3, "of one address");
    let mut other = fill("192.0.2.8", v4, 3).await;
    assert_eq!(other.len(), 3, "another address is not held to account");
    let refused = proxy.metrics().await;
    let refused = refused.sum("assetgate_connections_refused_total", &["client_limit"]);
    assert_eq!(refused, 2.0);
    // A network of 64 bits is one client.
    let mut network = fill("2001:db8:0:2::7", v6, 3).await;
    network.extend(fill("2001:db8:0:2::8", v6, 0).await);
    assert_eq!(network.len(), 3, "of one /64");
    assert_eq!(fill("2001:db8:0:3::7", v6, 3).await.len(), 3, "another /64");
    // Many may stand behind these.
    assert_eq!(fill("192.0.2.66", v4, 20).await.len(), 20, "a front");
    let local = (IpAddr::from([127, 0, 0, 1]), port).into();
    assert_eq!(fill("127.0.0.1", local, 20).await.len(), 20, "loopback");
    // What of its own is idle gives way to a newcomer of it, and to no other.
    let mut idle = greedy.pop().unwrap();
    let mut others_idle = other.pop().unwrap();
    (idle.call, others_idle.call) = (None, None);
    assert!(idle.answered().await && others_idle.answered().await);
    let from = Some("192.0.2.7".parse().unwrap());
    let mut newcomer = Caller::connect(from, v4).await.expect("a place");
    idle.leaves("its own idle one gives way").await;
    newcomer.hold().await;
    assert!(Caller::connect(from, v4).await.is_none(), "a fourth");
    let stay = greedy.iter_mut().chain(&mut other).chain(&mut network);
    for caller in stay.chain([&mut others_idle, &mut newcomer]) {
        assert!(caller.answered().await, "who has a call stays");
    }
}
