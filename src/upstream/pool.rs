//! Calls over upstream connections: each downstream connection has one of its
//! own while there are not too many.
//!
//! # Why not one shared connection, or round robin
//! HTTP/2 shares one window among all streams of a connection, so a client
//! that opens streams and does not read them stops everybody else on it;
//! every HTTP proxy measured fails there. A connection of its own also confines
//! a client whose resets make the upstream close the connection, and keeps
//! batches of frames together: round robin over four connections costs
//! 20-69 % more CPU per unary call.
//!
//! Not for: opening connections (`open`), gRPC statuses (`forward::status`).
//! Called by: `forward`, `service` (typed clients).

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use parking_lot::Mutex;

use super::connection::Connection;
use super::load::Ticket;
use super::open::Opener;
use super::sent::{Failed, Sent};
use super::upload::Upload;
use super::{BoardStatus, PoolSettings, RequestBody, ResponseBody, TransportError};

/// How often one call is sent, if each time it provably was not looked at.
const ATTEMPTS: usize = 3;

/// The same, where the upstream is just busy with others (over a second in
/// all), or closes the connection that it was to be sent over.
const ATTEMPTS_BUSY: usize = 8;

/// Pause, on average, before a call that was refused is sent again where it was,
/// doubled each time: the upstream's new limit may be on its way.
const REFUSED: Duration = Duration::from_millis(5);

/// The head of an answer, or why there is none.
type Answered = Result<Response<ResponseBody>, TransportError>;

/// The upstream connections of one thread. Clones share them.
#[derive(Debug, Clone)]
pub struct Pool {
    opener: Arc<Opener>,
}

/// A downstream connection's claim on an upstream one. Clones share it; when
/// the last is dropped, the upstream connection is free for another.
#[derive(Debug, Clone)]
pub struct Affinity(Arc<Claim>);

#[derive(Debug)]
struct Claim {
    connection: Mutex<Option<Arc<Connection>>>,
    /// The tick in which it was found that nothing is better than a connection
    /// that is stuck.
    content: AtomicU32,
    opening: Arc<tokio::sync::Mutex<()>>,
    /// Calls that wait for a connection, in their order.
    queued: AtomicUsize,
    opener: Weak<Opener>,
}

/// One of them.
struct Queued<'a>(&'a AtomicUsize);

