//! D1, D3, D4 and D7: directories that were pushed, and those nobody pushed.

use assetgate::proto::rev2::Digest;

use crate::support::answer::says;
use crate::support::{
    Client, Code, Dir, Origin, Proxy, Upstream, digest_of, fetch_blob, fetch_directory, hit,
    inline, push_blob, push_directory,
};

const URN: [&str; 1] = ["urn:d:a"];

fn nested() -> Dir {
    let deep = Dir::new().file("deep.txt", b"deep");
    let lib = Dir::new().file("lib.rs", b"fn lib() {}").dir("deep", &deep);
    let twin = Dir::new().file("lib.rs", b"fn lib() {}").dir("deep", &deep);
    let root = Dir::new()
        .file("empty", b"")
        .file("main.rs", b"fn main() {}");
    root.dir("lib", &lib)
        .dir("twin", &twin)
        .dir("void", &Dir::new())
}

fn digests(blobs: &[Vec<u8>]) -> Vec<Digest> {
    blobs.iter().map(|b| digest_of(b)).collect()
}

#[tokio::test]
async fn d1_a_pushed_directory_comes_back_whole() {
    let (_proxy, client) = Proxy::new().connected().await;
    let dir = nested();
    client.upload_all(&dir.closure()).await;
    client
        .push_directory(push_directory(&URN, dir.digest()))
        .await
        .unwrap();
    let root = hit(client.fetch_directory(fetch_directory(&URN)).await);
    assert_eq!(root, dir.digest());
    assert_eq!(client.missing(&digests(&dir.closure())).await, []);
    let tree = client.tree(root).await.unwrap();
    let mut got: Vec<Vec<u8>> = tree.iter().map(prost::Message::encode_to_vec).collect();
    let mut want = dir.directory_blobs();
    want.retain(|blob| !blob.is_empty());
    got.retain(|blob| !blob.is_empty());
    for blobs in [&mut got, &mut want] {
        blobs.sort();
        blobs.dedup();
    }
    assert_eq!(got, want);
}

#[tokio::test]
async fn d1_an_empty_directory_is_one_too() {
    let (_proxy, client) = Proxy::new().connected().await;
    let push = push_directory(&URN, digest_of(b""));
    client.push_directory(push).await.unwrap();
    let root = hit(client.fetch_directory(fetch_directory(&URN)).await);
    assert_eq!(root, digest_of(b""));
}

#[tokio::test]
async fn d1_a_file_of_a_pushed_directory_that_is_gone_is_a_miss() {
    for checks in [true, false] {
        let cache = Upstream::start();
        cache.check_completeness(checks);
        let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
        let dir = nested();
        cache.put_all(&dir.closure());
        client
            .push_directory(push_directory(&URN, dir.digest()))
            .await
            .unwrap();
        hit(client.fetch_directory(fetch_directory(&URN)).await);
        cache.drop_blob(&digest_of(b"deep"));
        inline(
            client.fetch_directory(fetch_directory(&URN)).await,
            Code::NotFound,
        );
    }
}

async fn push_either(client: &Client, kind: &str, digest: Digest) {
    match kind {
        "blob" => drop(client.push_blob(push_blob(&URN, digest)).await.unwrap()),
        _ => drop(
            client
                .push_directory(push_directory(&URN, digest))
                .await
                .unwrap(),
        ),
    }
}

#[tokio::test]
async fn d3_blobs_and_directories_are_separate() {
    let dir = nested();
    for kind in ["blob", "directory"] {
        let (_proxy, client) = Proxy::new().connected().await;
        client.upload_all(&dir.closure()).await;
        push_either(&client, kind, dir.digest()).await;
        let blob = client.fetch_blob(fetch_blob(&URN)).await;
        let directory = client.fetch_directory(fetch_directory(&URN)).await;
        if kind == "blob" {
            assert_eq!(hit(blob), dir.digest());
            inline(directory, Code::NotFound);
        } else {
            inline(blob, Code::NotFound);
            assert_eq!(hit(directory), dir.digest());
        }
    }
}

#[tokio::test]
async fn d4_an_evicted_directory_blob_is_healed_or_a_miss() {
    for checks in [true, false] {
        let cache = Upstream::start();
        cache.check_completeness(checks);
        let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
        let dir = nested();
        cache.put_all(&dir.closure());
        client
            .push_directory(push_directory(&URN, dir.digest()))
            .await
            .unwrap();
        for blob in dir.directory_blobs().into_iter().filter(|b| !b.is_empty()) {
            if cache.has(&digest_of(&blob)) {
                cache.drop_blob(&digest_of(&blob));
            }
            let answer = client.fetch_directory(fetch_directory(&URN)).await.unwrap();
            if answer.status.unwrap().code == 0 {
                assert_eq!(client.missing(&digests(&dir.closure())).await, []);
            }
            cache.put_all(&dir.closure());
        }
    }
}

#[tokio::test]
async fn d7_a_directory_nobody_pushed_is_a_miss_that_says_why() {
    let origin = Origin::new().file("/a.tar", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let uri = origin.url("/a.tar");
    let answer = client.fetch_directory(fetch_directory(&[&uri])).await;
    says(&inline(answer, Code::NotFound), &[&uri, "unpack"]);
    assert_eq!(origin.total(), 0);
}
