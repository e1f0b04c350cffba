//! Unary calls of our own: one message there, one back.
//!
//! What tonic's generated clients do, for the one kind of call that is made for
//! every fetch: a hit costs little else. The request is one frame that ends the
//! stream, and nothing is buffered twice. Statuses are those tonic makes.
//!
//! Not for: streams (`byte_stream.rs`, which uses the generated client).
//! Called by: the typed clients beside it.

use std::sync::LazyLock;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service as _;

use super::channel::{Channel, MAX_MESSAGE, drop_bad_details, timed, unreachable};
use super::{CallContext, Error, Upstream};
use crate::proto::estimate::Shaped;
use crate::proto::{MAX_DECODED, decode};

/// Bytes before a message: a flag and a length.
const PREFIX: usize = 5;

/// A method of the cache.
pub(super) struct Method {
    /// Its name, for errors.
    pub(super) name: &'static str,
    uri: LazyLock<Uri>,
}

impl Method {
    /// A method by its name and its path.
    pub(super) const fn new(name: &'static str, uri: fn() -> Uri) -> Self {
        let uri = LazyLock::new(uri);
        Self { name, uri }
    }
}

/// Declares a method of an REv2 service.
macro_rules! method {
    ($service:literal, $name:literal) => {
        $crate::upstream::unary::Method::new($name, || {
            http::Uri::from_static(concat!(
                "/build.bazel.remote.execution.v2.",
                $service,
                "/",
                $name
            ))
        })
    };
}
pub(super) use method;

impl Channel {
    /// Sends a message and waits for the answer.
    ///
    /// Not an `async fn`, nor is what it calls: each would hold what it is
    /// given twice, and the future of a look-up is moved a few times.
    pub(super) fn unary<M: Message, R: Message + Shaped + Default>(
        &self,
        method: &'static Method,
        context: &CallContext,
        message: &M,
    ) -> impl Future<Output = Result<R, Error>> + Send + use<M, R> {
        self.unary_read_by(method, context, message, |bytes| {
            Ok(decode(bytes, MAX_DECODED)?)
        })
    }

    /// The same for an answer that is to be looked at before it is decoded.
    pub(super) fn unary_read_by<M: Message, R: Send>(
        &self,
        method: &'static Method,
        context: &CallContext,
        message: &M,
        read: fn(Bytes) -> Result<R, Status>,
    ) -> impl Future<Output = Result<R, Error>> + Send + use<M, R> {
        let request = request(method, context, message);
        timed(method.name, answer(self.upstream(), request, read))
    }
}

async fn answer<R: Send>(
    mut upstream: Upstream,
    request: http::Request<Body>,
    read: fn(Bytes) -> Result<R, Status>,
) -> Result<R, Status> {
    std::future::poll_fn(|cx| upstream.poll_ready(cx))
        .await
        .map_err(|error| unreachable(&*error))?;
    let answer = upstream.call(request).await;
    let (mut head, body) = answer.map_err(|error| unreachable(&*error))?.into_parts();
    drop_bad_details(&mut head.headers);
    check_encoding(&head.headers)?;
    let status = Status::from_header_map(&head.headers);
    if let Some(status) = status.as_ref().filter(|s| s.code() != Code::Ok) {
        return Err(status.clone());
    }
    let (message, trailers) = receive(body, read).await?;
    if status.is_none() {
        check_trailers(trailers, head.status)?;
    }
    message.ok_or_else(|| Status::internal("Missing response message."))
}

fn request(method: &Method, context: &CallContext, message: &impl Message) -> http::Request<Body> {
    let length = message.encoded_len();
    let mut frame = Vec::with_capacity(PREFIX + length);
    frame.put_u8(0);
    // Longer ones exist nowhere: batches are kept below 4 MiB.
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut frame);
    let mut request = http::Request::new(Body::new(Full::new(Bytes::from(frame))));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    request.uri_mut().clone_from(&method.uri);
    let mut headers = context.headers();
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, grpc);
    *request.headers_mut() = headers;
    request
}

