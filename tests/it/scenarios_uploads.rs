//! Scenario 11: caches with and without zstd, and content that comes with and
//! without a length.

use std::time::Duration;

use crate::support::content::noise;
use crate::support::{
    Client, Code, Fetching as _, Function, Gate, Origin, Proxy, Qualified as _, Reply, Upstream,
    digest_of, eventually, fetch_blob, hit, inline, sri,
};

/// Larger than a batch may be with anyone, so that ByteStream is used.
const LARGE: usize = 6 << 20;

/// Text of numbers, which shrinks.
fn text(size: usize) -> Vec<u8> {
    let lines = (0u32..).flat_map(|i| format!("line {}\n", i.wrapping_mul(7919)).into_bytes());
    lines.take(size).collect()
}

async fn origin(content: &[u8]) -> crate::support::origin::Serving {
    Origin::new()
        .file("/length", content)
        .reply("/chunked", Reply::ok(content).chunked())
        .reply("/close", Reply::ok(content).until_close())
        .start()
        .await
}

/// Fetches with and without a checksum that fixes the digest.
async fn fetch(client: &Client, uri: &str, content: &[u8], pinned: bool) {
    let mut ask = fetch_blob(&[uri]);
    if pinned {
        ask = ask.qualifier("checksum.sri", &sri(Function::Sha256, content));
    }
    let digest = hit(client.fetch_blob(ask).await);
    assert_eq!(digest, digest_of(content));
    assert!(client.blob(&digest).await.unwrap() == content);
    assert_eq!(client.missing(&[digest]).await, []);
}

#[tokio::test]
async fn scenario_11_every_cache_gets_what_it_understands() {
    let content = text(LARGE);
    let origin = origin(&content).await;
    for zstd in [true, false] {
        let cache = Upstream::start();
        if zstd {
            cache.announce_zstd();
        }
        let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
        let mut uploads = 0;
        for path in ["/length", "/chunked", "/close"] {
            for pinned in [false, true] {
                // As another instance, the cache has nothing yet.
                if uploads > 0 {
                    cache.drop_blob(&digest_of(&content));
                }
                fetch(&client, &origin.url(path), &content, pinned).await;
                uploads += 1;
                let writes = cache.writes();
                assert_eq!(writes.len(), uploads, "{path}, {pinned}");
                let (name, sent) = &writes[uploads - 1];
                let compressed = name.contains("/compressed-blobs/zstd/");
                assert_eq!(compressed, zstd, "{name}");
                let small = *sent < LARGE / 2;
                assert_eq!(small, zstd, "{sent} bytes sent");
            }
        }
    }
}

#[tokio::test]
async fn scenario_11_what_is_compressed_already_goes_as_it_is() {
    let content = noise(LARGE, 11);
    let origin = origin(&content).await;
    let cache = Upstream::start();
    cache.announce_zstd();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    fetch(&client, &origin.url("/length"), &content, true).await;
    let (name, sent) = &cache.writes()[0];
    assert!(name.contains("/blobs/"), "{name}");
    assert_eq!(*sent, LARGE);
}

#[tokio::test]
async fn scenario_11_zstd_can_be_switched_off() {
    let content = text(LARGE);
    let origin = origin(&content).await;
    let cache = Upstream::start();
    cache.announce_zstd();
    let proxy = Proxy::new().upstream(&cache);
    let proxy = proxy.config("[upstream]\nzstd = \"off\"\n");
    let (_proxy, client) = proxy.connected().await;
    fetch(&client, &origin.url("/length"), &content, true).await;
    assert_eq!(cache.writes()[0].1, LARGE);
}

#[tokio::test]
async fn scenario_11_the_embedded_cache_takes_both_forms() {
    for content in [text(LARGE), noise(LARGE, 12)] {
        let origin = origin(&content).await;
        for path in ["/length", "/chunked"] {
            for pinned in [false, true] {
                let cache = Proxy::new().start().await;
                let url = format!("grpc://{}", cache.address());
                let (_proxy, client) = Proxy::new().upstream_at(&url).connected().await;
                fetch(&client, &origin.url(path), &content, pinned).await;
                // It stands by itself too, fetching into its own memory.
                let own = cache.client().await;
                fetch(&own, &origin.url(path), &content, pinned).await;
            }
        }
    }
}

#[tokio::test]
async fn scenario_11_a_download_that_fails_at_its_end_stores_nothing() {
    let content = text(LARGE);
    let mut other = content.clone();
    *other.last_mut().unwrap() ^= 1;
    let origin = Origin::new()
        .file("/wrong", &other)
        .reply("/wrong-chunked", Reply::ok(&other).chunked())
        .reply("/cut", Reply::ok(&content).cut_after(LARGE - 1))
        .start()
        .await;
    let cache = Upstream::start();
    cache.announce_zstd();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    for path in ["/wrong", "/wrong-chunked", "/cut"] {
        let ask = fetch_blob(&[origin.url(path)])
            .qualifier("checksum.sri", &sri(Function::Sha256, &content));
        inline(client.fetch_blob(ask).await, Code::Aborted);
    }
    assert_eq!(cache.writes(), []);
    // What is there was written to learn whether the caller may write.
    let largest = cache.blobs().iter().map(|(_, blob)| blob.len()).max();
    assert!(largest < Some(1000), "{largest:?}");
    assert_eq!(cache.entries(), []);
}

#[tokio::test]
async fn scenario_11_a_caller_who_gives_up_leaves_no_part_of_an_upload() {
    let content = text(LARGE);
    let gate = Gate::new();
    let slow = Reply::ok(&content).gated_after(LARGE / 2, &gate);
    let origin = Origin::new().reply("/slow", slow).start().await;
    let cache = Upstream::start();
    cache.announce_zstd();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let ask = || {
        fetch_blob(&[origin.url("/slow")])
            .qualifier("checksum.sri", &sri(Function::Sha256, &content))
            .timeout(Duration::from_secs(1))
    };
    inline(client.fetch_blob(ask()).await, Code::DeadlineExceeded);
    gate.open();
    assert_eq!(cache.writes(), []);
    eventually("the next call's success", async || {
        let answer = client.fetch_blob(ask()).await.ok()?;
        (answer.blob_digest == Some(digest_of(&content))).then_some(())
    })
    .await;
}
