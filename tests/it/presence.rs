//! H1 to H5: an OK answer names content that is in the CAS at that moment.

use crate::support::content::noise;
use crate::support::{
    Answer as _, Client, Code, Function, Origin, Proxy, Qualified as _, Reply, Upstream, digest_of,
    fetch_blob, hit, inline, push_blob, sri,
};

async fn assert_served(client: &Client, digest: &assetgate::proto::rev2::Digest, content: &[u8]) {
    assert_eq!(digest, &digest_of(content));
    assert_eq!(client.missing(std::slice::from_ref(digest)).await, []);
    assert!(
        client.blob(digest).await.unwrap() == content,
        "other content"
    );
}

#[tokio::test]
async fn h1_what_an_answer_names_can_be_read_at_once() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    for proxy in [Proxy::new(), Proxy::new().upstream(&cache)] {
        let (_proxy, client) = proxy.connected().await;
        let pinned = sri(Function::Sha512, b"content");
        for fetch in [
            fetch_blob(&[origin.url("/a")]),
            fetch_blob(&[origin.url("/a")]).qualifier("checksum.sri", &pinned),
        ] {
            for _ in 0..2 {
                let digest = hit(client.fetch_blob(fetch.clone()).await);
                assert_served(&client, &digest, b"content").await;
            }
        }
    }
}

#[tokio::test]
async fn h1_content_lands_in_the_instance_of_the_request() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let fetch = fetch_blob(&[origin.url("/a")]).instance("one/two");
    let digest = hit(client.fetch_blob(fetch).await);
    let name = format!("one/two/blobs/{}/{}", digest.hash, digest.size_bytes);
    assert_eq!(client.read(&name).await.unwrap(), b"content");
}

#[tokio::test]
async fn h2_a_pushed_blob_that_was_evicted_is_a_miss() {
    for checks in [true, false] {
        let cache = Upstream::start();
        cache.check_completeness(checks);
        let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
        let digest = cache.put(b"blob");
        client
            .push_blob(push_blob(&["urn:h:a"], digest.clone()))
            .await
            .unwrap();
        assert_eq!(
            hit(client.fetch_blob(fetch_blob(&["urn:h:a"])).await),
            digest
        );
        cache.drop_blob(&digest);
        inline(
            client.fetch_blob(fetch_blob(&["urn:h:a"])).await,
            Code::NotFound,
        );
        cache.put(b"blob");
        assert_eq!(
            hit(client.fetch_blob(fetch_blob(&["urn:h:a"])).await),
            digest
        );
    }
}

#[tokio::test]
async fn h2_scenario_12_a_fetched_blob_that_was_evicted_is_fetched_again() {
    let origin = Origin::new().file("/a", "content").start().await;
    for checks in [true, false] {
        let cache = Upstream::start();
        cache.check_completeness(checks);
        let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
        let before = origin.total();
        for pinned in [true, false] {
            let mut fetch = fetch_blob(&[origin.url("/a")]);
            if pinned {
                let checksum = sri(Function::Sha256, b"content");
                fetch = fetch.qualifier("checksum.sri", &checksum);
            }
            let digest = hit(client.fetch_blob(fetch.clone()).await);
            cache.drop_blob(&digest);
            assert_eq!(hit(client.fetch_blob(fetch).await), digest);
            assert!(cache.has(&digest));
        }
        assert!(origin.total() - before >= 3);
    }
}

#[tokio::test]
async fn h3_scenario_4_bodies_of_every_size_and_framing() {
    let large = noise(24 << 20, 1);
    let middle = noise(3_000_001, 2);
    let origin = Origin::new()
        .file("/empty", "")
        .reply("/empty-chunked", Reply::ok("").chunked())
        .file("/middle", &middle)
        .reply("/chunked", Reply::ok(&middle).chunked())
        .reply("/until-close", Reply::ok(&middle).until_close())
        .file("/large", &large)
        .start()
        .await;
    let (_proxy, client) = Proxy::new().connected().await;
    for (path, content) in [
        ("/empty", &[][..]),
        ("/empty-chunked", &[]),
        ("/middle", &middle),
        ("/chunked", &middle),
        ("/until-close", &middle),
        ("/large", &large),
    ] {
        let digest = hit(client.fetch_blob(fetch_blob(&[origin.url(path)])).await);
        assert_served(&client, &digest, content).await;
    }
}

