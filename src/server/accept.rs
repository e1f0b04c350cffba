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
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::connection::{self, Accepted, Shared};
use super::dispatch::Dispatch;
use super::door::Door;
use super::listener::{Acceptor, Bound, ListenerSettings};
use crate::drain::Drain;
use crate::net::RawStream;
use crate::telemetry;

/// Pause after an error that accepting again at once would meet again, such as
/// having no file descriptor left.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(50);

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
    let door = Door::new(settings.max_connections, settings.client_limit);
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
        let (guest, member) = match door.admit(address).await {
            Ok(admitted) => admitted,
            Err(reason) => {
                connection::refused(reason, address);
                continue;
            }
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
                guest,
                member,
            },
        });
        match handed {
            Ok(handed) => drop(threads[next].send(handed)),
            Err(error) => tracing::warn!(%error, "cannot hand out a connection"),
        }
        next = (next + 1) % threads.len();
    }
}
