//! An answer under a checksum is proven, whoever else can reach the port: what
//! a push says of its content, or an entry in the Action Cache, is a hint that
//! reading the content back has to confirm.

use std::time::Duration;

use assetgate::proto::rev2::UpdateActionResultRequest;

use crate::support::forge::{Forged, Place};
use crate::support::{
    Client, Code, Dir, Function, Origin, Pending, Proxy, Qualified as _, Running, Upstream,
    digest_of, eventually, fetch_blob, fetch_directory, hit, inline, push_blob, push_directory,
    refused, sri,
};

const SRI: &str = "checksum.sri";
const URN: [&str; 1] = ["urn:proof:a"];
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Every checksum of these bytes that the digest of other bytes does not
/// contradict: other algorithms, and lists with one of them.
fn checksums(wanted: &[u8]) -> Vec<String> {
    let of = |function| sri(function, wanted);
    let mut all = vec![of(Function::Sha512), of(Function::Sha384)];
    all.extend([of(Function::Sha1), of(Function::Md5), of(Function::Blake3)]);
    all.push(format!("{} {}", of(Function::Sha256), of(Function::Sha512)));
    all.push(format!("{} {}", of(Function::Sha512), of(Function::Sha384)));
    all
}

async fn claims(proxy: &Running, result: &str) -> f64 {
    let label = format!("result=\"{result}\"");
    let metrics = proxy.metrics().await;
    metrics.sum("assetgate_checksum_claims_total", &[&label])
}

/// Writes an entry as any client may.
async fn write(client: &Client, forged: &Forged<'_>) {
    let (action, entry) = forged.entry();
    let update = UpdateActionResultRequest {
        action_digest: Some(action),
        action_result: Some(entry),
        ..Default::default()
    };
    client.update_action_result(update).await.unwrap();
}

fn keyed(file: &tempfile::NamedTempFile, more: &str) -> String {
    format!("[references]\nmac_key = {:?}\n{more}", file.path())
}

fn key_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn reads(cache: &Upstream) -> usize {
    cache.calls_of("Read").len() + cache.calls_of("BatchReadBlobs").len()
}

#[tokio::test]
async fn a_false_checksum_of_a_push_answers_nobody() {
    let origin = Origin::new().file("/a", "wanted").start().await;
    let url = [origin.url("/a")];
    let (_proxy, attacker) = Proxy::new().connected().await;
    let victim = attacker.clone();
    let evil = attacker.upload(b"evil").await;
    for checksum in checksums(b"wanted") {
        let push = push_blob(&url, evil.clone()).qualifier(SRI, &checksum);
        attacker.push_blob(push).await.unwrap();
        let fetch = fetch_blob(&url).qualifier(SRI, &checksum);
        let answer = hit(victim.fetch_blob(fetch).await);
        assert_eq!(answer, digest_of(b"wanted"), "{checksum}");
    }
    // Where no origin can be asked; with exactly these qualifiers, and more.
    for checksum in checksums(b"nowhere") {
        for more in [&[][..], &[("a", "1")]] {
            let push = push_blob(&URN, evil.clone()).qualifier(SRI, &checksum);
            attacker.push_blob(push.qualifiers(more)).await.unwrap();
            let fetch = fetch_blob(&URN).qualifier(SRI, &checksum);
            inline(victim.fetch_blob(fetch).await, Code::NotFound);
        }
    }
}

#[tokio::test]
async fn a_true_checksum_of_a_push_is_proven_once() {
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"pushed");
    for (count, checksum) in checksums(b"pushed").into_iter().enumerate() {
        let uri = [format!("urn:proof:{count}")];
        let push = push_blob(&uri, digest.clone()).qualifier(SRI, &checksum);
        client.push_blob(push).await.unwrap();
        let before = reads(&cache);
        for _ in 0..3 {
            let fetch = fetch_blob(&uri).qualifier(SRI, &checksum);
            assert_eq!(hit(client.fetch_blob(fetch).await), digest, "{checksum}");
        }
        // The first five need the content, each for another algorithm; the
        // lists hold one that is known by then.
        let expected = usize::from(count < 5);
        assert_eq!(reads(&cache) - before, expected, "{checksum}");
    }
    assert!(claims(&proxy, "right").await >= 5.0);
    assert!(claims(&proxy, "wrong").await < 0.5);
}

