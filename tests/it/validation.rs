//! V1 to V15: what is refused before anything is looked up, and in what words.

use std::time::{Duration, SystemTime};

use assetgate::proto::rev2;

use crate::support::answer::{fields, says};
use crate::support::upstream::Key;
use crate::support::{
    Answer as _, Code, Fetching as _, Function, Origin, Proxy, Pushing as _, Qualified as _,
    RawCall, RawClient, Upstream, digest_in, digest_of, fetch_blob, fetch_directory, hit, inline,
    push_blob, push_directory, refused, sri, violations,
};

const NONE: [&str; 0] = [];
const URN: [&str; 1] = ["urn:v:a"];

#[tokio::test]
async fn v01_a_fetch_without_uris_is_invalid() {
    let (_proxy, client) = Proxy::new().connected().await;
    let status = refused(
        client.fetch_blob(fetch_blob(&NONE)).await,
        Code::InvalidArgument,
    );
    assert_eq!(fields(&status), ["uris"]);
    let directory = client.fetch_directory(fetch_directory(&NONE)).await;
    let status = refused(directory, Code::InvalidArgument);
    assert_eq!(fields(&status), ["uris"]);
    let probe = fetch_blob(&NONE).instance("any/name");
    refused(client.fetch_blob(probe).await, Code::InvalidArgument);
}

#[tokio::test]
async fn v01_no_uri_and_one_checksum_is_a_lookup_by_checksum() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let checksum = sri(Function::Sha256, b"content");
    let ask = || fetch_blob(&NONE).qualifier("checksum.sri", &checksum);
    inline(client.fetch_blob(ask()).await, Code::NotFound);
    let fetch = fetch_blob(&[origin.url("/a")]).qualifier("checksum.sri", &checksum);
    let digest = hit(client.fetch_blob(fetch).await);
    assert_eq!(hit(client.fetch_blob(ask()).await), digest);
    assert_eq!(digest, digest_of(b"content"));
}

#[tokio::test]
async fn v02_a_push_without_uris_is_invalid_before_its_digest_is_looked_at() {
    let (_proxy, client) = Proxy::new().connected().await;
    let mut blob = push_blob(&NONE, digest_of(b""));
    blob.blob_digest = None;
    let status = refused(client.push_blob(blob).await, Code::InvalidArgument);
    assert_eq!(fields(&status)[0], "uris");
    let mut directory = push_directory(&NONE, digest_of(b""));
    directory.root_directory_digest = None;
    let status = refused(
        client.push_directory(directory).await,
        Code::InvalidArgument,
    );
    assert_eq!(fields(&status)[0], "uris");
}

#[tokio::test]
async fn v03_scenario_27_a_qualifier_name_stands_once() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"blob").await;
    for second in ["same", "other"] {
        let twice = [("a", "same"), ("b", "x"), ("a", second)];
        let fetch = fetch_blob(&URN).qualifiers(&twice);
        let directory = fetch_directory(&URN).qualifiers(&twice);
        let push = push_blob(&URN, digest.clone()).qualifiers(&twice);
        let push_dir = push_directory(&URN, digest.clone()).qualifiers(&twice);
        let all = [
            client.fetch_blob(fetch).await.map(drop),
            client.fetch_directory(directory).await.map(drop),
            client.push_blob(push).await.map(drop),
            client.push_directory(push_dir).await.map(drop),
        ];
        for answer in all {
            let status = refused(answer, Code::InvalidArgument);
            let found = violations(&status);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, "qualifiers.name");
            says(&found[0].1, &["\"a\""]);
        }
    }
}

#[tokio::test]
async fn v04_a_header_for_one_url_may_have_several_values() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let fetch = fetch_blob(&[origin.url("/a")])
        .qualifier("http_header_url:0:X-Many", "one")
        .qualifier("http_header_url:0:X-Many", "two");
    hit(client.fetch_blob(fetch).await);
    assert_eq!(origin.seen_at("/a")[0].header("x-many"), Some("one, two"));
}

