//! Calls come back as the upstream answered them.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Notify;

use super::support::*;

const UNARY: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";

#[tokio::test]
async fn unary_and_unknown_services_pass() {
    let stub = Stub::start(echo).await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    for path in [UNARY, "/made.up.Service/Anything", "/x"] {
        let answer = client.call(request(path), "hello").await;
        assert_eq!(answer.body, "hello");
        assert_eq!(answer.status().0, "0");
    }
    assert_eq!(stub.calls.load(SeqCst), 3);
    assert_eq!(stub.connections.load(SeqCst), 1, "affinity");
}

#[tokio::test]
async fn a_request_arrives_with_nothing_added_renamed_or_dropped() {
    let seen = Arc::new(Mutex::new(None));
    let note = Arc::clone(&seen);
    let stub = Stub::start(
        move |request, mut respond: h2::server::SendResponse<Bytes>| {
            *note.lock().unwrap() = Some((request.uri().clone(), request.headers().clone()));
            async move {
                let mut stream = respond.send_response(grpc_head(), false).unwrap();
                stream.send_trailers(ok_trailers()).unwrap();
            }
        },
    )
    .await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let sent = request("/a.B/C")
        .header("user-agent", "bazel/8.4")
        .header("grpc-timeout", "5S")
        .header("authorization", "Bearer secret")
        .header("trace-bin", "AAEC/w==")
        .header("twice", "1")
        .header("twice", "2")
        .header("build.bazel.remote.execution.v2.resource-name", "x/y")
        .header("grpc-accept-encoding", "gzip");
    client.call(sent, "body").await;
    let (uri, headers) = seen.lock().unwrap().take().unwrap();
    assert_eq!(uri.path(), "/a.B/C");
    assert_eq!(uri.scheme_str(), Some("http"));
    assert_eq!(uri.authority().unwrap().as_str(), stub.address.to_string());
    let mut expected = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "bazel/8.4"),
        ("grpc-timeout", "5S"),
        ("authorization", "Bearer secret"),
        ("trace-bin", "AAEC/w=="),
        ("twice", "1"),
        ("twice", "2"),
        ("build.bazel.remote.execution.v2.resource-name", "x/y"),
        ("grpc-accept-encoding", "gzip"),
    ] {
        expected.append(name, value.parse().unwrap());
    }
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn an_answer_arrives_with_nothing_added_renamed_or_dropped() {
    let stub = Stub::start(
        |_, mut respond: h2::server::SendResponse<Bytes>| async move {
            let mut head = grpc_head();
            head.headers_mut().append("twice", "1".parse().unwrap());
            head.headers_mut().append("twice", "2".parse().unwrap());
            head.headers_mut()
                .append("trace-bin", "/w".parse().unwrap());
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data("data".into(), false).unwrap();
            let mut trailers = HeaderMap::new();
            for (name, value) in [
                ("grpc-status", "9"),
                ("grpc-message", "not%20there %F0"),
                ("grpc-status-details-bin", "CAkSA2Zvbw"),
                ("more", "a"),
                ("more", "b"),
            ] {
                trailers.append(name, value.parse().unwrap());
            }
            stream.send_trailers(trailers).unwrap();
        },
    )
    .await;
    let proxy = Proxy::start(&[&stub.url()]);
    let answer = Client::connect(proxy.address)
        .await
        .call(request(UNARY), "x")
        .await;
    let mut head = grpc_head().into_parts().0.headers;
    head.append("twice", "1".parse().unwrap());
    head.append("twice", "2".parse().unwrap());
    head.append("trace-bin", "/w".parse().unwrap());
    assert_eq!(answer.head.headers, head, "no date, no content-length");
    let trailers = answer.trailers.unwrap();
    assert_eq!(trailers["grpc-status-details-bin"], "CAkSA2Zvbw");
    assert_eq!(trailers["grpc-message"], "not%20there %F0");
    assert_eq!(trailers.get_all("more").iter().count(), 2);
    assert_eq!(trailers.len(), 5);
}

#[tokio::test]
async fn trailers_only_stays_trailers_only() {
    let stub = Stub::start(
        |_, mut respond: h2::server::SendResponse<Bytes>| async move {
            let mut head = grpc_head();
            head.headers_mut()
                .insert("grpc-status", "5".parse().unwrap());
            respond.send_response(head, true).unwrap();
        },
    )
    .await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let (response, _stream) = client.begin(request(UNARY)).await;
    let response = soon(response).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "5");
    assert!(response.body().is_end_stream(), "one frame, as it was");
}