#[tokio::test]
async fn a_forged_entry_answers_nobody_with_or_without_pushing() {
    for config in ["", "[push]\nenabled = false\n"] {
        let (proxy, client) = Proxy::new().config(config).connected().await;
        let evil = client.upload(b"evil").await;
        let checksum = sri(Function::Sha512, b"wanted");
        let pair = [(SRI, &*checksum)];
        let more = [("a", "1"), (SRI, &*checksum)];
        let forged = |place, qualifiers, key| Forged {
            place,
            digest: evil.clone(),
            claims: (Function::Sha512, b"wanted"),
            qualifiers,
            key,
        };
        write(&client, &forged(Place::Checksum, &pair, &[])).await;
        write(&client, &forged(Place::Exact(URN[0]), &pair, &pair)).await;
        write(&client, &forged(Place::Subset(URN[0]), &more, &pair)).await;
        write(&client, &forged(Place::Fetched(URN[0]), &pair, &pair)).await;
        write(&client, &forged(Place::Migrated(URN[0]), &pair, &pair)).await;
        for uris in [&URN[..], &[]] {
            let fetch = fetch_blob(uris).qualifier(SRI, &checksum);
            let answer = client.fetch_blob(fetch).await;
            inline(answer, Code::NotFound);
        }
        let wrong = claims(&proxy, "wrong").await;
        assert!(wrong >= 2.0, "counted: {wrong}");
        let logged = proxy.stderr().text();
        assert!(logged.contains(&checksum), "with its key: {logged}");
        // The same with the truth in it is an answer.
        let truth = Forged {
            place: Place::Checksum,
            digest: evil.clone(),
            claims: (Function::Sha512, b"evil"),
            qualifiers: &[(SRI, &sri(Function::Sha512, b"evil"))],
            key: &[],
        };
        write(&client, &truth).await;
        let fetch = fetch_blob(&[] as &[&str]).qualifier(SRI, &sri(Function::Sha512, b"evil"));
        assert_eq!(hit(client.fetch_blob(fetch).await), evil);
    }
}

#[tokio::test]
async fn a_signature_over_a_push_says_nothing_about_its_checksum() {
    let cache = Upstream::start();
    let key = key_file(KEY);
    let proxy = Proxy::new().upstream(&cache).config(keyed(&key, ""));
    let (_proxy, client) = proxy.connected().await;
    let evil = cache.put(b"evil");
    let checksum = sri(Function::Sha512, b"wanted");
    let push = push_blob(&URN, evil).qualifier(SRI, &checksum);
    client.push_blob(push).await.unwrap();
    let fetch = fetch_blob(&URN).qualifier(SRI, &checksum);
    inline(client.fetch_blob(fetch).await, Code::NotFound);
}

#[tokio::test]
async fn what_was_fetched_is_proven_by_a_signature_or_by_this_process() {
    let origin = Origin::new().file("/a", "content").start().await;
    let key = key_file(KEY);
    let fetch =
        || fetch_blob(&[origin.url("/a")]).qualifier(SRI, &sri(Function::Sha512, b"content"));
    for (config, read_back) in [(keyed(&key, ""), 0), (String::new(), 1)] {
        let cache = Upstream::start();
        let proxy = || Proxy::new().upstream(&cache).config(config.clone());
        let (_one, one) = proxy().connected().await;
        hit(one.fetch_blob(fetch()).await);
        let asked = origin.total();
        hit(one.fetch_blob(fetch()).await);
        assert_eq!(reads(&cache), 0, "it hashed the download itself");
        let (_two, two) = proxy().connected().await;
        hit(two.fetch_blob(fetch()).await);
        hit(two.fetch_blob(fetch()).await);
        assert_eq!(reads(&cache), read_back, "{config}");
        assert_eq!(origin.total(), asked);
    }
}

