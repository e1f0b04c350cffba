//! Connections, requests and calls, for every command.
//!
//! Not for: what a command measures.
//! Called by: the other modules of `load`.

use bytes::{BufMut, Bytes, BytesMut};
use grpc_fwd_bench::{LocalExec, args::Args, tls};
use http::{HeaderMap, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

/// A request body of `left` copies of one frame.
pub struct Repeat {
    pub chunk: Bytes,
    pub left: u64,
    /// Frames after which it stays open and sends nothing.
    pub stall_after: Option<u64>,
}
impl Body for Repeat {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.stall_after == Some(0) {
            return Poll::Pending;
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        if let Some(n) = &mut self.stall_after {
            *n -= 1;
        }
        Poll::Ready(Some(Ok(Frame::data(self.chunk.clone()))))
    }
    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

pub type Conn = SendRequest<Repeat>;

/// A connection, and what its TLS handshake settled on (`plain` without TLS).
pub async fn connect_how(a: &Args) -> (Conn, String) {
    let port = a.num("--port", 0) as u16;
    let tcp = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("connect");
    tcp.set_nodelay(true).expect("TCP_NODELAY");
    let Some(ca) = a.text("--tls-ca") else {
        return (handshake(a, tcp).await, "plain".into());
    };
    let name = ServerName::try_from("localhost").expect("a server name");
    let stream = tls::connector(ca)
        .connect(name, tcp)
        .await
        .expect("TLS handshake");
    let how = tls::negotiated(stream.get_ref().1);
    (handshake(a, stream).await, how)
}

pub async fn connect(a: &Args) -> Conn {
    connect_how(a).await.0
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + 'static>(a: &Args, stream: S) -> Conn {
    let (tx, conn) = Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .max_frame_size(a.num("--frame", 16384) as u32)
        .initial_stream_window_size(a.num("--win-stream", 1 << 20) as u32)
        .initial_connection_window_size(a.num("--win-conn", 1 << 20) as u32)
        .initial_max_send_streams(1000)
        .handshake(TokioIo::new(stream))
        .await
        .expect("handshake");
    tokio::task::spawn_local(async move {
        let _ = conn.await;
    });
    tx
}

pub async fn connect_all(a: &Args, default: u64) -> Vec<Conn> {
    let mut v = vec![];
    for _ in 0..a.num("--conns", default) {
        v.push(connect(a).await);
    }
    v
}

/// The stub's counters, as it words them.
pub async fn stub_stats(port: u16) -> String {
    let mut s = String::new();
    if port != 0
        && let Ok(mut c) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await
    {
        let _ = c.read_to_string(&mut s).await;
    }
    s.trim().to_string()
}

const AC: &str = "/build.bazel.remote.execution.v2.ActionCache/";
const CAS: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/";
const CAP: &str = "/build.bazel.remote.execution.v2.Capabilities/";
const BS: &str = "/google.bytestream.ByteStream/";

fn path(method: &str) -> String {
    let svc = match method {
        "GetActionResult" | "UpdateActionResult" => AC,
        "GetCapabilities" => CAP,
        "Read" | "Write" | "QueryWriteStatus" => BS,
        _ => CAS,
    };
    format!("{svc}{method}")
}

/// A call of `method`, with the headers Bazel sends and those that tune the stub.
pub fn request(a: &Args, method: &str, body: Repeat) -> Request<Repeat> {
    let scheme = if a.text("--tls-ca").is_some() {
        "https"
    } else {
        "http"
    };
    let mut b = Request::post(format!(
        "{scheme}://127.0.0.1:{}{}",
        a.num("--port", 0),
        path(method)
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .header("user-agent", "grpc-fwd-bench")
    .header("grpc-accept-encoding", "gzip")
    .header(
        "build.bazel.remote.execution.v2.requestmetadata-bin",
        "ChAKBWJhemVsEgc4LjAuMBIkM2Y5ZDk0YjQtN2Y1Ni00ZjU4LWE5ZTgtZGM5YjA2YjU4ZjQx",
    );
    for (flag, header) in [
        ("--size", "x-bench-size"),
        ("--chunk", "x-bench-chunk"),
        ("--hold-ms", "x-bench-hold"),
        ("--stall-ms", "x-bench-stall"),
    ] {
        if let Some(n) = a.text(flag) {
            b = b.header(header, n);
        }
    }
    b.body(body).unwrap()
}

/// One gRPC message of `n` bytes.
pub fn message(n: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(n + 5);
    out.put_u8(0);
    out.put_u32(n as u32);
    out.put_bytes(b'y', n);
    out.freeze()
}

/// A body of one frame.
pub fn one(chunk: Bytes) -> Repeat {
    Repeat {
        chunk,
        left: 1,
        stall_after: None,
    }
}

/// Runs one call to its end: bytes received, and grpc-status from trailers or headers.
pub async fn call(tx: &mut Conn, req: Request<Repeat>) -> Result<(u64, bool), hyper::Error> {
    tx.ready().await?;
    let resp = tx.send_request(req).await?;
    let ok = |h: &HeaderMap| h.get("grpc-status").is_some_and(|v| v == "0");
    let mut good = ok(resp.headers());
    let mut body = resp.into_body();
    let mut n = 0;
    while let Some(f) = body.frame().await {
        match f?.into_data() {
            Ok(d) => n += d.len() as u64,
            Err(f) => good |= f.trailers_ref().is_some_and(ok),
        }
    }
    Ok((n, good))
}
