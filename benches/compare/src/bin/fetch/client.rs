//! gRPC calls over HTTP/2 with prior knowledge.
//!
//! Not for: what the messages say (`wire`).
//! Called by: `blobs`, `upload`.

use bytes::{Buf, Bytes, BytesMut};
use grpc_fwd_bench::LocalExec;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

pub type Outgoing = UnsyncBoxBody<Bytes, std::io::Error>;
pub type Conn = SendRequest<Outgoing>;

pub async fn connect(port: u16) -> Conn {
    let tcp = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("connect");
    tcp.set_nodelay(true).expect("TCP_NODELAY");
    let (tx, conn) = Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .initial_max_send_streams(1000)
        .handshake(TokioIo::new(tcp))
        .await
        .expect("handshake");
    tokio::task::spawn_local(async move {
        let _ = conn.await;
    });
    tx
}

/// The one message of the answer, or what went wrong.
pub async fn call(conn: &mut Conn, path: &str, body: Outgoing) -> Result<Bytes, String> {
    let text = |error: hyper::Error| error.to_string();
    let request = Request::post(format!("http://127.0.0.1{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "grpc-fwd-bench")
        .body(body)
        .expect("a request");
    conn.ready().await.map_err(text)?;
    let answer = conn.send_request(request).await.map_err(text)?;
    let mut status = status(answer.headers());
    let (mut body, mut bytes) = (answer.into_body(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(text)?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => status = frame.trailers_ref().and_then(self::status),
        }
    }
    match status.as_deref() {
        Some("0 ") if bytes.len() >= 5 => {
            bytes.advance(5);
            Ok(bytes.freeze())
        }
        other => Err(format!("grpc-status {}", other.unwrap_or("missing"))),
    }
}

fn status(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let message = text("grpc-message").unwrap_or_default();
    Some(format!("{} {message}", text("grpc-status")?))
}
