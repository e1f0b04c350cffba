//! CONNECT: a proxy becomes a connection to an origin.
//!
//! hyper-util has a connector for this; it tells one refusal from another only
//! for 407, and loses what a proxy sends behind its answer.
//! Called by: `connector`, for https origins behind a proxy.

use std::pin::pin;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::client::USER_AGENT;
use super::stream::BoxIo;

/// Largest response head that is read.
const MAX_HEAD: usize = 16 << 10;

/// Why a proxy did not connect.
#[derive(Debug)]
pub(super) enum TunnelError {
    /// It answered with another status than a good one.
    Status(StatusCode),
    /// It is no HTTP proxy, or the connection broke.
    Broken(String),
}

impl From<hyper::Error> for TunnelError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(super::failed::root(&error))
    }
}

/// Asks the proxy at the other end of `io` for a connection to `to`
/// (`HOST:PORT`). What comes back is that connection.
pub(super) async fn tunnel(
    io: BoxIo,
    to: &str,
    authorization: Option<&HeaderValue>,
) -> Result<BoxIo, TunnelError> {
    let broken = |text: &str| TunnelError::Broken(text.to_owned());
    let uri = Uri::builder().authority(to).build();
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = uri.map_err(|_| broken("the URL has no valid host"))?;
    let host = HeaderValue::from_str(to).map_err(|_| broken("the URL has no valid host"))?;
    request.headers_mut().insert(header::HOST, host);
    let agent = HeaderValue::from_static(USER_AGENT);
    request.headers_mut().insert(header::USER_AGENT, agent);
    if let Some(value) = authorization {
        let headers = request.headers_mut();
        headers.insert(header::PROXY_AUTHORIZATION, value.clone());
    }
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await?;
    let mut connection = pin!(connection.without_shutdown());
    let mut sending = pin!(sender.send_request(request));
    // The connection is over once it is a tunnel, in the same moment as the
    // answer is there.
    let mut over = None;
    let response = loop {
        tokio::select! {
            biased;
            response = &mut sending => break response?,
            end = &mut connection, if over.is_none() => over = Some(end),
        }
    };
    if !response.status().is_success() {
        return Err(TunnelError::Status(response.status()));
    }
    let parts = match over {
        Some(parts) => parts?,
        None => connection.await?,
    };
    // Behind the proxy, the client speaks first (TLS).
    if !parts.read_buf.is_empty() {
        return Err(broken("it sent something before it was asked"));
    }
    Ok(parts.io.into_inner())
}
