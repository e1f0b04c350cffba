//! What one message may take of memory and time: judged before it is decoded,
//! and by limits that are told before anything else.

use std::time::Duration;

use assetgate::proto::rev2::{self, ActionResult, OutputFile};
use prost::Message as _;
use tonic::Status;

use crate::support::client::{upload_name, write_messages};
use crate::support::{
    Client, Code, Dir, Origin, Proxy, Qualified as _, RawCall, RawClient, Upstream, digest_of,
    fetch_blob, fetch_directory, inline, push_blob, push_directory, refused, violations,
};

const URN: [&str; 1] = ["urn:b:a"];
const FETCH_BLOB: &str = "/build.bazel.remote.asset.v1.Fetch/FetchBlob";
const PUSH_BLOB: &str = "/build.bazel.remote.asset.v1.Push/PushBlob";
const UPDATE: &str = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";
const CAS: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage";
/// Just below what a message may have on the wire.
const LARGEST: usize = (16 << 20) - 64;

/// A field with a length, as on the wire.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

/// As many empty elements of one field as fit.
fn empty_elements(number: u32) -> Vec<u8> {
    field(number, b"").repeat(LARGEST / 2)
}

#[tokio::test]
async fn messages_that_decode_to_many_times_their_size_are_refused() {
    let (proxy, client) = Proxy::new().connected().await;
    let mut raw = RawClient::connect(proxy.address()).await;
    let find_missing = format!("{CAS}/FindMissingBlobs");
    let batch_update = format!("{CAS}/BatchUpdateBlobs");
    let batch_read = format!("{CAS}/BatchReadBlobs");
    let before = proxy.peak();
    for (path, message) in [
        (UPDATE, field(3, &empty_elements(2))),
        (FETCH_BLOB, empty_elements(5)),
        (FETCH_BLOB, empty_elements(4)),
        (PUSH_BLOB, empty_elements(6)),
        (&batch_update, empty_elements(2)),
        (&find_missing, empty_elements(2)),
        (&batch_read, empty_elements(2)),
    ] {
        let call = RawCall::new(path).message(&message);
        drop(message);
        let answer = raw.call(call).await;
        let grown = (proxy.peak() - before) >> 20;
        assert!(grown < 96, "{path}: {grown} MiB more");
        assert_eq!(answer.grpc_status(), Some("8"), "{path}: {answer:?}");
        let said = answer.value("grpc-message").unwrap();
        assert!(
            said.contains("once%20decoded") || said.contains("once decoded"),
            "{said}"
        );
    }
    // It serves as before.
    client.upload(b"content").await;
}

