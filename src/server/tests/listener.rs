//! What is no gRPC over HTTP/2 is refused, and never reaches the upstream.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;

const PATH: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";

async fn says(address: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is as good an end as any.
    drop(soon(socket.read_to_end(&mut answer)).await);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn http2_that_is_not_grpc_gets_415() {
    let stub = Stub::start(echo).await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    for kind in [None, Some("application/json"), Some("text/html")] {
        let mut request = http::Request::post(format!("http://x{PATH}"));
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let answer = client.call(request, "{}").await;
        assert_eq!(answer.head.status, 415);
    }
    let proto = http::Request::post(format!("http://x{PATH}"))
        .header("content-type", "application/grpc+proto");
    assert_eq!(client.call(proto, "x").await.body, "x");
    assert_eq!(stub.calls.load(SeqCst), 1);
}

#[tokio::test]
async fn http1_gets_one_505_and_a_close() {
    let stub = Stub::start(echo).await;
    let proxy = Proxy::start(&[&stub.url()]);
    for head in [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /a HTTP/1.0\r\n\r\nbody",
    ] {
        let answer = says(proxy.address, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 505 "), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1);
    }
    assert_eq!(stub.connections.load(SeqCst), 0);
}

#[tokio::test]
async fn garbage_is_closed_without_an_answer() {
    let stub = Stub::start(echo).await;
    let proxy = Proxy::start(&[&stub.url()]);
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"hello there\r\n",
        &[0; 100],
    ] {
        assert_eq!(says(proxy.address, bytes).await, "");
    }
    // A broken frame after a good preface: the protocol's own refusal.
    let mut broken = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    broken.extend([0xff; 64]);
    says(proxy.address, &broken).await;
    assert_eq!(stub.calls.load(SeqCst), 0);
    // And the listener lives.
    let client = Client::connect(proxy.address).await;
    assert_eq!(client.call(request(PATH), "x").await.body, "x");
}

#[tokio::test]
async fn a_connection_that_does_not_begin_is_closed_after_the_timeout() {
    let stub = Stub::start(echo).await;
    let mut settings = listener_settings();
    settings.connection.handshake_timeout = Duration::from_millis(100);
    let proxy = Proxy::with(settings, pool_settings(&[&stub.url()]));
    for bytes in [&b""[..], b"PRI * HTTP"] {
        assert_eq!(says(proxy.address, bytes).await, "");
    }
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_and_served_when_there_is_room() {
    let stub = Stub::start(hold_or_echo).await;
    let mut settings = listener_settings();
    settings.max_connections = 1;
    let proxy = Proxy::with(settings, pool_settings(&[&stub.url()]));
    let one = Client::connect(proxy.address).await;
    let held = hold(&one, &stub, 1).await;

    let two = TcpStream::connect(proxy.address).await.unwrap();
    let refused = async {
        let client = Client::try_over(two).await?;
        client.try_call(request(PATH), "x").await
    };
    soon(refused).await.unwrap_err();

    held.abort();
    drop(one);
    let started = tokio::time::Instant::now();
    loop {
        let socket = TcpStream::connect(proxy.address).await.unwrap();
        let attempt = async {
            let client = Client::try_over(socket).await?;
            client.try_call(request(PATH), "x").await
        };
        match soon(attempt).await {
            Ok(answer) => break assert_eq!(answer.body, "x"),
            Err(_) => assert!(started.elapsed() < PATIENCE),
        }
    }
}

/// Never answers a call of this name.
const HELD: &str = "/test.Echo/Held";

async fn hold_or_echo(
    request: http::Request<h2::RecvStream>,
    respond: h2::server::SendResponse<bytes::Bytes>,
) {
    if request.uri().path() == HELD {
        std::future::pending::<()>().await;
    }
    echo(request, respond).await;
}

/// A call that runs until it is aborted; `n` have arrived then.
async fn hold(client: &Client, stub: &Stub, n: usize) -> tokio::task::JoinHandle<()> {
    let client = client.clone();
    let held = tokio::spawn(async move { drop(client.try_call(request(HELD), "x").await) });
    eventually("the call", || stub.calls.load(SeqCst) == n).await;
    held
}

/// A connection from this address, with a call, if it gets in.
async fn visit(from: &str, to: std::net::SocketAddr) -> Option<Client> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let socket = socket.connect(to).await.ok()?;
    let client = soon(Client::try_over(socket)).await.ok()?;
    let answer = soon(client.try_call(request(PATH), "x")).await.ok()?;
    (answer.body == "x").then_some(client)
}

#[tokio::test]
async fn one_client_has_its_part_of_the_connections_and_others_get_in() {
    let stub = Stub::start(hold_or_echo).await;
    let mut settings = listener_settings();
    settings.max_connections = 10;
    settings.client_limit = crate::server::ClientLimit {
        connections: 3,
        fronts: vec!["127.0.0.9/32".parse().unwrap()],
        loopback: true,
    };
    let proxy = Proxy::with(settings, pool_settings(&[&stub.url()]));
    let mut held = Vec::new();
    for n in 1..=3 {
        let client = visit("127.0.0.2", proxy.address).await.expect("its part");
        held.push(hold(&client, &stub, 2 * n).await);
    }
    assert!(
        visit("127.0.0.2", proxy.address).await.is_none(),
        "a fourth"
    );
    let other = visit("127.0.0.3", proxy.address).await;
    let other = other.expect("another client's first");
    let mut more = Vec::new();
    for n in 0..5 {
        let front = visit("127.0.0.9", proxy.address).await;
        more.push(front.unwrap_or_else(|| panic!("a front's {n}th")));
    }
    assert_eq!(other.call(request(PATH), "x").await.body, "x");
    // One of its own without a call makes room for another of its own.
    held.pop().unwrap().abort();
    let started = tokio::time::Instant::now();
    while visit("127.0.0.2", proxy.address).await.is_none() {
        assert!(
            started.elapsed() < PATIENCE,
            "its idle one does not give way"
        );
    }
    assert_eq!(other.call(request(PATH), "x").await.body, "x");
}

/// It neither reads nor answers what it is told.
#[tokio::test]
async fn who_was_asked_to_leave_and_does_not_is_closed() {
    let stub = Stub::start(echo).await;
    let mut settings = listener_settings();
    settings.max_connections = 1;
    let proxy = Proxy::with(settings, pool_settings(&[&stub.url()]));
    let mut deaf = TcpStream::connect(proxy.address).await.unwrap();
    let settings_frame = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    deaf.write_all(&settings_frame).await.unwrap();
    let started = tokio::time::Instant::now();
    while visit("127.0.0.1", proxy.address).await.is_none() {
        assert!(started.elapsed() < PATIENCE, "nobody gets in");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_good_order() {
    let stub = Stub::start(echo).await;
    let mut settings = listener_settings();
    settings.connection.idle_timeout = Duration::from_millis(100);
    let proxy = Proxy::with(settings, pool_settings(&[&stub.url()]));
    let socket = TcpStream::connect(proxy.address).await.unwrap();
    let (send, connection) = h2::client::handshake(socket).await.unwrap();
    soon(connection).await.unwrap();
    drop(send);
}

#[tokio::test]
async fn a_stop_lets_calls_finish_and_takes_no_new_ones() {
    let stub = Stub::start(|request, respond| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        echo(request, respond).await;
    })
    .await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let running = tokio::spawn({
        let client = client.clone();
        async move { client.call(request(PATH), "x").await }
    });
    eventually("the call", || stub.calls.load(SeqCst) == 1).await;
    assert!(proxy.drain.finish(PATIENCE).await, "all connections ended");
    assert_eq!(soon(running).await.unwrap().body, "x");
    assert!(client.try_call(request(PATH), "x").await.is_err());
    assert!(TcpStream::connect(proxy.address).await.is_err());
}

#[tokio::test]
async fn headers_above_64_kib_are_refused_and_below_pass() {
    let stub = Stub::start(echo).await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let sized = |n: usize| request(PATH).header("big", "x".repeat(n));
    assert_eq!(client.call(sized(12_000), "x").await.body, "x");
    match soon(client.try_call(sized(100_000), "x")).await {
        Ok(answer) => assert_eq!(answer.head.status, 431),
        Err(error) => assert!(error.is_remote() || error.is_io(), "{error}"),
    }
    assert_eq!(stub.calls.load(SeqCst), 1);
}
