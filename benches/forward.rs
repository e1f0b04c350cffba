//! Time spent in what is ours of the forward path: deciding where a call goes,
//! collecting writes, passing bodies on; and whole calls between canned peers.
//!
//! Not for: sockets and other proxies (`benches/compare`), nor for noticing a
//! few per cent on a shared machine (`tests/instructions.sh`).
//! Called by: `cargo bench`; `cargo bench -- --test` runs everything once.

use std::future::{Future as _, poll_fn};
use std::hint::black_box;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use assetgate::forward::{self, Forward, Observer, Session, Target, is_grpc};
use assetgate::net::{Coalesced, MemoryDialer, MemoryStream};
use assetgate::server::is_ours;
use assetgate::telemetry::Metrics;
use assetgate::upstream::{Endpoint, Pool, PoolSettings};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use hyper::rt::{Read, ReadBuf as HyperBuf, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

mod canned;

use canned::{Call, Peer, Proxy};

const KIB: usize = 1024;
const FIND: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";
const FETCH: &str = "/build.bazel.remote.asset.v1.Fetch/FetchBlob";
const UNKNOWN: &str = "/some.other.Service/Method";

/// Where a call goes, and counting that it began.
fn routing(c: &mut Criterion) -> Result<(), String> {
    let mut group = c.benchmark_group("routing");
    let mut headers = HeaderMap::new();
    headers.insert("te", HeaderValue::from_static("trailers"));
    let kind = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, kind);
    group.bench_function("is it gRPC", |b| b.iter(|| is_grpc(black_box(&headers))));
    for (name, path) in [("ours", FETCH), ("forwarded", FIND)] {
        group.bench_function(format!("is it ours: {name}"), |b| {
            b.iter(|| is_ours(black_box(path)));
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let _inside = runtime.enter();
    let session = session();
    for (name, path) in [("known method", FIND), ("unknown method", UNKNOWN)] {
        // As far as it goes without an upstream: found, counted and dropped.
        group.bench_function(format!("begin a call: {name}"), |b| {
            let request = || {
                let mut request = Request::new(tonic::body::Body::empty());
                *request.uri_mut() = path.parse().unwrap_or_default();
                request
            };
            b.iter_batched(
                request,
                |r| drop(session.call_boxed(r)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    Ok(())
}

/// A client's session with a cache and two routes.
fn session() -> Session {
    let unary = call(FIND, 100, KIB, 16 * KIB);
    let pool = || {
        let dialer = MemoryDialer::new(move || MemoryStream::new(Peer::upstream(unary)));
        Target::Pool(Pool::new(PoolSettings::new(vec![Endpoint::Memory(dialer)])))
    };
    Forward::new(pool(), Arc::new(Observer::default()))
        .with_route("build.bazel.remote.execution.v2.Execution", pool())
        .with_route("google.devtools", pool())
        .session()
}

/// A socket that takes everything and always has something to read.
struct Bottomless;

impl AsyncRead for Bottomless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Already zero but for the first time: what the kernel copies is not ours.
        let length = out.remaining();
        out.initialize_unfilled();
        out.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bottomless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(bytes).len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(slices.iter().map(|slice| black_box(slice).len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Many writes and one flush; many reads through one buffer.
fn coalescing(c: &mut Criterion) {
    let mut group = c.benchmark_group("coalescing");
    let mut cx = Context::from_waker(Waker::noop());
    let mut stream = Coalesced::new(Bottomless);
    for (name, pieces, size) in [
        ("write 40 x 300 B", 40, 300),
        ("write 50 KB in 16 KiB pieces", 3, 16 * KIB),
        ("write 1 MiB in 16 KiB pieces", 64, 16 * KIB),
    ] {
        let piece = vec![0; size];
        group.throughput(Throughput::Bytes((pieces * size) as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                for _ in 0..pieces {
                    let head = [IoSlice::new(&[0; 9]), IoSlice::new(&piece)];
                    let _ = black_box(Pin::new(&mut stream).poll_write_vectored(&mut cx, &head));
                }
                stream.flush(&mut cx);
            });
        });
    }
    for (name, size) in [
        ("read 1 MiB by 1 KiB", KIB),
        ("read 1 MiB by 16 KiB", 16 * KIB),
    ] {
        let mut room = vec![0; size];
        group.throughput(Throughput::Bytes(1024 * KIB as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                for _ in 0..1024 * KIB / size {
                    let mut out = HyperBuf::new(&mut room);
                    let _ = black_box(Pin::new(&mut stream).poll_read(&mut cx, out.unfilled()));
                }
            });
        });
    }
    group.finish();
}

/// Polling an answer's body of sixteen pieces of 64 KiB, without HTTP/2.
fn bodies(c: &mut Criterion) {
    let mut group = c.benchmark_group("bodies");
    let piece = Bytes::from(vec![0; 64 * KIB]);
    let body = || {
        let pieces = vec![piece.clone(); 16].into_iter();
        let frames = pieces.map(|piece| io::Result::Ok(Frame::data(piece)));
        let body = tonic::body::Body::new(StreamBody::new(stream::iter(frames)));
        forward::Body::Native(body)
    };
    group.throughput(Throughput::Bytes(1024 * KIB as u64));
    group.bench_function("pass 16 x 64 KiB on", |b| {
        let mut cx = Context::from_waker(Waker::noop());
        b.iter_batched(
            body,
            |body| {
                let mut body = pin!(body);
                let mut all = pin!(poll_fn(|cx| {
                    while let Some(frame) = std::task::ready!(body.as_mut().poll_frame(cx)) {
                        let _ = black_box(frame);
                    }
                    Poll::Ready(())
                }));
                let _ = all.as_mut().poll(&mut cx);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

const fn call(path: &'static str, request: usize, response: usize, frame: usize) -> Call {
    Call {
        path,
        request,
        response,
        frame,
    }
}

/// Whole calls, from one canned peer to the other.
fn calls(c: &mut Criterion) -> Result<(), String> {
    const READ: &str = "/google.bytestream.ByteStream/Read";
    const WRITE: &str = "/google.bytestream.ByteStream/Write";
    let mut group = c.benchmark_group("calls");
    for (name, call, count, bytes) in [
        ("10 unary at once", call(FIND, 100, KIB, 16 * KIB), 10, 0),
        (
            "10 of 50 KB at once",
            call(FIND, 50_000, 50, 16 * KIB),
            10,
            0,
        ),
        (
            "read 8 MiB, 16 KiB frames",
            call(READ, 100, 8192 * KIB, 16 * KIB),
            1,
            8192 * KIB,
        ),
        (
            "read 8 MiB, 64 KiB frames",
            call(READ, 100, 8192 * KIB, 64 * KIB),
            1,
            8192 * KIB,
        ),
        (
            "write 8 MiB, 16 KiB frames",
            call(WRITE, 8192 * KIB, 10, 16 * KIB),
            1,
            8192 * KIB,
        ),
        (
            "write 8 MiB, 64 KiB frames",
            call(WRITE, 8192 * KIB, 10, 64 * KIB),
            1,
            8192 * KIB,
        ),
    ] {
        let proxy = Proxy::new(call)?;
        group.throughput(match bytes {
            0 => Throughput::Elements(count as u64),
            bytes => Throughput::Bytes(bytes as u64),
        });
        let mut failed = None;
        group.bench_function(name, |b| {
            b.iter(|| {
                if let Err(error) = proxy.run(count, count) {
                    failed = Some(error);
                }
            });
        });
        if let Some(error) = failed {
            return Err(format!("{name}: {error}"));
        }
    }
    group.finish();
    Ok(())
}

fn main() -> Result<(), String> {
    Metrics::install().map_err(|error| error.to_string())?;
    // All of them together have to take less than two minutes.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    routing(&mut criterion)?;
    coalescing(&mut criterion);
    bodies(&mut criterion);
    calls(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
