//! Threads: one current-thread runtime each, accepted sockets handed to them
//! in turn.
//!
//! # Why
//! On a multi-thread runtime, even with one worker, a unary call costs 30-62 %
//! more CPU: it polls the connection after each stream event and so undoes the
//! batching of writes. And `SO_REUSEPORT` spreads by hash, which puts the few
//! long-lived connections of a build tool onto one thread by chance.
//!
//! Not for: what is done with a connection (`connection`).
//! Called by: `server::assembly`.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::connection::{self, Accepted, Shared};
use super::crowd::Crowd;
use super::dispatch::Dispatch;
use super::listener::{Acceptor, Bound, ListenerSettings};
use super::lobby::Lobby;
use crate::drain::Drain;
use crate::net::RawStream;
use crate::telemetry;

/// Pause after an error that accepting again at once would meet again, such as
/// having no file descriptor left.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(50);

/// How long a client may have to say something before it makes room: a burst is
/// accepted before any of it was heard.
const GRACE: Duration = Duration::from_millis(50);

/// How long it may take until a slot is free that somebody has to leave.
const MAKING_ROOM: Duration = Duration::from_millis(100);

/// How long it may take until a client has left that was asked to: it is told,
/// and answers.
const LEAVING: Duration = Duration::from_millis(250);

/// On which thread a dispatch is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadContext {
    /// Number of the thread, from 0.
    pub index: usize,
    /// How many there are.
    pub threads: usize,
}

