//! Part A, section 9, and H5.

use super::*;
use crate::asset::KeySpace;
use crate::resolver::InstanceRule;
use crate::store;

#[tokio::test]
async fn p1_p2_exactly_the_pushed_qualifiers() {
    let server = Server::new();
    let with = [("a", "1"), ("b", "2")];
    server.push(push(&[URN], &with, b"x")).await.unwrap();
    assert_eq!(
        digest(server.fetch(blob(&[URN], &with)).await),
        sha256(b"x")
    );
    for other in [
        &[("a", "1"), ("b", "2"), ("c", "3")][..],
        &[("a", "1"), ("b", "3")],
    ] {
        assert_eq!(
            inline(server.fetch(blob(&[URN], other)).await).0,
            Code::NotFound
        );
    }
}

#[tokio::test]
async fn p4_pushing_can_be_switched_off() {
    let mut server = Server::new();
    server.settings.push = false;
    // The probe too: a client learns at start-up.
    let answer = server.push(PushBlobRequest::default()).await;
    assert_eq!(code(answer), Code::PermissionDenied);
    assert_eq!(
        code(server.push(push(&[URN], &[], b"x")).await),
        Code::PermissionDenied
    );
    let answer = server.push_directory(push_directory(&[URN], b"x")).await;
    assert_eq!(code(answer), Code::PermissionDenied);
    assert!(server.world.store.puts.lock().is_empty());
}

fn instances(names: &[&str]) -> Vec<InstanceRule> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[tokio::test]
async fn p4_pushing_is_allowed_instance_by_instance() {
    let mut server = Server::new();
    server.settings.permissions.push_instances = instances(&["a/*"]);
    let to = |name: &str, mut message: PushBlobRequest| {
        message.instance_name = name.into();
        message
    };
    // The probe of BuildStream learns which it is.
    for probe in [PushBlobRequest::default(), push(&[URN], &[], b"x")] {
        for name in ["", "b", "ab"] {
            let status = server.push(to(name, probe.clone())).await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{name}");
            let said = status.message();
            assert!(said.contains("push.instances"), "{said}");
            assert!(said.contains(&format!("instance {name:?}")), "{said}");
        }
    }
    let probe = server.push(to("a", PushBlobRequest::default())).await;
    assert_eq!(fields(probe), ["uris"]);
    let nowhere = server.push(to("a//b", push(&[URN], &[], b"x"))).await;
    assert_eq!(fields(nowhere), ["instance_name"]);
    assert!(server.world.store.puts.lock().is_empty());
    server
        .push(to("a/b", push(&[URN], &[], b"x")))
        .await
        .unwrap();
}

#[tokio::test]
async fn p4_uris_are_allowed_by_their_beginning() {
    let mut server = Server::new();
    let permissions = &mut server.settings.permissions;
    permissions.allow_uris = vec!["https://origin.example/".parse().unwrap()];
    permissions.deny_uris = vec!["https://origin.example/no/".parse().unwrap()];
    let secret = "https://user:hunter2@origin.example/no/a?sig=hunter2";
    for (uri, setting) in [
        (URN, "push.allow_uris"),
        (MIRROR, "push.allow_uris"),
        (secret, "push.deny_uris"),
    ] {
        let status = server
            .push(push(&[HTTP, uri], &[], b"x"))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        let said = status.message();
        assert!(said.contains(setting), "{said}");
        assert!(
            said.contains(&crate::asset::Uri::new(uri).redacted()),
            "{said}"
        );
        assert!(!said.contains("hunter2") && !said.contains(HTTP), "{said}");
    }
    assert_eq!(
        fields(server.push(PushBlobRequest::default()).await),
        ["uris"]
    );
    // Decided before anything is asked of the cache.
    server.world.store.gone.lock().insert(domain(b"x"));
    let answer = server.push(push(&[URN], &[], b"x")).await;
    assert_eq!(code(answer), Code::PermissionDenied);
    server.push(push(&[HTTP], &[], b"y")).await.unwrap();
}

/// Scenarios 37 and 46: fetching and pushing are allowed apart.
#[tokio::test]
async fn p4_fetching_into_an_instance_is_a_right_of_its_own() {
    let mut server = Server::new();
    server.push(push(&[HTTP], &[], b"x")).await.unwrap();
    server.settings.permissions.fetch_instances = instances(&["other"]);
    server.push(push(&[URN], &[], b"x")).await.unwrap();
    assert_eq!(digest(server.fetch(blob(&[HTTP], &[])).await), sha256(b"x"));
    let status = server.fetch(blob(&[MIRROR], &[])).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("fetch.instances"), "{status}");
    assert_eq!(server.world.fetcher.count(), 0);
    // Nothing an origin could be asked for is merely not there.
    let absent = server.fetch(blob(&["urn:absent"], &[])).await;
    assert_eq!(inline(absent).0, Code::NotFound);
    let mut elsewhere = blob(&[MIRROR], &[]);
    elsewhere.instance_name = "other".into();
    digest(server.fetch(elsewhere).await);
    assert_eq!(server.world.fetcher.count(), 1);
}

