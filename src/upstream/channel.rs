//! What every typed client needs: a cache as a tonic channel, with limits on
//! what it may answer and how long it may take.
//!
//! Not for: connecting (the transport half of this module).
//! Called by: the typed clients beside it.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::{Error, TransportError, Upstream};

/// Largest message accepted from the cache. Its answers to a batch read within
/// its own limit, and the Trees it serves, may exceed tonic's 4 MiB.
pub(super) const MAX_MESSAGE: usize = 64 << 20;

const DETAILS: &str = "grpc-status-details-bin";

/// A unary call takes no longer, so that a cache that hangs cannot hold work
/// that outlived its caller for ever.
const UNARY_TIMEOUT: Duration = Duration::from_secs(120);

/// An [`Upstream`] whose transport failures are UNAVAILABLE, with the
/// transport's own words.
#[derive(Clone)]
pub(super) struct Channel(Upstream);

impl Channel {
    pub(super) fn new(upstream: Upstream) -> Self {
        Self(upstream)
    }

    /// What is called.
    pub(super) fn upstream(&self) -> Upstream {
        self.0.clone()
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.0.poll_ready(cx).map_err(|e| unreachable(&*e))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        async move { answer.await.map(vetted).map_err(|e| unreachable(&*e)) }.boxed()
    }
}

/// tonic panics over status details that are not Base64. They come from the
/// cache, so they are checked before tonic sees them, and dropped if bad.
pub(super) fn vetted(answer: http::Response<Body>) -> http::Response<Body> {
    let (mut head, body) = answer.into_parts();
    drop_bad_details(&mut head.headers);
    let body = body.map_frame(|mut frame| {
        if let Some(trailers) = frame.trailers_mut() {
            drop_bad_details(trailers);
        }
        frame
    });
    http::Response::from_parts(head, Body::new(body))
}

pub(super) fn drop_bad_details(headers: &mut http::HeaderMap) {
    // As tonic reads them.
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIG);
    if let Some(details) = headers.get(DETAILS)
        && ENGINE.decode(details.as_bytes()).is_err()
    {
        headers.remove(DETAILS);
    }
}

pub(super) fn unreachable(error: &(dyn std::error::Error + 'static)) -> Status {
    match error.downcast_ref::<Status>() {
        Some(status) => status.clone(),
        None => {
            let text = chain(error);
            let mut status = Status::unavailable(text.as_str());
            // Tells `Error::from_status` that the cache said nothing.
            let detail = detail(error);
            status.set_source(Arc::new(NoAnswer { text, detail }));
            status
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct NoAnswer {
    text: String,
    detail: Option<Box<str>>,
}

/// What the operator is told of an error besides, if there is more.
pub(super) fn detail(error: &(dyn std::error::Error + 'static)) -> Option<Box<str>> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<TransportError>() {
            return Some(error.detail().into());
        }
        if let Some(error) = error.downcast_ref::<NoAnswer>() {
            return error.detail.clone();
        }
        cause = error.source();
    }
    None
}

/// An error and its causes in one line; a cause its parent already quotes is
/// not repeated.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// Waits for a unary call, and names it in its error.
pub(super) fn timed<T>(
    method: &'static str,
    call: impl Future<Output = Result<T, Status>>,
) -> impl Future<Output = Result<T, Error>> {
    let answer = tokio::time::timeout(UNARY_TIMEOUT, call);
    answer.map(move |answer| match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) => Err(Error::from_status(method, status)),
        Err(_) => {
            let reason = format!("the cache did not answer in {} s", UNARY_TIMEOUT.as_secs());
            Err(Error::Unreachable {
                method,
                reason,
                detail: None,
            })
        }
    })
}

#[cfg(test)]
mod tests;