/// Running listener threads. They end when this is dropped.
#[derive(Debug)]
pub struct Serving {
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl Serving {
    /// Ends the threads, and with them the connections that still run: let the
    /// drain finish before. Blocks.
    pub fn join(mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // A panic of a thread was reported as it happened.
            drop(thread.join());
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A connection on its way to its thread.
struct Handed {
    socket: Detached,
    accepted: Accepted,
}

/// A socket off its runtime.
enum Detached {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Detached {
    fn from_stream(stream: RawStream) -> io::Result<Self> {
        Ok(match stream {
            RawStream::Tcp(socket) => Self::Tcp(socket.into_std()?),
            RawStream::Unix(socket) => Self::Unix(socket.into_std()?),
            // No listener accepts these.
            RawStream::Memory(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }

    fn into_stream(self) -> io::Result<RawStream> {
        Ok(match self {
            Self::Tcp(socket) => RawStream::Tcp(tokio::net::TcpStream::from_std(socket)?),
            Self::Unix(socket) => RawStream::Unix(tokio::net::UnixStream::from_std(socket)?),
        })
    }
}

impl Bound {
    /// Serves the socket on `threads` new threads. `make_dispatch` is called on
    /// each of them, inside its runtime. When `drain` starts, the socket is
    /// closed and connections end as their calls do; the drain waits for them.
    ///
    /// # Errors
    /// When threads or runtimes cannot be had.
    pub fn serve<F>(self, threads: usize, make_dispatch: F, drain: Drain) -> io::Result<Serving>
    where
        F: Fn(ThreadContext) -> Dispatch + Send + Sync + 'static,
    {
        let threads = threads.max(1);
        let make_dispatch = Arc::new(make_dispatch);
        let mut serving = Serving {
            stop: CancellationToken::new(),
            threads: Vec::with_capacity(threads),
        };
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..threads).map(|_| unbounded_channel()).unzip();
        let mut listener = Some((self.socket, senders));
        for (index, handed) in receivers.into_iter().enumerate() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let make_dispatch = Arc::clone(&make_dispatch);
            let stop = serving.stop.clone();
            let drain = drain.clone();
            let settings = self.settings.clone();
            // The first thread accepts besides: that is little work, and in
            // the usual case it keeps the connection.
            let listener = listener.take();
            let run = move || {
                runtime.block_on(async move {
                    let context = ThreadContext { index, threads };
                    let shared = Arc::new(Shared {
                        dispatch: make_dispatch(context),
                        settings: settings.connection.clone(),
                        tls: settings.tls.clone(),
                        drain: drain.for_thread(),
                    });
                    if let Some((socket, senders)) = listener {
                        let accept = accept(socket, senders, settings);
                        let drained = drain.clone();
                        drain.spawn(async move {
                            tokio::select! {
                                () = accept => {}
                                () = drained.started() => {}
                            }
                        });
                    }
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = take_connections(handed, shared) => {}
                    }
                });
            };
            let name = format!("listener-{index}");
            serving
                .threads
                .push(std::thread::Builder::new().name(name).spawn(run)?);
        }
        Ok(serving)
    }
}

/// Serves what is handed to this thread, until the runtime ends.
async fn take_connections(mut handed: UnboundedReceiver<Handed>, shared: Arc<Shared>) {
    while let Some(Handed { socket, accepted }) = handed.recv().await {
        match socket.into_stream() {
            Ok(stream) => {
                let serve = connection::serve(stream, accepted, Arc::clone(&shared));
                shared.drain.spawn(serve);
            }
            Err(error) => tracing::warn!(%error, "an accepted connection cannot be served"),
        }
    }
    // No more will come, but those that are here still run.
    std::future::pending().await
}

/// Accepts connections and hands them out in turn.
async fn accept(
    socket: super::listener::BoundSocket,
    threads: Vec<UnboundedSender<Handed>>,
    settings: ListenerSettings,
) {
    let acceptor = match Acceptor::new(socket) {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(%error, "cannot accept connections");
            return;
        }
    };
    let slots = Arc::new(Semaphore::new(settings.max_connections));
    let lobby = Arc::new(Lobby::default());
    let crowd = Arc::new(Crowd::default());
    let mut next = 0;
    loop {
        let (stream, address) = match acceptor.accept().await {
            Ok(accepted) => accepted,
            // The client went away while it waited.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                if let Some(suppressed) = telemetry::may_log("accept") {
                    tracing::warn!(%error, suppressed, "cannot accept a connection");
                }
                tokio::time::sleep(OUT_OF_SOCKETS).await;
                continue;
            }
        };
        let limit = &settings.client_limit;
        let client = limit.client(address);
        let full = client.is_some_and(|client| crowd.count(client) >= limit.connections);
        if full && !crowd.ask_idlest(client) {
            connection::refused("client_limit", address);
            continue;
        }
        let Some(slot) = slot(&slots, &lobby, &crowd).await else {
            connection::refused("limit", address);
            continue;
        };
        if let RawStream::Tcp(socket) = &stream {
            // A socket that is gone already fails later anyway.
            drop(socket.set_nodelay(true));
            drop(crate::net::keep_alive(
                socket,
                settings.connection.keep_alive,
            ));
        }
        let handed = Detached::from_stream(stream).map(|socket| Handed {
            socket,
            accepted: Accepted {
                address,
                slot,
                guest: lobby.enter(),
                member: crowd.enter(client),
            },
        });
        match handed {
            Ok(handed) => drop(threads[next].send(handed)),
            Err(error) => tracing::warn!(%error, "cannot hand out a connection"),
        }
        next = (next + 1) % threads.len();
    }
}

/// A slot, if need be that of a client which has not spoken yet, or else of one
/// that has no call. Closing a connection above the limit tells its client at
/// once; leaving it in the backlog would let it wait for nothing.
async fn slot(
    slots: &Arc<Semaphore>,
    lobby: &Lobby,
    crowd: &Crowd,
) -> Option<OwnedSemaphorePermit> {
    if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
        return Some(slot);
    }
    let mut freed = pin!(Arc::clone(slots).acquire_owned());
    let Some(oldest) = lobby.oldest() else {
        if !crowd.ask_idlest(None) {
            return None;
        }
        return tokio::time::timeout(LEAVING, freed).await.ok()?.ok();
    };
    tokio::select! {
        biased;
        slot = &mut freed => return slot.ok(),
        () = tokio::time::sleep_until(oldest + GRACE) => {}
    }
    if !lobby.show_out_oldest() {
        return None;
    }
    tokio::time::timeout(MAKING_ROOM, freed).await.ok()?.ok()
}
