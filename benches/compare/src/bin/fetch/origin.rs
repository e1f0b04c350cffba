//! An origin that costs little and counts.
//!
//!     /made/SIZE/NAME    a made-up body
//!     /slow/SIZE/NAME    the same, 50 ms later, so that requests overlap
//!     /held/SIZE/NAME    the same, once somebody asked for /_open
//!     /_open             lets go of all that is held, now and later
//!     /_stats            `requests N now N most N`: so far, at this moment, most at once
//!     /_reset            counts from zero, and holds again
//!
//! A request counts as going on until its body is sent.
//!
//! Not for: misbehaving (`tests/origin.py`).
//! Called by: `main`.

use crate::made::{self, Made};
use bytes::Bytes;
use grpc_fwd_bench::args::Args;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

struct Origin {
    block: Bytes,
    requests: Cell<u64>,
    now: Cell<u64>,
    most: Cell<u64>,
    open: watch::Sender<bool>,
}

/// A request that goes on.
struct Going(Rc<Origin>);

impl Going {
    fn new(origin: &Rc<Origin>) -> Self {
        origin.requests.set(origin.requests.get() + 1);
        origin.now.set(origin.now.get() + 1);
        origin.most.set(origin.most.get().max(origin.now.get()));
        Self(origin.clone())
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.0.now.set(self.0.now.get() - 1);
    }
}

struct Sent {
    made: Made,
    _going: Going,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.made.next().map(|part| Ok(Frame::data(part))))
    }
    fn is_end_stream(&self) -> bool {
        self.made.left() == 0
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.made.left())
    }
}

type Answer = Response<Either<Sent, Full<Bytes>>>;

fn text(text: impl Into<Bytes>) -> Answer {
    Response::new(Either::Right(Full::new(text.into())))
}

async fn answer(origin: Rc<Origin>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let mut parts = request.uri().path().trim_start_matches('/').splitn(3, '/');
    let (page, size, name) = (parts.next(), parts.next(), parts.next());
    let size = size.and_then(|s| s.parse().ok());
    let (Some(page), Some(size), Some(name)) = (page, size, name) else {
        return Ok(service(&origin, request.uri().path()));
    };
    let going = Going::new(&origin);
    match page {
        "slow" => tokio::time::sleep(Duration::from_millis(50)).await,
        "held" => {
            let mut open = origin.open.subscribe();
            let _ = open.wait_for(|open| *open).await;
        }
        _ => {}
    }
    let made = Made::new(&origin.block, name, size);
    let sent = Sent {
        made,
        _going: going,
    };
    Ok(Response::new(Either::Left(sent)))
}

fn service(origin: &Origin, path: &str) -> Answer {
    match path {
        "/_open" => {
            origin.open.send_replace(true);
            text("open\n")
        }
        "/_reset" => {
            origin.requests.set(0);
            origin.most.set(origin.now.get());
            origin.open.send_replace(false);
            text("forgotten\n")
        }
        "/_stats" => text(format!(
            "requests {} now {} most {}\n",
            origin.requests.get(),
            origin.now.get(),
            origin.most.get()
        )),
        _ => {
            let mut answer = text("no such page\n");
            *answer.status_mut() = http::StatusCode::NOT_FOUND;
            answer
        }
    }
}

fn listen() -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    socket.listen(4096)
}

pub async fn serve(a: &Args) -> u64 {
    let listener = listen().expect("a port");
    let port = listener.local_addr().expect("a port").port();
    let file = a.text("--port-file").expect("--port-file");
    std::fs::write(file, format!("{{\"http\": {port}}}")).expect("the port file");
    let origin = Rc::new(Origin {
        block: made::block(),
        requests: Cell::new(0),
        now: Cell::new(0),
        most: Cell::new(0),
        open: watch::channel(false).0,
    });
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            continue;
        };
        let _ = tcp.set_nodelay(true);
        let origin = origin.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| answer(origin.clone(), request));
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(tcp), service)
                .await;
        });
    }
}
