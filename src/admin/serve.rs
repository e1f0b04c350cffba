//! Connections of the admin port, bounded in number and in patience, so that
//! nobody can hold it up by doing nothing.
//!
//! Not for: what is answered (`pages`).
//! Called by: `server`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::places::{Place, Places};

/// For the head of a request, also of the next one on a kept connection.
const HEAD: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// For a whole connection: whoever scrapes comes again.
const CONNECTION: Duration = Duration::from_secs(300);
/// After a failed accept; running out of descriptors does not pass at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the future is dropped, and its connections end with it; where
/// there are so many, one that asks for nothing ends for a newcomer. Not
/// tracked by the drain: health must be seen to change while calls drain, and
/// a kept connection must not hold the drain up.
pub async fn serve(listener: TcpListener, router: Router, connections: usize) {
    let places = Places::new(connections);
    let mut served = tokio::task::JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(place) = places.take().await else {
                    return;
                };
                served.spawn(connection(stream, router.clone(), place));
            }
            Err(error) => {
                tracing::debug!(%error, "the admin port could not accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while served.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, router: Router, place: Place) {
    let place = Arc::new(place);
    let asked = Arc::clone(&place);
    let answer = service_fn(move |request: http::Request<Incoming>| {
        asked.asks();
        router.clone().oneshot(request)
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), answer);
    let ended = tokio::select! {
        // What can be told at once is told before the place is given up.
        biased;
        ended = served => ended,
        () = place.needed() => return,
        () = tokio::time::sleep(CONNECTION) => return,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection failed");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::watch;

    use super::super::{AllowedHosts, Readiness, State, router};
    use super::*;

    const CONNECTIONS: usize = 64;

    async fn start() -> (std::net::SocketAddr, tokio::task::JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_, readiness) = watch::channel(Readiness::ready());
        let state = State::new(readiness, String::new, Vec::new);
        let mut tasks = tokio::task::JoinSet::new();
        let router = router(state, AllowedHosts::of(address, &[]));
        tasks.spawn(serve(listener, router, CONNECTIONS));
        (address, tasks)
    }

    async fn get(address: std::net::SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_over_a_socket_and_stops_when_dropped() {
        let (address, tasks) = start().await;
        assert!(get(address).await.starts_with("HTTP/1.1 200 OK"));
        let mut kept = TcpStream::connect(address).await.unwrap();
        drop(tasks);
        assert_eq!(
            kept.read(&mut [0; 1]).await.unwrap_or(0),
            0,
            "a kept connection ends too"
        );
    }

    /// In real time, as sockets make a paused clock run ahead.
    #[tokio::test]
    async fn who_says_nothing_makes_room_at_once() {
        let (address, _tasks) = start().await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = tokio::time::timeout(HEAD / 2, get(address))
            .await
            .expect("one made room");
        assert!(answer.starts_with("HTTP/1.1 200 OK"));
    }
}