#[tokio::test]
async fn answers_of_a_cache_that_decode_to_many_times_their_size_are_refused() {
    let cache = Upstream::start();
    let digest = cache.put(b"content");
    let directory = Dir::new().file("a", b"content");
    cache.put_all(&directory.closure());
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let before = proxy.peak();
    for (method, field) in [("FindMissingBlobs", 2), ("BatchReadBlobs", 1)] {
        cache.answer_raw(method, &empty_elements(field));
        let push = push_directory(&URN, directory.digest());
        let refusal = refused(client.push_directory(push).await, Code::Internal);
        let grown = (proxy.peak() - before) >> 20;
        assert!(grown < 96, "{method}: {grown} MiB more");
        assert!(
            refusal.message().contains("once decoded"),
            "{method}: {refusal:?}"
        );
        cache.heal(method);
    }
    let entry = field(2, b"").repeat(1 << 20);
    cache.answer_raw("GetActionResult", &entry[..(2 << 20) - 64]);
    inline(client.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
    let grown = (proxy.peak() - before) >> 20;
    assert!(grown < 96, "an entry: {grown} MiB more");
    cache.heal("GetActionResult");
    client.push_blob(push_blob(&URN, digest)).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_decodes_to_many_times_its_size_is_no_directory() {
    let (proxy, client) = Proxy::new().connected().await;
    let blob = empty_elements(1);
    let digest = digest_of(&blob);
    let name = upload_name(&digest);
    let written = client.write(write_messages(&name, &blob, 1 << 20)).await;
    written.unwrap();
    let before = proxy.peak();
    let request = rev2::GetTreeRequest {
        root_digest: Some(digest),
        ..Default::default()
    };
    let pages = client.cas().get_tree(request).await;
    let refusal = match pages {
        Err(status) => status,
        Ok(pages) => pages.into_inner().message().await.unwrap_err(),
    };
    let grown = (proxy.peak() - before) >> 20;
    assert!(grown < 96, "{grown} MiB more");
    assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal:?}");
}

#[tokio::test]
async fn an_entry_that_decodes_to_many_times_its_size_is_a_miss() {
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"content");
    let uris: Vec<String> = (0..16).map(|n| format!("urn:b:entry:{n}")).collect();
    client.push_blob(push_blob(&uris, digest)).await.unwrap();
    cache.edit_entries(|entry| {
        let metadata = entry.execution_metadata.as_mut().unwrap();
        let payload = &mut metadata.auxiliary_metadata[0].value;
        // Qualifiers without a name, as many as there is room for.
        payload.extend(field(9, b"").repeat((1 << 19) - 1024));
    });
    let before = proxy.peak();
    inline(client.fetch_blob(fetch_blob(&uris)).await, Code::NotFound);
    let grown = (proxy.peak() - before) >> 20;
    let reason = ["reason=\"payload undecodable\""];
    let metrics = proxy.metrics().await;
    let refused = metrics.sum("assetgate_reference_unusable_total", &reason);
    assert!(
        refused > 15.5,
        "{refused} were refused before; {grown} MiB more"
    );
    assert!(grown < 48, "{grown} MiB more");
}

