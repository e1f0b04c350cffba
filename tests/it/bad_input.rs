//! Bad input: what is not gRPC, not HTTP/2 or not what it should be is refused
//! cleanly, and a bad entry in the cache is a miss.

use std::time::SystemTime;

use assetgate::proto::rev2::ActionResult;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::answer::says;
use crate::support::entries::{edit_payload, payload};
use crate::support::{
    Code, Fetching as _, Function, Origin, Proxy, Qualified as _, RawCall, RawClient, RawUpstream,
    Running, Upstream, bounded, digest_of, eventually, fetch_blob, hit, inline, push_blob, sri,
};

const URN: [&str; 1] = ["urn:b:a"];

/// What comes back for these bytes, up to the close.
async fn speak(proxy: &Running, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(bytes).await.ok();
    let mut answer = Vec::new();
    bounded("the close", stream.read_to_end(&mut answer))
        .await
        .ok();
    answer
}

async fn assert_serves(proxy: &Running) {
    let client = proxy.client().await;
    inline(client.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
}

#[tokio::test]
async fn bad_http1_gets_one_505_and_a_close() {
    let cache = RawUpstream::start().await;
    let proxy = Proxy::new().upstream_at(&cache.url()).start().await;
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /metrics HTTP/1.0\r\n\r\n",
        "POST /build.bazel.remote.asset.v1.Fetch/FetchBlob HTTP/1.1\r\nHost: x\r\n\
         Content-Type: application/grpc\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    ] {
        let answer = speak(&proxy, request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.starts_with("HTTP/1.1 505 "),
            "{request:?}: {answer:?}"
        );
        assert_eq!(answer.matches("HTTP/1.1 505").count(), 1);
    }
    assert_eq!(cache.exchanges("FetchBlob").len(), 0);
}

#[tokio::test]
async fn bad_garbage_ends_its_own_connection_only() {
    let proxy = Proxy::new().start().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let noise = crate::support::content::noise(100_000, 99);
    for garbage in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        &noise,
        &[&preface[..], &noise].concat(),
        &[&preface[..], b"\xff\xff\xff\x00\x00\x00\x00\x00\x00"].concat(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
        b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.write_all(garbage).await.ok();
        stream.shutdown().await.ok();
        let mut answer = Vec::new();
        bounded("the close", stream.read_to_end(&mut answer))
            .await
            .ok();
        assert_serves(&proxy).await;
    }
}

#[tokio::test]
async fn bad_half_open_connections_leave_nothing_behind() {
    let proxy = Proxy::new().start().await;
    assert_serves(&proxy).await;
    let before = proxy.descriptors();
    let mut held = Vec::new();
    for i in 0..200 {
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        stream
            .write_all(&preface[..i % preface.len()])
            .await
            .unwrap();
        held.push(stream);
    }
    assert_serves(&proxy).await;
    drop(held);
    eventually("the connections' end", async || {
        (proxy.descriptors() <= before + 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn bad_messages_are_invalid_for_every_service_of_ours() {
    let proxy = Proxy::new().start().await;
    let mut raw = RawClient::connect(proxy.address()).await;
    for path in [
        "/build.bazel.remote.asset.v1.Fetch/FetchBlob",
        "/build.bazel.remote.asset.v1.Push/PushDirectory",
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs",
        "/build.bazel.remote.execution.v2.ActionCache/GetActionResult",
        "/google.bytestream.ByteStream/Write",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
    ] {
        let answer = raw
            .call(RawCall::new(path).message(b"\x0a\xff\xff\xff\xff"))
            .await;
        assert_eq!(answer.grpc_status(), Some("3"), "{path}: {answer:?}");
        says(answer.value("grpc-message").unwrap(), &["decoded"]);
    }
    assert_serves(&proxy).await;
}

#[tokio::test]
async fn bad_framing_gets_a_status_and_no_panic() {
    let proxy = Proxy::new().start().await;
    let mut raw = RawClient::connect(proxy.address()).await;
    let path = "/build.bazel.remote.asset.v1.Fetch/FetchBlob";
    for body in [
        &b""[..],
        b"\x00",
        b"\x00\x00\x00\x00\x09abc",
        b"\x07\x00\x00\x00\x03abc",
        b"\x01\x00\x00\x00\x03abc",
        b"\x00\xff\xff\xff\xff",
        b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    ] {
        let answer = raw.call(RawCall::new(path).data(body.to_vec())).await;
        let status = answer
            .grpc_status()
            .unwrap_or_else(|| panic!("{body:?}: {answer:?}"));
        assert_ne!(status, "0", "{body:?}");
    }
    assert_serves(&proxy).await;
    assert!((proxy.metrics().await.sum("assetgate_panics_total", &[])).abs() < 0.5);
}

#[tokio::test]
async fn bad_streams_without_end_are_bounded() {
    let proxy = Proxy::new().start().await;
    let mut raw = RawClient::connect(proxy.address()).await;
    for _ in 0..5000 {
        let call = RawCall::new("/build.bazel.remote.asset.v1.Fetch/FetchBlob");
        // A flood of resets may cost the client its connection.
        let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| raw.open(call, false)));
        if sent.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_serves(&proxy).await;
    assert!(proxy.resident() < 150 << 20);
}

type Spoiler = (&'static str, fn(&mut ActionResult));

/// Ways to spoil an entry.
fn spoilers() -> Vec<Spoiler> {
    vec![
        ("foreign", |entry| entry.execution_metadata = None),
        ("empty", |entry| *entry = ActionResult::default()),
        ("truncated", |entry| {
            edit_payload(entry, |bytes| bytes.truncate(bytes.len() / 2));
        }),
        ("garbage", |entry| {
            edit_payload(entry, |bytes| *bytes = vec![0xff; 40])
        }),
        ("version", |entry| edit(entry, |p| p.version = 99)),
        ("namespace", |entry| {
            edit(entry, |p| p.namespace = "other".into())
        }),
        ("kind", |entry| edit(entry, |p| p.kind = 2)),
        ("key", |entry| {
            edit(entry, |p| p.key_material_hash = vec![1; 32].into())
        }),
        ("digest", |entry| {
            edit(entry, |p| p.digest.as_mut().unwrap().size_bytes += 1);
        }),
        ("hash", |entry| {
            edit(entry, |p| {
                p.digest.as_mut().unwrap().hash = "nonsense".into()
            });
        }),
        ("no digest", |entry| edit(entry, |p| p.digest = None)),
        ("outputs", |entry| entry.output_files.clear()),
        ("time", |entry| {
            edit(entry, |p| p.content_time = None);
        }),
    ]
}

fn edit(entry: &mut ActionResult, change: fn(&mut assetgate::proto::assetgate::v1::AssetEntry)) {
    let mut decoded = payload(entry).unwrap();
    change(&mut decoded);
    edit_payload(entry, |bytes| {
        *bytes = prost::Message::encode_to_vec(&decoded)
    });
}

#[tokio::test]
async fn bad_entries_under_our_key_are_misses_and_counted() {
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"blob");
    let rejected = "assetgate_reference_unusable_total";
    for (name, spoil) in spoilers() {
        client
            .push_blob(push_blob(&URN, digest.clone()))
            .await
            .unwrap();
        assert_eq!(hit(client.fetch_blob(fetch_blob(&URN)).await), digest);
        let before = proxy.metrics().await.sum(rejected, &[]);
        cache.edit_entries(spoil);
        let answer = client.fetch_blob(fetch_blob(&URN)).await;
        let code = answer.as_ref().map(|a| a.status.as_ref().unwrap().code);
        assert_eq!(code.unwrap(), Code::NotFound as i32, "{name}");
        let after = proxy.metrics().await.sum(rejected, &[]);
        assert!(after > before, "{name} was not counted");
    }
}

#[tokio::test]
async fn bad_an_entry_copied_under_another_key_is_a_miss() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"blob");
    client
        .push_blob(push_blob(&["urn:b:one"], digest.clone()))
        .await
        .unwrap();
    let (_, one) = cache.entries().remove(0);
    client
        .push_blob(push_blob(&["urn:b:two"], digest))
        .await
        .unwrap();
    for (key, _) in cache.entries() {
        cache.set_entry(&key, one.clone());
    }
    inline(
        client.fetch_blob(fetch_blob(&["urn:b:two"])).await,
        Code::NotFound,
    );
    hit(client.fetch_blob(fetch_blob(&["urn:b:one"])).await);
}

#[tokio::test]
async fn bad_an_undecodable_entry_is_a_miss() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    cache.answer_raw("GetActionResult", b"\x0a\xff\xff\xff\xff");
    let fetch = fetch_blob(&[origin.url("/a")]);
    assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"content"));
    inline(client.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
}

