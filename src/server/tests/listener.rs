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
    let stub = Stub::start(echo).await;
    let mut settings = listener_settings();
    settings.max_connections = 1;
    let proxy = Proxy::with(settings, pool_settings(&[&stub.url()]));
    let one = Client::connect(proxy.address).await;
    assert_eq!(one.call(request(PATH), "x").await.body, "x");

    let two = TcpStream::connect(proxy.address).await.unwrap();
    let refused = async {
        let client = Client::try_over(two).await?;
        client.try_call(request(PATH), "x").await
    };
    soon(refused).await.unwrap_err();

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
