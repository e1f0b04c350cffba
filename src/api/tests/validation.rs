//! Part A, section 1.

use super::*;
use crate::asset::KeySpace;

#[tokio::test]
async fn v1_fetch_without_uris() {
    let server = Server::new();
    assert_eq!(fields(server.fetch(blob(&[], &[])).await), ["uris"]);
    let answer = server.fetch_directory(directory(&[], &[])).await;
    assert_eq!(fields(answer), ["uris"]);
    // A checksum alone names a blob, not a directory.
    let good = sri(DigestFunction::Sha256, b"x");
    let with = [("checksum.sri", good.as_str())];
    let answer = server.fetch_directory(directory(&[], &with)).await;
    assert_eq!(fields(answer), ["uris"]);
    let with = [("checksum.sri", good.as_str()), ("foo", "1")];
    assert_eq!(fields(server.fetch(blob(&[], &with)).await), ["uris"]);
}

#[tokio::test]
async fn v1_the_probe_is_answered_while_the_cache_is_down() {
    let server = Server::new();
    *server.world.announce.0.lock() = Err(crate::resolver::testing::refused(Code::Unavailable));
    assert_eq!(fields(server.fetch(blob(&[], &[])).await), ["uris"]);
}

#[tokio::test]
async fn v2_push_without_uris_comes_before_the_missing_digest() {
    let server = Server::new();
    assert_eq!(
        fields(server.push(PushBlobRequest::default()).await),
        ["uris"]
    );
    let answer = server.push_directory(PushDirectoryRequest::default()).await;
    assert_eq!(fields(answer), ["uris"]);
}

#[tokio::test]
async fn v3_duplicate_qualifiers() {
    let server = Server::new();
    for value in ["1", "2"] {
        let with = [("a", "1"), ("a", value)];
        assert_eq!(
            fields(server.fetch(blob(&[URN], &with)).await),
            ["qualifiers.name"]
        );
        assert_eq!(
            fields(server.push(push(&[URN], &with, b"x")).await),
            ["qualifiers.name"]
        );
    }
    let with = [("auth.token", "s3cret"), ("auth.token", "s3cret")];
    let status = server.fetch(blob(&[URN], &with)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(!format!("{status:?}").contains("s3cret"));
}

#[tokio::test]
async fn v4_a_header_of_one_url_may_stand_twice() {
    let server = Server::new();
    let with = [("http_header_url:0:X", "a"), ("http_header_url:0:X", "b")];
    digest(server.fetch(blob(&[HTTP], &with)).await);
    let sent = server.world.fetcher.requests.lock()[0]
        .headers
        .for_uri(0, HTTP);
    assert_eq!(secrecy::ExposeSecret::expose_secret(&sent[0].1), "a, b");
}

#[tokio::test]
async fn v5_order_of_qualifiers_does_not_matter() {
    let server = Server::new();
    server
        .push(push(&[URN], &[("a", "1"), ("b", "2")], b"x"))
        .await
        .unwrap();
    let answer = server.fetch(blob(&[URN], &[("b", "2"), ("a", "1")])).await;
    assert_eq!(digest(answer), sha256(b"x"));
    let keys = server.world.store.entries.lock().len();
    server
        .push(push(&[URN], &[("b", "2"), ("a", "1")], b"x"))
        .await
        .unwrap();
    assert_eq!(
        server.world.store.entries.lock().len(),
        keys,
        "no other key"
    );
}

#[tokio::test]
async fn v6_limits_are_named() {
    let server = Server::new();
    let names: Vec<String> = (0..1025)
        .map(|i| format!("http_header_url:0:h{i}"))
        .collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "v")).collect();
    let ids: Vec<String> = (0..33).map(|i| format!("q{i}")).collect();
    let many: Vec<(&str, &str)> = ids.iter().map(|n| (n.as_str(), "v")).collect();
    let long = "v".repeat(70_000);
    for (of, with, limit) in [
        (vec![URN; 65], vec![], "at most 64"),
        (vec![URN, ""], vec![], "empty"),
        (vec![URN], vec![("", "v")], "needs a name"),
        (vec![URN], many, "at most 32"),
        (vec![URN], headers, "at most 1024"),
        (
            vec![URN],
            vec![("http_header:X", long.as_str())],
            "at most 65536",
        ),
        (vec![URN], vec![("q", &long[..20_000])], "at most 16384"),
    ] {
        let said = violations(server.fetch(blob(&of, &with)).await);
        assert!(
            said.iter().any(|(_, d)| d.contains(limit)),
            "{limit}: {said:?}"
        );
        assert!(
            violations(server.push(push(&of, &with, b"x")).await)[0]
                .1
                .contains(limit)
        );
    }
}

#[tokio::test]
async fn v6_requests_at_the_limits_pass() {
    let server = Server::new();
    let ids: Vec<String> = (0..32).map(|i| format!("q{i}")).collect();
    let with: Vec<(&str, &str)> = ids.iter().map(|n| (n.as_str(), "v")).collect();
    let of: Vec<String> = (0..64).map(|i| format!("urn:x:{i}")).collect();
    let of: Vec<&str> = of.iter().map(String::as_str).collect();
    server.push(push(&of, &with, b"x")).await.unwrap();
    assert_eq!(digest(server.fetch(blob(&of, &with)).await), sha256(b"x"));
}