#[tokio::test]
async fn v05_the_order_of_qualifiers_means_nothing() {
    let cache = Upstream::start();
    let digest = cache.put(b"blob");
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let keys = || -> Vec<Key> { cache.entries().into_iter().map(|(key, _)| key).collect() };
    let one = [("b", "2"), ("a", "1")];
    let other = [("a", "1"), ("b", "2")];
    let push = |q| push_blob(&URN, digest.clone()).qualifiers(q);
    client.push_blob(push(&one)).await.unwrap();
    let before = keys();
    assert!(!before.is_empty());
    client.push_blob(push(&other)).await.unwrap();
    assert_eq!(keys(), before);
    let fetch = |q| client.fetch_blob(fetch_blob(&URN).qualifiers(q));
    assert_eq!(fetch(&one).await.unwrap(), fetch(&other).await.unwrap());
}

#[tokio::test]
async fn v06_limits_are_named() {
    let (_proxy, client) = Proxy::new().connected().await;
    let numbered = |prefix: &str, n: usize, value: &str| -> Vec<(String, String)> {
        let all = (0..n).map(|i| (format!("{prefix}{i}"), value.to_owned()));
        all.collect()
    };
    let uris: Vec<String> = (0..65).map(|i| format!("urn:v:{i}")).collect();
    let large = "x".repeat(17 << 10);
    let ask = || fetch_blob(&URN);
    for (request, limit) in [
        (fetch_blob(&["urn:v:a", ""]), "empty"),
        (fetch_blob(&uris), "64"),
        (ask().qualifier("", "x"), "name"),
        (ask().qualifiers(&numbered("q", 33, "v")), "32"),
        (ask().qualifier("q", &large), "16"),
        (
            ask().qualifiers(&numbered("http_header:x-", 1025, "v")),
            "1,024",
        ),
        (
            ask().qualifiers(&numbered("http_header:x-", 5, &large)),
            "64",
        ),
    ] {
        let status = refused(client.fetch_blob(request).await, Code::InvalidArgument);
        let (field, description) = violations(&status).remove(0);
        assert!(
            field.starts_with("uris") || field.starts_with("qualifiers"),
            "{field}"
        );
        let description = description
            .replace("1024", "1,024")
            .replace("65536", "64 KiB");
        says(&description, &[limit]);
    }
    let most = fetch_blob(&uris[..64]).qualifiers(&numbered("q", 32, "v"));
    inline(client.fetch_blob(most).await, Code::NotFound);
}

#[tokio::test]
async fn v07_times_outside_their_range_are_invalid() {
    let (_proxy, client) = Proxy::new().connected().await;
    let duration = |seconds, nanos| prost_types::Duration { seconds, nanos };
    let time = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
    for timeout in [
        duration(-1, 0),
        duration(0, -1),
        duration(i64::MAX, 0),
        duration(1, i32::MAX),
    ] {
        let fetch = fetch_blob(&URN).within(timeout);
        let status = refused(client.fetch_blob(fetch).await, Code::InvalidArgument);
        assert_eq!(fields(&status), ["timeout"]);
    }
    for bad in [
        time(i64::MAX, 0),
        time(i64::MIN, 0),
        time(0, -1),
        time(0, 1_000_000_000),
    ] {
        let fetch = fetch_directory(&URN).not_older(bad);
        let status = refused(client.fetch_directory(fetch).await, Code::InvalidArgument);
        assert_eq!(fields(&status), ["oldest_content_accepted"]);
        let push = push_blob(&URN, digest_of(b"")).expiring(bad);
        let status = refused(client.push_blob(push).await, Code::InvalidArgument);
        assert_eq!(fields(&status), ["expire_at"]);
    }
}

#[tokio::test]
async fn v08_the_default_digest_function_is_sha256_and_the_answer_says_so() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let answer = client
        .fetch_blob(fetch_blob(&[origin.url("/a")]))
        .await
        .unwrap();
    assert_eq!(answer.digest(), Some(&digest_of(b"content")));
    assert_eq!(answer.digest_function(), Function::Sha256);
}