/// Nothing was said to be acceptable, so nothing is compressed.
fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get("grpc-encoding") {
        Some(encoding) if encoding != "identity" => Err(Status::unimplemented(format!(
            "Content is compressed with `{}` which isn't supported",
            encoding.to_str().unwrap_or("?")
        ))),
        _ => Ok(()),
    }
}

/// The first message of an answer, decoded once it is there, and the trailers.
async fn receive<R: Send>(
    mut body: Body,
    read: fn(Bytes) -> Result<R, Status>,
) -> Result<(Option<R>, Option<HeaderMap>), Status> {
    let mut message = None;
    let mut received = Received::default();
    while let Some(frame) = body.frame().await {
        let data = match frame?.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let mut trailers = frame.into_trailers().unwrap_or_default();
                drop_bad_details(&mut trailers);
                return Ok((message, Some(trailers)));
            }
        };
        // A second message would break the rules; what comes now is dropped.
        if message.is_none()
            && let Some(bytes) = received.add(data)?
        {
            message = Some(read(bytes)?);
        }
    }
    if message.is_none() && !received.is_empty() {
        return Err(Status::internal("Unexpected EOF decoding stream."));
    }
    Ok((message, None))
}

/// What there is of a message.
#[derive(Default)]
struct Received {
    /// While it came in one frame.
    one: Bytes,
    /// From the second frame on.
    more: BytesMut,
}

impl Received {
    fn is_empty(&self) -> bool {
        self.one.is_empty() && self.more.is_empty()
    }

    /// Adds a frame; gives the message once that is complete.
    fn add(&mut self, data: Bytes) -> Result<Option<Bytes>, Status> {
        if self.is_empty() {
            self.one = data;
        } else {
            if self.more.is_empty() {
                let expected = length(&self.one)?.unwrap_or(0).min(MAX_MESSAGE);
                self.more.reserve(PREFIX + expected.max(data.len()));
                self.more.extend_from_slice(&std::mem::take(&mut self.one));
            }
            self.more.extend_from_slice(&data);
        }
        let so_far: &[u8] = if self.more.is_empty() {
            &self.one
        } else {
            &self.more
        };
        let Some(length) = length(so_far)? else {
            return Ok(None);
        };
        if so_far.len() < PREFIX + length {
            return Ok(None);
        }
        let mut whole = match self.more.is_empty() {
            true => std::mem::take(&mut self.one),
            false => std::mem::take(&mut self.more).freeze(),
        };
        whole.advance(PREFIX);
        whole.truncate(length);
        Ok(Some(whole))
    }
}

/// The length of the message that begins here, if that is there already.
fn length(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let Some((flag, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    if *flag != 0 {
        return Err(Status::internal(format!(
            "protocol error: received message with compression flag {flag} and no grpc-encoding"
        )));
    }
    let Some(length) = rest.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > MAX_MESSAGE {
        return Err(Status::out_of_range(format!(
            "Error, decoded message length too large: found {length} bytes, the limit is: {MAX_MESSAGE} bytes"
        )));
    }
    Ok(Some(length))
}

/// How the call ended; without a status, what the HTTP status stands for (gRPC
/// over HTTP/2).
fn check_trailers(trailers: Option<HeaderMap>, http: StatusCode) -> Result<(), Status> {
    if let Some(status) = trailers.as_ref().and_then(Status::from_header_map) {
        return match status.code() {
            Code::Ok => Ok(()),
            _ => Err(status),
        };
    }
    let code = match http {
        StatusCode::OK => {
            return Err(Status::unknown(
                "protocol error: the answer ended without a grpc-status",
            ));
        }
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    let text = format!(
        "grpc-status header missing, mapped from HTTP status code {}",
        http.as_u16()
    );
    Err(Status::new(code, text))
}

#[cfg(test)]
mod tests;