#[tokio::test]
async fn one_reads_back_for_all_who_wait() {
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"pushed");
    let checksum = sri(Function::Sha512, b"pushed");
    let push = push_blob(&URN, digest.clone()).qualifier(SRI, &checksum);
    client.push_blob(push).await.unwrap();
    cache.delay("Read", Duration::from_millis(1500));
    // Each with credentials of its own.
    let calls: Vec<Pending> = (0..50)
        .map(|n| {
            let client = client.with("authorization", format!("Bearer {n}"));
            Pending::call(&client, fetch_blob(&URN).qualifier(SRI, &checksum))
        })
        .collect();
    proxy.waiting(50).await;
    for call in calls {
        assert_eq!(hit(call.answer().await), digest);
    }
    assert_eq!(reads(&cache), 1);
    let asked = cache.calls_of("GetActionResult").len();
    assert_eq!(
        asked, 150,
        "each asked, X and E with and without the checksum"
    );
}

#[tokio::test]
async fn one_connection_leaves_turns_of_reading_back_to_others() {
    // Small blobs, and large ones: what is read is not what was announced.
    for size in [None, Some(17 << 20)] {
        let cache = Upstream::start();
        let (proxy, attacker) = Proxy::new().upstream(&cache).connected().await;
        let victim = proxy.client().await;
        let hint = async |client: &Client, name: String| {
            let mut digest = digest_of(name.as_bytes());
            digest.size_bytes = size.unwrap_or(digest.size_bytes);
            cache.put_as(&digest, name.as_bytes());
            let checksum = sri(Function::Sha512, b"wanted");
            let push = push_blob(&[&name], digest).qualifier(SRI, &checksum);
            client.push_blob(push).await.unwrap();
            fetch_blob(&[&name]).qualifier(SRI, &checksum)
        };
        let mut hints = Vec::new();
        for n in 0..100 {
            hints.push(hint(&attacker, format!("urn:proof:hint:{n}")).await);
        }
        let own = hint(&victim, "urn:proof:own".to_owned()).await;
        cache.delay("Read", Duration::from_millis(1500));
        let begun = std::time::Instant::now();
        // Among them, what the victim asks for: last, so that its turn is far.
        let shared = hints.last().cloned().unwrap();
        let calls = hints.into_iter().map(|hint| Pending::call(&attacker, hint));
        let calls: Vec<Pending> = calls.collect();
        proxy.waiting(100).await;
        for fetch in [own, shared] {
            inline(victim.fetch_blob(fetch).await, Code::NotFound);
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(6), "{took:?}");
        calls.into_iter().for_each(Pending::cancel);
    }
}

#[tokio::test]
async fn the_last_who_waits_ends_the_reading_and_a_refusal_is_not_shared() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"pushed");
    let checksum = sri(Function::Sha512, b"pushed");
    let push = push_blob(&URN, digest.clone()).qualifier(SRI, &checksum);
    client.push_blob(push).await.unwrap();
    let fetch = || fetch_blob(&URN).qualifier(SRI, &checksum);
    cache.delay("Read", Duration::from_secs(20));
    client
        .fetch_blob_in_vain(fetch(), Duration::from_millis(300))
        .await;
    cache.delay("Read", Duration::ZERO);
    assert_eq!(hit(client.fetch_blob(fetch()).await), digest);
    assert_eq!(reads(&cache), 2, "nobody waits for the first");
    // A cache that refuses to be read is an error, and no miss.
    let other = sri(Function::Sha384, b"pushed");
    let push = push_blob(&URN, digest.clone()).qualifier(SRI, &other);
    client.push_blob(push).await.unwrap();
    cache.fail("Read", tonic::Status::permission_denied("no reading"));
    let answer = client.fetch_blob(fetch_blob(&URN).qualifier(SRI, &other));
    refused(answer.await, Code::PermissionDenied);
    cache.heal("Read");
    let answer = client.fetch_blob(fetch_blob(&URN).qualifier(SRI, &other));
    assert_eq!(hit(answer.await), digest);
}