impl<'a> Queued<'a> {
    fn at(claim: &'a Claim) -> Self {
        claim.queued.fetch_add(1, Relaxed);
        Self(&claim.queued)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Claim {
    /// The connection for a call that just came. Those that wait for one go on
    /// one by one when it is there, and none is to be overtaken.
    fn at_once(&self) -> Option<Arc<Connection>> {
        let none_waits = self.queued.load(Relaxed) == 0;
        none_waits.then(|| self.usable()).flatten()
    }

    fn usable(&self) -> Option<Arc<Connection>> {
        let connection = self.connection.lock();
        let connection = connection.as_ref()?;
        let stays = connection.usable() && (!connection.stuck() || self.is_content());
        stays.then(|| Arc::clone(connection))
    }

    #[cold]
    fn is_content(&self) -> bool {
        let opener = self.opener.upgrade();
        opener.is_some_and(|opener| opener.clock.now() == self.content.load(Relaxed))
    }

    /// Keeps to a stuck connection until the next tick: when it is this
    /// claim's own calls that make it so, or nothing better is to be had.
    fn be_content(&self, opener: &Opener) {
        self.content.store(opener.clock.now(), Relaxed);
    }

    /// The connection, if it is stuck because of this claim's calls: they
    /// would make the next one stuck as well.
    fn own_fault(&self, opener: &Opener) -> Option<Arc<Connection>> {
        let connection = self.connection.lock().clone()?;
        let own = connection.usable() && connection.load.congested_by(self.number());
        own.then(|| {
            self.be_content(opener);
            connection
        })
    }

    /// Tells claims apart.
    fn number(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn replace(&self, connection: Option<Arc<Connection>>) {
        if let Some(connection) = &connection {
            connection.load.add_owner();
        }
        let old = std::mem::replace(&mut *self.connection.lock(), connection);
        if let Some(old) = old {
            let owners = old.load.owners.fetch_sub(1, Relaxed) - 1;
            if let (0, Some(opener)) = (owners, self.opener.upgrade()) {
                opener.keep_spare(old);
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.replace(None);
    }
}

impl Affinity {
    /// Where calls are watched, notes whose this one is.
    fn owns(&self, ticket: &Ticket) {
        if let Some(watch) = &ticket.watch {
            watch.belongs_to(self.0.number());
        }
    }
}

impl Pool {
    /// A pool whose connections live on the current runtime. Opens nothing.
    #[must_use]
    pub fn new(settings: PoolSettings) -> Self {
        Self {
            opener: Opener::new(settings, tokio::runtime::Handle::current()),
        }
    }

    /// From now on keeps at least one connection open, so that the first call
    /// need not wait and the board tells whether the upstream is there.
    pub fn keep_one(&self) {
        self.opener.keep_one();
    }

    /// A claim for one downstream connection.
    #[must_use]
    pub fn affinity(&self) -> Affinity {
        Affinity(Arc::new(Claim {
            connection: Mutex::new(None),
            content: AtomicU32::new(u32::MAX),
            opening: Arc::default(),
            queued: AtomicUsize::new(0),
            opener: Arc::downgrade(&self.opener),
        }))
    }

    /// How the upstream is doing, over all pools that share the board.
    #[must_use]
    pub fn status(&self) -> BoardStatus {
        self.opener.settings.board.status()
    }

    /// Sends a call and waits for the head of the answer. Dropping the future
    /// or the answer's body cancels the call upstream.
    ///
    /// Not an `async fn`: what is rarely needed would make every call's future
    /// several kilobytes large, which are copied when it is spawned.
    pub fn call(
        &self,
        affinity: &Affinity,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, TransportError>> + Send + use<> {
        let request = request.map(Upload::from);
        let ready = affinity.0.at_once().and_then(|connection| {
            let ticket = connection.load.try_admit()?;
            affinity.owns(&ticket);
            Some((connection, ticket))
        });
        let (pool, affinity) = (self.clone(), affinity.clone());
        let slow = match ready {
            Some((connection, ticket)) => match Sent::new(connection, ticket, request) {
                Ok(sent) => {
                    return Calling::Sent {
                        sent,
                        pool,
                        affinity,
                    };
                }
                Err(failed) => pool.again(affinity, failed),
            },
            None => Box::pin(async move { pool.send(&affinity, request, 1).await }) as Slow,
        };
        Calling::Slow(slow)
    }

    /// What becomes of a call that failed the first time.
    fn again(self, affinity: Affinity, failed: Box<Failed>) -> Slow {
        Box::pin(async move { self.send_again(&affinity, failed, 1).await })
    }

    /// Sends a call as soon as a connection can take it.
    async fn send(
        &self,
        affinity: &Affinity,
        request: Request<Upload>,
        attempt: usize,
    ) -> Answered {
        loop {
            let connection = self.connection(affinity).await?;
            let max_waiting = self.opener.settings.max_waiting;
            let Some(ticket) = connection.load.admit(max_waiting).await? else {
                // It ended meanwhile.
                continue;
            };
            affinity.owns(&ticket);
            let failed = match Sent::new(connection, ticket, request) {
                Ok(sent) => match Box::pin(sent).await {
                    Ok(response) => return Ok(response),
                    Err(failed) => failed,
                },
                Err(failed) => failed,
            };
            return Box::pin(self.send_again(affinity, failed, attempt)).await;
        }
    }

    /// Sends a failed call again, if that is safe and still possible.
    async fn send_again(
        &self,
        affinity: &Affinity,
        failed: Box<Failed>,
        attempt: usize,
    ) -> Answered {
        let Failed {
            connection,
            ticket,
            error,
            request,
            alone,
            sent,
        } = *failed;
        // It takes others: it was asked for more at a time than it likes.
        let busy = sent && alone && connection.load.in_flight.load(Relaxed) > 1;
        // One that is being closed takes nothing, and says nothing of the next.
        let attempts = if busy || !sent {
            ATTEMPTS_BUSY
        } else {
            ATTEMPTS
        };
        let Some(request) = request.filter(|_| attempt < attempts) else {
            return Err(error);
        };
        if busy {
            let share = self.opener.hold_back(ticket);
            tokio::time::sleep((REFUSED * (2 << attempt)).mul_f32(share)).await;
        } else {
            // Not there again, nor anybody else: what refuses one call refuses
            // others. Calls that run on it are let finish.
            drop(ticket);
            connection.load.retire();
        }
        drop(connection);
        if sent {
            metrics::counter!("assetgate_upstream_calls_retried_total").increment(1);
        }
        self.send(affinity, request, attempt + 1).await
    }

    /// The connection that this claim's calls go over.
    async fn connection(&self, affinity: &Affinity) -> Result<Arc<Connection>, TransportError> {
        let claim = &affinity.0;
        if let Some(connection) = claim.at_once() {
            return Ok(connection);
        }
        let _queued = Queued::at(claim);
        // One at a time: calls that arrive together shall share the connection.
        let turn = Arc::clone(&claim.opening).lock_owned().await;
        if let Some(connection) = claim.usable().or_else(|| claim.own_fault(&self.opener)) {
            return Ok(connection);
        }
        // By a task of its own: a caller who leaves does not undo what is under
        // way, else a burst of cancelled calls would open a connection each.
        let (claim, opener) = (Arc::clone(claim), Arc::clone(&self.opener));
        let looking = opener.look();
        let opening = self.opener.runtime.spawn(async move {
            let _looking = looking;
            let connection = opener.obtain().await?;
            if connection.load.congested() {
                claim.be_content(&opener);
            }
            claim.replace(Some(Arc::clone(&connection)));
            drop(turn);
            Ok(connection)
        });
        opening.await.unwrap_or_else(|_| {
            Err(TransportError::Unreachable {
                address: "(any)".into(),
                reason: "the listener stops".into(),
            })
        })
    }
}

/// A call that has to wait for something, or is sent again.
type Slow = Pin<Box<dyn Future<Output = Answered> + Send>>;

/// A call in progress.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the common one, and boxing it is what this avoids"
)]
enum Calling {
    /// The common path: it was sent at once.
    Sent {
        sent: Sent,
        pool: Pool,
        affinity: Affinity,
    },
    Slow(Slow),
}

impl Future for Calling {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        let again = match &mut *self {
            Self::Slow(slow) => return slow.as_mut().poll(cx),
            Self::Sent {
                sent,
                pool,
                affinity,
            } => match ready!(Pin::new(sent).poll(cx)) {
                Ok(response) => return Poll::Ready(Ok(response)),
                Err(failed) => pool.clone().again(affinity.clone(), failed),
            },
        };
        *self = Self::Slow(again);
        self.poll(cx)
    }
}