#[tokio::test]
async fn v7_times_out_of_range() {
    let server = Server::new();
    let mut message = blob(&[URN], &[]);
    message.timeout = Some(prost_types::Duration {
        seconds: -1,
        nanos: 0,
    });
    message.oldest_content_accepted = Some(prost_types::Timestamp {
        seconds: i64::MAX,
        nanos: 0,
    });
    // Everything that is wrong is said at once.
    message.instance_name = "a//b".into();
    message.digest_function = 99;
    let said = fields(server.fetch(message).await);
    let want = [
        "timeout",
        "oldest_content_accepted",
        "instance_name",
        "digest_function",
    ];
    assert_eq!(said, want);
    let mut message = push(&[URN], &[], b"x");
    message.expire_at = Some(prost_types::Timestamp {
        seconds: 0,
        nanos: -1,
    });
    assert_eq!(fields(server.push(message).await), ["expire_at"]);
}

#[tokio::test]
async fn v8_function_unset_is_sha256_and_said() {
    let server = Server::new();
    let answer = server.fetch(blob(&[HTTP], &[])).await.unwrap();
    assert_eq!(answer.digest_function, DigestFunction::Sha256.to_wire());
    assert_eq!(answer.blob_digest, Some(sha256(b"from the origin")));
}

#[tokio::test]
async fn v9_announced_functions_and_independent_checksums() {
    let server = Server::new();
    let pinned = sri(DigestFunction::Sha512, b"from the origin");
    let mut message = blob(&[HTTP], &[("checksum.sri", &pinned)]);
    message.digest_function = DigestFunction::Blake3.to_wire();
    server.holds(DigestFunction::Blake3, b"from the origin");
    for fetches in [1, 1] {
        let answer = server.fetch(message.clone()).await.unwrap();
        let want = Digest::of(DigestFunction::Blake3, b"from the origin").unwrap();
        assert_eq!(answer.blob_digest, Some(want.to_wire()));
        assert_eq!(answer.digest_function, DigestFunction::Blake3.to_wire());
        assert_eq!(server.world.fetcher.count(), fetches);
    }
}

#[tokio::test]
async fn v10_functions_nobody_can_serve() {
    let server = Server::new();
    let mut message = blob(&[HTTP], &[]);
    message.digest_function = DigestFunction::Sha384.to_wire();
    let said = violations(server.fetch(message.clone()).await);
    assert_eq!(said[0].0, "digest_function");
    assert!(said[0].1.contains("SHA384"), "{said:?}");
    let mut push = push(&[URN], &[], b"x");
    push.digest_function = DigestFunction::Sha384.to_wire();
    push.blob_digest = Some(Digest::of(DigestFunction::Sha384, b"x").unwrap().to_wire());
    assert_eq!(fields(server.push(push).await), ["digest_function"]);

    // Announced, and not one Assetgate computes: what was pushed is served,
    // what would have to be fetched is not.
    *server.world.announce.0.lock() = Ok([DigestFunction::Sha256Tree].into());
    let mut push = super::push(&[URN], &[], b"x");
    push.digest_function = DigestFunction::Sha256Tree.to_wire();
    server.push(push).await.unwrap();
    message.digest_function = DigestFunction::Sha256Tree.to_wire();
    assert_eq!(
        fields(server.fetch(message.clone()).await),
        ["digest_function"]
    );
    message.uris = uris(&[URN]);
    assert_eq!(digest(server.fetch(message).await), sha256(b"x"));
    assert_eq!(server.world.fetcher.count(), 0);
}

/// The function that a push without one was recorded under.
async fn recorded_function(server: &Server, hash: &str) -> DigestFunction {
    let mut message = push(&[URN], &[], b"");
    message.blob_digest = Some(rev2::Digest {
        hash: hash.into(),
        size_bytes: 1,
    });
    server.push(message).await.unwrap();
    server.world.store.puts.lock().last().unwrap()[0]
        .scope
        .function
}

#[tokio::test]
async fn v11_v12_push_without_a_function() {
    use DigestFunction as F;
    let server = Server::new();
    assert_eq!(recorded_function(&server, &"a".repeat(64)).await, F::Sha256);
    assert_eq!(recorded_function(&server, &"a".repeat(32)).await, F::Md5);
    *server.world.announce.0.lock() = Ok([F::Blake3, F::Murmur3].into());
    assert_eq!(
        recorded_function(&server, &"a".repeat(32)).await,
        F::Murmur3
    );
    assert_eq!(recorded_function(&server, &"a".repeat(64)).await, F::Sha256);
    assert_eq!(recorded_function(&server, &"a".repeat(40)).await, F::Sha1);
}

