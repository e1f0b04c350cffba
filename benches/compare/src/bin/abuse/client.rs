//! Connections, bodies that end, stay open or drip, and calls.
//!
//! Not for: frames that no library would send (`frames`).
//! Called by: every other module of `abuse`.

use bytes::{Buf, Bytes, BytesMut};
use grpc_fwd_bench::LocalExec;
use grpc_fwd_bench::wire::{self, Value};
use http::{HeaderMap, HeaderName, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Sleep, sleep};

const DRIP: Duration = Duration::from_secs(1);

/// What a body does after its parts.
pub enum Then {
    End,
    /// It stays open and sends nothing.
    Stay,
    /// A byte a second.
    Drip(Pin<Box<Sleep>>),
}

/// A request body.
pub struct Outgoing {
    parts: VecDeque<Bytes>,
    then: Then,
}

impl Outgoing {
    /// These bytes, whole.
    pub fn whole(bytes: Bytes) -> Self {
        Self::of([bytes], Then::End)
    }

    /// These bytes, and then nothing, for ever.
    pub fn stays(bytes: Bytes) -> Self {
        Self::of([bytes], Then::Stay)
    }

    /// These bytes, and then one a second.
    pub fn drips(bytes: Bytes) -> Self {
        Self::of([bytes], Then::Drip(Box::pin(sleep(DRIP))))
    }

    /// These parts, a frame or more each.
    pub fn of(parts: impl IntoIterator<Item = Bytes>, then: Then) -> Self {
        Self {
            parts: parts.into_iter().collect(),
            then,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(part) = self.parts.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        match &mut self.then {
            Then::End => Poll::Ready(None),
            Then::Stay => Poll::Pending,
            Then::Drip(timer) => {
                std::task::ready!(timer.as_mut().poll(cx));
                *timer = Box::pin(sleep(DRIP));
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"\0")))))
            }
        }
    }
    fn is_end_stream(&self) -> bool {
        self.parts.is_empty() && matches!(self.then, Then::End)
    }
}

pub type Conn = SendRequest<Outgoing>;

/// With a receive buffer as large as what is read at once. The kernel's grows as
/// it is needed; until then the window closes now and then, and to find it open
/// again takes the sender 200 ms, whoever it is.
async fn socket(port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4 << 20)?;
    socket.connect(([127, 0, 0, 1], port).into()).await
}

/// A connection with these windows for what the server sends.
pub async fn connect_windows(port: u16, stream: u32, connection: u32) -> Result<Conn, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let tcp = socket(port).await.map_err(|e| text(&e))?;
    tcp.set_nodelay(true).map_err(|e| text(&e))?;
    let (tx, conn) = Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .initial_stream_window_size(stream)
        .initial_connection_window_size(connection)
        .initial_max_send_streams(1000)
        .handshake(TokioIo::new(tcp))
        .await
        .map_err(|e| text(&e))?;
    tokio::task::spawn_local(async move {
        let _ = conn.await;
    });
    Ok(tx)
}

pub async fn connect(port: u16) -> Result<Conn, String> {
    connect_windows(port, 1 << 20, 1 << 22).await
}

/// Sends a request; the head of its answer.
pub async fn send(
    conn: &mut Conn,
    path: &str,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
    body: Outgoing,
) -> Result<Response<Incoming>, String> {
    let mut request = Request::post(format!("http://127.0.0.1{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(body).expect("a request");
    conn.ready().await.map_err(|e| e.to_string())?;
    conn.send_request(request).await.map_err(|e| e.to_string())
}

/// The messages of an answer that ended with OK, or what went wrong.
pub async fn answer(answer: Response<Incoming>) -> Result<Vec<Bytes>, String> {
    let mut status = status(answer.headers());
    let (mut body, mut bytes) = (answer.into_body(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(|e| e.to_string())?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => status = frame.trailers_ref().and_then(self::status),
        }
    }
    if status.as_deref() != Some("0") {
        return Err(format!(
            "grpc-status {}",
            status.as_deref().unwrap_or("missing")
        ));
    }
    let (mut bytes, mut messages) = (bytes.freeze(), vec![]);
    while bytes.len() >= 5 {
        bytes.advance(1);
        let length = bytes.get_u32() as usize;
        if bytes.len() < length {
            return Err("a message is cut short".into());
        }
        messages.push(bytes.split_to(length));
    }
    Ok(messages)
}

/// Runs one unary call to its end: the message of its answer.
pub async fn call(conn: &mut Conn, path: &str, body: Outgoing) -> Result<Bytes, String> {
    let head = send(conn, path, [], body).await?;
    let messages = answer(head).await?;
    messages
        .into_iter()
        .next()
        .ok_or_else(|| "no message".into())
}

fn status(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("grpc-status")?.to_str().ok()?.to_owned())
}

/// The bytes of a blob, by ByteStream.Read.
pub async fn read(conn: &mut Conn, name: &str) -> Result<Vec<u8>, String> {
    let mut request = BytesMut::new();
    wire::field(&mut request, 1, name.as_bytes());
    let body = Outgoing::whole(wire::message(&request));
    let head = send(conn, "/google.bytestream.ByteStream/Read", [], body).await?;
    let mut all = vec![];
    for message in answer(head).await? {
        for field in wire::fields(&message) {
            if let (10, Value::Bytes(data)) = field {
                all.extend_from_slice(data);
            }
        }
    }
    Ok(all)
}

/// Writes a blob by ByteStream.Write.
pub async fn write(conn: &mut Conn, resource: &str, data: &Bytes) -> Result<(), String> {
    const MESSAGE: usize = 1 << 20;
    let mut parts = vec![];
    for at in (0..data.len()).step_by(MESSAGE) {
        let part = data.slice(at..data.len().min(at + MESSAGE));
        let last = at + part.len() == data.len();
        let name = (at == 0).then_some(resource);
        parts.push(wire::write_head(name, at as u64, last, part.len()));
        parts.push(part);
    }
    let body = Outgoing::of(parts, Then::End);
    call(conn, "/google.bytestream.ByteStream/Write", body).await?;
    Ok(())
}
