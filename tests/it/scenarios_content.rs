//! Scenarios 1 to 12: integrity, and content that is stored once. Those that
//! are cases of the conformance list too stand with these: 2 (`validation`),
//! 4 and 12 (`presence`), 7 and 8 (`qualifiers`); 11 is `scenarios_uploads`.

use std::time::Duration;

use assetgate::digest::{DigestFunction, Hasher};

use crate::support::content::noise;
use crate::support::{
    Answer as _, Code, Function, Gate, Origin, Pending, Proxy, Qualified as _, Reply, Upstream,
    digest_in, digest_of, eventually, fetch_blob, hit, inline, sri,
};

const ALGORITHMS: [Function; 6] = [
    Function::Md5,
    Function::Sha1,
    Function::Sha256,
    Function::Sha384,
    Function::Sha512,
    Function::Blake3,
];

#[tokio::test]
async fn scenario_1_each_algorithm_with_the_same_storage_function() {
    let small = b"content".to_vec();
    let large = noise(5 << 20, 1);
    let origin = Origin::new().file("/small", &small).file("/large", &large);
    let origin = origin.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    for function in ALGORITHMS {
        for (path, content) in [("/small", &small), ("/large", &large)] {
            let ask = fetch_blob(&[origin.url(path)])
                .function(function)
                .qualifier("checksum.sri", &sri(function, content));
            let digest = hit(client.fetch_blob(ask).await);
            assert_eq!(digest, digest_in(function, content), "{function:?}");
            let part = match function {
                Function::Blake3 => "blake3/",
                _ => "",
            };
            let name = format!("blobs/{part}{}/{}", digest.hash, digest.size_bytes);
            assert!(client.read(&name).await.unwrap() == *content);
        }
    }
}

#[tokio::test]
async fn scenario_3_a_download_happens_once_whoever_asks_and_after_a_restart() {
    let origin = Origin::new().file("/a", "content").start().await;
    let checksum = sri(Function::Sha512, b"content");
    let ask = || fetch_blob(&[origin.url("/a")]).qualifier("checksum.sri", &checksum);
    let cache = Upstream::start();
    for _ in 0..2 {
        let (_replica, client) = Proxy::new().upstream(&cache).connected().await;
        for _ in 0..2 {
            assert_eq!(hit(client.fetch_blob(ask()).await), digest_of(b"content"));
        }
    }
    assert_eq!(origin.count("/a"), 1, "two replicas");

    let dir = tempfile::tempdir().unwrap();
    for requests in [2, 2] {
        let (proxy, client) = Proxy::new().data_dir(dir.path()).connected().await;
        assert_eq!(hit(client.fetch_blob(ask()).await), digest_of(b"content"));
        assert_eq!(origin.count("/a"), requests, "before and after a restart");
        proxy.terminate();
        assert!(proxy.ended().await.success());
    }
}

#[tokio::test]
async fn scenario_5_what_the_cache_has_is_given_without_the_origin() {
    let origin = Origin::new()
        .file("/a", "content")
        .status("/403", 403)
        .start()
        .await;
    let (_proxy, client) = Proxy::new().connected().await;
    let checksum = sri(Function::Sha256, b"content");
    let ask = |uri: &str| fetch_blob(&[uri]).qualifier("checksum.sri", &checksum);
    hit(client.fetch_blob(ask(&origin.url("/a"))).await);
    for uri in [&origin.url("/403"), "http://[oops/a", "relative"] {
        let answer = client.fetch_blob(ask(uri)).await;
        assert_eq!(answer.as_ref().unwrap().uri(), uri);
        assert_eq!(hit(answer), digest_of(b"content"), "{uri}");
    }
    assert_eq!(origin.total(), 1);
}

