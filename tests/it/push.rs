//! P1, P2, P4 to P6, P9 and P10, with P7 beside them: what a push needs, what
//! it promises, and who sees it.

use assetgate::proto::rev2::{ActionResult, Digest};

use crate::support::answer::{missing, says};
use crate::support::{
    Code, Dir, Function, Origin, Proxy, Pushing as _, Qualified as _, Upstream, digest_in,
    digest_of, fetch_blob, fetch_directory, hit, inline, push_blob, push_directory, refused, sri,
};

const URN: [&str; 1] = ["urn:p:a"];

fn subject(digest: &Digest) -> (String, String) {
    let subject = format!("blobs/{}/{}", digest.hash, digest.size_bytes);
    ("MISSING".to_owned(), subject)
}

#[tokio::test]
async fn p1_what_was_pushed_is_found_with_the_same_qualifiers() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"blob").await;
    for pairs in [
        &[][..],
        &[("a", "1")],
        &[("a", "1"), ("b", ""), ("resource_type", "text/x")],
    ] {
        let push = push_blob(&URN, digest.clone()).qualifiers(pairs);
        client.push_blob(push).await.unwrap();
        let fetch = fetch_blob(&URN).qualifiers(pairs);
        assert_eq!(hit(client.fetch_blob(fetch).await), digest);
    }
}

#[tokio::test]
async fn p2_more_or_other_qualifiers_do_not_match() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"blob").await;
    let push = push_blob(&URN, digest).qualifiers(&[("a", "1"), ("b", "2")]);
    client.push_blob(push).await.unwrap();
    for pairs in [
        &[("a", "1"), ("b", "2"), ("c", "3")][..],
        &[("a", "1"), ("b", "3")],
        &[("a", "2"), ("b", "1")],
        &[("a", "1"), ("B", "2")],
        &[("a", "1b"), ("", "2")][..1],
    ] {
        let fetch = fetch_blob(&URN).qualifiers(pairs);
        inline(client.fetch_blob(fetch).await, Code::NotFound);
    }
}

#[tokio::test]
async fn p2_names_values_and_uris_are_not_run_together() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"blob").await;
    let push = push_blob(&["urn:p:ab"], digest).qualifier("a", "bc");
    client.push_blob(push).await.unwrap();
    for (uri, name, value) in [
        ("urn:p:ab", "ab", "c"),
        ("urn:p:a", "ba", "bc"),
        ("urn:p:aba", "", "bc"),
        ("urn:p:ab", "abc", ""),
    ] {
        let fetch = fetch_blob(&[uri]);
        let fetch = if name.is_empty() {
            fetch
        } else {
            fetch.qualifier(name, value)
        };
        inline(client.fetch_blob(fetch).await, Code::NotFound);
    }
}

#[tokio::test]
async fn p2_a_checksum_nobody_pushed_is_verified_at_the_origin() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"pushed").await;
    client
        .push_blob(push_blob(&[origin.url("/a")], digest))
        .await
        .unwrap();
    let fetch = fetch_blob(&[origin.url("/a")])
        .qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"content"));
}

#[tokio::test]
async fn p4_who_may_not_write_may_not_push() {
    let cache = Upstream::start();
    let digest = cache.put(b"blob");
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    for code in [Code::PermissionDenied, Code::Unauthenticated] {
        cache.fail(
            "UpdateActionResult",
            tonic::Status::new(code, "only CI writes"),
        );
        let blob = client.push_blob(push_blob(&URN, digest.clone())).await;
        says(refused(blob, code).message(), &["only CI writes"]);
        let directory = client
            .push_directory(push_directory(&URN, digest_of(b"")))
            .await;
        refused(directory, code);
    }
    cache.heal("UpdateActionResult");
    inline(client.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
}

#[tokio::test]
async fn p4_pushing_can_be_switched_off() {
    let proxy = Proxy::new().config("[push]\nenabled = false\n");
    let (_proxy, client) = proxy.connected().await;
    let digest = client.upload(b"blob").await;
    let blob = client.push_blob(push_blob(&URN, digest)).await;
    refused(blob, Code::PermissionDenied);
    let directory = client
        .push_directory(push_directory(&URN, digest_of(b"")))
        .await;
    refused(directory, Code::PermissionDenied);
}

#[tokio::test]
async fn p5_a_blob_that_is_not_there_cannot_be_pushed() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = digest_of(b"never uploaded");
    let push = client.push_blob(push_blob(&URN, digest.clone())).await;
    let status = refused(push, Code::FailedPrecondition);
    assert_eq!(missing(&status), [subject(&digest)]);
    says(status.message(), &[&digest.hash]);
    assert_eq!(cache.entries(), []);
}

#[tokio::test]
async fn p5_a_directory_must_be_there_as_a_whole() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let child = Dir::new().file("f", b"file");
    let root = Dir::new().dir("child", &child);
    for (there, absent) in [
        (vec![], root.digest()),
        (vec![root.blob()], child.digest()),
        (vec![root.blob(), child.blob()], digest_of(b"file")),
    ] {
        cache.put_all(&there);
        let push = client
            .push_directory(push_directory(&URN, root.digest()))
            .await;
        let status = refused(push, Code::FailedPrecondition);
        assert_eq!(missing(&status), [subject(&absent)]);
        assert_eq!(cache.entries(), []);
    }
    cache.put(b"file");
    client
        .push_directory(push_directory(&URN, root.digest()))
        .await
        .unwrap();
    assert!(!cache.entries().is_empty());
}

