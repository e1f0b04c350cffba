//! One HTTP/2 connection to an upstream.
//!
//! Not for: which call goes over which connection (`pool`).
//! Called by: `pool`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::load::Load;
use super::replay::RequestBody;
use super::target::Target;
use super::transport_error::root;
use super::{PoolSettings, dial};
use crate::net::{ClientExecutor, Coalesced, Executor, FirstWords, Stream};

/// A connection that was open at least once.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) target: Arc<Target>,
    pub(super) load: Arc<Load>,
    send: Mutex<SendRequest<RequestBody>>,
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
        let executor = ClientExecutor::new(stream.clone());
        let (send, mut connection) = builder(executor, settings)
            .handshake::<_, RequestBody>(stream.clone())
            .await
            .map_err(|error| root(&error))?;
        let driven = Arc::clone(&load);
        let (told, first) = oneshot::channel();
        let mut told = Some(told);
        Executor::spawn(async move {
            let mut opened = false;
            let result = poll_fn(|cx| {
                let result = Pin::new(&mut connection).poll(cx);
                driven.set_limit(connection.current_max_send_streams());
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
            // Hands back the calls that were not sent yet, which then look for
            // another connection before the pool does.
            drop(connection);
            // What never opened is reported by whoever opened it.
            if opened {
                ended(driven, result.err().map(|error| root(&error)));
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
        !self.load.retired.load(Relaxed) && !self.send.lock().is_closed()
    }

    /// Whether clients that share it would wait for what does not move.
    pub(super) fn stuck(&self) -> bool {
        self.load.owners.load(Relaxed) > 1 && self.load.congested()
    }

    /// Sends a call; it is queued at once, whether the future is polled or not.
    pub(super) fn send(
        &self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<>
    {
        self.send.lock().try_send_request(request)
    }
}

fn builder(
    executor: ClientExecutor<Stream>,
    settings: &PoolSettings,
) -> Builder<ClientExecutor<Stream>> {
    let mut builder = Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(256 * 1024)
        .max_header_list_size(64 * 1024)
        // Until the settings are there; calls are sent only after them.
        .initial_max_send_streams(1000)
        // A client's burst of cancelled calls: late frames of a stream that was
        // forgotten would count as errors, and many of these end the connection.
        .max_concurrent_reset_streams(1000)
        .max_local_error_reset_streams(10_000)
        .keep_alive_interval(settings.ping_interval);
    builder
}