#[tokio::test]
async fn v09_scenario_2_any_announced_function_works_whatever_the_checksum_uses() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let functions = [
        Function::Sha256,
        Function::Sha1,
        Function::Md5,
        Function::Sha384,
        Function::Sha512,
        Function::Blake3,
    ];
    for function in functions {
        for checksum in [Function::Sha512, Function::Sha256, Function::Blake3] {
            let fetch = fetch_blob(&[origin.url("/a")])
                .function(function)
                .qualifier("checksum.sri", &sri(checksum, b"content"));
            let answer = client.fetch_blob(fetch).await.unwrap();
            assert_eq!(answer.digest(), Some(&digest_in(function, b"content")));
            assert_eq!(answer.digest_function(), function);
        }
    }
    let hash = digest_in(Function::Blake3, b"content").hash;
    let read = client.read(&format!("blobs/blake3/{hash}/7")).await;
    assert_eq!(read.unwrap(), b"content");
}

#[tokio::test]
async fn v10_a_function_the_cache_does_not_announce_is_invalid() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let fetch = fetch_blob(&[origin.url("/a")]).function(Function::Blake3);
    let status = refused(client.fetch_blob(fetch).await, Code::InvalidArgument);
    assert_eq!(fields(&status), ["digest_function"]);
    says(status.message(), &["BLAKE3"]);
    assert_eq!(origin.total(), 0);
    let mut unknown = fetch_blob(&[origin.url("/a")]);
    unknown.digest_function = 99;
    refused(client.fetch_blob(unknown).await, Code::InvalidArgument);
}

#[tokio::test]
async fn v11_a_pushed_digest_without_function_is_judged_by_its_length() {
    let cache = Upstream::start();
    cache.announce(&[Function::Sha256, Function::Md5]);
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let long = digest_in(Function::Sha256, b"long");
    let short = digest_in(Function::Md5, b"short");
    cache.put_as(&long, b"long");
    cache.put_as(&short, b"short");
    client
        .push_blob(push_blob(&["urn:v:long"], long.clone()))
        .await
        .unwrap();
    client
        .push_blob(push_blob(&["urn:v:short"], short.clone()))
        .await
        .unwrap();
    let sha = fetch_blob(&["urn:v:long"]).function(Function::Sha256);
    assert_eq!(hit(client.fetch_blob(sha).await), long);
    let md5 = fetch_blob(&["urn:v:short"]).function(Function::Md5);
    assert_eq!(hit(client.fetch_blob(md5).await), short);
    let other = fetch_blob(&["urn:v:short"]);
    inline(client.fetch_blob(other).await, Code::NotFound);
}

#[tokio::test]
async fn v12_a_function_that_may_not_be_omitted_is_not_guessed() {
    let cache = Upstream::start();
    cache.announce(&[Function::Sha256, Function::Blake3]);
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = digest_in(Function::Blake3, b"content");
    cache.put_as(&digest, b"content");
    client
        .push_blob(push_blob(&URN, digest.clone()))
        .await
        .unwrap();
    let blake3 = fetch_blob(&URN).function(Function::Blake3);
    inline(client.fetch_blob(blake3.clone()).await, Code::NotFound);
    let named = push_blob(&URN, digest.clone()).function(Function::Blake3);
    client.push_blob(named).await.unwrap();
    assert_eq!(hit(client.fetch_blob(blake3).await), digest);
}

