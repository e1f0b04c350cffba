//! What clients are told when the upstream refuses, goes or comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use tokio::net::TcpListener;

use super::support::*;

const PATH: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";

/// Refuses the first `n` calls of all connections, then echoes.
async fn refusing(n: usize) -> Stub {
    let left = Arc::new(AtomicUsize::new(n));
    Stub::start(move |request, mut respond: SendResponse<Bytes>| {
        let refuse = left
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
            .is_ok();
        async move {
            if refuse {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                echo(request, respond).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_refused_call_is_sent_again_whole_on_another_connection() {
    for body in [0, 5, 60_000] {
        let stub = refusing(1).await;
        let proxy = Proxy::start(&[&stub.url()]);
        let client = Client::connect(proxy.address).await;
        let body = Bytes::from(vec![3; body]);
        let sent = request(PATH).header("trace-bin", "AA");
        let answer = client.call(sent, body.clone()).await;
        assert_eq!(answer.body, body);
        assert_eq!(answer.status().0, "0");
        assert_eq!(stub.calls.load(SeqCst), 2);
        assert_eq!(stub.connections.load(SeqCst), 2);
    }
}

#[tokio::test]
async fn a_refused_call_whose_body_still_comes_is_sent_again_too() {
    let stub = refusing(1).await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let (response, mut stream) = client.begin(request(PATH)).await;
    stream.send_data("one ".into(), false).unwrap();
    eventually("the second attempt", || stub.calls.load(SeqCst) == 2).await;
    stream.send_data("two".into(), true).unwrap();
    assert_eq!(soon(read_answer(response)).await.unwrap().body, "one two");
}

#[tokio::test]
async fn a_call_that_is_always_refused_is_unavailable_after_three_attempts() {
    let stub = refusing(100).await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let (code, message) = client.call(request(PATH), "x").await.status();
    assert_eq!(code, "14");
    assert!(message.contains("refused"), "{message}");
    // Where the cache is, is the operator's to know.
    assert!(!message.contains(&stub.address.to_string()), "{message}");
    assert_eq!(stub.calls.load(SeqCst), 3);
}

#[tokio::test]
async fn a_call_of_which_too_much_was_sent_is_unavailable_instead() {
    // Refuses after it has read 200 kB.
    let stub = Stub::start(|request, mut respond: SendResponse<Bytes>| async move {
        let mut body = request.into_body();
        let mut read = 0;
        while read < 200_000 {
            let piece = body.data().await.unwrap().unwrap();
            read += piece.len();
            body.flow_control().release_capacity(piece.len()).unwrap();
        }
        respond.send_reset(h2::Reason::REFUSED_STREAM);
    })
    .await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let (code, message) = client.call(request(PATH), vec![0; 300_000]).await.status();
    assert_eq!(code, "14", "{message}");
    assert_eq!(stub.calls.load(SeqCst), 1);
}

/// An upstream whose first connection takes one call and then says GOAWAY; the
/// call it takes is answered after `hold`.
async fn draining(hold: Duration) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("grpc://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let first = count.fetch_add(1, SeqCst) == 0;
            tokio::spawn(async move {
                let mut connection = h2_server().handshake(socket).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        if first {
                            tokio::time::sleep(hold).await;
                        }
                        echo(request, respond).await;
                    });
                    if first {
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    (url, connections)
}

#[tokio::test]
async fn goaway_lets_running_calls_finish_and_moves_new_ones() {
    let (url, connections) = draining(Duration::from_millis(300)).await;
    let proxy = Proxy::start(&[&url]);
    let client = Client::connect(proxy.address).await;
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.call(request(PATH), "slow").await }
    });
    eventually("a connection", || connections.load(SeqCst) == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let quick = client.call(request(PATH), "quick").await;
    assert_eq!(quick.body, "quick");
    assert!(!slow.is_finished(), "the one before still runs");
    assert_eq!(connections.load(SeqCst), 2);
    assert_eq!(soon(slow).await.unwrap().body, "slow");
}

/// An upstream whose first connection takes five calls, says GOAWAY with this
/// last stream and code, and goes. Written by hand, since h2 would answer them.
/// The further connections answer, and count.
async fn gone_after_five(last: u8, code: u8) -> (String, Arc<AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("grpc://{}", listener.local_addr().unwrap());
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        // Empty SETTINGS.
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        socket.write_all(&settings).await.unwrap();
        let mut preface = [0; 24];
        socket.read_exact(&mut preface).await.unwrap();
        let mut calls = 0;
        // Only after the last call's DATA.
        while calls < 5 {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            socket.read_exact(&mut payload).await.unwrap();
            calls += usize::from(head[3] == 0);
        }
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, code];
        socket.write_all(&goaway).await.unwrap();
        socket.shutdown().await.unwrap();
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, h2_server(), echo, Arc::clone(&count)));
        }
    });
    (url, answered)
}

