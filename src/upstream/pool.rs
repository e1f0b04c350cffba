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

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::client::conn::TrySendError;
use parking_lot::Mutex;

use super::connection::Connection;
use super::load::Ticket;
use super::open::Opener;
use super::replay::{Replay, RequestBody};
use super::transport_error::{h2_error, unprocessed};
use super::{BoardStatus, PoolSettings, ResponseBody, TransportError};

/// How often one call is sent, if each time it provably was not looked at.
const ATTEMPTS: usize = 3;

/// How long hyper may take to drop the body of a call that was refused.
const BODY_COMES_BACK: Duration = Duration::from_secs(1);

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
    opening: tokio::sync::Mutex<()>,
    opener: Weak<Opener>,
}

impl Claim {
    fn usable(&self) -> Option<Arc<Connection>> {
        let connection = self.connection.lock();
        let connection = connection.as_ref()?;
        (connection.usable() && !connection.stuck()).then(|| Arc::clone(connection))
    }

    fn replace(&self, connection: Option<Arc<Connection>>) {
        if let Some(connection) = &connection {
            connection.load.owners.fetch_add(1, Relaxed);
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
            opening: tokio::sync::Mutex::new(()),
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
    /// # Errors
    /// When the upstream could not be asked, or the answer did not begin.
    pub async fn call(
        &self,
        affinity: &Affinity,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, TransportError> {
        let (mut head, mut body) = request.into_parts();
        let mut attempt = 1;
        loop {
            let connection = self.connection(affinity).await?;
            let max_waiting = self.opener.settings.max_waiting;
            let Some(ticket) = connection.load.admit(max_waiting).await? else {
                continue;
            };
            let back = body.arm(&connection.load);
            let copy = back.is_some().then(|| Copied::of(&head));
            head.uri = connection.target.direct(&head.uri);
            let error = match connection.send(Request::from_parts(head, body)).await {
                Ok(response) => {
                    return Ok(response.map(|body| ResponseBody::new(body, ticket)));
                }
                Err(error) => error,
            };
            let (error, request) = recover(error, ticket, copy, back).await;
            (head, body) = match request {
                Some(request) if attempt < ATTEMPTS => request,
                _ => return Err(error),
            };
            // Not there again, nor anybody else: what refuses one call refuses
            // others. Calls that run on it are let finish.
            connection.load.retire();
            metrics::counter!("assetgate_upstream_calls_retried_total").increment(1);
            attempt += 1;
        }
    }

    /// The connection that this claim's calls go over.
    async fn connection(&self, affinity: &Affinity) -> Result<Arc<Connection>, TransportError> {
        let claim = &affinity.0;
        if let Some(connection) = claim.usable() {
            return Ok(connection);
        }
        // One at a time: calls that arrive together shall share the connection.
        let _turn = claim.opening.lock().await;
        if let Some(connection) = claim.usable() {
            return Ok(connection);
        }
        let connection = self.opener.obtain().await?;
        claim.replace(Some(Arc::clone(&connection)));
        Ok(connection)
    }
}

/// The head of a call, to send it again.
struct Copied {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
}

impl Copied {
    fn of(head: &Parts) -> Self {
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers: head.headers.clone(),
        }
    }

    fn into_head(self) -> Parts {
        let mut head = Request::new(()).into_parts().0;
        head.method = self.method;
        head.uri = self.uri;
        head.version = self.version;
        head.headers = self.headers;
        head
    }
}

/// What a failed call failed with, and the call itself if it may be sent again:
/// if the upstream provably did not look at it, and all of it is still there.
async fn recover(
    mut error: TrySendError<Request<RequestBody>>,
    ticket: Ticket,
    copy: Option<Copied>,
    back: Option<tokio::sync::oneshot::Receiver<Replay>>,
) -> (TransportError, Option<(Parts, RequestBody)>) {
    let address = Arc::clone(&ticket.load.address);
    drop(ticket);
    // hyper hands back what it never began to send.
    if let Some(request) = error.take_message() {
        let error = TransportError::of(error.error(), &address);
        return (error, Some(request.into_parts()));
    }
    let error = error.into_error();
    let mut request = None;
    if h2_error(&error).is_some_and(unprocessed)
        && let (Some(copy), Some(back)) = (copy, back)
        && let Ok(Ok(replay)) = tokio::time::timeout(BODY_COMES_BACK, back).await
    {
        request = Some((copy.into_head(), RequestBody::from(replay)));
    }
    (TransportError::of(&error, &address), request)
}
