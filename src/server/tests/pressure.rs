//! Clients and upstreams that misbehave, and what others notice of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::server::SendResponse;
use http::Request;
use tokio::sync::Semaphore;

use super::support::*;

const PATH: &str = "/google.bytestream.ByteStream/Read";

/// Answers `/large` with 8 MiB, everything else with an echo.
async fn large_or_echo(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    if request.uri().path() != "/large" {
        return echo(request, respond).await;
    }
    let mut stream = respond.send_response(grpc_head(), false).unwrap();
    for _ in 0..128 {
        if send_all(&mut stream, vec![1; 65536].into(), false)
            .await
            .is_err()
        {
            return;
        }
    }
    drop(stream.send_trailers(ok_trailers()));
}

/// Opens streams whose answers are never read.
async fn stall(client: &Client, streams: usize) -> Vec<h2::RecvStream> {
    join_all((0..streams).map(|_| async {
        let (response, mut stream) = client.begin(request("/large")).await;
        stream.send_data(Bytes::new(), true).unwrap();
        soon(response).await.unwrap().into_body()
    }))
    .await
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_hurt_another() {
    let stub = Stub::start(large_or_echo).await;
    let proxy = Proxy::start(&[&stub.url()]);
    let slow = Client::connect(proxy.address).await;
    let _unread = stall(&slow, 200).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let bystander = Client::connect(proxy.address).await;
    assert_eq!(bystander.call(request(PATH), "x").await.body, "x");
    let large = bystander.call(request("/large"), "").await;
    assert_eq!(large.body.len(), 8 << 20);
}

#[tokio::test]
async fn above_the_cap_connections_are_shared_until_one_is_stuck() {
    let stub = Stub::start(large_or_echo).await;
    let mut settings = pool_settings(&[&stub.url()]);
    (settings.soft_cap, settings.hard_cap) = (1, 2);
    let proxy = Proxy::with(listener_settings(), settings);
    let slow = Client::connect(proxy.address).await;
    let bystander = Client::connect(proxy.address).await;
    assert_eq!(slow.call(request(PATH), "x").await.body, "x");
    assert_eq!(bystander.call(request(PATH), "x").await.body, "x");
    assert_eq!(stub.connections.load(SeqCst), 1, "shared");

    let _unread = stall(&slow, 100).await;
    let started = tokio::time::Instant::now();
    // A call that is sent before anybody can know may hang; not the next.
    loop {
        let call = bystander.try_call(request(PATH), "x");
        match tokio::time::timeout(Duration::from_millis(500), call).await {
            Ok(answer) if stub.connections.load(SeqCst) == 2 => {
                assert_eq!(answer.unwrap().body, "x");
                break;
            }
            _ => assert!(started.elapsed() < PATIENCE),
        }
    }
    let large = bystander.call(request("/large"), "").await;
    assert_eq!(large.body.len(), 8 << 20);
}

/// Answers all calls but those to `/hang`.
async fn hang_or_echo(request: Request<h2::RecvStream>, respond: SendResponse<Bytes>) {
    if request.uri().path() == "/hang" {
        std::future::pending::<()>().await;
    }
    echo(request, respond).await;
}

/// Opens a hundred calls and resets them in one go.
async fn burst(client: &Client) {
    let mut calls = Vec::new();
    for _ in 0..100 {
        calls.push(client.begin(request("/hang")).await);
    }
    tokio::task::yield_now().await;
    for (response, mut stream) in calls {
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
    }
}

#[tokio::test]
async fn a_burst_of_cancelled_calls_costs_nobody_the_connection() {
    let mut builder = h2_server();
    builder.max_pending_accept_reset_streams(1000);
    let any = "127.0.0.1:0".parse().unwrap();
    let stub = Stub::start_at(any, builder, hang_or_echo).await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    for _ in 0..5 {
        burst(&client).await;
        assert_eq!(client.call(request(PATH), "x").await.body, "x");
    }
    assert_eq!(stub.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn an_upstream_that_closes_on_a_burst_costs_only_its_sender() {
    // With h2's own limit of 20 resets the upstream may say GOAWAY.
    let stub = Stub::start(hang_or_echo).await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let bystander = Client::connect(proxy.address).await;
    for _ in 0..5 {
        burst(&client).await;
        let (own, other) = tokio::join!(
            client.call(request(PATH), "x"),
            bystander.call(request(PATH), "x")
        );
        assert!(
            ["0", "14"].contains(&&*own.status().0),
            "{:?}",
            own.status()
        );
        assert_eq!(other.body, "x");
    }
    assert_eq!(client.call(request(PATH), "x").await.body, "x");
}

#[tokio::test]
async fn many_tiny_messages_pass_both_ways() {
    let stub = Stub::start(|request, mut respond: SendResponse<Bytes>| async move {
        let read = read_all(request.into_body()).await.unwrap().0;
        let mut stream = respond.send_response(grpc_head(), false).unwrap();
        for piece in read.chunks(64) {
            let piece = Bytes::copy_from_slice(piece);
            send_all(&mut stream, piece, false).await.unwrap();
        }
        stream.send_trailers(ok_trailers()).unwrap();
    })
    .await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let calls = (0..4).map(|_| async {
        let (response, mut stream) = client.begin(request("/tiny")).await;
        let send = async {
            for _ in 0..4000 {
                let piece = Bytes::from_static(&[9; 64]);
                send_all(&mut stream, piece, false).await.unwrap();
            }
            stream.send_data(Bytes::new(), true).unwrap();
        };
        let (answer, ()) = tokio::join!(soon(read_answer(response)), soon(send));
        assert_eq!(answer.unwrap().body.len(), 4000 * 64);
    });
    join_all(calls).await;
}

#[tokio::test]
async fn an_upstream_that_takes_100_calls_at_a_time_gets_1000_in_turn() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = (Arc::clone(&now), Arc::clone(&most));
    let mut builder = h2_server();
    builder.max_concurrent_streams(100);
    let any = "127.0.0.1:0".parse().unwrap();
    let stub = Stub::start_at(any, builder, move |request, respond| {
        let (now, most) = seen.clone();
        async move {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            now.fetch_sub(1, SeqCst);
            echo(request, respond).await;
        }
    })
    .await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let calls = (0..1000).map(|_| async {
        let answer = client.call(request(PATH), "x").await;
        assert_eq!(
            (answer.status().0.as_str(), &*answer.body),
            ("0", &b"x"[..])
        );
    });
    soon(join_all(calls)).await;
    assert!(most.load(SeqCst) <= 100, "{most:?}");
    assert_eq!(
        stub.calls.load(SeqCst),
        1000,
        "none was refused and sent again"
    );
}

#[tokio::test]
async fn ten_clients_of_an_upstream_that_takes_100_at_a_time_are_all_served_in_order() {
    let mut builder = h2_server();
    builder.max_concurrent_streams(100);
    let any = "127.0.0.1:0".parse().unwrap();
    let stub = Stub::start_at(any, builder, |request, respond| async move {
        tokio::time::sleep(Duration::from_millis(2)).await;
        echo(request, respond).await;
    })
    .await;
    let proxy = Proxy::start(&[&stub.url()]);
    let clients = (0..10).map(|_| async {
        let client = Client::connect(proxy.address).await;
        let answered = AtomicUsize::new(0);
        // How much later than it was made a call was answered.
        let late = join_all((0..1000_usize).map(|made| {
            let (client, answered) = (&client, &answered);
            async move {
                let body = made.to_string();
                let answer = client.call(request(PATH), body.clone()).await;
                assert_eq!((answer.status().0, answer.body), ("0".into(), body.into()));
                answered.fetch_add(1, SeqCst).saturating_sub(made)
            }
        }));
        late.await.into_iter().max().unwrap()
    });
    let late = soon(join_all(clients)).await;
    assert_eq!(
        stub.calls.load(SeqCst),
        10_000,
        "none was refused and sent again"
    );
    // First come, first served, give or take what runs at a time.
    assert!(late.iter().all(|late| *late <= 300), "{late:?}");
}

/// Announces `announced` streams, and refuses what is above ten at a time.
async fn choosy(announced: Option<u32>) -> Stub {
    let running = Arc::<AtomicUsize>::default();
    let mut builder = h2_server();
    if let Some(announced) = announced {
        builder.max_concurrent_streams(announced);
    }
    let any = "127.0.0.1:0".parse().unwrap();
    Stub::start_at(any, builder, move |request, mut respond| {
        let running = Arc::clone(&running);
        async move {
            if running.fetch_add(1, SeqCst) >= 10 {
                running.fetch_sub(1, SeqCst);
                return respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            echo(request, respond).await;
            running.fetch_sub(1, SeqCst);
        }
    })
    .await
}

#[tokio::test]
async fn an_upstream_that_refuses_below_its_announced_limit_gets_less_at_a_time() {
    for announced in [Some(200), None] {
        let stub = choosy(announced).await;
        let proxy = Proxy::start(&[&stub.url()]);
        let client = Client::connect(proxy.address).await;
        let calls = (0..150).map(|made| {
            let client = client.clone();
            async move {
                let answer = client.call(request(PATH), made.to_string()).await;
                let body = Bytes::from(made.to_string());
                assert_eq!((answer.status().0.as_str(), answer.body), ("0", body));
            }
        });
        soon(join_all(calls)).await;
        let connections = stub.connections.load(SeqCst);
        assert_eq!(connections, 1, "the one that serves others is kept");
        let calls = stub.calls.load(SeqCst);
        // Where there is no limit to lower, there is only waiting.
        assert!(announced.is_none() || calls <= 400, "{calls}");
    }
}

#[tokio::test]
async fn calls_that_wait_for_a_stream_are_bounded_and_never_sent_once_cancelled() {
    let open = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&open);
    let mut builder = h2_server();
    builder.max_concurrent_streams(1);
    let any = "127.0.0.1:0".parse().unwrap();
    let stub = Stub::start_at(any, builder, move |request, respond| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            echo(request, respond).await;
        }
    })
    .await;
    let mut settings = pool_settings(&[&stub.url()]);
    settings.max_waiting = 2;
    let proxy = Proxy::with(listener_settings(), settings);
    let client = Client::connect(proxy.address).await;
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.call(request(PATH), "first").await }
    });
    eventually("the first call", || stub.calls.load(SeqCst) == 1).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let (response, mut stream) = client.begin(request(PATH)).await;
        stream.send_data("waiting".into(), true).unwrap();
        waiting.push((response, stream));
    }
    // The queue is full when a third call is turned away.
    let started = tokio::time::Instant::now();
    loop {
        let call = client.try_call(request(PATH), "x");
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(100), call).await {
            assert_eq!(answer.unwrap().status().0, "8");
            break;
        }
        assert!(started.elapsed() < PATIENCE);
    }
    for (response, mut stream) in waiting {
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    open.add_permits(100);
    assert_eq!(soon(first).await.unwrap().body, "first");
    assert_eq!(client.call(request(PATH), "last").await.body, "last");
    assert_eq!(
        stub.calls.load(SeqCst),
        2,
        "the cancelled ones never arrived"
    );
}

#[tokio::test]
async fn a_cancelled_call_ends_upstream_although_its_body_is_blocked_there() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    // Answers at once and reads nothing of the request.
    let stub = Stub::start(move |request, mut respond: SendResponse<Bytes>| {
        let count = Arc::clone(&count);
        async move {
            let mut stream = respond.send_response(grpc_head(), false).unwrap();
            let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            assert_eq!(reset.unwrap(), h2::Reason::CANCEL);
            count.fetch_add(1, SeqCst);
            drop(request);
        }
    })
    .await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let (response, mut stream) = client.begin(request(PATH)).await;
    let blocked = async {
        while send_all(&mut stream, vec![0; 65536].into(), false)
            .await
            .is_ok()
        {}
    };
    let blocked = tokio::time::timeout(Duration::from_millis(300), blocked).await;
    assert!(blocked.is_err(), "nobody takes that much");
    let answer = soon(response).await.unwrap();
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    eventually("the reset", || ended.load(SeqCst) == 1).await;
}
