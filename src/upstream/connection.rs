//! One HTTP/2 connection to an upstream.
//!
//! # Why h2 itself, and not hyper's client over it
//! hyper's client hands a call through a queue to one task and its answer
//! through another, and owns the body from then on. Here the task that serves
//! the client's call sends the body and waits for the answer itself: that is
//! two tasks and four channels less per call, a body that can be had back
//! when the upstream refused the call, and a call that ends at once when its
//! client goes away.
//!
//! Not for: which call goes over which connection (`pool`).
//! Called by: `pool`.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use h2::SendStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::Request;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::load::Load;
use super::target::Target;
use super::transport_error::root;
use super::{PoolSettings, dial};
use crate::net::{Coalesced, Executor, FirstWords, Flushed, Piece, Stream};

/// A connection that was open at least once.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) target: Arc<Target>,
    pub(super) load: Arc<Load>,
    send: Mutex<SendRequest<Piece>>,
}

impl Connection {
    /// Dials the target and waits for the upstream's settings: only then is
    /// known how many calls it takes at once, and that it speaks HTTP/2.
    ///
    /// `ended` is called once, when the connection takes no more calls.
    pub(super) async fn open(
        target: Arc<Target>,
        load: Arc<Load>,
        settings: &PoolSettings,
        ended: impl FnOnce(Arc<Load>, Option<String>) + Send + 'static,
    ) -> Result<Self, String> {
        let opening = async {
            let stream = dial::dial(&target, settings).await?;
            Self::handshake(&target, load, stream, settings, ended).await
        };
        match tokio::time::timeout(settings.connect_timeout, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("no answer within {:?}", settings.connect_timeout)),
        }
    }

    async fn handshake(
        target: &Arc<Target>,
        load: Arc<Load>,
        stream: Stream,
        settings: &PoolSettings,
        ended: impl FnOnce(Arc<Load>, Option<String>) + Send + 'static,
    ) -> Result<Self, String> {
        let stream = Coalesced::new(stream);
        let (send, connection) = builder(settings)
            .handshake::<_, Piece>(TokioIo::new(stream.clone()))
            .await
            .map_err(|error| root(&error))?;
        let driven = Arc::clone(&load);
        let (told, first) = oneshot::channel();
        let mut told = Some(told);
        Executor::spawn(async move {
            let mut opened = false;
            let mut connection = pin!(Flushed::new(connection, stream.clone()));
            let result = poll_fn(|cx| {
                let result = connection.as_mut().poll(cx);
                let limit = connection
                    .as_mut()
                    .connection()
                    .max_concurrent_send_streams();
                driven.set_limit(limit);
                if !opened && let Poll::Ready(words) = stream.poll_first(cx) {
                    opened = words == FirstWords::Http2;
                    if let Some(told) = told.take() {
                        // Nobody listens any more: dialling took too long.
                        let _ = told.send(words);
                    }
                }
                result
            })
            .await;
            driven.retire();
            // What never opened is reported by whoever opened it.
            if opened {
                let lost = result
                    .err()
                    .filter(|e| e.reason() != Some(h2::Reason::NO_ERROR));
                ended(driven, lost.map(|error| root(&error)));
            }
        });
        match first.await {
            Ok(FirstWords::Http2) => {}
            Ok(FirstWords::Other) => {
                return Err("it does not speak HTTP/2 (is TLS right?)".to_owned());
            }
            Ok(FirstWords::Nothing) | Err(_) => {
                return Err("it closed the connection at once".to_owned());
            }
        }
        Ok(Self {
            target: Arc::clone(target),
            load,
            send: Mutex::new(send),
        })
    }

    /// Whether a new call may be sent here.
    pub(super) fn usable(&self) -> bool {
        !self.load.retired.load(Relaxed)
    }

    /// Whether clients that share it would wait for what does not move.
    pub(super) fn stuck(&self) -> bool {
        self.load.owners.load(Relaxed) > 1 && self.load.congested()
    }

    /// Sends the head of a call. It fails when the upstream takes no more
    /// calls, and then nothing was sent.
    pub(super) fn send(
        &self,
        head: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Piece>), h2::Error> {
        let mut send = self.send.lock();
        match send.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ready) => ready?,
            // The stream before has to wait until one ends, which the load
            // bounds; h2 lets each handle wait for one.
            Poll::Pending => *send = send.clone(),
        }
        send.send_request(head, end)
    }
}

fn builder(settings: &PoolSettings) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(256 * 1024)
        .max_header_list_size(64 * 1024)
        // Until the settings are there; calls are sent only after them.
        .initial_max_send_streams(1000)
        // A client's burst of cancelled calls: late frames of a stream that was
        // forgotten would count as errors, and many of these end the connection.
        .max_concurrent_reset_streams(1000)
        .max_local_error_reset_streams(Some(10_000))
        .max_send_buffer_size(1024 * 1024);
    builder
}
