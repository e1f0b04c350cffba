//! `assetgate explain` beside a real server, over the same cache: it names the
//! key that answers, or the reason why none does, which is the reason in the
//! server's metrics and log; and it never shows a secret.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::entries::edit_payload;
use crate::support::logs::field;
use crate::support::{
    Client, Code, Fetching as _, Function, Origin, Proxy, Pushing as _, Qualified as _, Reply,
    Running, Upstream, digest_in, eventually, fetch_blob, fetch_directory, hit, inline, push_blob,
};

const URN: &str = "urn:x:a";

struct Told {
    code: i32,
    out: String,
    err: String,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {} {}", self.out, self.err))
    }
}

/// Runs it as a user would, beside whatever runs already.
fn run(arguments: &[&str]) -> Told {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assetgate"));
    command.env_clear().env("HOME", "/home/nobody");
    let Output {
        status,
        stdout,
        stderr,
    } = command.arg("explain").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Told {
        code: status.code().unwrap(),
        out: text(stdout),
        err: text(stderr),
    }
}

async fn told(arguments: &[&str]) -> Told {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let run = move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// A server, a client of it, and its cache.
struct World {
    proxy: Running,
    client: Client,
    cache: Upstream,
}

impl World {
    async fn start() -> Self {
        let cache = Upstream::start();
        // So that explain sees entries whose content is gone.
        cache.check_completeness(false);
        let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
        Self {
            proxy,
            client,
            cache,
        }
    }

    async fn push(&self, pairs: &[(&str, &str)], expire_at: Option<SystemTime>) {
        let digest = self.cache.put(b"blob");
        let mut push = push_blob(&[URN], digest).qualifiers(pairs);
        if let Some(at) = expire_at {
            push = push.expire_at(at);
        }
        self.client.push_blob(push).await.unwrap();
    }

    /// An explanation of a fetch of the pushed URI; with JSON.
    async fn explain(&self, more: &[&str]) -> Told {
        let url = self.cache.url();
        let arguments = ["--upstream", &url, "--uri", URN];
        told(&[&arguments[..], more].concat()).await
    }

    /// Explains a miss, and checks that a fetch in its place is one for the
    /// same reason, in its log event and the metrics.
    async fn misses(&self, missed: &str, space: &str, found: &str, oldest: Option<SystemTime>) {
        let stamp = oldest.map(|at| prost_types::Timestamp::from(at).to_string());
        let mut arguments = vec!["--json"];
        arguments.extend(stamp.iter().flat_map(|s| ["--oldest-content-accepted", s]));
        let told = self.explain(&arguments).await;
        let json = told.json();
        assert_eq!(told.code, 1, "{json:#}");
        assert_eq!(json["verdict"]["missed"], missed, "{json:#}");
        assert_eq!(json["verdict"]["origin_would_be_asked"], false);
        let keys = json["keys"].as_array().unwrap();
        let key = keys.iter().find(|key| key["space"] == space).unwrap();
        assert_eq!(key["missed"], missed, "{json:#}");
        assert_eq!(key["found"]["result"], found, "{json:#}");

        let labels = [
            &*format!("space=\"{space}\""),
            &format!("result=\"{missed}\""),
        ];
        let count = async || {
            let metrics = self.proxy.metrics().await;
            metrics.sum("assetgate_lookups_total", &labels)
        };
        let (before, seen) = (count().await, self.logged().len());
        let mut fetch = fetch_blob(&[URN]);
        if let Some(at) = oldest {
            fetch = fetch.oldest(at);
        }
        inline(self.client.fetch_blob(fetch).await, Code::NotFound);
        assert!(count().await > before, "{labels:?}");
        let logged = eventually("the log event", async || self.logged().get(seen).cloned());
        assert_eq!(logged.await.as_deref(), Some(missed));
    }

    /// The reasons of the fetches in the log.
    fn logged(&self) -> Vec<Option<String>> {
        let events = self.proxy.stderr().events();
        let fetches = events
            .iter()
            .filter(|e| field(e, "rpc").as_deref() == Some("FetchBlob"));
        fetches.map(|e| field(e, "missed")).collect()
    }
}

#[tokio::test]
async fn a_hit_is_told_with_all_that_led_to_it() {
    let world = World::start().await;
    let later = SystemTime::now() + Duration::from_secs(3 * 3_600);
    world.push(&[("a", "1")], Some(later)).await;
    let told = world.explain(&["--qualifier", "a=1", "--json"]).await;
    let json = told.json();
    assert_eq!(told.code, 0, "{json:#}");
    let key = &json["keys"][0];
    assert_eq!(
        (&key["answers"], &key["space"]),
        (&true.into(), &"exact".into())
    );
    let actions = world.cache.entries();
    let hash = key["found"]["action"].as_str().unwrap();
    assert!(
        actions.iter().any(|(k, _)| hash.contains(&k.digest.hash)),
        "{hash}"
    );
    let entry = &key["found"]["entry"];
    assert_eq!(entry["source"], "push");
    assert_eq!(entry["qualifiers"]["a"], "1");
    assert_eq!(entry["detached"], false);
    assert!(entry["age_seconds"].as_f64().unwrap() < 60.0);
    let text = world.explain(&["--qualifier", "a=1"]).await.out;
    for part in [
        "1. exact urn:x:a with a=1\n",
        "hit; its content is there",
        "yes: this answers",
        "in 2 hours and 59 minutes",
        "A fetch would answer from the cache now: hit_exact for urn:x:a, ",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let answered = world
        .client
        .fetch_blob(fetch_blob(&[URN]).qualifier("a", "1"));
    let digest = hit(answered.await);
    assert!(text.contains(&digest.hash), "{text}");
}

#[tokio::test]
async fn a_subset_answers_and_other_qualifiers_do_not() {
    let world = World::start().await;
    world.push(&[("a", "1"), ("b", "2")], None).await;
    let json = world
        .explain(&["--qualifier", "b=2", "--json"])
        .await
        .json();
    assert_eq!(json["verdict"]["outcome"], "hit_subset", "{json:#}");
    assert_eq!(json["verdict"]["qualifiers"]["a"], "1");
    assert_eq!(json["keys"][1]["exact"]["result"], "hit");
    let other = world.explain(&["--qualifier", "b=3", "--json"]).await;
    assert_eq!(
        (other.code, &other.json()["verdict"]["missed"]),
        (1, &"absent".into())
    );
    let kind = world
        .explain(&["--qualifier", "b=2", "--kind", "directory"])
        .await;
    assert_eq!(kind.code, 1, "{}", kind.out);
    let instance = world
        .explain(&["--qualifier", "b=2", "--instance", "other"])
        .await;
    assert_eq!(instance.code, 1, "{}", instance.out);
}

#[tokio::test]
async fn reasons_are_those_of_metrics_and_log() {
    let world = World::start().await;
    world.misses("absent", "exact", "absent", None).await;

    world.push(&[], None).await;
    let future = SystemTime::now() + Duration::from_secs(60);
    world.misses("stale", "exact", "hit", Some(future)).await;

    let digest = world.cache.put(b"blob");
    world.cache.drop_blob(&digest);
    world.misses("gone", "exact", "incomplete", None).await;

    let soon = SystemTime::now() + Duration::from_millis(200);
    world.push(&[], Some(soon)).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    world.misses("expired", "exact", "expired", None).await;
    let text = world.explain(&[]).await.out;
    assert!(text.contains("expired: its time is over"), "{text}");

    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    world.push(&[], Some(past)).await;
    world.misses("expired", "exact", "expired", None).await;
    let text = world.explain(&[]).await.out;
    assert!(
        text.contains("expired: withdrawn by a later push"),
        "{text}"
    );

    world
        .cache
        .edit_entries(|entry| edit_payload(entry, Vec::clear));
    let entries = world.cache.entries();
    assert!(entries.is_empty(), "now foreign: {entries:?}");
    world.misses("unusable", "exact", "unusable", None).await;
    let text = world.explain(&[]).await.out;
    assert!(text.contains("or does not fit (version)"), "{text}");
}

#[tokio::test]
async fn whether_the_origin_would_be_asked() {
    let origin = Origin::new().file("/a", "content").start().await;
    let world = World::start().await;
    let cache = world.cache.url();
    let told = told(&["--upstream", &cache, "--uri", &origin.url("/a")]).await;
    assert_eq!(told.code, 1);
    assert!(
        told.out.ends_with("The origin would be asked.\n"),
        "{}",
        told.out
    );
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn the_embedded_cache_is_explained_through_its_server_or_after_it() {
    let data = tempfile::tempdir().unwrap();
    let dir = data.path().join("cache");
    let dir = dir.to_str().unwrap();
    let none = told(&["--data-dir", dir, "--uri", URN]).await;
    assert_eq!(none.code, 69, "{}", none.out);
    assert!(
        none.err.contains("there is no embedded cache in"),
        "{}",
        none.err
    );
    assert!(!Path::new(dir).exists(), "looking made one");

    let (proxy, client) = Proxy::new().data_dir(Path::new(dir)).connected().await;
    let digest = client.upload(b"blob").await;
    client.push_blob(push_blob(&[URN], digest)).await.unwrap();
    let held = told(&["--data-dir", dir, "--uri", URN]).await;
    assert_eq!(held.code, 69, "{}", held.out);
    assert!(
        held.err
            .contains("point --upstream at that server's address"),
        "{}",
        held.err
    );
    let through = format!("grpc://{}", proxy.address());
    let through = told(&["--upstream", &through, "--uri", URN]).await;
    assert_eq!(through.code, 0, "{}{}", through.out, through.err);
    proxy.terminate();
    proxy.ended().await;
    let after = told(&["--data-dir", dir, "--uri", URN]).await;
    assert_eq!(after.code, 0, "{}{}", after.out, after.err);
}

#[tokio::test]
async fn a_cache_that_cannot_be_asked_is_69() {
    let cache = Upstream::start();
    let url = cache.url();
    cache.stop().await;
    let gone = told(&["--upstream", &url, "--uri", URN]).await;
    assert_eq!((gone.code, gone.out.as_str()), (69, ""), "{}", gone.err);
    let usage = told(&["--upstream", &url]).await;
    assert_eq!(usage.code, 64);
    assert_eq!(usage.err, "uris: at least one URI is required\n");
}

#[tokio::test]
async fn what_the_origin_would_be_asked_is_told() {
    let reply = Reply::ok("content").header("ETag", "\"1\"").conditional();
    let origin = Origin::new().reply("/a", reply).start().await;
    let world = World::start().await;
    let uri = origin.url("/a");
    let cache = world.cache.url();
    let ask = async |more: &[&str]| {
        let arguments = ["--upstream", &cache, "--uri", &uri];
        told(&[&arguments[..], more].concat()).await
    };
    let before = ask(&[]).await;
    assert!(
        before.out.ends_with("The origin would be asked.\n"),
        "{}",
        before.out
    );
    hit(world.client.fetch_blob(fetch_blob(&[&uri])).await);
    let after = ask(&[]).await;
    assert_eq!(after.code, 1, "{}", after.err);
    for part in [
        "fetched http://",
        "no, unconfirmed: its origin served it before",
        "It would be revalidated with the origin: http://",
        "/a (entry of 20",
    ] {
        assert!(after.out.contains(part), "{part}: {}", after.out);
    }
    let json = ask(&["--json"]).await.json();
    let verdict = &json["verdict"];
    assert_eq!(verdict["missed"], "unconfirmed");
    assert_eq!(verdict["would_be_revalidated"][0]["uri"], uri);
    assert_eq!(origin.total(), 1);
    // By the settings of a server.
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("assetgate.toml");
    std::fs::write(&config, "[fetch]\nunpinned = \"reject *\"\n").unwrap();
    let refused = ask(&["--config", config.to_str().unwrap()]).await;
    assert!(refused.out.contains("fetch.unpinned"), "{}", refused.out);
    std::fs::write(&config, "[fetch]\nunpinned = \"ttl=1h *\"\n").unwrap();
    let young = ask(&["--config", config.to_str().unwrap()]).await;
    assert_eq!(young.code, 0, "{}", young.out);
}

const MARK: &str = "hunter2";

#[tokio::test]
async fn secrets_never_show() {
    let world = World::start().await;
    let token = format!("Bearer {MARK}-token");
    world.cache.demand_token(&token, Code::Unauthenticated);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metadata");
    let file = file.to_str().unwrap();
    let uri = format!("https://u:{MARK}@host.example/a?v=1&X-Amz-Signature={MARK}&other={MARK}");
    let header = format!("http_header:Authorization=Bearer {MARK}");
    let canonical = format!("bazel.canonical_id={uri}");
    let url = world.cache.url();
    let told = async |text: &str, more: &[&str]| {
        std::fs::write(file, text).unwrap();
        let arguments = ["--upstream", &url, "--uri", &uri, "--metadata-file", file];
        let told = told(&[&arguments[..], more].concat()).await;
        for text in [&told.out, &told.err] {
            let hidden = text.replace(&format!("other={MARK}"), "");
            assert!(!hidden.contains(MARK), "{text}");
        }
        told
    };
    let good = format!("# whose\nauthorization: {token}\n");
    for more in [&[][..], &["--json"]] {
        let with = ["--qualifier", &header, "--qualifier", &canonical];
        let told = told(&good, &[&with[..], more].concat()).await;
        assert_eq!(told.code, 1, "{}", told.err);
        assert!(
            told.out.contains("https://host.example/a?..."),
            "{}",
            told.out
        );
    }
    let refused = told(&format!("authorization: {MARK}-other"), &[]).await;
    assert_eq!(refused.code, 69, "{}", refused.out);
    assert!(refused.err.contains("UNAUTHENTICATED"), "{}", refused.err);
    let bad = told(&format!("authorization {MARK}"), &[]).await;
    assert_eq!(bad.code, 64, "{}", bad.out);
    assert!(bad.err.contains("line 1 is not of the form"), "{}", bad.err);
}

#[tokio::test]
async fn other_functions_and_directories_have_keys_of_their_own() {
    let world = World::start().await;
    world.cache.announce(&[Function::Sha256, Function::Sha512]);
    let digest = digest_in(Function::Sha512, b"blob");
    world.cache.put_as(&digest, b"blob");
    let push = push_blob(&[URN], digest).function(Function::Sha512);
    world.client.push_blob(push).await.unwrap();
    let same = world.explain(&["--digest-function", "sha512"]).await;
    assert_eq!(same.code, 0, "{}{}", same.out, same.err);
    assert_eq!(world.explain(&[]).await.code, 1);
    let unknown = world
        .explain(&["--digest-function", "BLAKE3", "--json"])
        .await;
    assert_eq!(unknown.code, 1, "{}", unknown.err);
    assert_eq!(unknown.json()["keys"].as_array().unwrap().len(), 0);
    let error = unknown.json()["verdict"]["error"].to_string();
    assert!(error.contains("does not announce"), "{error}");
    let directory = fetch_directory(&[URN]).function(Function::Sha512);
    inline(
        world.client.fetch_directory(directory).await,
        Code::NotFound,
    );
}

#[tokio::test]
async fn the_services_own_credential_is_used_as_by_the_server() {
    let cache = Upstream::start();
    cache.demand_token("Bearer service-token", Code::Unauthenticated);
    let dir = tempfile::tempdir().unwrap();
    let credential = dir.path().join("credential");
    std::fs::write(&credential, "authorization: Bearer service-token\n").unwrap();
    let config = dir.path().join("assetgate.toml");
    let text = format!(
        "[upstream]\nurl = \"{}\"\ncredential = \"{}\"\n\
         [push]\ninstances = [\"\"]\n[fetch]\ninstances = [\"\"]\n",
        cache.url(),
        credential.display()
    );
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let told = told(&["--config", config, "--uri", URN]).await;
    assert_eq!(told.code, 1, "{}{}", told.out, told.err);
    assert!(told.out.contains("miss, absent"), "{}", told.out);
}