#[tokio::test]
async fn h3_an_empty_file_may_be_pinned() {
    let origin = Origin::new().file("/empty", "").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let fetch =
        fetch_blob(&[origin.url("/empty")]).qualifier("checksum.sri", &sri(Function::Sha256, b""));
    assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b""));
}

#[tokio::test]
async fn h3_the_bytes_are_those_that_were_served() {
    let gzip = [
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let origin = Origin::new()
        .reply(
            "/encoded",
            Reply::ok(gzip).header("Content-Encoding", "gzip"),
        )
        .file("/a.tar.gz", gzip)
        .start()
        .await;
    let (_proxy, client) = Proxy::new().connected().await;
    for path in ["/encoded", "/a.tar.gz"] {
        let digest = hit(client.fetch_blob(fetch_blob(&[origin.url(path)])).await);
        assert_served(&client, &digest, &gzip).await;
        let asked = &origin.seen_at(path)[0];
        assert!(matches!(
            asked.header("accept-encoding"),
            None | Some("identity")
        ));
    }
}

#[tokio::test]
async fn h3_batches_keep_to_what_the_cache_announces() {
    let content = noise(200_000, 4);
    let origin = Origin::new().file("/a", &content).start().await;
    let cache = Upstream::start();
    cache.batch_limit(65_536);
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = hit(client.fetch_blob(fetch_blob(&[origin.url("/a")])).await);
    assert!(cache.get(&digest).unwrap() == content);
}

#[tokio::test]
async fn h4_pinned_content_outlives_its_origin() {
    let mut origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let checksum = sri(Function::Sha256, b"content");
    let fetch = fetch_blob(&[origin.url("/a")]).qualifier("checksum.sri", &checksum);
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = hit(client.fetch_blob(fetch.clone()).await);
    origin.stop().await;
    assert_eq!(hit(client.fetch_blob(fetch.clone()).await), digest);
    let (_other, client) = Proxy::new().upstream(&cache).connected().await;
    assert_eq!(hit(client.fetch_blob(fetch).await), digest);
    assert_eq!(origin.total(), 1);
}

#[tokio::test]
async fn h4_a_hit_is_at_most_two_calls() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"blob");
    client
        .push_blob(push_blob(&["urn:h:a"], digest))
        .await
        .unwrap();
    hit(client.fetch_blob(fetch_blob(&["urn:h:a"])).await);
    cache.forget_calls();
    hit(client.fetch_blob(fetch_blob(&["urn:h:a"])).await);
    let calls = cache.calls();
    assert!(calls.len() <= 2, "{calls:?}");
    assert!(
        calls
            .iter()
            .all(|c| matches!(c.method(), "GetActionResult" | "FindMissingBlobs"))
    );
}

#[tokio::test]
async fn h5_the_answer_has_the_qualifiers_that_were_stored() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"blob").await;
    let pairs = [("b", "2"), ("a", "1")];
    let push = push_blob(&["urn:h:a"], digest).qualifiers(&pairs);
    client
        .push_blob(push.qualifier("http_header:X-Token", "secret"))
        .await
        .unwrap();
    let answer = client
        .fetch_blob(fetch_blob(&["urn:h:a"]).qualifiers(&pairs))
        .await
        .unwrap();
    let mut got: Vec<_> = answer
        .qualifiers
        .iter()
        .map(|q| (&*q.name, &*q.value))
        .collect();
    got.sort_unstable();
    assert_eq!(got, [("a", "1"), ("b", "2")]);
    let fetch = fetch_blob(&[origin.url("/a")])
        .qualifier("bazel.canonical_id", "x")
        .qualifier("http_header:Authorization", "secret");
    let answer = client.fetch_blob(fetch).await.unwrap();
    assert_eq!(answer.status().code, 0);
    assert!(!format!("{answer:?}").contains("secret"), "{answer:?}");
}