#[tokio::test]
async fn scenario_5_what_comes_into_the_cache_meanwhile_is_not_downloaded() {
    let content = noise(5 << 20, 5);
    let (head, body) = (Gate::new(), Gate::new());
    let reply = Reply::ok(&content).gated(&head).gated_after(0, &body);
    let origin = Origin::new().reply("/a", reply).start().await;
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let ask =
        fetch_blob(&[origin.url("/a")]).qualifier("checksum.sri", &sri(Function::Sha256, &content));
    let call = Pending::call(&client, ask);
    eventually("the request", async || {
        (origin.count("/a") == 1).then_some(())
    })
    .await;
    cache.put(&content);
    head.open();
    // The body never comes.
    assert_eq!(hit(call.answer().await), digest_of(&content));
    assert_eq!(cache.writes(), []);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("assetgate_origin_bytes_total", &[]), 0.0);
}

#[tokio::test]
async fn scenario_6_wrong_content_is_never_stored_as_what_was_asked_for() {
    let wanted = noise(5 << 20, 6);
    for served in [noise(5 << 20, 7), b"short".to_vec()] {
        let origin = Origin::new()
            .file("/length", &served)
            .reply("/chunked", Reply::ok(&served).chunked())
            .file("/good", &wanted)
            .start()
            .await;
        for algorithm in [Function::Sha256, Function::Sha1, Function::Blake3] {
            let cache = Upstream::start();
            let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
            let checksum = sri(algorithm, &wanted);
            for path in ["/length", "/chunked"] {
                let uri = origin.url(path);
                let ask = fetch_blob(&[&uri]).qualifier("checksum.sri", &checksum);
                let answer = client.fetch_blob(ask).await;
                assert_eq!(answer.as_ref().unwrap().uri(), uri);
                inline(answer, Code::Aborted);
                assert_eq!(cache.writes(), [], "{algorithm:?}, {path}");
                assert!(!cache.has(&digest_of(&wanted)));
                assert!(!cache.has(&digest_of(&served)));
                assert_eq!(cache.entries(), []);
            }
            let uris = [origin.url("/length"), origin.url("/good")];
            let ask = fetch_blob(&uris).qualifier("checksum.sri", &checksum);
            let answer = client.fetch_blob(ask).await;
            assert_eq!(answer.as_ref().unwrap().uri(), uris[1]);
            assert_eq!(hit(answer), digest_of(&wanted));
            assert!(!cache.has(&digest_of(&served)));
        }
    }
}

#[tokio::test]
async fn l2_scenario_6_one_checksum_does_not_answer_for_another() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let ask = |content: &[u8]| {
        let checksum = sri(Function::Sha256, content);
        fetch_blob(&[origin.url("/a")]).qualifier("checksum.sri", &checksum)
    };
    hit(client.fetch_blob(ask(b"content")).await);
    for _ in 0..2 {
        inline(client.fetch_blob(ask(b"other")).await, Code::Aborted);
    }
    assert_eq!(origin.count("/a"), 3);
    hit(client.fetch_blob(ask(b"content")).await);
}

#[tokio::test]
async fn scenario_6_new_content_under_an_old_url_is_fetched_at_once() {
    let replies = vec![Reply::ok("one"), Reply::ok("two")];
    let origin = Origin::new().replies("/a", replies).start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    for content in [b"one", b"two"] {
        let ask = fetch_blob(&[origin.url("/a")])
            .qualifier("checksum.sri", &sri(Function::Sha256, content));
        assert_eq!(hit(client.fetch_blob(ask).await), digest_of(content));
    }
}

#[tokio::test]
async fn n06_what_changed_behind_a_url_is_seen_without_a_time() {
    let replies = ["one", "two", "two"].map(Reply::ok).into();
    let origin = Origin::new().replies("/a", replies).start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    for content in [b"one", b"two", b"two"] {
        let digest = hit(client.fetch_blob(fetch_blob(&[origin.url("/a")])).await);
        assert_eq!(digest, digest_of(content));
    }
}