#[tokio::test]
async fn p5_absent_content_is_named() {
    let server = Server::new();
    server.world.store.gone.lock().insert(domain(b"x"));
    let status = server.push(push(&[URN], &[], b"x")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let details = status.get_details_precondition_failure().unwrap();
    assert_eq!(details.violations.len(), 1);
    assert_eq!(details.violations[0].r#type, "MISSING");
    let want = format!("blobs/{}", domain(b"x"));
    assert_eq!(details.violations[0].subject, want);

    let mut message = push(&[URN], &[], b"x");
    message.digest_function = DigestFunction::Blake3.to_wire();
    let status = server.push(message).await.unwrap_err();
    let details = status.get_details_precondition_failure().unwrap();
    assert_eq!(
        details.violations[0].subject,
        format!("blobs/blake3/{}", domain(b"x"))
    );
    assert!(
        server.world.store.entries.lock().is_empty(),
        "nothing stored"
    );
}

#[tokio::test]
async fn p6_what_is_no_directory() {
    let server = Server::new();
    let error = store::Error::NotADirectory(domain(b"x"), "it holds text".into());
    *server.world.store.put_error.lock() = Some(error);
    let said = violations(server.push_directory(push_directory(&[URN], b"x")).await);
    assert_eq!(said[0].0, "root_directory_digest");
    assert!(said[0].1.contains("it holds text"), "{said:?}");
}

#[tokio::test]
async fn p9_the_last_push_wins() {
    let server = Server::new();
    for content in [&b"a"[..], b"a", b"b"] {
        server.push(push(&[URN], &[], content)).await.unwrap();
        assert_eq!(
            digest(server.fetch(blob(&[URN], &[])).await),
            sha256(content)
        );
    }
}

#[tokio::test]
async fn h5_the_pushed_qualifiers_come_back() {
    let server = Server::new();
    let with = [
        ("b", "2"),
        ("a", "1"),
        ("http_header:Authorization", "s3cret"),
    ];
    server.push(push(&[URN], &with, b"x")).await.unwrap();
    let answer = server.fetch(blob(&[URN], &with[..2])).await.unwrap();
    assert_eq!(answer.qualifiers, qualifiers(&[("a", "1"), ("b", "2")]));
}

#[tokio::test]
async fn one_key_per_uri_in_request_order_and_never_a_checksum_key() {
    let server = Server::new();
    let claimed = sri(DigestFunction::Sha256, b"x");
    let mut message = push(&["urn:a", "urn:b"], &[("checksum.sri", &claimed)], b"x");
    message.references_blobs = vec![sha256(b"ref"), sha256(b"")];
    message.references_directories = vec![sha256(b"dir")];
    server.push(message).await.unwrap();
    let puts = server.world.store.puts.lock().clone();
    let keys: Vec<String> = puts[0]
        .iter()
        .map(|key| match &key.space {
            KeySpace::Exact { uri, .. } => uri.redacted(),
            KeySpace::Subset { uri, .. } => format!("subset of {}", uri.redacted()),
            other => panic!("a claim is nothing else: {other:?}"),
        })
        .collect();
    assert_eq!(
        keys,
        ["urn:a", "urn:b", "subset of urn:a", "subset of urn:b"]
    );
    let entry = server.world.store.entries.lock()[&puts[0][0]].clone();
    assert_eq!(entry.verified, []);
    assert_eq!(
        entry.referenced_blobs,
        [domain(b"ref")],
        "the empty blob needs no keeping"
    );
    assert_eq!(entry.referenced_directories, [domain(b"dir")]);
}

#[tokio::test]
async fn a_digest_of_no_bytes_with_another_hash_is_refused() {
    let server = Server::new();
    let mut message = push(&[URN], &[], b"x");
    message.blob_digest.as_mut().unwrap().size_bytes = 0;
    assert_eq!(fields(server.push(message).await), ["blob_digest"]);
    let answer = server.fetch(blob(&[URN], &[])).await;
    assert_eq!(inline(answer).0, Code::NotFound);
    server.push(push(&[URN], &[], b"")).await.unwrap();
    assert_eq!(digest(server.fetch(blob(&[URN], &[])).await), sha256(b""));
}
