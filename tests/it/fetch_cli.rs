//! `assetgate fetch`: the real program as a client of the real server; and the
//! admin page it looks at.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::answer::says;
use crate::support::content::noise;
use crate::support::{
    Function, Gate, Origin, Pki, Proxy, Qualified as _, Reply, Running, Upstream, admin, bounded,
    digest_in, digest_of, eventually, fetch_blob, hit, sri,
};

struct Ran {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl Ran {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    /// The report of a fetch that must have succeeded.
    #[track_caller]
    fn report(&self) -> Value {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""));
        serde_json::from_slice(&self.out).unwrap()
    }

    #[track_caller]
    fn failed(&self, code: i32, parts: &[&str]) {
        assert_eq!((self.code, self.text()), (Some(code), ""), "{}", self.err);
        assert!(self.err.starts_with("assetgate: "), "{}", self.err);
        says(&self.err, parts);
    }
}

/// Runs the program with the arguments alone.
async fn run(arguments: &[&str]) -> Ran {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_assetgate"));
    command.arg("fetch").args(arguments).kill_on_drop(true);
    let output = command.env_clear().env("HOME", "/nonexistent").output();
    let output = bounded("the program", output).await.unwrap();
    Ran {
        code: output.status.code(),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// As a client of this server.
async fn fetch(proxy: &Running, arguments: &[&str]) -> Ran {
    let endpoint = format!("grpc://{}", proxy.address());
    let admin = format!("http://{}", proxy.admin());
    let server = ["--endpoint", &endpoint, "--admin", &admin];
    run(&[&server, arguments].concat()).await
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let name = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name();
    entries.map(|e| name(e).into_string().unwrap()).collect()
}

#[tokio::test]
async fn what_was_fetched_is_printed_to_be_pasted() {
    let origin = Origin::new().file("/lib-1.2.tar.gz", "content");
    let origin = origin.start().await;
    let proxy = Proxy::new().start().await;
    let uri = origin.url("/lib-1.2.tar.gz");
    let ran = fetch(&proxy, &[&uri]).await;
    let want = format!(
        r#"uri        {uri}
digest     {}/7
size       7 bytes
integrity  {integrity}
outcome    fetched

load("@bazel_tools//tools/build_defs/repo:http.bzl", "http_archive")

http_archive(
    name = "lib",
    integrity = "{integrity}",
    urls = [
        "{uri}",
    ],
)
"#,
        digest_of(b"content").hash,
        integrity = sri(Function::Sha256, b"content"),
    );
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(ran.text(), want);
}

#[tokio::test]
async fn json_has_the_same_for_programs() {
    let origin = Origin::new().file("/a.bin", "content").start().await;
    let (proxy, client) = Proxy::new().connected().await;
    let integrity = sri(Function::Sha512, b"content");
    let uri = origin.url("/a.bin");
    let pinned = [&*uri, "--integrity", &integrity, "--json"];
    let first = fetch(&proxy, &pinned).await.report();
    let digest = digest_of(b"content").hash;
    let id = first["request_id"].as_str().unwrap().to_owned();
    let want = serde_json::json!({
        "uri": uri,
        "digest": format!("{digest}/7"),
        "digest_function": "SHA256",
        "size": 7,
        "integrity": sri(Function::Sha256, b"content"),
        "qualifiers": {"checksum.sri": integrity},
        "outcome": "fetched",
        "request_id": id,
    });
    assert_eq!(first, want);
    let again = fetch(&proxy, &pinned).await.report();
    assert_eq!(again["outcome"], "hit_checksum");
    assert_eq!(origin.total(), 1);
    assert_eq!(
        client.blob(&digest_of(b"content")).await.unwrap(),
        b"content"
    );
}

#[tokio::test]
async fn urls_are_mirrors_of_one_file() {
    let origin = Origin::new().status("/gone.zip", 404);
    let origin = origin.file("/here.zip", "content").start().await;
    let proxy = Proxy::new().start().await;
    let (gone, here) = (origin.url("/gone.zip"), origin.url("/here.zip"));
    let report = fetch(&proxy, &[&gone, &here, "--json"]).await.report();
    assert_eq!(report["uri"], *here);
    let ran = fetch(&proxy, &[&gone, &here]).await;
    says(
        ran.text(),
        &[&format!("{gone:?},\n"), &format!("{here:?},\n")],
    );
}

#[tokio::test]
async fn failures_are_told_in_words_whichever_way_they_come() {
    let origin = Origin::new().status("/gone", 404).file("/a", "content");
    let origin = origin.start().await;
    let inline = Proxy::new().arg("--errors").arg("inline").start().await;
    let grpc = Proxy::new().arg("--errors").arg("grpc").start().await;
    for proxy in [&inline, &grpc] {
        let gone = origin.url("/gone");
        let ran = fetch(proxy, &[&gone]).await;
        ran.failed(1, &["NOT_FOUND", &gone, "404", "[request "]);
        let other = sri(Function::Sha256, b"other");
        let ran = fetch(proxy, &[&origin.url("/a"), "--integrity", &other]).await;
        ran.failed(1, &["ABORTED", "checksum"]);
        // The answer to "later" is to ask again, in the time there is.
        let (mut last, since) = (Origin::new().start().await, std::time::Instant::now());
        last.stop().await;
        let ran = fetch(proxy, &[&last.url("/a"), "--timeout", "2s"]).await;
        assert_eq!((ran.code, ran.text()), (Some(1), ""), "{}", ran.err);
        assert!(since.elapsed() >= Duration::from_secs(1), "{}", ran.err);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_another_exit_code() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let endpoint = format!("grpc://{address}");
    let ran = run(&["http://127.0.0.1/a", "--endpoint", &endpoint]).await;
    ran.failed(69, &[&endpoint, "refused", "--endpoint"]);
    let ran = run(&["http://127.0.0.1/a", "--endpoint", "unix:/nonexistent/s"]).await;
    ran.failed(69, &["unix:/nonexistent/s"]);
}

#[tokio::test]
async fn bad_usage_is_64_and_shows_no_secret() {
    for arguments in [
        &[][..],
        &["http://h/a", "--timeout", "0s"],
        &["http://h/a", "--timeout", "soon"],
        &["http://h/a", "--endpoint", "h:1"],
        &["http://h/a", "--endpoint", "grpc://u:s3cret@h:1"],
        &["http://h/a", "--ca", "/nonexistent"],
        &[
            "http://h/a",
            "--endpoint",
            "grpcs://h",
            "--ca",
            "/nonexistent",
        ],
        &["http://h/a", "--header", "s3cret"],
        &["http://h/a", "--header", "grpc-timeout: s3cret"],
        &["http://h/a", "--header", "@/nonexistent"],
        &["http://h/a", "--origin-header", "s3cret"],
        &["http://h/a", "--integrity", "md5-AAAA"],
        &["http://h/a", "--digest-function", "SHA0"],
        &["http://h/a", "--instance", "a//b"],
        &["http://h/a", "--admin", "ftp://s3cret@h"],
        &["http://h/a", "--client-cert", "/nonexistent"],
        &[""],
    ] {
        let ran = run(arguments).await;
        assert_eq!((ran.code, ran.text()), (Some(64), ""), "{arguments:?}");
        assert!(!ran.err.is_empty(), "{arguments:?}");
        assert!(!ran.err.contains("s3cret"), "{}", ran.err);
    }
    let ran = run(&["http://h/a", "--header", "x", "--instance", "a//b"]).await;
    assert_eq!(ran.err.lines().count(), 2, "all at once: {}", ran.err);
}

#[tokio::test]
async fn out_is_a_verified_file_that_appears_whole() {
    let content = noise(3 << 20, 7);
    let origin = Origin::new().file("/a.jar", &content).start().await;
    let proxy = Proxy::new().start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jar");
    let shown = path.to_str().unwrap();
    let uri = origin.url("/a.jar");
    let ran = fetch(&proxy, &[&uri, "--out", shown]).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let written = format!("written    {shown}\n");
    says(ran.text(), &[&written, "http_file(", "= \"a.jar\""]);
    assert_eq!(std::fs::read(&path).unwrap(), content);
    assert_eq!(names(dir.path()), ["a.jar"]);

    let nowhere = dir.path().join("no/a.jar");
    let nowhere = nowhere.to_str().unwrap();
    let ran = fetch(&proxy, &[&uri, "--out", nowhere]).await;
    ran.failed(1, &[nowhere]);
}

#[tokio::test]
async fn content_that_is_not_what_the_digest_says_is_not_kept() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let proxy = Proxy::new().upstream(&cache).start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let uri = origin.url("/a");
    fetch(&proxy, &[&uri, "--json"]).await.report();
    for wrong in ["CONTENT", "contents", "c"] {
        cache.put_as(&digest_of(b"content"), wrong.as_bytes());
        let arguments = [&*uri, "--out", path.to_str().unwrap()];
        let ran = fetch(&proxy, &arguments).await;
        assert_eq!((ran.code, ran.text()), (Some(1), ""), "{wrong}");
        assert!(names(dir.path()).is_empty(), "{wrong}");
    }
}

#[tokio::test]
async fn out_to_standard_output_has_the_report_beside_it() {
    let content = noise(100_000, 3);
    let origin = Origin::new().file("/a.zip", &content).start().await;
    let proxy = Proxy::new().start().await;
    let ran = fetch(&proxy, &[&origin.url("/a.zip"), "--out", "-"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out == content);
    says(&ran.err, &["digest     ", "http_archive("]);
    let ran = fetch(&proxy, &[&origin.url("/a.zip"), "--out", "-", "--json"]).await;
    assert!(ran.out == content);
    let report: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(report["size"], 100_000);
}

#[tokio::test]
async fn another_digest_function_and_the_empty_file() {
    let origin = Origin::new().file("/a", "content").file("/empty", "");
    let origin = origin.start().await;
    let proxy = Proxy::new().start().await;
    let blake3 = ["--digest-function", "blake3", "--json"];
    let a = origin.url("/a");
    let report = fetch(&proxy, &[&[&*a][..], &blake3].concat()).await;
    let report = report.report();
    let digest = digest_in(Function::Blake3, b"content");
    assert_eq!(report["digest"], format!("{}/7", digest.hash));
    assert_eq!(report["integrity"], sri(Function::Sha256, b"content"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty");
    let arguments = [&origin.url("/empty"), "--json", "--out"];
    let arguments = [&arguments[..], &[path.to_str().unwrap()]].concat();
    let report = fetch(&proxy, &arguments).await.report();
    assert_eq!(report["integrity"], sri(Function::Sha256, b""));
    assert_eq!(std::fs::read(&path).unwrap(), b"");
}

#[tokio::test]
async fn headers_reach_whom_they_are_meant_for_and_are_never_shown() {
    let origin = Origin::new().file("/a", "content").status("/no", 403);
    let origin = origin.start().await;
    let cache = Upstream::start();
    let proxy = Proxy::new().upstream(&cache).start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("headers");
    std::fs::write(&file, "# ours\nx-token: of-the-cache-1\n").unwrap();
    let file = format!("@{}", file.display());
    let shown = [
        "--header",
        &file,
        "--header",
        "authorization: of-the-cache-2",
    ];
    let origins = ["--origin-header", "X-Key: of-the-origin"];
    let uri = origin.url("/a").replace("://", "://user:of-the-url@");
    let all = [&[&*uri][..], &shown, &origins, &["--json"]].concat();
    let ran = fetch(&proxy, &all).await;
    let report = ran.report();
    assert_eq!(report["uri"], *origin.url("/a"));
    let seen = &origin.seen_at("/a")[0];
    assert_eq!(seen.header("x-key"), Some("of-the-origin"));
    assert!(seen.header("authorization").is_some());
    assert_eq!(seen.header("x-token"), None);
    let calls = cache.calls_of("FindMissingBlobs");
    assert_eq!(calls[0].value("x-token"), Some("of-the-cache-1"));
    assert_eq!(calls[0].value("authorization"), Some("of-the-cache-2"));
    let uri = uri.replace("/a", "/no");
    let refused = [&[&*uri][..], &shown, &origins].concat();
    let refused = fetch(&proxy, &refused).await;
    refused.failed(1, &["PERMISSION_DENIED", "403"]);
    for said in [ran.text(), &refused.err] {
        assert!(!said.contains("of-the-"), "{said}");
    }
}

#[tokio::test]
async fn it_speaks_tls_and_shows_its_certificate() {
    let pki = Pki::new();
    let (server, client) = (pki.issue("server"), pki.issue("client"));
    let origin = Origin::new().file("/a", "content").start().await;
    let proxy = Proxy::new().arg("--tls-cert").arg(&server.cert);
    let proxy = proxy.arg("--tls-key").arg(&server.key);
    let proxy = proxy.arg("--tls-client-ca").arg(pki.ca()).start().await;
    let endpoint = format!("grpcs://localhost:{}", proxy.address().port());
    let (ca, uri) = (pki.ca(), origin.url("/a"));
    let arguments = [&*uri, "--json", "--endpoint", &endpoint, "--ca"];
    let arguments = [&arguments[..], &[ca.to_str().unwrap()]].concat();
    let ran = run(&arguments).await;
    assert_eq!((ran.code, ran.text()), (Some(69), ""), "{}", ran.err);
    let (cert, key) = (client.cert.to_str().unwrap(), client.key.to_str().unwrap());
    let identity = ["--client-cert", cert, "--client-key", key];
    let ran = run(&[&arguments[..], &identity].concat()).await;
    assert_eq!(ran.report()["size"], 7);
}

/// The page's list, once there is one.
async fn listed(proxy: &Running, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually("the download on the page", async || {
        let (status, body) = admin::get(proxy.admin(), "/fetches?format=json").await;
        assert_eq!(status, 200, "{body}");
        let page: Value = serde_json::from_str(&body).unwrap();
        let fetches = page["fetches"].as_array().unwrap();
        fetches.iter().find(|entry| wanted(entry)).cloned()
    })
    .await
}

#[tokio::test]
async fn a_download_longer_than_a_call_is_waited_for_and_can_be_watched() {
    let gate = Gate::new();
    let content = noise(300_000, 5);
    let slow = Reply::ok(&content).gated_after(100_000, &gate);
    let origin = Origin::new().reply("/big.tgz", slow).start().await;
    let (proxy, client) = Proxy::new().connected().await;
    let uri = origin.url("/big.tgz");
    let fetching = async {
        let short = [&*uri, "--json", "--call-timeout", "300ms"];
        fetch(&proxy, &short).await.report()
    };
    let watching = async {
        let waiting = |entry: &Value| entry["bytes"] == 100_000 && entry["waiters"] == 1;
        let entry = listed(&proxy, waiting).await;
        assert_eq!(entry["uri"], *uri);
        assert_eq!(entry["host"], "127.0.0.1");
        assert_eq!(entry["phase"], "receiving");
        assert_eq!(entry["total"], 300_000);
        assert_eq!(entry["attempts"], 1);
        assert!(entry["age_seconds"].as_f64().unwrap() > 0.0);
        let (_, page) = admin::get(proxy.admin(), "/fetches").await;
        says(&page, &[&uri, "<td>receiving<td>", "(33 %)"]);
        // Two calls and more, of which each joins the one download.
        eventually("a call that joins", async || {
            let joined = proxy.metrics().await;
            let joined = joined.sum("assetgate_fetches_joined_total", &["how=\"running\""]);
            (joined >= 2.0).then_some(())
        })
        .await;
        gate.open();
    };
    let (report, ()) = tokio::join!(fetching, watching);
    assert_eq!(report["size"], 300_000);
    assert_eq!(origin.total(), 1);
    assert_eq!(
        hit(client.fetch_blob(fetch_blob(&[&uri])).await).size_bytes,
        300_000
    );
    let (_, body) = admin::get(proxy.admin(), "/fetches?format=json").await;
    assert_eq!(body, "{\n  \"fetches\": []\n}\n");
}

#[tokio::test]
async fn callers_of_one_download_are_counted_and_leave() {
    let gate = Gate::new();
    let slow = Reply::ok("content").gated_after(3, &gate);
    let origin = Origin::new().reply("/a", slow).start().await;
    let (proxy, client) = Proxy::new().connected().await;
    let uri = origin.url("/a");
    // Two ask the same; the third is somebody else, who shares the download.
    let calls: Vec<_> = ["1", "1", "2"]
        .map(|caller| client.with("x-caller", caller))
        .into_iter()
        .map(|client| {
            let ask = fetch_blob(&[&uri]);
            tokio::spawn(async move { client.fetch_blob(ask).await })
        })
        .collect();
    let three = |entry: &Value| entry["waiters"] == 3 && entry["bytes"] == 3;
    listed(&proxy, three).await;
    assert_eq!(origin.total(), 1);
    calls[2].abort();
    listed(&proxy, |entry| entry["waiters"] == 2).await;
    gate.open();
    for call in calls.into_iter().take(2) {
        hit(call.await.unwrap());
    }
    eventually("the end", async || {
        let (_, body) = admin::get(proxy.admin(), "/fetches?format=json").await;
        body.contains("[]").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_an_origin_to_recover_can_be_seen() {
    let later = Reply::status(503).header("Retry-After", "5");
    let replies = vec![later, Reply::ok("content")];
    let origin = Origin::new().replies("/a", replies).start().await;
    let (proxy, client) = Proxy::new().connected().await;
    let uri = origin.url("/a?version=secret");
    let call = tokio::spawn({
        let ask = fetch_blob(&[&uri]);
        async move { client.fetch_blob(ask).await }
    });
    let entry = listed(&proxy, |entry| {
        entry["attempts"] == 1 && entry["phase"] == "waiting"
    });
    let entry = entry.await;
    assert_eq!(entry["uri"], format!("{}?...", origin.url("/a")));
    assert_eq!(entry["waiters"], 1);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("assetgate_fetches_waiting", &[]), 1.0);
    hit(call.await.unwrap());
}

#[tokio::test]
async fn what_a_download_waits_for_can_be_seen_and_what_was_asked_for() {
    let gate = Gate::new();
    let slow = Reply::ok("content").gated_after(3, &gate);
    let origin = Origin::new().reply("/a", slow.clone()).reply("/b", slow);
    let origin = origin.start().await;
    let rules = tempfile::NamedTempFile::new().unwrap();
    let rewrite = format!("rewrite named\\.example/(.*) {}/$1\n", origin.address());
    std::fs::write(rules.path(), rewrite).unwrap();
    let proxy = Proxy::new().config("[fetch]\nmax_per_host = 1\n");
    let proxy = proxy.arg("--origin-rules").arg(rules.path());
    let (proxy, client) = proxy.connected().await;
    let fetch = |uri: String| {
        let (client, ask) = (client.clone(), fetch_blob(&[uri]));
        tokio::spawn(async move { client.fetch_blob(ask).await })
    };
    let first = fetch(origin.url("/a"));
    listed(&proxy, |entry| entry["bytes"] == 3).await;
    let second = fetch("http://named.example/b".to_owned());
    let entry = listed(&proxy, |entry| !entry["waits_for"].is_null()).await;
    says(
        entry["waits_for"].as_str().unwrap(),
        &["fetch.max_per_host"],
    );
    assert_eq!(entry["phase"], "waiting");
    assert_eq!(entry["uri"], "http://named.example/b");
    assert_eq!(entry["host"], "127.0.0.1");
    gate.open();
    for call in [first, second] {
        hit(call.await.unwrap());
    }
}

#[tokio::test]
async fn origins_are_told_apart_in_metrics() {
    let one = Origin::new().file("/a", "content").status("/no", 404);
    let one = one.start().await;
    let other = Origin::new().ip("127.0.0.2").file("/b", "contents");
    let other = other.start().await;
    let (proxy, client) = Proxy::new().connected().await;
    // A host has a name in metrics from its first good answer on.
    hit(client.fetch_blob(fetch_blob(&[one.url("/a")])).await);
    hit(client
        .fetch_blob(fetch_blob(&[one.url("/no"), other.url("/b")]))
        .await);
    let metrics = proxy.metrics().await;
    let count = |name: &str, labels: &[&str]| metrics.sum(name, labels);
    let requests = "assetgate_origin_requests_total";
    let (first, second) = ("host=\"127.0.0.1\"", "host=\"127.0.0.2\"");
    assert_eq!(count(requests, &["class=\"ok\"", first]), 1.0);
    assert_eq!(count(requests, &["class=\"not_found\"", first]), 1.0);
    assert_eq!(count(requests, &["class=\"ok\"", second]), 1.0);
    assert_eq!(count("assetgate_origin_bytes_total", &[first]), 7.0);
    assert_eq!(count("assetgate_origin_bytes_total", &[second]), 8.0);
    let durations = "assetgate_origin_request_duration_seconds_count";
    assert_eq!(count(durations, &["class=\"ok\""]), 2.0);
    let bodies = "assetgate_origin_bodies_total";
    assert_eq!(count(bodies, &["through=\"memory\""]), 2.0);
    let misses = "assetgate_fetch_misses_total";
    assert_eq!(count(misses, &["reason=\"absent\""]), 2.0);
    assert_eq!(count("assetgate_fetches_waiting", &[]), 0.0);
    assert_eq!(count("assetgate_spool_bytes", &["place=\"memory\""]), 0.0);
}

#[tokio::test]
async fn what_becomes_of_origins_in_trouble_is_counted() {
    let content = noise(3 << 20, 9);
    let whole = || Reply::ok(&content).header("ETag", "\"v1\"").ranged();
    let cut = vec![whole().cut_after(1 << 20), whole()];
    let busy = vec![Reply::status(503), Reply::ok("content")];
    let origin = Origin::new().replies("/cut", cut).replies("/busy", busy);
    let origin = origin.start().await;
    let (proxy, client) = Proxy::new().connected().await;
    hit(client.fetch_blob(fetch_blob(&[origin.url("/busy")])).await);
    let pinned = fetch_blob(&[origin.url("/cut")])
        .qualifier("checksum.sri", &sri(Function::Sha256, &content));
    hit(client.fetch_blob(pinned).await);
    let metrics = proxy.metrics().await;
    let count = |name: &str, label: &str| metrics.sum(name, &[label]);
    let (retries, resumes) = (
        "assetgate_origin_retries_total",
        "assetgate_origin_resumes_total",
    );
    assert_eq!(count(retries, "reason=\"unavailable\""), 1.0);
    assert_eq!(count(resumes, "result=\"resumed\""), 1.0);
    let bodies = "assetgate_origin_bodies_total";
    assert_eq!(count(bodies, "through=\"streamed\""), 1.0);
    assert_eq!(count("assetgate_fetches_waiting", ""), 0.0);
    let requests = "assetgate_origin_requests_total";
    assert_eq!(count(requests, "class=\"ok\""), 2.0);
    assert_eq!(count(requests, "class=\"unavailable\""), 1.0);
}