#[tokio::test]
async fn scenario_9_a_body_of_another_length_leaves_nothing_behind() {
    let content = noise(5 << 20, 9);
    let cut = content.len() - 1;
    let origin = Origin::new()
        .reply("/short", Reply::ok(&content).declaring(6 << 20))
        .reply("/cut", Reply::ok(&content).cut_after(cut))
        .reply("/cut-chunked", Reply::ok(&content).chunked().cut_after(cut))
        .reply("/nothing", Reply::ok(&content).cut_after(0))
        .start()
        .await;
    let spool = tempfile::tempdir().unwrap();
    let config = format!(
        "[fetch]\nspool_dir = {:?}\nretry_delay = \"10ms\"\n",
        spool.path()
    );
    for pinned in [false, true] {
        let cache = Upstream::start();
        let proxy = Proxy::new().config(&config).upstream(&cache);
        let (proxy, client) = proxy.connected().await;
        for path in ["/short", "/cut", "/cut-chunked", "/nothing"] {
            let mut ask = fetch_blob(&[origin.url(path)]);
            if pinned {
                ask = ask.qualifier("checksum.sri", &sri(Function::Sha256, &content));
            }
            inline(client.fetch_blob(ask).await, Code::Aborted);
        }
        assert_eq!(cache.writes(), []);
        assert_eq!(cache.entries(), []);
        assert!(!cache.has(&digest_of(&content)));
        assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0);
        eventually("the end of every temporary file", async || {
            let held = proxy.metrics().await.sum("assetgate_spool_bytes", &[]);
            (held == 0.0 && proxy.open_files().iter().all(|f| f.len() < 1 << 20)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn scenario_9_what_follows_a_body_is_no_part_of_it() {
    // One answer, and bytes nobody asked for after it.
    let lying = || Reply::ok("content and more").declaring(7);
    let origin = Origin::new()
        .reply("/long", lying())
        .reply("/pinned", lying());
    let origin = origin.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let long = fetch_blob(&[origin.url("/long")]);
    assert_eq!(hit(client.fetch_blob(long).await), digest_of(b"content"));
    let whole = fetch_blob(&[origin.url("/pinned")])
        .qualifier("checksum.sri", &sri(Function::Sha256, b"content and more"));
    inline(client.fetch_blob(whole).await, Code::Aborted);
}

#[tokio::test]
async fn scenario_10_an_empty_file_and_a_compressed_one() {
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0";
    let encoded = Reply::ok(gzip).header("Content-Encoding", "gzip");
    let origin = Origin::new()
        .file("/empty", "")
        .reply("/empty-chunked", Reply::ok("").chunked())
        .reply("/gzip", encoded)
        .start()
        .await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    for algorithm in [Function::Sha256, Function::Sha512] {
        for (path, content) in [
            ("/empty", &b""[..]),
            ("/empty-chunked", b""),
            ("/gzip", gzip),
        ] {
            let ask =
                fetch_blob(&[origin.url(path)]).qualifier("checksum.sri", &sri(algorithm, content));
            let digest = hit(client.fetch_blob(ask).await);
            assert_eq!(digest, digest_of(content), "{path}");
            assert_eq!(client.missing(&[digest]).await, []);
        }
    }
    assert_eq!(cache.get(&digest_of(gzip)).unwrap(), &gzip[..]);
}

#[tokio::test]
async fn scenario_10_a_huge_body_takes_little_memory() {
    const TIMES: usize = 384;
    let piece = noise(1 << 20, 10);
    let huge = || Reply::ok(&piece).times(TIMES);
    let origin = Origin::new()
        .reply("/length", huge())
        .reply("/chunked", huge().chunked())
        .start()
        .await;
    let (proxy, client) = Proxy::new().connected().await;
    let mut hasher = Hasher::new(DigestFunction::Sha256).unwrap();
    for _ in 0..TIMES {
        hasher.update(&piece);
    }
    let digest = hasher.finish().to_wire();
    // What a small fetch needs is there anyway.
    inline(
        client.fetch_blob(fetch_blob(&[origin.url("/none")])).await,
        Code::NotFound,
    );
    let before = proxy.resident();
    for path in ["/length", "/chunked"] {
        let call = Pending::call(&client, fetch_blob(&[origin.url(path)]));
        let mut most = 0;
        while !call.is_over() {
            most = most.max(proxy.resident());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(hit(call.answer().await), digest);
        assert!(most < before + (96 << 20), "{before}, then {most}");
    }
}
