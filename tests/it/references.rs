//! Where references are kept and what they may be taken for: another server,
//! signed entries, subsets of qualifiers, those of bb-remote-asset.

use assetgate::proto::rev2;

use crate::support::upstream::Key;
use crate::support::{
    Code, Proxy, Qualified as _, Upstream, digest_of, fetch_blob, hit, inline, push_blob, refused,
};

const URN: [&str; 1] = ["urn:r:a"];

#[tokio::test]
async fn a_read_only_cache_has_references_elsewhere() {
    let (cache, references) = (Upstream::start(), Upstream::start());
    let refusal = tonic::Status::permission_denied("this cache is read only");
    cache.fail("UpdateActionResult", refusal);
    let digest = cache.put(b"blob");
    let proxy = || Proxy::new().upstream(&cache);
    let (_plain, client) = proxy().connected().await;
    let push = || push_blob(&URN, digest.clone());
    refused(client.push_blob(push()).await, Code::PermissionDenied);

    let elsewhere = references.url();
    let proxies = [
        proxy().arg("--references-upstream").arg(&elsewhere),
        proxy().arg("--references-upstream").arg("embedded"),
    ];
    for proxy in proxies {
        let (_proxy, client) = proxy.connected().await;
        client.push_blob(push()).await.unwrap();
        assert_eq!(hit(client.fetch_blob(fetch_blob(&URN)).await), digest);
        cache.drop_blob(&digest);
        inline(client.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
        cache.put(b"blob");
        assert_eq!(hit(client.fetch_blob(fetch_blob(&URN)).await), digest);
    }
    assert_eq!(references.entries().len(), 1);
    assert!(!references.has(&digest));
}

#[tokio::test]
async fn p10_references_elsewhere_are_shared_by_replicas() {
    let (cache, references) = (Upstream::start(), Upstream::start());
    let digest = cache.put(b"blob");
    let proxy = || {
        let proxy = Proxy::new().upstream(&cache);
        proxy.arg("--references-upstream").arg(references.url())
    };
    let (_one, one) = proxy().connected().await;
    let (_two, two) = proxy().connected().await;
    one.push_blob(push_blob(&URN, digest.clone()))
        .await
        .unwrap();
    assert_eq!(hit(two.fetch_blob(fetch_blob(&URN)).await), digest);
    references.stop().await;
    refused(two.fetch_blob(fetch_blob(&URN)).await, Code::Unavailable);
}

#[tokio::test]
async fn with_a_key_only_signed_references_count() {
    let cache = Upstream::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
    let config = format!("[references]\nmac_key = {:?}\n", file.to_str().unwrap());
    let (_plain, plain) = Proxy::new().upstream(&cache).connected().await;
    let signing = Proxy::new().upstream(&cache).config(config);
    let (_signing, signing) = signing.connected().await;

    let (forged, pushed) = (cache.put(b"forged"), cache.put(b"pushed"));
    plain.push_blob(push_blob(&URN, forged)).await.unwrap();
    inline(signing.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
    let push = push_blob(&URN, pushed.clone());
    signing.push_blob(push).await.unwrap();
    for reader in [&signing, &plain] {
        assert_eq!(hit(reader.fetch_blob(fetch_blob(&URN)).await), pushed);
    }
    let mark = b"0123456789abcdef0123456789abcdef";
    let stored = cache.everything();
    assert!(!stored.windows(mark.len()).any(|w| w == mark));
}

#[tokio::test]
async fn p3_fewer_qualifiers_find_the_latest_push_unless_switched_off() {
    let cache = Upstream::start();
    let digest = cache.put(b"blob");
    let pairs = [
        ("vcs.commit", "abc"),
        ("resource_type", "application/x-git"),
    ];
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let push = push_blob(&URN, digest.clone()).qualifiers(&pairs);
    client.push_blob(push).await.unwrap();
    for some in [&pairs[..], &pairs[..1], &pairs[1..], &[]] {
        let fetch = fetch_blob(&URN).qualifiers(some);
        let answer = client.fetch_blob(fetch).await.unwrap();
        assert_eq!(answer.qualifiers.len(), 2, "H5: what it was pushed with");
        assert_eq!(answer.blob_digest, Some(digest.clone()));
    }
    let exact = Proxy::new().upstream(&cache);
    let exact = exact.config("[references]\nsubset_max = 0\n");
    let (_exact, exact) = exact.connected().await;
    let fetch = fetch_blob(&URN).qualifiers(&pairs[..1]);
    inline(exact.fetch_blob(fetch).await, Code::NotFound);
}

#[tokio::test]
async fn references_of_bb_remote_asset_are_taken_over() {
    // Its own test's vector: this URI with the qualifier test=test.
    const URI: [&str; 1] = ["https://example.com/example.txt"];
    const ACTION: &str = "80fa2440711e986859b84bb5bc5f63b3a9987aa498a4019824a7bed622593f6e";
    let cache = Upstream::start();
    let digest = cache.put(b"blob");
    let entry = rev2::ActionResult {
        output_files: vec![rev2::OutputFile {
            path: "out".to_owned(),
            digest: Some(digest.clone()),
            ..Default::default()
        }],
        execution_metadata: Some(rev2::ExecutedActionMetadata {
            queued_timestamp: Some(std::time::SystemTime::now().into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let action = rev2::Digest {
        hash: ACTION.to_owned(),
        size_bytes: 140,
    };
    cache.set_entry(&Key::new("", &action), entry);
    let fetch = || fetch_blob(&URI).qualifier("test", "test");

    let (_plain, plain) = Proxy::new().upstream(&cache).connected().await;
    refused(plain.fetch_blob(fetch()).await, Code::InvalidArgument);
    let compat = Proxy::new().upstream(&cache);
    let compat = compat.config("[compat]\nbb_remote_asset = true\n");
    let (_compat, compat) = compat.connected().await;
    assert_eq!(hit(compat.fetch_blob(fetch()).await), digest);
    assert_eq!(cache.entries().len(), 1, "recorded as ours");
    cache.drop_blob(&digest_of(b"blob"));
    refused(compat.fetch_blob(fetch()).await, Code::InvalidArgument);
}
