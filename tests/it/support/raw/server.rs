//! An upstream that behaves by the method it is asked for:
//!
//! | last path segment | behaviour |
//! |---|---|
//! | `Hang` | reads, never answers |
//! | `TrailersOnly` | NOT_FOUND with message and details, no body |
//! | `Early` | answers after the first data, reads no further |
//! | `EarlyReset` | the same, and resets the stream with NO_ERROR |
//! | `Die` | head and a message, then the connection is cut |
//! | `Refuse` | REFUSED_STREAM, twice; then like any other |
//! | `GoAway` | GOAWAY, then like any other |
//! | any other | sends the body back, with every `x-` header and trailers |

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinHandle};

use super::frame;

/// A stream as the upstream saw it.
#[derive(Debug, Clone, Default)]
pub struct Exchange {
    pub connection: usize,
    pub method: String,
    pub authority: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// Whether the client's side came to its end.
    pub ended: bool,
    /// The reason, where the client's side ended by a reset.
    pub reset: Option<Reason>,
}

#[derive(Default)]
struct Record {
    exchanges: Mutex<Vec<Exchange>>,
    connections: AtomicUsize,
    refusals: AtomicUsize,
    alive: Mutex<Vec<AbortHandle>>,
}

pub struct RawUpstream {
    address: SocketAddr,
    record: Arc<Record>,
    task: JoinHandle<()>,
}

impl RawUpstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::new(Record::default());
        let task = tokio::spawn(accept(listener, record.clone()));
        Self {
            address,
            record,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Streams whose path ends in `/method`.
    pub fn exchanges(&self, method: &str) -> Vec<Exchange> {
        let end = format!("/{method}");
        let all = self.record.exchanges.lock();
        all.iter()
            .filter(|e| e.path.ends_with(&end))
            .cloned()
            .collect()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.task.abort();
        for connection in self.record.alive.lock().drain(..) {
            connection.abort();
        }
    }
}

async fn accept(listener: TcpListener, record: Arc<Record>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).ok();
        let number = record.connections.fetch_add(1, Ordering::SeqCst);
        let task = tokio::spawn(converse(stream, number, record.clone()));
        record.alive.lock().push(task.abort_handle());
    }
}

async fn converse(stream: tokio::net::TcpStream, number: usize, record: Arc<Record>) {
    let mut builder = h2::server::Builder::new();
    // A stream nobody reads must not hold up the others.
    builder.initial_window_size(256 << 10);
    builder.initial_connection_window_size(64 << 20);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    let (die, mut died) = tokio::sync::mpsc::channel::<()>(1);
    loop {
        let accepted = tokio::select! {
            // In this order, so that what was sent is on the wire.
            biased;
            accepted = connection.accept() => accepted,
            _ = died.recv() => return,
        };
        let Some(Ok((request, respond))) = accepted else {
            return;
        };
        if request.uri().path().ends_with("/GoAway") {
            connection.graceful_shutdown();
        }
        let index = begin(&record, number, &request);
        let call = call(record.clone(), index, request, respond, die.clone());
        tokio::spawn(call);
    }
}

fn begin(record: &Record, connection: usize, request: &Request<RecvStream>) -> usize {
    let mut all = record.exchanges.lock();
    all.push(Exchange {
        connection,
        method: request.method().to_string(),
        authority: request
            .uri()
            .authority()
            .map(ToString::to_string)
            .unwrap_or_default(),
        path: request.uri().path().to_owned(),
        headers: request.headers().clone(),
        ..Default::default()
    });
    all.len() - 1
}

async fn call(
    record: Arc<Record>,
    index: usize,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    die: tokio::sync::mpsc::Sender<()>,
) {
    let path = request.uri().path().to_owned();
    let headers = request.headers().clone();
    let mut body = request.into_body();
    match path.rsplit('/').next().unwrap() {
        "Hang" => {
            read(&record, index, &mut body, usize::MAX).await;
            let mut respond = respond;
            let gone = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            record.exchanges.lock()[index].reset = gone.ok();
        }
        "TrailersOnly" => trailers_only(respond),
        "Early" => {
            read(&record, index, &mut body, 1).await;
            early(respond);
            std::future::pending::<()>().await;
        }
        "EarlyReset" => {
            read(&record, index, &mut body, 1).await;
            early(respond);
        }
        "Die" => {
            read(&record, index, &mut body, usize::MAX).await;
            let _stream = half_an_answer(respond).await;
            die.send(()).await.ok();
            std::future::pending::<()>().await;
        }
        "Refuse" if record.refusals.fetch_add(1, Ordering::SeqCst) < 2 => {
            let mut respond = respond;
            respond.send_reset(Reason::REFUSED_STREAM);
        }
        _ => {
            read(&record, index, &mut body, usize::MAX).await;
            let sent = record.exchanges.lock()[index].body.clone();
            echo(respond, &headers, sent.into()).await;
        }
    }
}

/// Reads to the end, or until there are `enough` bytes.
async fn read(record: &Record, index: usize, body: &mut RecvStream, enough: usize) {
    while let Some(data) = body.data().await {
        let Ok(data) = data else {
            let reason = data.err().and_then(|e| e.reason());
            record.exchanges.lock()[index].reset = reason;
            return;
        };
        let mut all = record.exchanges.lock();
        all[index].body.extend_from_slice(&data);
        if all[index].body.len() >= enough {
            return;
        }
        body.flow_control().release_capacity(data.len()).ok();
    }
    let trailers = body.trailers().await.ok().flatten();
    let mut all = record.exchanges.lock();
    all[index].trailers = trailers;
    all[index].ended = true;
}

fn grpc() -> http::response::Builder {
    Response::builder().header("content-type", "application/grpc")
}

fn trailers_only(mut respond: SendResponse<Bytes>) {
    let response = grpc()
        .header("grpc-status", "5")
        .header("grpc-message", "no such %25 thing: %E2%82%AC")
        .header("grpc-status-details-bin", "CAUSBW5vIQ")
        .header("x-more-bin", "AAEC/w");
    respond.send_response(response.body(()).unwrap(), true).ok();
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for (name, value) in [
        ("grpc-status", "0"),
        ("x-trailer", "one"),
        ("x-trailer", "two"),
        ("x-trailer-bin", "AAEC/w"),
    ] {
        trailers.append(name, value.parse().unwrap());
    }
    trailers
}

fn early(mut respond: SendResponse<Bytes>) {
    let Ok(mut stream) = respond.send_response(grpc().body(()).unwrap(), false) else {
        return;
    };
    // WriteResponse { committed_size: 12 MiB }
    stream
        .send_data(frame(&[8, 0x80, 0x80, 0x80, 0x06]), false)
        .ok();
    stream.send_trailers(trailers()).ok();
}

async fn half_an_answer(mut respond: SendResponse<Bytes>) -> Option<SendStream<Bytes>> {
    let mut stream = respond
        .send_response(grpc().body(()).unwrap(), false)
        .ok()?;
    stream.send_data(frame(b"half an answer"), false).ok()?;
    Some(stream)
}

async fn echo(mut respond: SendResponse<Bytes>, headers: &HeaderMap, body: Bytes) {
    let mut response = grpc();
    for (name, value) in headers {
        if name.as_str().starts_with("x-") {
            response = response.header(name, value);
        }
    }
    let Ok(stream) = respond.send_response(response.body(()).unwrap(), false) else {
        return;
    };
    super::client::send_body(stream, vec![body], Some(trailers())).await;
}
