//! The same path without sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use super::support::*;
use crate::drain::Drain;
use crate::forward::{Forward, Observer, Target};
use crate::net::{MemoryDialer, MemoryStream};
use crate::server::{ConnectionSettings, Dispatch, MemoryServer};
use crate::upstream::{Endpoint, Pool, PoolSettings};

/// An upstream that can be dialled in memory, and how often it was.
fn upstream() -> (Endpoint, Arc<AtomicUsize>) {
    let dialled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dialled);
    let dialer = MemoryDialer::new(move || {
        count.fetch_add(1, SeqCst);
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve(theirs, h2_server(), echo, Arc::default()));
        MemoryStream::new(ours)
    });
    (Endpoint::Memory(dialer), dialled)
}

#[tokio::test]
async fn calls_pass_between_two_ends_in_memory_until_the_drain() {
    let (endpoint, dialled) = upstream();
    let pool = Pool::new(PoolSettings::new(vec![endpoint]));
    let forward = Forward::new(Target::Pool(pool), Arc::new(Observer::default()));
    let drain = Drain::new();
    let server = MemoryServer::new(
        Dispatch::forward_only(forward),
        ConnectionSettings::default(),
        drain.clone(),
    );
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    server.serve(MemoryStream::new(ours));
    let client = Client::over(theirs).await;
    let body = vec![7; 300_000];
    for path in ["/a.B/C", "/a.B/D"] {
        let answer = client.call(request(path), body.clone()).await;
        assert_eq!(
            (answer.body.len(), answer.status().0),
            (300_000, "0".into())
        );
    }
    assert_eq!(dialled.load(SeqCst), 1, "affinity holds here too");
    assert!(drain.finish(Duration::from_secs(20)).await);
    assert!(client.try_call(request("/a.B/C"), "").await.is_err());
}

#[test]
fn no_url_dials_in_memory() {
    let dialer = MemoryDialer::new(|| MemoryStream::new(tokio::io::duplex(1).0));
    let endpoint = Endpoint::Memory(dialer.clone());
    assert_eq!(endpoint, Endpoint::Memory(dialer), "clones are one place");
    assert!(endpoint.to_string().parse::<Endpoint>().is_err());
    for text in ["memory:", "memory://x", "grpc://(in memory)"] {
        assert!(text.parse::<Endpoint>().is_err(), "{text}");
    }
}
