//! The forward path of the product between two canned peers.
//!
//! Not for: what the peers say (`peer`).
//! Called by: the benchmarks.

use std::convert::Infallible;
use std::sync::Arc;

use assetgate::drain::Drain;
use assetgate::forward::{Forward, Observer, Target};
use assetgate::net::{MemoryDialer, MemoryStream};
use assetgate::server::{ConnectionSettings, Dispatch, MemoryServer, Native};
use assetgate::upstream::{Endpoint, Pool, PoolSettings};
use http::{Request, Response};
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;

use super::{Call, Peer};

/// A listener thread's runtime, with one client connected.
pub(crate) struct Proxy {
    runtime: Runtime,
    client: Peer,
}

impl Proxy {
    /// Connects both sides and makes enough calls that nothing is done for the
    /// first time after.
    ///
    /// # Errors
    /// When a call fails.
    pub(crate) fn new(call: Call) -> Result<Self, String> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let client = Peer::client(call);
        let inside = runtime.enter();
        let dialer = MemoryDialer::new(move || MemoryStream::new(Peer::upstream(call)));
        let pool = Pool::new(PoolSettings::new(vec![Endpoint::Memory(dialer)]));
        let forward = Forward::new(Target::Pool(pool), Arc::new(Observer::default()));
        let dispatch = Dispatch::new(forward, nobody());
        let server = MemoryServer::new(dispatch, ConnectionSettings::default(), Drain::new());
        server.serve(MemoryStream::new(client.clone()));
        drop(inside);
        let proxy = Self { runtime, client };
        // One alone, so that both sides know each header field after it.
        proxy.run(1, 1)?;
        Ok(proxy)
    }

    /// Makes `count` calls, `at_once` at a time.
    ///
    /// # Errors
    /// When a call fails.
    pub(crate) fn run(&self, count: usize, at_once: usize) -> Result<(), String> {
        self.runtime.block_on(self.client.call(count, at_once))
    }
}

/// Our own services, to which no call here goes.
fn nobody() -> Native {
    Native::new(tower::service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Body::empty()))
    }))
}
