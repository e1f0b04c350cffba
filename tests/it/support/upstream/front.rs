//! The cache's listener: records each call, injects failures, ends
//! connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinHandle};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt as _;

use super::state::{Call, State};

pub(super) struct Front {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    task: JoinHandle<()>,
}

impl Front {
    pub(super) fn start(address: SocketAddr, state: &Arc<State>, routes: Routes) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(128).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let accept = accept(listener, connections.clone(), state.clone(), routes);
        Self {
            address,
            connections,
            task: tokio::spawn(accept),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn hang_up(&self) {
        for connection in self.connections.lock().drain(..) {
            connection.abort();
        }
    }

    pub(super) async fn stop(self) {
        self.task.abort();
        self.task.await.ok();
        for connection in self.connections.lock().drain(..) {
            connection.abort();
        }
    }
}

async fn accept(
    listener: TcpListener,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    state: Arc<State>,
    routes: Routes,
) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).ok();
        let (state, routes) = (state.clone(), routes.clone());
        let service = hyper::service::service_fn(move |request| {
            answer(state.clone(), routes.clone(), request)
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .serve_connection(TokioIo::new(stream), service);
        let task = tokio::spawn(async move { connection.await.ok() });
        connections.lock().push(task.abort_handle());
    }
}

async fn answer(
    state: Arc<State>,
    routes: Routes,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let call = Call {
        path: request.uri().path().to_owned(),
        metadata: request.headers().clone(),
        messages: Arc::default(),
    };
    let record = state.switches.lock().record;
    let messages = call.messages.clone();
    let method = call.method().to_owned();
    let verdict = verdict(&state, &call);
    state.calls.lock().push(call);
    if let Some(delay) = verdict.delay {
        tokio::time::sleep(delay).await;
    }
    if let Some(status) = verdict.status {
        return Ok(status.into_http());
    }
    if let Some(message) = verdict.raw {
        return Ok(raw(&message));
    }
    let request = request.map(|body| {
        let heard = body.map_frame(move |frame| {
            if let (true, Some(data)) = (record, frame.data_ref()) {
                messages.lock().extend_from_slice(data);
            }
            frame
        });
        Body::new(heard)
    });
    let answered = routes.oneshot(request).await;
    Ok(answered.unwrap_or_else(|e| Status::internal(format!("{method}: {e}")).into_http()))
}

struct Verdict {
    delay: Option<Duration>,
    status: Option<Status>,
    raw: Option<Bytes>,
}

fn verdict(state: &State, call: &Call) -> Verdict {
    let switches = state.switches.lock();
    let method = call.method();
    let refused = switches.token.as_ref().and_then(|(token, code)| {
        let open = method == "GetCapabilities";
        let refused = !open && call.value("authorization") != Some(token.as_str());
        refused.then(|| Status::new(*code, "the cache wants a token"))
    });
    Verdict {
        delay: switches.delays.get(method).copied(),
        status: refused.or_else(|| switches.failures.get(method).cloned()),
        raw: switches.raw.get(method).cloned(),
    }
}

/// An OK answer with exactly this message.
fn raw(message: &[u8]) -> Response<Body> {
    let mut data = BytesMut::new();
    data.put_u8(0);
    data.put_u32(message.len() as u32);
    data.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let frames = [Frame::data(data.freeze()), Frame::trailers(trailers)];
    let body = StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, Status>)));
    let mut response = Response::new(Body::new(body.boxed_unsync()));
    let grpc = "application/grpc".parse().unwrap();
    response.headers_mut().insert("content-type", grpc);
    response
}