#[tokio::test]
async fn reading_back_keeps_to_the_limits_of_a_fetch() {
    let origin = Origin::new().file("/a", "small").start().await;
    let cache = Upstream::start();
    let config = "[fetch]\nmax_size = \"1KiB\"\n";
    let (proxy, client) = Proxy::new()
        .upstream(&cache)
        .config(config)
        .connected()
        .await;
    let large = vec![7; 4 << 10];
    let digest = cache.put(&large);
    let url = [origin.url("/a")];
    let checksum = sri(Function::Sha512, &large);
    let push = push_blob(&URN, digest).qualifier(SRI, &checksum);
    client.push_blob(push).await.unwrap();
    inline(
        client
            .fetch_blob(fetch_blob(&URN).qualifier(SRI, &checksum))
            .await,
        Code::NotFound,
    );
    assert_eq!(reads(&cache), 0);
    assert!(claims(&proxy, "unproven").await > 0.5);
    // What takes too long is not waited for: the origin is asked.
    let small = sri(Function::Sha512, b"small");
    let digest = cache.put(b"small");
    let push = push_blob(&url, digest.clone()).qualifier(SRI, &small);
    client.push_blob(push).await.unwrap();
    cache.delay("Read", Duration::from_secs(20));
    let mut fetch = fetch_blob(&url).qualifier(SRI, &small);
    fetch.timeout = Some(Duration::from_secs(1).try_into().unwrap());
    assert_eq!(hit(client.fetch_blob(fetch).await), digest);
    assert_eq!(origin.count("/a"), 1);
    // All that one call reads back has that time together.
    let slow = sri(Function::Sha384, b"somewhere");
    let urns: Vec<String> = (0..6).map(|n| format!("urn:proof:slow:{n}")).collect();
    for urn in &urns {
        let digest = cache.put(urn.as_bytes());
        let push = push_blob(&[urn], digest).qualifier(SRI, &slow);
        client.push_blob(push).await.unwrap();
    }
    let mut fetch = fetch_blob(&urns).qualifier(SRI, &slow);
    fetch.timeout = Some(Duration::from_secs(1).try_into().unwrap());
    let since = std::time::Instant::now();
    inline(client.fetch_blob(fetch).await, Code::NotFound);
    let took = since.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn md5_and_sha1_count_only_where_nothing_stronger_is_named() {
    let origin = Origin::new().file("/a", "weakly known").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"weakly known").await;
    let strong = sri(Function::Sha512, b"something else");
    for weak in [Function::Md5, Function::Sha1] {
        let weak = sri(weak, b"weakly known");
        let both = format!("{weak} {strong}");
        let push = push_blob(&URN, digest.clone()).qualifier(SRI, &both);
        client.push_blob(push).await.unwrap();
        let fetch = fetch_blob(&URN).qualifier(SRI, &both);
        inline(client.fetch_blob(fetch).await, Code::NotFound);
        let fetch = fetch_blob(&[origin.url("/a")]).qualifier(SRI, &both);
        let said = inline(client.fetch_blob(fetch).await, Code::Aborted);
        assert!(said.contains("checksum mismatch"), "{said}");
        let fetch = fetch_blob(&[origin.url("/a")]).qualifier(SRI, &weak);
        assert_eq!(hit(client.fetch_blob(fetch).await), digest);
    }
}

