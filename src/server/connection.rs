//! One downstream connection: TLS, what it speaks, HTTP/2, its end.
//!
//! Not for: calls (`dispatch`).
//! Called by: `accept`.

use std::future::poll_fn;
use std::iter;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

use super::PeerInfo;
use super::called::{Called, Under};
use super::crowd::{Activity, Member};
use super::dispatch::{Desk, Dispatch, is_watch};
use super::ending::{self, End};
use super::lobby::Guest;
use super::sniff::{PREFACE, Sniffed, refuse_http1, sniff};
use crate::drain::Drain;
use crate::net::tls::ServerTls;
use crate::net::{Buffered, Coalesced, Executor, Flushed, RawStream, Stream};
use crate::telemetry;

/// Why a connection ends whose place another needs.
const DISPLACED: &str = "displaced";

/// How long it has to close in good order.
const LEAVING: Duration = Duration::from_secs(1);

/// What one downstream connection may do.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// How long TLS and the HTTP/2 preface may take, and later a header block
    /// or a small frame that was begun.
    pub handshake_timeout: Duration,
    /// How long a connection is kept on which no call begins.
    pub idle_timeout: Duration,
    /// Idle time after which the kernel probes the connection.
    pub keep_alive: Duration,
    /// HTTP/2 pings to clients: a process that hangs still has a kernel that
    /// answers probes. No measurable cost.
    pub ping_interval: Option<Duration>,
    /// Window of one stream: 256 KiB carries 256 MB/s at 1 ms round-trip time.
    pub stream_window: u32,
    /// Window of a connection; not below 8 MiB, see `upstream::PoolSettings`.
    pub connection_window: u32,
    /// Calls at a time.
    pub max_concurrent_streams: u32,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30 * 60),
            keep_alive: Duration::from_secs(30),
            ping_interval: Some(Duration::from_secs(60)),
            stream_window: 256 * 1024,
            connection_window: 8 * 1024 * 1024,
            max_concurrent_streams: 1000,
        }
    }
}

/// What the connections of a thread share.
pub(super) struct Shared {
    pub(super) dispatch: Dispatch,
    pub(super) settings: ConnectionSettings,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) drain: Drain,
}

/// What is known of a connection before it is served.
pub(super) struct Accepted {
    pub(super) address: Option<SocketAddr>,
    /// Its place among those that have not spoken yet.
    pub(super) guest: Guest,
    /// Its place among all, and its share of the limit on connections.
    pub(super) member: Member,
}

/// Serves a connection to its end.
pub(super) async fn serve(stream: RawStream, accepted: Accepted, shared: Arc<Shared>) {
    let Accepted {
        address,
        guest,
        member,
    } = accepted;
    metrics::counter!("assetgate_connections_accepted_total").increment(1);
    let _open = Open::new();
    let handshake = tokio::time::timeout(
        shared.settings.handshake_timeout,
        greet(stream, address, &shared),
    );
    let greeted = tokio::select! {
        greeted = handshake => greeted.unwrap_or(Err("timeout")),
        () = guest.shown_out() => Err("crowded_out"),
        () = shared.drain.started() => return,
    };
    drop(guest);
    match greeted {
        Ok((stream, peer)) => speak_http2(stream, peer, &member, &shared).await,
        Err("closed") => {}
        Err(reason) => refused(reason, address),
    }
}

/// Counts and logs a client that was turned away.
pub(super) fn refused(reason: &'static str, address: Option<SocketAddr>) {
    metrics::counter!("assetgate_connections_refused_total", "reason" => reason).increment(1);
    if let Some(suppressed) = telemetry::may_log(reason) {
        tracing::warn!(client.address = ?address, reason, suppressed, "connection refused");
    }
}

/// The connection as counted.
struct Open {
    gauge: metrics::Gauge,
}

impl Open {
    fn new() -> Self {
        let gauge = metrics::gauge!("assetgate_connections");
        gauge.increment(1.0);
        Self { gauge }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.decrement(1.0);
    }
}

/// Gets a connection to where HTTP/2 frames come next, or says in a word (a
/// metric's label) why not.
async fn greet(
    stream: RawStream,
    address: Option<SocketAddr>,
    shared: &Shared,
) -> Result<(Stream, PeerInfo), &'static str> {
    let mut peer = PeerInfo {
        address,
        ..PeerInfo::default()
    };
    let mut stream = match &shared.tls {
        None => Stream::Plain(stream),
        Some(tls) => {
            let acceptor = TlsAcceptor::from(tls.current());
            let stream = acceptor
                .accept(Buffered::new(stream))
                .await
                .map_err(|error| {
                    tracing::debug!(client.address = ?address, %error, "TLS handshake failed");
                    "tls"
                })?;
            peer.tls = true;
            let certificates = stream.get_ref().1.peer_certificates();
            peer.certificate = certificates.and_then(|c| c.first()).cloned();
            Stream::Tls(Box::new(stream.into()))
        }
    };
    match sniff(&mut stream).await {
        Ok(Sniffed::Http2) => Ok((stream, peer)),
        Ok(Sniffed::Http1) => {
            // It may be gone before it reads that.
            drop(refuse_http1(&mut stream).await);
            Err("http1")
        }
        Ok(Sniffed::Garbage) => Err("garbage"),
        // Port scans and TCP health checks.
        Ok(Sniffed::Closed) | Err(_) => Err("closed"),
    }
}

