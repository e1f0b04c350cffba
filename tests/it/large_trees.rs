//! D1 and P5 for directories that are wide, deep, repetitive or corrupt, over
//! caches with small batches.

use assetgate::proto::rev2::Digest;

use crate::support::{
    Code, Dir, Proxy, Pushing as _, Upstream, digest_of, fetch_directory, hit, inline, push_blob,
    push_directory,
};

const URN: [&str; 1] = ["urn:t:a"];

#[tokio::test]
async fn d1_a_wide_directory_over_a_cache_with_small_batches() {
    let cache = Upstream::start();
    cache.batch_limit(65_536);
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let mut root = Dir::new();
    for i in 0..40 {
        let sub = (0..60).fold(Dir::new(), |dir, j| {
            dir.file(&format!("file-{j:04}.txt"), format!("{i} {j}").as_bytes())
        });
        root = root.dir(&format!("sub-{i:03}"), &sub);
    }
    for i in 0..1000 {
        root = root.file(&format!("file-{i:04}.txt"), b"the same");
    }
    assert!(root.blob().len() > 65_536);
    cache.put_all(&root.closure());
    client
        .push_directory(push_directory(&URN, root.digest()))
        .await
        .unwrap();
    assert_eq!(
        hit(client.fetch_directory(fetch_directory(&URN)).await),
        root.digest()
    );
    cache.drop_blob(&digest_of(b"39 59"));
    inline(
        client.fetch_directory(fetch_directory(&URN)).await,
        Code::NotFound,
    );
}

#[tokio::test]
async fn d1_a_tree_that_repeats_itself_costs_what_it_holds() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let mut blobs = Vec::new();
    // Two to the sixtieth paths, sixty directories.
    let mut dir = Dir::new().file("leaf", b"leaf");
    for _ in 0..60 {
        blobs.push(dir.blob());
        let child = Dir::reference(&dir);
        dir = Dir::new().dir("a", &child).dir("b", &child);
    }
    blobs.push(dir.blob());
    blobs.push(b"leaf".to_vec());
    cache.put_all(&blobs);
    client
        .push_directory(push_directory(&URN, dir.digest()))
        .await
        .unwrap();
    assert_eq!(
        hit(client.fetch_directory(fetch_directory(&URN)).await),
        dir.digest()
    );
}

#[tokio::test]
async fn d1_a_deep_tree_is_recorded_or_refused_in_words() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let mut dir = Dir::new().file("leaf", b"leaf");
    cache.put(b"leaf");
    for _ in 0..2_000 {
        cache.put(&dir.blob());
        dir = Dir::new().dir("d", &Dir::reference(&dir));
    }
    cache.put(&dir.blob());
    match client
        .push_directory(push_directory(&URN, dir.digest()))
        .await
    {
        Ok(_) => {
            let root = hit(client.fetch_directory(fetch_directory(&URN)).await);
            assert_eq!(root, dir.digest());
        }
        Err(status) => {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
            inline(
                client.fetch_directory(fetch_directory(&URN)).await,
                Code::NotFound,
            );
        }
    }
}

#[tokio::test]
async fn p5_content_that_is_not_what_its_digest_says_is_not_recorded() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let child = Dir::new().file("f", b"file");
    let other = Dir::new().file("g", b"file");
    let root = Dir::new().dir("child", &child);
    cache.put_all(&[root.blob(), b"file".to_vec()]);
    cache.put_as(&child.digest(), &other.blob());
    let status = client
        .push_directory(push_directory(&URN, root.digest()))
        .await
        .unwrap_err();
    assert_ne!(status.code(), Code::Unknown, "{status:?}");
    assert_eq!(cache.entries(), []);
}

#[tokio::test]
async fn d4_a_corrupt_tree_is_a_miss() {
    for checks in [true, false] {
        let cache = Upstream::start();
        cache.check_completeness(checks);
        let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
        let dir = Dir::new()
            .file("f", b"file")
            .dir("d", &Dir::new().file("g", b"more"));
        cache.put_all(&dir.closure());
        client
            .push_directory(push_directory(&URN, dir.digest()))
            .await
            .unwrap();
        let (_, entry) = cache.entries().remove(0);
        let tree = entry.output_directories[0].tree_digest.clone().unwrap();
        cache.put_as(&tree, b"\xff\xff\xff");
        let answer = client.fetch_directory(fetch_directory(&URN)).await.unwrap();
        let code = Code::from_i32(answer.status.unwrap().code);
        assert!(matches!(code, Code::Ok | Code::NotFound), "{code:?}");
    }
}

#[tokio::test]
async fn p7_thousands_of_references_are_kept() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"artifact");
    let blobs: Vec<Digest> = (0..5_000_u32)
        .map(|i| cache.put(&i.to_be_bytes()))
        .collect();
    let push = push_blob(&URN, digest.clone()).references(blobs.clone(), Vec::new());
    client.push_blob(push).await.unwrap();
    let fetch = || client.fetch_blob(crate::support::fetch_blob(&URN));
    assert_eq!(hit(fetch().await), digest);
    cache.drop_blob(&blobs[4_321]);
    inline(fetch().await, Code::NotFound);
}

#[tokio::test]
async fn p5_a_digest_of_an_impossible_size_is_missing() {
    let (_proxy, client) = Proxy::new().connected().await;
    let mut digest = digest_of(b"blob");
    digest.size_bytes = i64::MAX;
    let push = client.push_blob(push_blob(&URN, digest)).await;
    crate::support::refused(push, Code::FailedPrecondition);
}