#[tokio::test]
async fn an_entry_with_more_qualifiers_than_a_request_may_have_is_a_miss() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"content");
    let push = || push_blob(&URN, digest.clone()).qualifiers(&[("a", "1"), ("b", "2")]);
    client.push_blob(push()).await.unwrap();
    let fetch = || fetch_blob(&URN).qualifier("a", "1");
    let answer = client.fetch_blob(fetch()).await.unwrap();
    assert_eq!(answer.qualifiers.len(), 2);
    // The subset's entry may say anything of what is beside it.
    cache.edit_entries(|entry| {
        let metadata = entry.execution_metadata.as_mut().unwrap();
        let payload = &mut metadata.auxiliary_metadata[0].value;
        for n in 0..4096 {
            let name = field(1, format!("c{n}").as_bytes());
            let value = field(2, &[b'x'; 64]);
            payload.extend(field(9, &[name, value].concat()));
        }
    });
    let answer = client.fetch_blob(fetch()).await.unwrap();
    let (code, repeated) = (answer.status.unwrap().code, answer.qualifiers.len());
    assert_eq!((code, repeated), (Code::NotFound as i32, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_that_get_tree_reads_are_of_the_budget() {
    let config = "[limits]\nreceived_memory = \"48MiB\"\n";
    let (proxy, client) = Proxy::new().config(config).connected().await;
    let mut trees = tokio::task::JoinSet::new();
    let mut blobs = Vec::new();
    for n in 0..6 {
        // Half a million nodes without a name; each another Directory.
        let blob = field(1, b"").repeat(500_000 + n);
        let name = upload_name(&digest_of(&blob));
        let written = client.write(write_messages(&name, &blob, 1 << 20)).await;
        written.unwrap();
        blobs.push(digest_of(&blob));
    }
    let before = proxy.peak();
    for digest in blobs {
        let mut client = client.cas();
        trees.spawn(async move {
            let request = rev2::GetTreeRequest {
                root_digest: Some(digest),
                ..Default::default()
            };
            let mut pages = client.get_tree(request).await?.into_inner();
            while pages.message().await?.is_some() {}
            Ok::<_, Status>(())
        });
    }
    let outcomes = tokio::time::timeout(Duration::from_secs(100), trees.join_all());
    let outcomes = outcomes.await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let grown = (proxy.peak() - before) >> 20;
    assert!(grown < 160, "{grown} MiB more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_of_action_results_are_of_the_budget() {
    let (proxy, client) = Proxy::new().connected().await;
    // A Tree of fields that nobody knows: it takes a while to look at.
    let tree = field(100, b"").repeat(4 << 20);
    let digest = digest_of(&tree);
    let name = upload_name(&digest);
    let written = client.write(write_messages(&name, &tree, 1 << 20)).await;
    written.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..4 {
        let action = Some(digest_of(format!("action {n}").as_bytes()));
        let result = ActionResult {
            output_directories: vec![rev2::OutputDirectory {
                tree_digest: Some(digest.clone()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let update = rev2::UpdateActionResultRequest {
            action_digest: action.clone(),
            action_result: Some(result),
            ..Default::default()
        };
        client.update_action_result(update).await.unwrap();
        let own = client.clone();
        let get = rev2::GetActionResultRequest {
            action_digest: action,
            ..Default::default()
        };
        calls.spawn(async move { own.ac().get_action_result(get).await });
    }
    let outcomes = crate::support::bounded("all results", calls.join_all());
    let mut outcomes = std::pin::pin!(outcomes);
    let mut most = 0.0_f64;
    let outcomes = loop {
        let metrics = proxy.metrics().await;
        most = most.max(metrics.sum("assetgate_received_bytes", &[]));
        tokio::select! {
            outcomes = &mut outcomes => break outcomes,
            () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
        }
    };
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(most >= tree.len() as f64, "{most} bytes at most");
}

#[tokio::test]
async fn large_messages_of_ordinary_parts_are_taken() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"content").await;
    let file = |i: usize| OutputFile {
        path: format!("bazel-out/k8-fastbuild/bin/some/package/name/object-{i:06}.o"),
        digest: Some(digest.clone()),
        is_executable: true,
        ..Default::default()
    };
    let result = ActionResult {
        output_files: (0..100_000).map(file).collect(),
        ..Default::default()
    };
    assert!(result.encoded_len() > 12 << 20);
    let action = digest_of(b"action");
    let update = rev2::UpdateActionResultRequest {
        action_digest: Some(action),
        action_result: Some(result),
        ..Default::default()
    };
    let mut actions = client.ac().max_decoding_message_size(32 << 20);
    let stored = actions.update_action_result(update).await.unwrap();
    assert_eq!(stored.into_inner().output_files.len(), 100_000);
    let many = vec![digest; 200_000];
    assert_eq!(client.missing(&many).await.len(), 0);
}

/// What all four methods say of these URIs and qualifiers.
async fn all_four(
    client: &Client,
    uris: &[String],
    qualifiers: &[(String, String)],
) -> [Status; 4] {
    let digest = digest_of(b"never uploaded");
    let invalid = Code::InvalidArgument;
    let blob = fetch_blob(uris).qualifiers(qualifiers);
    let directory = fetch_directory(uris).qualifiers(qualifiers);
    let push = push_blob(uris, digest.clone()).qualifiers(qualifiers);
    let push_dir = push_directory(uris, digest).qualifiers(qualifiers);
    [
        refused(client.fetch_blob(blob).await, invalid),
        refused(client.fetch_directory(directory).await, invalid),
        refused(client.push_blob(push).await, invalid),
        refused(client.push_directory(push_dir).await, invalid),
    ]
}

#[tokio::test]
async fn v06_a_uri_of_more_than_16_kib_is_named_by_its_index() {
    let (_proxy, client) = Proxy::new().connected().await;
    let mut uris: Vec<String> = (0..5).map(|i| format!("urn:b:{i}")).collect();
    uris[3] = format!("https://a.example/{}", "%2F".repeat(350_000));
    for status in all_four(&client, &uris, &[]).await {
        let found = violations(&status);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "uris[3]");
        assert!(found[0].1.contains("16384"), "{found:?}");
        assert!(status.message().len() < 1000, "{}", status.message());
    }
    // As long as one may be.
    let most = format!("urn:b:{}", "x".repeat((16 << 10) - 6));
    let answer = client.fetch_blob(fetch_blob(&[most])).await.unwrap();
    assert_eq!(answer.status.unwrap().code, Code::NotFound as i32);
}

#[tokio::test]
async fn v06_limits_are_told_whatever_else_would_be() {
    // No origins, no pushes, and a digest function nobody has.
    let (_proxy, client) = Proxy::new()
        .config("[push]\nenabled = false\n")
        .connected()
        .await;
    let many: Vec<_> = (0..64).map(|i| (format!("q{i}"), "v".to_owned())).collect();
    let large = vec![("q".to_owned(), "x".repeat(17 << 10))];
    let headers: Vec<_> = (0..1025)
        .map(|i| (format!("http_header:x-{i}"), "v".to_owned()))
        .collect();
    let uris = [URN[0].to_owned()];
    for (uris, qualifiers, said) in [
        (&uris[..], &many, "64 qualifiers; at most 32"),
        (
            &uris[..],
            &large,
            "17409 bytes of qualifiers; at most 16384",
        ),
        (&uris[..], &headers, "1025 header qualifiers; at most 1024"),
        (&[], &many, "64 qualifiers; at most 32"),
    ] {
        for status in all_four(&client, uris, qualifiers).await {
            let found = violations(&status);
            assert_eq!(found[0].0, "qualifiers", "{found:?}");
            assert!(found[0].1.contains(said), "{found:?}");
        }
    }
    let uris: Vec<String> = (0..65).map(|i| format!("urn:b:{i}")).collect();
    for status in all_four(&client, &uris, &[]).await {
        let found = violations(&status);
        assert_eq!(found[0].0, "uris", "{found:?}");
        assert!(found[0].1.contains("65 URIs; at most 64"), "{found:?}");
    }
}

#[tokio::test]
async fn v06_limits_are_told_of_hits_and_misses_alike() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"content").await;
    let dir = Dir::new().file("a", b"content");
    client.upload_all(&dir.closure()).await;
    let there = ["urn:b:there"];
    client.push_blob(push_blob(&there, digest)).await.unwrap();
    let push = push_directory(&there, dir.digest());
    client.push_directory(push).await.unwrap();
    let many: Vec<_> = (0..64).map(|i| (format!("q{i}"), "v".to_owned())).collect();
    let urls = [origin.url("/a"), origin.url("/none")];
    for uri in [there[0], URN[0], &urls[0], &urls[1]] {
        for status in all_four(&client, &[uri.to_owned()], &many).await {
            let found = violations(&status);
            assert_eq!(found[0].0, "qualifiers", "{uri}: {found:?}");
        }
    }
    // Before a function that nobody has, and the lack of URIs.
    for uris in [&there[..], &[]] {
        let mut blob = fetch_blob(uris).qualifiers(&many);
        let mut directory = fetch_directory(uris).qualifiers(&many);
        (blob.digest_function, directory.digest_function) = (99, 99);
        let blob = refused(client.fetch_blob(blob).await, Code::InvalidArgument);
        let directory = client.fetch_directory(directory).await;
        for status in [blob, refused(directory, Code::InvalidArgument)] {
            let found = violations(&status);
            assert_eq!(found[0].0, "qualifiers", "{found:?}");
        }
    }
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn a_failing_call_costs_little_more_for_its_metadata() {
    let (proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"content").await;
    let push = push_blob(&["urn:b:there"], digest);
    client.push_blob(push).await.unwrap();
    let caller = (0..900u32).fold(client.clone(), |client, i| {
        // Three words, none of which stands in any text.
        let word = |n: u32| format!("{:08x}", i.wrapping_mul(0x9e37_79b1).wrapping_add(n));
        let value = format!("{} {} {}", word(1), word(1 << 12), word(1 << 24));
        client.with(&format!("x-{i}"), value)
    });
    let cost = async |uri: &str, code: Code| {
        let before = proxy.ticks();
        for _ in 0..40 {
            let answer = caller.fetch_blob(fetch_blob(&[uri])).await.unwrap();
            assert_eq!(answer.status.unwrap().code, code as i32);
        }
        proxy.ticks() - before
    };
    cost("urn:b:there", Code::Ok).await;
    let hits = cost("urn:b:there", Code::Ok).await;
    let failures = cost("urn:b:none", Code::NotFound).await;
    assert!(
        failures < 3 * hits + 10,
        "{failures} ticks, {hits} for hits"
    );
}
