//! A stub upstream, a proxy before it and a client, all of them small.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::poll_fn;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response, request, response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::drain::Drain;
use crate::forward::{Forward, Observer, Target};
use crate::server::{Dispatch, Listener, ListenerSettings, Serving};
use crate::upstream::{Board, Pool, PoolSettings};

/// Long enough for a loaded machine, short enough to see a hang.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it hangs")
}

/// Polls until it is true.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = tokio::time::Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// === The stub upstream ===

pub(super) struct Stub {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) calls: Arc<AtomicUsize>,
    /// Ends listening and all connections, without ceremony.
    pub(super) kill: CancellationToken,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

pub(super) fn h2_server() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24);
    builder
}

impl Stub {
    pub(super) async fn start<F, R>(handler: F) -> Self
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> R + Clone + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::start_at("127.0.0.1:0".parse().unwrap(), h2_server(), handler).await
    }

    pub(super) async fn start_at<F, R>(
        address: SocketAddr,
        builder: h2::server::Builder,
        handler: F,
    ) -> Self
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> R + Clone + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(64).unwrap();
        let stub = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            calls: Arc::default(),
            kill: CancellationToken::new(),
        };
        let (connections, calls) = (Arc::clone(&stub.connections), Arc::clone(&stub.calls));
        let kill = stub.kill.clone();
        tokio::spawn(stub.kill.clone().run_until_cancelled_owned(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, SeqCst);
                socket.set_nodelay(true).unwrap();
                let serve = serve(socket, builder.clone(), handler.clone(), Arc::clone(&calls));
                tokio::spawn(kill.clone().run_until_cancelled_owned(serve));
            }
        }));
        stub
    }

    pub(super) fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }
}

pub(super) async fn serve<S, F, R>(
    socket: S,
    builder: h2::server::Builder,
    handler: F,
    calls: Arc<AtomicUsize>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = builder.handshake(socket).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        calls.fetch_add(1, SeqCst);
        tokio::spawn(handler(request, respond));
    }
}

/// Answers every call with what was sent.
pub(super) async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let body = read_all(request.into_body()).await.unwrap().0;
    let mut stream = respond.send_response(grpc_head(), false).unwrap();
    send_all(&mut stream, body, false).await.unwrap();
    stream.send_trailers(ok_trailers()).unwrap();
}

pub(super) fn grpc_head() -> Response<()> {
    let mut head = Response::new(());
    head.headers_mut()
        .insert("content-type", "application/grpc".parse().unwrap());
    head
}

pub(super) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers
}

// === Streams ===

pub(super) async fn read_all(
    mut body: RecvStream,
) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    let mut all = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        all.extend_from_slice(&piece);
    }
    Ok((all.freeze(), body.trailers().await?))
}

pub(super) async fn send_all(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    end: bool,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = loop {
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(room) => match room? {
                    0 => {}
                    room => break room,
                },
                None => return Err(h2::Reason::STREAM_CLOSED.into()),
            }
        };
        let piece = data.split_to(room.min(data.len()));
        stream.send_data(piece, end && data.is_empty())?;
    }
    Ok(())
}

// === The proxy ===

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    pub(super) drain: Drain,
    pub(super) board: Board,
    _serving: Serving,
}

pub(super) fn pool_settings(urls: &[&str]) -> PoolSettings {
    let endpoints = urls.iter().map(|url| url.parse().unwrap()).collect();
    let mut settings = PoolSettings::new(endpoints);
    settings.connect_timeout = Duration::from_secs(5);
    settings.backoff = (Duration::from_millis(10), Duration::from_millis(50));
    settings
}

pub(super) fn listener_settings() -> ListenerSettings {
    ListenerSettings::new("127.0.0.1:0".parse().unwrap())
}

impl Proxy {
    pub(super) fn start(urls: &[&str]) -> Self {
        Self::with(listener_settings(), pool_settings(urls))
    }

    pub(super) fn with(listener: ListenerSettings, pool: PoolSettings) -> Self {
        let board = pool.board.clone();
        let observer = Arc::new(Observer::default());
        let mut proxy = Self::serve(listener, move || {
            let pool = Pool::new(pool.clone());
            Dispatch::forward_only(Forward::new(Target::Pool(pool), Arc::clone(&observer)))
        });
        proxy.board = board;
        proxy
    }

    pub(super) fn serve(
        listener: ListenerSettings,
        dispatch: impl Fn() -> Dispatch + Send + Sync + 'static,
    ) -> Self {
        let bound = Listener::bind(listener).unwrap();
        let address = match &bound.local_addr {
            crate::net::ListenAddr::Tcp { host, port } => format!("{host}:{port}"),
            crate::net::ListenAddr::Unix(_) => "127.0.0.1:1".to_owned(),
        };
        let drain = Drain::new();
        let serving = bound.serve(1, move |_| dispatch(), drain.clone()).unwrap();
        Self {
            address: address.parse().unwrap(),
            drain,
            board: Board::default(),
            _serving: serving,
        }
    }
}

// === The client ===

#[derive(Clone)]
pub(super) struct Client(h2::client::SendRequest<Bytes>);

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: response::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

impl Answer {
    /// The status, from trailers or from a head without a body.
    pub(super) fn status(&self) -> (String, String) {
        let of = self.trailers.as_ref().unwrap_or(&self.head.headers);
        let text = |name| of.get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
        (text("grpc-status"), plain(&text("grpc-message")))
    }
}

/// A grpc-message without its encoding, as far as ours use it.
pub(super) fn plain(message: &str) -> String {
    message.replace("%20", " ").replace("%3F", "?")
}

pub(super) fn request(path: &str) -> request::Builder {
    Request::post(format!("http://front.example{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self::over(socket).await
    }

    pub(super) async fn over<S>(socket: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self::try_over(socket).await.unwrap()
    }

    pub(super) async fn try_over<S>(socket: S) -> Result<Self, h2::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .initial_max_send_streams(1000)
            .max_concurrent_reset_streams(1000)
            .handshake(socket)
            .await?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self(send))
    }

    /// Begins a call whose body is still to be sent.
    pub(super) async fn begin(
        &self,
        request: request::Builder,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut send = self.0.clone().ready().await.unwrap();
        send.send_request(request.body(()).unwrap(), false).unwrap()
    }

    pub(super) async fn try_call(
        &self,
        request: request::Builder,
        body: impl Into<Bytes>,
    ) -> Result<Answer, h2::Error> {
        let body = body.into();
        let mut send = self.0.clone().ready().await?;
        let (response, mut stream) =
            send.send_request(request.body(()).unwrap(), body.is_empty())?;
        let (sent, answer) = tokio::join!(send_all(&mut stream, body, true), read_answer(response));
        let answer = answer?;
        // An early answer may leave some of the body unsent.
        drop(sent);
        Ok(answer)
    }

    pub(super) async fn call(&self, request: request::Builder, body: impl Into<Bytes>) -> Answer {
        soon(self.try_call(request, body)).await.unwrap()
    }
}

pub(super) async fn read_answer(response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, body) = response.await?.into_parts();
    let (body, trailers) = read_all(body).await?;
    Ok(Answer {
        head,
        body,
        trailers,
    })
}

/// A port on which nobody listens.
pub(super) async fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}