#[tokio::test]
async fn p5_the_subject_names_a_function_that_cannot_be_guessed() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = digest_in(Function::Blake3, b"never uploaded");
    let push = push_blob(&URN, digest.clone()).function(Function::Blake3);
    let status = refused(client.push_blob(push).await, Code::FailedPrecondition);
    let name = format!("blobs/blake3/{}/{}", digest.hash, digest.size_bytes);
    assert_eq!(missing(&status), [("MISSING".to_owned(), name)]);
}

#[tokio::test]
async fn p6_what_is_no_directory_cannot_be_pushed_as_one() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client
        .upload(b"\xff\xff this is no Directory message")
        .await;
    let push = push_directory(&URN, digest);
    let status = refused(client.push_directory(push).await, Code::InvalidArgument);
    says(status.message(), &["Directory"]);
    inline(
        client.fetch_directory(fetch_directory(&URN)).await,
        Code::NotFound,
    );
}

#[tokio::test]
async fn p7_references_are_kept_with_the_entry_and_never_fail_a_push() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"artifact");
    let log = cache.put(b"log");
    let dir = Dir::new()
        .file("f", b"file")
        .dir("sub", &Dir::new().file("g", b"sub file"));
    cache.put_all(&dir.closure());
    let blobs = vec![log.clone(), digest_of(b"gone"), digest_of(b"")];
    let directories = vec![dir.digest(), digest_of(b"gone too")];
    let push = push_blob(&URN, digest.clone()).references(blobs, directories);
    client.push_blob(push.clone()).await.unwrap();
    assert_eq!(hit(client.fetch_blob(fetch_blob(&URN)).await), digest);
    for pinned in [log, digest_of(b"file"), digest_of(b"sub file")] {
        let content = cache.get(&pinned).unwrap();
        cache.drop_blob(&pinned);
        inline(client.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
        cache.put(&content);
        assert_eq!(hit(client.fetch_blob(fetch_blob(&URN)).await), digest);
    }
}

#[tokio::test]
async fn p9_the_last_push_wins_and_a_repeated_one_changes_nothing() {
    let (_proxy, client) = Proxy::new().connected().await;
    let one = client.upload(b"one").await;
    let two = client.upload(b"two").await;
    for digest in [&one, &one, &two, &one] {
        client
            .push_blob(push_blob(&URN, digest.clone()))
            .await
            .unwrap();
        assert_eq!(&hit(client.fetch_blob(fetch_blob(&URN)).await), digest);
    }
    let (a, b) = tokio::join!(
        client.push_blob(push_blob(&URN, one.clone())),
        client.push_blob(push_blob(&URN, two.clone())),
    );
    assert!(a.is_ok() && b.is_ok());
    let left = hit(client.fetch_blob(fetch_blob(&URN)).await);
    assert!(left == one || left == two);
}

#[tokio::test]
async fn p10_every_replica_sees_an_acknowledged_push() {
    let cache = Upstream::start();
    let (_one, first) = Proxy::new().upstream(&cache).connected().await;
    let (_two, second) = Proxy::new().upstream(&cache).connected().await;
    for i in 0..20 {
        let content = format!("blob {i}");
        let digest = cache.put(content.as_bytes());
        let (push, fetch) = if i % 2 == 0 {
            (&first, &second)
        } else {
            (&second, &first)
        };
        let uris = [format!("urn:p:{i}"), "urn:p:last".to_owned()];
        push.push_blob(push_blob(&uris, digest.clone()))
            .await
            .unwrap();
        for uri in &uris {
            assert_eq!(hit(fetch.fetch_blob(fetch_blob(&[uri])).await), digest);
        }
    }
    let dir = Dir::new().file("f", b"file");
    cache.put_all(&dir.closure());
    first
        .push_directory(push_directory(&URN, dir.digest()))
        .await
        .unwrap();
    let root = hit(second.fetch_directory(fetch_directory(&URN)).await);
    assert_eq!(root, dir.digest());
}

#[tokio::test]
async fn p10_replicas_with_other_namespaces_see_nothing_of_each_other() {
    let cache = Upstream::start();
    let named = |name: &str| {
        let toml = format!("[references]\nnamespace = \"{name}\"\n");
        Proxy::new().upstream(&cache).config(toml)
    };
    let (_one, first) = named("one").connected().await;
    let (_two, second) = named("two").connected().await;
    let digest = cache.put(b"blob");
    first
        .push_blob(push_blob(&URN, digest.clone()))
        .await
        .unwrap();
    inline(second.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
    assert_eq!(hit(first.fetch_blob(fetch_blob(&URN)).await), digest);
}

#[tokio::test]
async fn p10_an_entry_has_the_shape_every_cache_can_keep() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"blob");
    client
        .push_blob(push_blob(&URN, digest.clone()))
        .await
        .unwrap();
    let dir = Dir::new().file("f", b"file");
    cache.put_all(&dir.closure());
    client
        .push_directory(push_directory(&URN, dir.digest()))
        .await
        .unwrap();
    for (key, entry) in cache.entries() {
        let entry: ActionResult = entry;
        assert!(cache.has(&key.digest), "the Action is in the CAS too");
        assert_eq!(entry.exit_code, 0);
        if let Some(file) = entry.output_files.first() {
            assert_eq!(file.path, "asset");
            assert_eq!(file.digest.as_ref(), Some(&digest));
        } else {
            let output = &entry.output_directories[0];
            assert_eq!(output.path, "asset");
            assert_eq!(output.root_directory_digest.as_ref(), Some(&dir.digest()));
            assert!(cache.has(output.tree_digest.as_ref().unwrap()));
        }
    }
    assert_eq!(cache.entries().len(), 2);
}