#[tokio::test]
async fn calls_above_the_last_of_a_goaway_are_sent_again_and_no_others() {
    const NO_ERROR: u8 = 0;
    const ENHANCE_YOUR_CALM: u8 = 11;
    for (last, code, again) in [
        (0, NO_ERROR, 5),
        (0, ENHANCE_YOUR_CALM, 5),
        // Streams 1, 3 and 5 may have been processed.
        (5, NO_ERROR, 2),
        (5, ENHANCE_YOUR_CALM, 2),
    ] {
        let (url, answered) = gone_after_five(last, code).await;
        let proxy = Proxy::start(&[&url]);
        let client = Client::connect(proxy.address).await;
        let calls = (0..5).map(|i| {
            let client = client.clone();
            async move {
                let body = format!("call {i}");
                let answer = client.call(request(PATH), body.clone()).await;
                match answer.status().0.as_str() {
                    "0" => assert_eq!(answer.body, body),
                    code => assert_eq!(code, "14"),
                }
                answer.status().0
            }
        });
        let codes = futures_util::future::join_all(calls).await;
        let fine = codes.iter().filter(|code| *code == "0").count();
        let case = format!("last {last}, code {code}: {codes:?}");
        assert_eq!((fine, answered.load(SeqCst)), (again, again), "{case}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_down_is_unavailable_at_once_and_used_when_it_is_up() {
    let address = free_port().await;
    let url = format!("grpc://{address}");
    let proxy = Proxy::start(&[&url]);
    let client = Client::connect(proxy.address).await;
    for _ in 0..3 {
        let started = tokio::time::Instant::now();
        let (code, message) = client.call(request(PATH), "x").await.status();
        assert_eq!(code, "14");
        for word in ["cannot reach the cache", "refused"] {
            assert!(message.contains(word), "{message}");
        }
        assert!(!message.contains(&address.to_string()), "{message}");
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    assert!(
        proxy
            .board
            .status()
            .last_error
            .unwrap()
            .contains(&address.to_string())
    );
    let _stub = Stub::start_at(address, h2_server(), echo).await;
    let board = proxy.board.clone();
    eventually("a connection in the background", || {
        board.status().reachable()
    })
    .await;
    assert_eq!(client.call(request(PATH), "x").await.status().0, "0");
    assert_eq!(proxy.board.status().last_error, None);
}

#[tokio::test]
async fn an_upstream_that_accepts_and_says_nothing_is_unavailable_after_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = pool_settings(&[&format!("grpc://{}", silent.local_addr().unwrap())]);
    settings.connect_timeout = Duration::from_millis(100);
    let proxy = Proxy::with(listener_settings(), settings);
    let client = Client::connect(proxy.address).await;
    let (code, message) = client.call(request(PATH), "x").await.status();
    assert_eq!(code, "14");
    assert!(message.contains("no answer within 100ms"), "{message}");
}

#[tokio::test]
async fn an_upstream_that_speaks_something_else_is_unavailable_with_the_reason() {
    use tokio::io::AsyncWriteExt;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("grpc://{}", other.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = other.accept().await {
            socket
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
        }
    });
    let proxy = Proxy::start(&[&url]);
    let client = Client::connect(proxy.address).await;
    let (code, message) = client.call(request(PATH), "x").await.status();
    assert_eq!(code, "14");
    assert!(message.contains("does not speak HTTP/2"), "{message}");
}

/// Answers with half a message and hangs.
async fn half(_: http::Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut stream = respond.send_response(grpc_head(), false).unwrap();
    stream.send_data("half".into(), false).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_connection_lost_in_mid_response_ends_the_call_with_trailers() {
    let stub = Stub::start(half).await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let (response, mut stream) = client.begin(request(PATH)).await;
    stream.send_data("x".into(), true).unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), "half");
    let address = stub.address;
    drop(stub);
    assert!(soon(body.data()).await.is_none(), "no reset");
    let trailers = soon(body.trailers()).await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "14");
    let message = plain(trailers["grpc-message"].to_str().unwrap());
    assert!(message.contains("was lost"), "{message}");
    assert!(!message.contains(&address.to_string()), "{message}");

    // The upstream restarts, and the same client goes on.
    let _stub = Stub::start_at(address, h2_server(), echo).await;
    let mut attempts = 0;
    while client.call(request(PATH), "x").await.status().0 != "0" {
        attempts += 1;
        assert!(attempts < 1000);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_is_unavailable_and_never_sent_twice() {
    let stub = Stub::start(|_, respond: SendResponse<Bytes>| async move {
        let _respond = respond;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let call = tokio::spawn(async move { client.call(request(PATH), "x").await });
    let calls = Arc::clone(&stub.calls);
    eventually("the call", || calls.load(SeqCst) == 1).await;
    drop(stub);
    let (code, message) = soon(call).await.unwrap().status();
    assert_eq!(code, "14");
    assert!(message.contains("lost"), "{message}");
    assert_eq!(calls.load(SeqCst), 1);
}

#[tokio::test]
async fn of_several_upstreams_one_may_die_and_come_back() {
    let (one, two) = (Stub::start(echo).await, Stub::start(echo).await);
    let address = one.address;
    let proxy = Proxy::start(&[&one.url(), &two.url()]);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = Client::connect(proxy.address).await;
        client.call(request(PATH), "x").await;
        clients.push(client);
    }
    assert_eq!(one.connections.load(SeqCst), 2, "spread");
    assert_eq!(two.connections.load(SeqCst), 2, "spread");

    drop(one);
    for client in &clients {
        let mut attempts = 0;
        // At most the call that is on the way when it dies may fail.
        while client.call(request(PATH), "x").await.status().0 != "0" {
            attempts += 1;
            assert!(attempts < 3);
        }
    }
    let again = Stub::start_at(address, h2_server(), echo).await;
    let connections = Arc::clone(&again.connections);
    eventually("it is used again", || connections.load(SeqCst) > 0).await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_unavailable_and_not_told() {
    let proxy = Proxy::start(&["grpc://no-such-host.invalid:1"]);
    let client = Client::connect(proxy.address).await;
    let (code, message) = client.call(request(PATH), "x").await.status();
    assert_eq!(code, "14");
    assert!(message.contains("cannot be resolved"), "{message}");
    assert!(!message.contains("no-such-host"), "{message}");
}

#[tokio::test]
async fn an_upstream_that_closes_every_connection_at_once_is_unavailable() {
    // SETTINGS, and with `delay` after them a GOAWAY that nothing was processed.
    for delay in [0, 5] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("grpc://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
                    drop(socket.write_all(&settings).await);
                    tokio::time::sleep(Duration::from_millis(delay)).await;
                    let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                    drop(socket.write_all(&goaway).await);
                    drop(socket.read_to_end(&mut Vec::new()).await);
                });
            }
        });
        let proxy = Proxy::start(&[&url]);
        let client = Client::connect(proxy.address).await;
        let (code, message) = client.call(request(PATH), "x").await.status();
        assert_eq!(code, "14", "{message}");
    }
}