#[tokio::test]
async fn v13_a_malformed_digest_is_invalid() {
    let (_proxy, client) = Proxy::new().connected().await;
    let good = digest_of(b"blob");
    let with = |hash: &str, size_bytes| rev2::Digest {
        hash: hash.into(),
        size_bytes,
    };
    let upper = good.hash.to_uppercase();
    for bad in [
        with(&good.hash, -1),
        with(&upper, 4),
        with(&good.hash[1..], 4),
        with("", 4),
        with(&"g".repeat(64), 4),
    ] {
        let blob = client.push_blob(push_blob(&URN, bad.clone())).await;
        let status = refused(blob, Code::InvalidArgument);
        assert!(fields(&status)[0].starts_with("blob_digest"), "{status:?}");
        let directory = client
            .push_directory(push_directory(&URN, bad.clone()))
            .await;
        let status = refused(directory, Code::InvalidArgument);
        assert!(
            fields(&status)[0].starts_with("root_directory_digest"),
            "{status:?}"
        );
        let hint = push_blob(&URN, good.clone()).references(vec![bad], Vec::new());
        let status = refused(client.push_blob(hint).await, Code::InvalidArgument);
        assert!(
            fields(&status)[0].starts_with("references_blobs"),
            "{status:?}"
        );
    }
    let mut none = push_blob(&URN, good);
    none.blob_digest = None;
    refused(client.push_blob(none).await, Code::InvalidArgument);
}

#[tokio::test]
async fn v14_an_instance_the_cache_does_not_know_gets_the_caches_own_code() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    cache.only_instances(&["", "a/b/c"], Code::InvalidArgument);
    let digest = cache.put(b"blob");
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let fetch = fetch_blob(&[origin.url("/a")]).instance("nope");
    let status = refused(client.fetch_blob(fetch).await, Code::InvalidArgument);
    says(status.message(), &["nope"]);
    let push = push_blob(&URN, digest).instance("nope");
    refused(client.push_blob(push).await, Code::InvalidArgument);
    assert_eq!(origin.total(), 0);
    let fetch = fetch_blob(&[origin.url("/a")]).instance("a/b/c");
    hit(client.fetch_blob(fetch).await);
}

#[tokio::test]
async fn v14_instances_with_slashes_are_separate() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"").await;
    let push = push_blob(&URN, digest.clone()).instance("a/b/c");
    client.push_blob(push).await.unwrap();
    let there = fetch_blob(&URN).instance("a/b/c");
    assert_eq!(hit(client.fetch_blob(there).await), digest);
    inline(client.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
    for bad in ["a//b", "/a", "a/", "a/blobs/c", "uploads"] {
        let fetch = fetch_blob(&URN).instance(bad);
        let status = refused(client.fetch_blob(fetch).await, Code::InvalidArgument);
        assert_eq!(fields(&status), ["instance_name"]);
    }
}

#[tokio::test]
async fn v15_what_is_no_url_is_a_mirror_that_cannot_be_fetched() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let broken: [&[u8]; 4] = [
        b"http://[oops/a",
        b"http:///path",
        b"relative/path",
        b"http://\xff/a",
    ];
    for bad in broken {
        let good = origin.url("/a");
        let answer = client
            .fetch_blob(fetch_blob(&[bad, good.as_bytes()]))
            .await
            .unwrap();
        assert_eq!(answer.digest(), Some(&digest_of(b"content")));
        assert_eq!(answer.uri(), good);
        let alone = client.fetch_blob(fetch_blob(&[bad])).await;
        assert_eq!(alone.as_ref().unwrap().uri, bad);
        inline(alone, Code::NotFound);
    }
}

#[tokio::test]
async fn v15_a_message_that_cannot_be_decoded_is_the_callers_fault() {
    let (proxy, _client) = Proxy::new().connected().await;
    let mut raw = RawClient::connect(proxy.address()).await;
    for method in [
        "Fetch/FetchBlob",
        "Fetch/FetchDirectory",
        "Push/PushBlob",
        "Push/PushDirectory",
    ] {
        let call = RawCall::new(&format!("/build.bazel.remote.asset.v1.{method}"));
        let answer = raw.call(call.message(b"\x0a\xff\xff\xff")).await;
        assert_eq!(answer.grpc_status(), Some("3"), "{answer:?}");
        says(answer.value("grpc-message").unwrap(), &["decoded"]);
    }
}

#[tokio::test]
async fn v07_times_inside_their_range_are_accepted() {
    let (_proxy, client) = Proxy::new().connected().await;
    let fetch = fetch_blob(&URN)
        .timeout(Duration::from_secs(3600))
        .oldest(SystemTime::UNIX_EPOCH);
    inline(client.fetch_blob(fetch).await, Code::NotFound);
}
