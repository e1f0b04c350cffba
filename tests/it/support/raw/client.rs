//! A client that says exactly what the test wants and hears everything.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, StatusCode};
use tokio::net::TcpStream;

use super::RawUpstream;
use crate::support::{Proxy, Running, bounded};

/// One connection.
pub struct RawClient {
    send: SendRequest<Bytes>,
}

/// What to send.
pub struct RawCall {
    head: Request<()>,
    pub body: Vec<Bytes>,
    pub trailers: Option<HeaderMap>,
}

impl RawCall {
    /// A gRPC call of `path`.
    pub fn new(path: &str) -> Self {
        let head = Request::post(format!("http://assetgate.test{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        Self {
            head: head.body(()).unwrap(),
            body: Vec::new(),
            trailers: None,
        }
    }

    /// One more header; a name may come again.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.head.headers_mut().append(name, value.parse().unwrap());
        self
    }

    /// One more header of this name, without a value.
    pub fn named(mut self, name: &str) -> Self {
        let name: http::HeaderName = name.parse().unwrap();
        self.head
            .headers_mut()
            .append(name, http::HeaderValue::from_static(""));
        self
    }

    /// Another value for a header.
    pub fn instead(mut self, name: &'static str, value: &str) -> Self {
        self.head.headers_mut().insert(name, value.parse().unwrap());
        self
    }

    pub fn method(mut self, method: http::Method) -> Self {
        *self.head.method_mut() = method;
        self
    }

    /// One more piece of the body, as it is.
    pub fn data(mut self, data: impl Into<Bytes>) -> Self {
        self.body.push(data.into());
        self
    }

    /// One more message of the body, framed.
    pub fn message(self, message: &[u8]) -> Self {
        self.data(super::frame(message))
    }
}

/// What came back.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// The reason, where the stream ended by a reset.
    pub reset: Option<Reason>,
}

impl RawAnswer {
    /// `grpc-status`, wherever it stands.
    pub fn grpc_status(&self) -> Option<&str> {
        self.value("grpc-status")
    }

    /// A value of the trailers or, failing that, of the headers.
    pub fn value(&self, name: &str) -> Option<&str> {
        let trailers = self.trailers.as_ref().and_then(|t| t.get(name));
        let value = trailers.or_else(|| self.headers.get(name))?;
        Some(value.to_str().unwrap())
    }
}

impl RawClient {
    /// The program in front of `cache`, and a client of it.
    pub async fn around(cache: &RawUpstream) -> (Running, Self) {
        let proxy = Proxy::new().upstream_at(&cache.url()).start().await;
        let raw = Self::connect(proxy.address()).await;
        (proxy, raw)
    }

    pub async fn connect(address: SocketAddr) -> Self {
        Self::with_window(address, 1 << 20).await
    }

    /// With streams of which so many bytes may come unread.
    pub async fn with_window(address: SocketAddr, window: u32) -> Self {
        bounded("an HTTP/2 connection", async {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(window);
            builder.initial_connection_window_size(8 << 20);
            let (send, connection) = builder.handshake(stream).await.unwrap();
            tokio::spawn(async move { connection.await.ok() });
            Self {
                send: send.ready().await.unwrap(),
            }
        })
        .await
    }

    /// Sends a head and leaves the rest to the test.
    pub fn open(&mut self, call: RawCall, end: bool) -> (ResponseFuture, SendStream<Bytes>) {
        self.send.send_request(call.head, end).unwrap()
    }

    /// A whole call.
    pub async fn call(&mut self, call: RawCall) -> RawAnswer {
        bounded("a raw answer", async {
            let mut send = self.send.clone().ready().await.unwrap();
            let empty = call.body.is_empty() && call.trailers.is_none();
            let (response, stream) = send.send_request(call.head, empty).unwrap();
            if !empty {
                tokio::spawn(send_body(stream, call.body, call.trailers));
            }
            receive(response).await
        })
        .await
    }
}

/// Sends as fast as the window allows; ends early if the stream is reset.
pub async fn send_body(
    mut stream: SendStream<Bytes>,
    body: Vec<Bytes>,
    trailers: Option<HeaderMap>,
) {
    let last = body.len();
    for (i, mut data) in body.into_iter().enumerate() {
        let end = i + 1 == last && trailers.is_none();
        if data.is_empty() && stream.send_data(data.clone(), end).is_err() {
            return;
        }
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(0)) => continue,
                Some(Ok(n)) => {
                    let piece = data.split_to(n.min(data.len()));
                    let end = end && data.is_empty();
                    if stream.send_data(piece, end).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }
    if let Some(trailers) = trailers {
        stream.send_trailers(trailers).ok();
    }
}

/// Everything up to the end of the stream.
pub async fn receive(response: ResponseFuture) -> RawAnswer {
    let response = match response.await {
        Ok(response) => response,
        Err(error) => {
            return RawAnswer {
                status: StatusCode::IM_A_TEAPOT,
                headers: HeaderMap::new(),
                body: Vec::new(),
                trailers: None,
                reset: Some(error.reason().unwrap_or(Reason::CONNECT_ERROR)),
            };
        }
    };
    let (head, mut stream) = response.into_parts();
    let mut answer = RawAnswer {
        status: head.status,
        headers: head.headers,
        body: Vec::new(),
        trailers: None,
        reset: None,
    };
    if let Err(error) = drain(&mut stream, &mut answer).await {
        answer.reset = Some(error.reason().unwrap_or(Reason::CONNECT_ERROR));
    }
    answer
}

async fn drain(stream: &mut RecvStream, answer: &mut RawAnswer) -> Result<(), h2::Error> {
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        answer.body.extend_from_slice(&data);
    }
    answer.trailers = stream.trailers().await?;
    Ok(())
}
