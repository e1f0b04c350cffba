//! One request to one host: when it is its turn there, over a connection of
//! the pool, up to the response head.
//!
//! Not for: what is asked, and redirects (`client`).
//! Called by: `client`.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::{Connected, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout};

use super::Failure;
use super::connections::{Handle, InUse};
use super::connector::Connector;
use super::failed::{Failed, retry_after};
use super::hosts::{Hosts, Standing, Turn};
use super::proxy::Proxy;
use super::target::Target;

/// Windows of an HTTP/2 origin: enough for a fast path over a long distance,
/// little enough that a hundred downloads stay small.
const H2_STREAM_WINDOW: u32 = 1 << 20;
const H2_CONNECTION_WINDOW: u32 = 2 << 20;
/// Most of a response that hyper holds beside the body part it gives out.
const H1_BUFFER: usize = 128 << 10;
/// How often a request is sent again that met with a connection which was
/// about to be closed for another's sake.
const RESENDS: u32 = 3;

/// The way to all origins.
pub(super) struct Exchange {
    pool: Pool<Connector, Empty<Bytes>>,
    hosts: Hosts,
    proxy: Option<Arc<Proxy>>,
    first_byte_timeout: Duration,
}

/// A response body. Its connection is free for others when it is dropped.
pub(super) struct Body {
    incoming: Incoming,
    _connection: Option<InUse>,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(cx)
    }
}

impl Exchange {
    /// `first_byte_timeout` is from the request to the response head.
    pub(super) fn new(
        connector: Connector,
        hosts: Hosts,
        proxy: Option<Arc<Proxy>>,
        first_byte_timeout: Duration,
    ) -> Self {
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(15))
            .pool_max_idle_per_host(8)
            .http1_max_buf_size(H1_BUFFER)
            .http2_initial_stream_window_size(H2_STREAM_WINDOW)
            .http2_initial_connection_window_size(H2_CONNECTION_WINDOW)
            .build(connector);
        Self {
            pool,
            hosts,
            proxy,
            first_byte_timeout,
        }
    }

    /// Sends a request to the host of `target` and waits for the response head.
    pub(super) async fn send(
        &self,
        mut request: Request<Empty<Bytes>>,
        target: &Target,
        turn: &mut Turn,
        standing: &Standing,
    ) -> Result<Response<Body>, Failed> {
        let host = target.url.host_str().unwrap_or_default();
        let proxy = self.proxy.as_ref().filter(|proxy| proxy.takes(host));
        let proxy = proxy.filter(|_| target.url.scheme() == "http");
        if let Some(authorization) = proxy.and_then(|proxy| proxy.authorization()) {
            let headers = request.headers_mut();
            headers.insert(header::PROXY_AUTHORIZATION, authorization);
        }
        // Another port is another server, with limits of its own.
        let port = target.url.port_or_known_default().unwrap_or_default();
        let server = format!("{host}:{port}");
        self.hosts.enter(&server, turn, standing).await?;
        let mut resends = 0;
        let (response, connection) = loop {
            match self.send_once(request.clone()).await {
                Err((_, Some(connection))) if connection.is_ending() && resends < RESENDS => {
                    resends += 1;
                }
                Err((failed, _)) => return Err(failed),
                Ok(answer) => break answer,
            }
        };
        let status = response.status();
        if let Some(proxy) = proxy.filter(|_| status == StatusCode::PROXY_AUTHENTICATION_REQUIRED) {
            return Err(Failed::new(Failure::Refused, proxy.refused_us()));
        }
        if status == StatusCode::TOO_MANY_REQUESTS
            && let Some(pause) = retry_after(response.headers(), SystemTime::now())
        {
            self.hosts.pause(&server, Instant::now() + pause);
        }
        Ok(response.map(|incoming| Body {
            incoming,
            _connection: connection,
        }))
    }

    async fn send_once(
        &self,
        mut request: Request<Empty<Bytes>>,
    ) -> Result<(Response<Incoming>, Option<InUse>), (Failed, Option<InUse>)> {
        let mut captured = capture_connection(&mut request);
        let mut response = pin!(self.pool.request(request));
        let early = tokio::select! {
            biased;
            answered = &mut response => Some(answered),
            _ = captured.wait_for_connection_metadata() => None,
        };
        let connection = captured.connection_metadata().as_ref().and_then(in_use);
        // Connecting has its own time limit; from here on the origin's counts.
        let answered = match early {
            Some(answered) => Ok(answered),
            None => timeout(self.first_byte_timeout, response).await,
        };
        match answered {
            Ok(Ok(response)) => {
                // The client may have tried another connection meanwhile.
                let last = response.extensions().get::<Handle>().cloned();
                let last = last.map(Handle::enter);
                Ok((response, last))
            }
            Ok(Err(error)) => Err((Failed::request(&error), connection)),
            Err(_) => {
                let text = format!(
                    "no response within {:?} after the request was sent (fetch.first_byte_timeout)",
                    self.first_byte_timeout
                );
                Err((Failed::unavailable(text), None))
            }
        }
    }
}

/// Notes that the connection is in use.
fn in_use(connected: &Connected) -> Option<InUse> {
    let mut extensions = http::Extensions::new();
    connected.get_extras(&mut extensions);
    extensions.remove::<Handle>().map(Handle::enter)
}