#[tokio::test]
async fn both_directions_stream_at_the_same_time() {
    // Answers each piece before the next is sent: nothing may be held back.
    let stub = Stub::start(
        |request, mut respond: h2::server::SendResponse<Bytes>| async move {
            let mut body = request.into_body();
            let mut stream = respond.send_response(grpc_head(), false).unwrap();
            while let Some(Ok(piece)) = body.data().await {
                body.flow_control().release_capacity(piece.len()).unwrap();
                stream.send_data(piece, false).unwrap();
            }
            stream.send_trailers(ok_trailers()).unwrap();
        },
    )
    .await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let (response, mut stream) = client.begin(request("/a.B/Bidi")).await;
    let mut body = soon(response).await.unwrap().into_body();
    for index in 0..100u32 {
        let piece = Bytes::from(index.to_be_bytes().to_vec());
        stream.send_data(piece.clone(), false).unwrap();
        assert_eq!(soon(body.data()).await.unwrap().unwrap(), piece);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert!(soon(body.data()).await.is_none());
    assert_eq!(
        soon(body.trailers()).await.unwrap().unwrap()["grpc-status"],
        "0"
    );
}

#[tokio::test]
async fn a_message_of_64_mib_passes_both_ways() {
    let stub = Stub::start(echo).await;
    let proxy = Proxy::start(&[&stub.url()]);
    let client = Client::connect(proxy.address).await;
    let body: Bytes = (0..64u32 << 18)
        .flat_map(u32::to_be_bytes)
        .collect::<Vec<_>>()
        .into();
    let answer = client.call(request("/a.B/Large"), body.clone()).await;
    assert!(answer.body == body, "{} bytes", answer.body.len());
    assert_eq!(answer.status().0, "0");
}

#[tokio::test]
async fn a_write_that_is_answered_early_is_ok_while_12_mb_are_still_being_sent() {
    // As caches do that have the blob: read a little, answer, read no more.
    let stub = Stub::start(
        |request, mut respond: h2::server::SendResponse<Bytes>| async move {
            let mut body = request.into_body();
            body.data().await.unwrap().unwrap();
            let mut stream = respond.send_response(grpc_head(), false).unwrap();
            stream.send_data("committed".into(), false).unwrap();
            stream.send_trailers(ok_trailers()).unwrap();
        },
    )
    .await;
    let proxy = Proxy::start(&[&stub.url()]);
    for _ in 0..6 {
        let client = Client::connect(proxy.address).await;
        let write = request("/google.bytestream.ByteStream/Write");
        let answer = client.call(write, vec![7; 12_000_000]).await;
        assert_eq!(answer.body, "committed");
        assert_eq!(answer.status().0, "0");
        // And the connection is as good as new.
        let again = client
            .call(request("/google.bytestream.ByteStream/Write"), "x")
            .await;
        assert_eq!(again.status().0, "0");
    }
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_upstream_in_every_state() {
    for send_body in [false, true] {
        for answer_head in [false, true] {
            let (started, cancelled) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let signals = (Arc::clone(&started), Arc::clone(&cancelled));
            let stub = Stub::start(
                move |_request, mut respond: h2::server::SendResponse<Bytes>| {
                    let (started, cancelled) = signals.clone();
                    async move {
                        let reason = if answer_head {
                            let mut stream = respond.send_response(grpc_head(), false).unwrap();
                            stream.send_data("first".into(), false).unwrap();
                            started.notify_one();
                            futures_util::future::poll_fn(|cx| stream.poll_reset(cx)).await
                        } else {
                            started.notify_one();
                            futures_util::future::poll_fn(|cx| respond.poll_reset(cx)).await
                        };
                        assert_eq!(reason.unwrap(), h2::Reason::CANCEL);
                        cancelled.notify_one();
                    }
                },
            )
            .await;
            let proxy = Proxy::start(&[&stub.url()]);
            let client = Client::connect(proxy.address).await;
            let (response, mut stream) = client.begin(request("/a.B/C")).await;
            if send_body {
                stream.send_data("some".into(), false).unwrap();
            } else {
                stream.send_data("all".into(), true).unwrap();
            }
            soon(started.notified()).await;
            let head = if answer_head {
                Some(soon(response).await.unwrap())
            } else {
                None
            };
            stream.send_reset(h2::Reason::CANCEL);
            drop((head, stream));
            soon(cancelled.notified()).await;
        }
    }
}

#[tokio::test]
async fn an_upstream_reset_arrives_with_its_reason() {
    for answer_head in [false, true] {
        let stub = Stub::start(
            move |_, mut respond: h2::server::SendResponse<Bytes>| async move {
                if answer_head {
                    let mut stream = respond.send_response(grpc_head(), false).unwrap();
                    stream.send_data("first".into(), false).unwrap();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    stream.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
                } else {
                    respond.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
                }
            },
        )
        .await;
        let proxy = Proxy::start(&[&stub.url()]);
        let client = Client::connect(proxy.address).await;
        let error = soon(client.try_call(request(UNARY), "x"))
            .await
            .unwrap_err();
        assert!(error.is_reset() && error.is_remote(), "{error}");
        assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
        assert_eq!(stub.calls.load(SeqCst), 1, "never sent twice");
    }
}