/// What the calls of a connection share.
struct Line {
    desk: Desk,
    /// Calls so far.
    calls: AtomicU64,
    activity: Arc<Activity>,
}

async fn speak_http2(stream: Stream, peer: PeerInfo, member: &Member, shared: &Shared) {
    member.speaks();
    let line = Line {
        desk: shared.dispatch.desk(peer),
        calls: AtomicU64::new(0),
        activity: member.activity(),
    };
    let address = line.desk.peer().address;
    let stream = Coalesced::with_client(stream, PREFACE);
    let end = drive(&stream, Arc::new(line), member, shared).await;
    ending::finish(end, stream, address).await;
}

/// Runs HTTP/2 until it ends, or until it has to.
async fn drive(
    stream: &Coalesced<Stream>,
    line: Arc<Line>,
    member: &Member,
    shared: &Shared,
) -> End {
    let called = Arc::clone(&line);
    let service = service_fn(move |request| {
        called.calls.fetch_add(1, Relaxed);
        let (under, calls) = match is_watch(request.uri().path()) {
            // Its head is looked at, whatever else there is.
            true => (Under::Right(called.activity.watch()), u32::MAX),
            false => {
                let running = called.activity.begin();
                let calls = running.calls();
                (Under::Left(running), calls)
            }
        };
        let (room, answer) = called.desk.answer(request, calls);
        Called::new(answer, under, room)
    });
    let connection = builder(&shared.settings).serve_connection(stream.clone(), service);
    let mut connection = pin!(Flushed::new(connection, stream.clone()));
    // Polled when something woke it, and not with every few frames.
    let mut end: FuturesUnordered<_> = iter::once(reason_to_end(&line, member, shared)).collect();
    let mut left = pin!(has_left(&line, member));
    let mut patience = Patience::new(shared.settings.handshake_timeout);
    let mut ending = None;
    poll_fn(|cx| {
        if ending.is_none()
            && let Poll::Ready(Some(reason)) = end.poll_next_unpin(cx)
        {
            ending = Some(reason);
            connection.as_mut().connection().graceful_shutdown();
        }
        if ending == Some(DISPLACED) && left.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Orderly(DISPLACED));
        }
        match connection.as_mut().poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(End::Orderly(ending.unwrap_or("closed"))),
            Poll::Ready(Err(error)) => Poll::Ready(End::Failed(error)),
            Poll::Pending => {
                let conduct = stream.conduct();
                match conduct.offence {
                    Some(offence) if conduct.between_frames => Poll::Ready(End::Offence(offence)),
                    // HTTP/2 reads nothing more, but may complete its frame.
                    Some(offence) => patience
                        .poll(cx, Some(u64::MAX))
                        .map(|()| End::Offence(offence)),
                    None => patience.poll(cx, conduct.unfinished).map(|()| End::Stalled),
                }
            }
        }
    })
    .await
}

/// Waits until a client that has no call, and was told that its place is needed,
/// has had its time. A call that was on its way may run on, but where many leave
/// at once no longer than that time: it may have been begun to stay.
async fn has_left(line: &Line, member: &Member) {
    member.asked_to_leave().await;
    let calm = async {
        loop {
            tokio::time::sleep(LEAVING).await;
            if line.activity.is_idle() {
                return;
            }
        }
    };
    let hurried = async {
        member.hurried().await;
        if !line.activity.is_idle() {
            tokio::time::sleep(LEAVING).await;
        }
    };
    tokio::select! {
        () = calm => {}
        () = hurried => {}
    }
}

/// How long a client may take over what it began: a head, a header block, any
/// frame but DATA. Costs nothing while nothing is cut.
struct Patience {
    limit: Duration,
    /// What is waited for, and until when.
    waiting: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            waiting: None,
        }
    }

    /// Ready when it is exhausted.
    fn poll(&mut self, cx: &mut Context<'_>, unfinished: Option<u64>) -> Poll<()> {
        let Some(begun) = unfinished else {
            self.waiting = None;
            return Poll::Pending;
        };
        let waiting = self.waiting.take().filter(|(of, _)| *of == begun);
        let limit = self.limit;
        let (_, sleep) = self
            .waiting
            .insert(waiting.unwrap_or_else(|| (begun, Box::pin(tokio::time::sleep(limit)))));
        sleep.as_mut().poll(cx)
    }
}

/// Waits for the stop, or until no call began for the idle time.
async fn reason_to_end(line: &Line, member: &Member, shared: &Shared) -> &'static str {
    let idle = async {
        let mut seen = 0;
        loop {
            tokio::time::sleep(shared.settings.idle_timeout).await;
            let calls = line.calls.load(Relaxed);
            // Calls that still run are not looked for: they are let finish.
            if calls == seen {
                return;
            }
            seen = calls;
        }
    };
    tokio::select! {
        () = idle => "idle",
        () = member.asked_to_leave() => DISPLACED,
        () = shared.drain.started() => "stopping",
    }
}

fn builder(settings: &ConnectionSettings) -> Builder<Executor> {
    let mut builder = Builder::new(Executor);
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(256 * 1024)
        .max_concurrent_streams(settings.max_concurrent_streams)
        // The default of 20 ends the connection of a client that cancels a
        // hundred calls at once; some bound is needed (CVE-2023-44487).
        .max_pending_accept_reset_streams(1000)
        .max_local_error_reset_streams(1024)
        .max_send_buf_size(400 * 1024)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(settings.ping_interval);
    builder
}