#[tokio::test]
async fn v13_malformed_digests() {
    let server = Server::new();
    let good = sha256(b"x");
    let upper = rev2::Digest {
        hash: good.hash.to_uppercase(),
        ..good.clone()
    };
    let short = rev2::Digest {
        hash: "abc".into(),
        ..good.clone()
    };
    let negative = rev2::Digest {
        size_bytes: -1,
        ..good.clone()
    };
    for bad in [None, Some(upper), Some(short), Some(negative.clone())] {
        let mut message = push(&[URN], &[], b"x");
        message.blob_digest = bad.clone();
        assert_eq!(fields(server.push(message).await), ["blob_digest"]);
        let mut message = push_directory(&[URN], b"x");
        message.root_directory_digest = bad;
        assert_eq!(
            fields(server.push_directory(message).await),
            ["root_directory_digest"]
        );
    }
    let mut message = push(&[URN], &[], b"x");
    message.references_blobs = vec![good.clone(), negative.clone()];
    message.references_directories = vec![negative];
    let want = ["references_blobs[1]", "references_directories[0]"];
    assert_eq!(fields(server.push(message).await), want);
    // With a function, the length has to be that function's.
    let mut message = push(&[URN], &[], b"x");
    message.digest_function = DigestFunction::Md5.to_wire();
    assert_eq!(fields(server.push(message).await), ["blob_digest"]);
}

#[tokio::test]
async fn v14_instance_names_are_the_caches_to_judge() {
    let server = Server::new();
    for name in ["", "a/b/c"] {
        let mut message = push(&[URN], &[], b"x");
        message.instance_name = name.into();
        server.push(message).await.unwrap();
        let mut message = blob(&[URN], &[]);
        message.instance_name = name.into();
        digest(server.fetch(message).await);
    }
    assert_eq!(
        server.world.store.entries.lock().len(),
        2,
        "instances do not mix"
    );
    let unknown = crate::resolver::testing::refused(Code::Internal);
    *server.world.store.get_error.lock() = Some(unknown.into());
    let status = server.fetch(blob(&[HTTP], &[])).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("says the cache"), "{status}");
}

#[tokio::test]
async fn v15_uris_are_opaque() {
    let server = Server::new();
    let mut message = blob(&[], &[]);
    message.uris = vec![Bytes::from_static(b"\xff\xfe not a uri")];
    let (code, text) = inline(server.fetch(message.clone()).await);
    assert_eq!(code, Code::NotFound);
    assert!(text.contains("no origin can be asked"), "{text}");
    // The next mirror is tried, and the answer names what the request said.
    message.uris.push(Bytes::from_static(HTTP.as_bytes()));
    digest(server.fetch(message.clone()).await);
    let mut pushed = push(&[], &[], b"x");
    pushed.uris = message.uris[..1].to_vec();
    server.push(pushed).await.unwrap();
    let answer = server.fetch(message.clone()).await.unwrap();
    assert_eq!(answer.uri, message.uris[0]);
}

#[tokio::test]
async fn v15_undecodable_messages_are_invalid() {
    use http_body_util::BodyExt as _;
    let frame = Bytes::from_static(b"\0\0\0\0\x03\x0a\xffx");
    let request = http::Request::post("/build.bazel.remote.asset.v1.Fetch/FetchBlob")
        .header("content-type", "application/grpc")
        .body(http_body_util::Full::new(frame).map_err(|never| match never {}))
        .unwrap();
    let response = Server::new()
        .routes()
        .oneshot(request.map(tonic::body::Body::new))
        .await
        .unwrap();
    let code = response.headers().get("grpc-status").unwrap();
    assert_eq!(code, "3", "INVALID_ARGUMENT, never INTERNAL");
}

#[tokio::test]
async fn checksum_only_lookups() {
    let server = Server::new();
    let pinned = sri(DigestFunction::Sha256, b"from the origin");
    let with = [("checksum.sri", pinned.as_str())];
    let (code, _) = inline(server.fetch(blob(&[], &with)).await);
    assert_eq!(code, Code::NotFound);
    digest(server.fetch(blob(&[HTTP], &with)).await);
    let answer = server.fetch(blob(&[], &with)).await.unwrap();
    assert_eq!(answer.blob_digest, Some(sha256(b"from the origin")));
    assert!(answer.uri.is_empty());
    let keys: Vec<_> = server.world.store.entries.lock().keys().cloned().collect();
    assert!(matches!(
        keys[..],
        [crate::asset::AssetKey {
            space: KeySpace::Checksum { .. },
            ..
        }]
    ));
}

#[tokio::test]
async fn millions_of_mistakes_cost_no_more_than_some() {
    let server = Server::new();
    let mut message = push(&[URN], &[], b"x");
    message.references_blobs = vec![rev2::Digest::default(); 1_000_000];
    let (request, call) = server.request(message);
    let mut client = PushClient::new(server.routes());
    let answer = client.push_blob(request).await.map(|_| ());
    assert!(violations(answer).len() < 100);
    assert!(call.read(|report| report.message.len()) < 2000);
    let invalid = super::super::convert::PushMessage::from(PushBlobRequest {
        references_blobs: vec![rev2::Digest::default(); 1000],
        ..push(&[URN], &[], b"x")
    });
    let invalid = invalid.to_push(crate::asset::AssetKind::Blob).unwrap_err();
    assert!(invalid.violations().len() < 100);
}