#[tokio::test]
async fn a_pushed_directory_cannot_prove_a_checksum() {
    let (_proxy, client) = Proxy::new().connected().await;
    let dir = Dir::new().file("f", b"file");
    client.upload_all(&dir.closure()).await;
    let checksum = sri(Function::Sha256, b"an archive");
    let push = push_directory(&URN, dir.digest()).qualifier(SRI, &checksum);
    client.push_directory(push).await.unwrap();
    let fetch = fetch_directory(&URN).qualifier(SRI, &checksum);
    inline(client.fetch_directory(fetch).await, Code::NotFound);
}

#[tokio::test]
async fn foreign_entries_are_signed_only_where_they_are_trusted() {
    let key = key_file(KEY);
    let compat = "[compat]\nbb_remote_asset = true\n";
    let proxy = Proxy::new().config(keyed(&key, compat));
    let (status, said) = proxy.start_to_end().await;
    assert_eq!(status.code(), Some(64), "{said}");
    for part in [
        "references.mac_key",
        "compat.bb_remote_asset",
        "compat.trust_unsigned",
    ] {
        assert!(said.contains(part), "{said}");
    }
    // Each of the two means nothing without what it is about.
    let alone = "[references]\nmax_age = \"1h\"\n[compat]\ntrust_unsigned = true\n";
    let (status, said) = Proxy::new().config(alone).start_to_end().await;
    assert_eq!(status.code(), Some(64), "{said}");
    for part in [
        "`references.max_age` needs",
        "`compat.trust_unsigned` needs",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let trusting = format!("{compat}trust_unsigned = true\n");
    let (_proxy, client) = Proxy::new()
        .config(keyed(&key, &trusting))
        .connected()
        .await;
    inline(client.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
}

#[tokio::test]
async fn keys_are_read_again_when_they_change() {
    let cache = Upstream::start();
    let (key, new) = (key_file(KEY), "fedcba9876543210fedcba9876543210");
    let (other, _) = (key_file(new), ());
    let start = |file| Proxy::new().upstream(&cache).config(keyed(file, ""));
    let (proxy, one) = start(&key).connected().await;
    let (_two, two) = start(&other).connected().await;
    let digest = cache.put(b"pushed");
    two.push_blob(push_blob(&URN, digest.clone()))
        .await
        .unwrap();
    inline(one.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
    // A file that is none leaves the old keys in use.
    std::fs::write(key.path(), "too short").unwrap();
    eventually("what is wrong with which file", async || {
        let logged = proxy.stderr().text();
        let path = key.path().display().to_string();
        let mut lines = logged.lines().filter(|l| l.contains("cannot be used"));
        lines.any(|line| line.contains(&path)).then_some(())
    })
    .await;
    let old: [&str; 1] = ["urn:proof:old"];
    one.push_blob(push_blob(&old, digest.clone()))
        .await
        .unwrap();
    std::fs::write(key.path(), format!("{new}\n{KEY}\n")).unwrap();
    eventually("the new keys", async || {
        let answer = one.fetch_blob(fetch_blob(&URN)).await.unwrap();
        (answer.blob_digest.as_ref() == Some(&digest)).then_some(())
    })
    .await;
    assert_eq!(hit(one.fetch_blob(fetch_blob(&old)).await), digest);
}

#[tokio::test]
async fn signed_references_end_and_those_of_fetched_content_only_if_unused() {
    let origin = Origin::new()
        .file("/a", "fetched")
        .file("/b", "unused")
        .start()
        .await;
    let (cache, key) = (Upstream::start(), key_file(KEY));
    let config = keyed(&key, "max_age = \"4s\"\n");
    let (proxy, client) = Proxy::new()
        .upstream(&cache)
        .config(config)
        .connected()
        .await;
    let fetch = |path: &str, content| {
        fetch_blob(&[origin.url(path)]).qualifier(SRI, &sri(Function::Sha512, content))
    };
    hit(client.fetch_blob(fetch("/b", b"unused")).await);
    hit(client.fetch_blob(fetch("/a", b"fetched")).await);
    let digest = cache.put(b"pushed");
    let push = push_blob(&URN, digest.clone()).qualifier("a", "1");
    client.push_blob(push).await.unwrap();
    let pushed = || fetch_blob(&URN).qualifier("a", "1");
    let old = cache.entries();
    // Used while it holds, one of them is signed anew and the pushed one is not.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(hit(client.fetch_blob(pushed()).await), digest);
    assert_eq!(hit(client.fetch_blob(fetch_blob(&URN)).await), digest);
    hit(client.fetch_blob(fetch("/a", b"fetched")).await);
    eventually("a new signature", async || {
        let metrics = proxy.metrics().await;
        let signed = metrics.sum(
            "assetgate_references_renewed_total",
            &["outcome=\"signed\""],
        );
        (signed > 0.5).then_some(())
    })
    .await;
    let changed = cache.entries().into_iter().filter(|e| !old.contains(e));
    assert_eq!(changed.count(), 1);
    tokio::time::sleep(Duration::from_millis(2000)).await;
    inline(client.fetch_blob(pushed()).await, Code::NotFound);
    inline(client.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
    hit(client.fetch_blob(fetch("/a", b"fetched")).await);
    assert_eq!(origin.count("/a"), 1);
    let expired = async || {
        let labels = ["space=\"checksum\"", "result=\"expired\""];
        proxy
            .metrics()
            .await
            .sum("assetgate_lookups_total", &labels)
    };
    assert!(expired().await < 0.5);
    hit(client.fetch_blob(fetch("/b", b"unused")).await);
    assert!(expired().await > 0.5);
    // One who may write the Action Cache puts what was there back.
    for (key, entry) in &old {
        cache.set_entry(key, entry.clone());
    }
    inline(client.fetch_blob(pushed()).await, Code::NotFound);
}

/// What a fetch finds after somebody put an old signed entry back.
async fn put_back(max_age: &str) -> assetgate::proto::asset::FetchBlobResponse {
    let (cache, key) = (Upstream::start(), key_file(KEY));
    let (_proxy, client) = Proxy::new()
        .upstream(&cache)
        .config(keyed(&key, max_age))
        .connected()
        .await;
    let old = cache.put(b"old");
    client.push_blob(push_blob(&URN, old)).await.unwrap();
    let entries = cache.entries();
    let new = cache.put(b"new");
    client.push_blob(push_blob(&URN, new)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for (key, entry) in entries {
        cache.set_entry(&key, entry);
    }
    client.fetch_blob(fetch_blob(&URN)).await.unwrap()
}

#[tokio::test]
async fn a_signed_reference_that_is_put_back_is_believed_until_max_age_alone() {
    let believed = put_back("").await;
    let digest = believed.blob_digest.expect("nothing says that it is old");
    assert_eq!(digest.hash, digest_of(b"old").hash);
    let ended = put_back("max_age = \"2s\"\n").await;
    assert_eq!(ended.status.map(|s| s.code), Some(Code::NotFound as i32));
}

#[tokio::test]
async fn what_unsigned_references_are_worth_is_told() {
    let cache = Upstream::start();
    let key = key_file(KEY);
    let run = async |key: Option<&std::path::Path>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_assetgate"));
        command
            .env_clear()
            .env("HOME", "/home/nobody")
            .arg("doctor");
        command.arg("--upstream").arg(cache.url());
        if let Some(key) = key {
            command.env("ASSETGATE__REFERENCES__MAC_KEY", key);
        }
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        String::from_utf8(output.await.unwrap().stdout).unwrap()
    };
    let said = run(None).await;
    assert!(
        said.contains("References are not signed: whoever may write"),
        "{said}"
    );
    let said = run(Some(key.path())).await;
    assert!(
        said.contains("references work") && !said.contains("not signed"),
        "{said}"
    );
}