#[tokio::test]
async fn bad_entries_of_fetched_content_mean_another_fetch() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let pinned = fetch_blob(&[origin.url("/a")])
        .qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    for requests in 1..4 {
        // Newer than what landed a moment ago.
        let asked = pinned.clone().oldest(SystemTime::now());
        let digest = hit(client.fetch_blob(asked).await);
        assert_eq!(digest, digest_of(b"content"));
        assert_eq!(origin.total(), requests);
        cache.edit_entries(|entry| edit_payload(entry, |bytes| bytes.truncate(5)));
    }
}

#[tokio::test]
async fn bad_a_message_that_is_far_too_large_is_refused_in_words() {
    let (_proxy, client) = Proxy::new().connected().await;
    let huge = "x".repeat(20 << 20);
    let fetch = fetch_blob(&URN).qualifier("q", &huge);
    let status = client.fetch_blob(fetch).await.unwrap_err();
    let code = status.code();
    assert!(
        matches!(
            code,
            Code::InvalidArgument | Code::ResourceExhausted | Code::OutOfRange
        ),
        "{status:?}"
    );
    inline(client.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
}

#[tokio::test]
async fn bad_a_cache_that_answers_nonsense_is_an_error_and_no_hang() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = RawUpstream::start().await;
    let (proxy, client) = Proxy::new().upstream_at(&cache.url()).connected().await;
    for uri in [origin.url("/a"), "urn:b:a".to_owned()] {
        // It echoes, so every answer of its is the request.
        let answer = client.fetch_blob(fetch_blob(&[uri])).await;
        let digest = answer.ok().and_then(|answer| answer.blob_digest);
        assert!(digest.is_none_or(|d| d == digest_of(b"content")));
    }
    assert!(!proxy.has_ended());
}

#[tokio::test]
async fn bad_many_fetches_at_once_all_end() {
    let mut origin = Origin::new();
    for i in 0..100 {
        let content = crate::support::content::noise(1_200_000, i);
        origin = origin.file(&format!("/{i}"), content);
    }
    let origin = origin.start().await;
    let (proxy, client) = Proxy::new().connected().await;
    let calls = (0..100).map(|i| {
        let (client, uri) = (client.clone(), origin.url(&format!("/{i}")));
        tokio::spawn(async move { client.fetch_blob(fetch_blob(&[uri])).await })
    });
    let calls: Vec<_> = calls.collect();
    for call in calls {
        hit(call.await.unwrap());
    }
    assert!(
        proxy.resident() < 200 << 20,
        "{} bytes resident",
        proxy.resident()
    );
}
