//! Promise P4, over everything there is: after a suite with secrets in every
//! form there is for one, none of them stands anywhere but where it was meant
//! to go. Places: the content and the messages of a cache that records them,
//! the files of the embedded cache, logs, metrics, admin pages, spooled
//! downloads, answers and errors with their details and trailers.
//!
//! Not for: one path at a time (`secrets.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use assetgate::proto::asset::FetchBlobRequest;
use assetgate::proto::rev2::{Digest, GetActionResultRequest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use tempfile::TempDir;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use crate::support::answer::says;
use crate::support::content::noise;
use crate::support::marks::{CACHE, MARKS, ORIGIN, SIGNING, assert_none, files, find};
use crate::support::origin::Serving;
use crate::support::{
    Client, Code, Dir, Fetching as _, Function, Gate, Origin, Proxy, Qualified, Reply, Running,
    Upstream, eventually, fetch_blob, fetch_directory, hit, push_blob, push_directory, sri,
};

/// How a secret may come with a request; each has a path of the origin.
const FORMS: [&str; 13] = [
    "header",
    "basic",
    "perurl",
    "json",
    "auth",
    "userinfo",
    "signed",
    "canonical",
    "nested",
    "named",
    "places",
    "joined",
    "all",
];

/// Names of parameters that hold secrets, as origins, stores and forges have
/// them.
const NAMES: [&str; 36] = [
    "job_token",
    "auth_token",
    "oauth_token",
    "authtoken",
    "x-auth-token",
    "personal_access_token",
    "private_token",
    "access_token",
    "id_token",
    "client_secret",
    "jwt",
    "hdnts",
    "Policy",
    "Signature",
    "Key-Pair-Id",
    "AWSAccessKeyId",
    "OSSAccessKeyId",
    "security-token",
    "x-oss-signature",
    "x-oss-credential",
    "X-Amz-Security-Token",
    "X-Amz-Credential",
    "X-Goog-Signature",
    "X-Goog-Credential",
    "q-signature",
    "sas",
    "sig",
    "pwd",
    "passwd",
    "apiKey",
    "x-api-key",
    "%61uthorization",
    "token2",
    "clientsecret",
    "passphrase",
    "private_key",
];

fn named(secret: &str) -> String {
    let all = NAMES.map(|name| format!("{name}={secret}"));
    all.join("&")
}

/// URLs with a secret wherever one may stand.
fn places(host: &str, secret: &str) -> Vec<String> {
    let all = named(secret);
    let inner = percent(&format!("https://u:{secret}@{host}/?{all}"));
    vec![
        format!("https://{host}/a;{}/b", all.replace('&', ";")),
        format!("https://{host}/a;v=1;jwt={secret};w=2?v=1"),
        format!("https://{host}/?v=1;{}", all.replace('&', ";")),
        format!("https://{host}/#{all}"),
        format!("https://{host}/?v=1#v=1;jwt={secret}"),
        format!("https://u:{secret}@{host}/?{all}#{all}"),
        format!("https://{host}/?to={inner}&v=1"),
        format!("https://{host}/?v=1#{inner}"),
        format!("https://{host}/?to={}", percent(&format!("/x?{all}"))),
        format!(
            "https://{host}/?to={}",
            percent(&format!("v=1&jwt={secret}"))
        ),
        format!("https://{host}/?jwt={}", percent(secret)),
        format!("https://{host}/https://u:{secret}@{host}/?sas={secret}"),
        percent(&format!("https://u:{secret}@{host}/x?jwt={secret}")),
        percent(&percent(&percent(&format!(
            "https://u:{secret}@{host}/x?{all}"
        )))),
        format!(
            "https://{host}/?to={}",
            percent(&percent(&format!("/x?jwt={secret}")))
        ),
        format!("/x?token%{}3D{secret}", "25".repeat(12)),
        format!("/x?{all}"),
        format!("?jwt={secret}"),
        format!("{host}/x?v=1&jwt={secret}"),
        format!("https://{host}/x?v=1,jwt={secret},w=2"),
        format!("https://{host}/token={secret}/x"),
        format!("name token={secret}"),
        format!("https%3A//u%3A{secret}%40{host}/x%3Ftoken%3D{secret}"),
    ]
}

fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

/// `plain` asked for with a secret in one form.
fn request(form: &str, plain: &str, secret: &str) -> FetchBlobRequest {
    let host = plain.strip_prefix("http://").unwrap();
    let user = format!("http://user:{secret}@{host}");
    let signature = format!("X-Amz-Signature={secret}&sig={secret}&token={secret}");
    let signed = format!("{plain}?v=1&{signature}");
    let bearer = format!("Bearer {secret}");
    let ask = fetch_blob(&[plain]);
    let json = |uri: &str| format!(r#"{{"{uri}":{{"X-Json":"{secret}"}}}}"#);
    match form {
        "header" => ask.qualifier("http_header:Authorization", &bearer),
        "basic" => {
            let basic = format!("Basic {}", STANDARD.encode(format!("user:{secret}")));
            ask.qualifier("http_header:Authorization", &basic)
        }
        "perurl" => ask.qualifier("http_header_url:0:X-Per-Url", secret),
        "json" => ask.qualifier("bazel.auth_headers", &json(plain)),
        "auth" => ask
            .qualifier("auth.basic.username", secret)
            .qualifier("auth.basic.password", secret)
            .qualifier("auth.bearer.token", secret),
        "userinfo" => fetch_blob(&[user]),
        "signed" => fetch_blob(&[signed]),
        "canonical" => ask.qualifier("bazel.canonical_id", &format!("{user} {signed}")),
        "nested" => fetch_blob(&[format!("{plain}?to={}", percent(&signed))]),
        "named" => {
            let uri = format!("{plain}?v=1&{}", named(secret));
            fetch_blob(&[&uri]).qualifier("bazel.canonical_id", &uri)
        }
        "places" => {
            let all = places("mirror.example", secret);
            ask.qualifier("bazel.canonical_id", &all.join(","))
        }
        "joined" => {
            let all = places("mirror.example", secret);
            ask.qualifier("bazel.canonical_id", &all.join(" "))
        }
        "all" => {
            let uri = format!(
                "http://user:{secret}@{host}?v=1&{signature}&{}",
                named(secret)
            );
            fetch_blob(&[&uri])
                .qualifier("http_header:X-Token", &bearer)
                .qualifier("http_header_url:0:X-Per-Url", secret)
                .qualifier("bazel.auth_headers", &json(&uri))
                .qualifier("auth.basic.password", secret)
                .qualifier("bazel.canonical_id", &uri)
        }
        _ => unreachable!("{form}"),
    }
}

fn pinned(request: FetchBlobRequest, content: &[u8]) -> FetchBlobRequest {
    request.qualifier("checksum.sri", &sri(Function::Sha256, content))
}

/// An origin that repeats what it is shown wherever it may.
async fn origin(gate: &Gate) -> Serving {
    let echo = format!("\"{ORIGIN}-etag\"");
    let away = format!("http://10.0.0.1/?token={ORIGIN}");
    let mut origin = Origin::new()
        .status("/404", 404)
        .status("/403", 403)
        .status("/503", 503)
        .file("/mismatch", "other")
        .reply("/cut", Reply::ok("content").declaring(70))
        .reply("/away", Reply::redirect(&away))
        .reply("/loop", Reply::redirect(&format!("/loop?token={ORIGIN}")))
        .reply("/silent", Reply::silence())
        .reply(
            "/large",
            Reply::ok(noise(3 << 20, 1)).gated_after(2 << 20, gate),
        );
    for form in FORMS {
        let mut reply = Reply::ok(form);
        // Qualifiers of the `auth` kind are shown to no origin.
        if !["auth", "places", "joined"].contains(&form) {
            reply = reply.header("ETag", &echo).header("Last-Modified", &echo);
        }
        origin = origin.reply(&format!("/{form}"), reply);
    }
    origin.start().await
}

/// An origin this service has credentials of its own for: from a netrc, from a
/// file of headers and from a rule. It repeats them too.
struct Own {
    origin: Serving,
    files: TempDir,
}

impl Own {
    async fn new() -> Self {
        let echo = format!("\"{ORIGIN}-etag\"");
        let origin = Origin::new().ip("127.0.0.2");
        let content = Reply::ok("own")
            .header("ETag", &echo)
            .header("X-Echo", &echo);
        let away = Reply::redirect(&format!("http://10.0.0.1/?token={ORIGIN}"));
        let origin = origin
            .reply("/own", content)
            .status("/403", 403)
            .reply("/away", away)
            .start()
            .await;
        let files = TempDir::new().unwrap();
        let write = |name: &str, text: String| {
            std::fs::write(files.path().join(name), text).unwrap();
        };
        let login = format!("login {ORIGIN}-login password \"{ORIGIN} netrc\"");
        let at = origin.address();
        write(
            "netrc",
            format!("machine http://{at} {login}\ndefault {login}\n"),
        );
        write("headers", format!("X-Own: {ORIGIN}-file\n"));
        let rule = format!("rewrite ruled.invalid/(.*) {ORIGIN}:{ORIGIN}-rule@{at}/$1\n");
        write("rules", rule + "block blocked.invalid\n");
        Self { origin, files }
    }

    fn give(&self, proxy: Proxy) -> Proxy {
        let file = |name: &str| self.files.path().join(name);
        proxy
            .arg("--origin-netrc")
            .arg(file("netrc"))
            .arg("--origin-credentials")
            .arg(format!(
                "http://{}={}",
                self.origin.address(),
                file("headers").display()
            ))
            .arg("--origin-rules")
            .arg(file("rules"))
    }

    /// Fetches with them, in success and in failure.
    async fn used(&self, client: &Client, told: &mut Told) {
        let by_rule = |path: &str| format!("http://ruled.invalid{path}");
        for uri in [self.origin.url("/own"), by_rule("/own")] {
            for ask in [
                fetch_blob(&[&uri]),
                pinned(fetch_blob(&[&uri]), b"own"),
                pinned(fetch_blob(&[&uri]), b"other"),
                request("all", &uri, ORIGIN),
            ] {
                told.fetch(client, ask).await;
            }
        }
        for path in ["/403", "/none", "/away"] {
            told.fetch(client, fetch_blob(&[self.origin.url(path)]))
                .await;
            told.fetch(client, fetch_blob(&[by_rule(path)])).await;
        }
        let blocked = request("all", "http://blocked.invalid/", ORIGIN);
        told.fetch(client, blocked).await;
        // A file of secrets that becomes one that is no good, and is told so.
        let broken = format!("{ORIGIN}: {ORIGIN}\nmachine 127.0.0.2 {ORIGIN}\n");
        for name in ["netrc", "headers", "rules"] {
            std::fs::write(self.files.path().join(name), &broken).unwrap();
        }
        let seen = self.origin.seen_at("/own");
        let netrc = STANDARD.encode(format!("{ORIGIN}-login:{ORIGIN} netrc"));
        let rule = STANDARD.encode(format!("{ORIGIN}:{ORIGIN}-rule"));
        for basic in [netrc, rule] {
            let shown = |s: &&crate::support::origin::Seen| {
                s.all("authorization") == [format!("Basic {basic}")]
            };
            assert!(seen.iter().any(|s| shown(&s)), "{seen:?}");
        }
        let own = format!("{ORIGIN}-file");
        assert!(seen.iter().all(|s| s.header("x-own") == Some(&own)));
    }

    /// Waits until it was told that none of the files is any good.
    async fn complained_of(proxy: &Running) {
        eventually("complaints about three files", async || {
            let logs = proxy.stderr().text();
            (logs.matches("the old ones stay in use").count() >= 3).then_some(())
        })
        .await;
    }
}

/// Everything clients were told.
#[derive(Default)]
struct Told(Vec<u8>);

impl Told {
    fn metadata(&mut self, metadata: &MetadataMap) {
        for (name, value) in &metadata.clone().into_headers() {
            self.0.extend_from_slice(format!("\n{name}: ").as_bytes());
            self.0.extend_from_slice(value.as_bytes());
        }
    }

    fn status(&mut self, status: &Status) {
        self.0
            .extend_from_slice(format!("\n{status:?}\n").as_bytes());
        self.0.extend_from_slice(status.details());
        self.metadata(status.metadata());
    }

    fn answer<M: Message>(&mut self, answer: Result<Response<M>, Status>) {
        match answer {
            Ok(answer) => {
                self.metadata(answer.metadata());
                self.0.extend(answer.get_ref().encode_to_vec());
            }
            Err(status) => self.status(&status),
        }
    }

    /// An answer repeats the URI of the request, and this is no leak.
    async fn fetch(&mut self, client: &Client, request: FetchBlobRequest) {
        let mut answer = client.fetch_blob_in_full(request).await;
        if let Ok(answer) = &mut answer {
            answer.get_mut().uri.clear();
        }
        self.answer(answer);
    }
}

/// A client with secrets for the cache.
fn authenticated(client: &Client) -> Client {
    client
        .with("authorization", format!("Bearer {CACHE}-caller"))
        .with("x-api-key", format!("{CACHE}-key"))
        .with("x-secret-bin", format!("{CACHE}-binary"))
}

/// What a cache might quote of these, and of the service's credential if there
/// is one.
fn quotation(service: &str) -> String {
    let (caller, binary) = (format!("{CACHE}-caller"), format!("{CACHE}-binary"));
    format!(
        "refused: Bearer {caller}; {caller}; {CACHE}-key; {service}; {}; {}; {}; {}; {}",
        STANDARD.encode(&caller),
        hex::encode(&caller),
        percent(&binary).replace('%', ""),
        STANDARD.encode(&binary),
        binary,
    )
}

async fn fetches(client: &Client, origin: &Serving, told: &mut Told) {
    for form in FORMS {
        let plain = origin.url(&format!("/{form}"));
        let loaded = request(form, &plain, &format!("{ORIGIN}-{form}"));
        for request in [pinned(loaded.clone(), form.as_bytes()), loaded] {
            for _ in 0..2 {
                hit(client.fetch_blob(request.clone()).await);
                told.fetch(client, request.clone()).await;
            }
        }
    }
    // All of them did get where they were meant to.
    for form in [
        "header", "basic", "perurl", "json", "userinfo", "signed", "nested", "named", "all",
    ] {
        let seen = format!("{:?}", origin.seen_at(&format!("/{form}")));
        assert!(find(seen.as_bytes(), ORIGIN).is_some(), "{form}: {seen}");
    }
}

async fn failures(client: &Client, origin: &Serving, told: &mut Told) {
    for path in [
        "404", "403", "503", "mismatch", "cut", "away", "loop", "silent",
    ] {
        let loaded = request("all", &origin.url(&format!("/{path}")), ORIGIN);
        let request = pinned(loaded, b"expected").timeout(Duration::from_millis(300));
        told.fetch(client, request).await;
    }
    for uri in [
        format!("http://user:{ORIGIN}@[oops/a"),
        format!("http://user:{ORIGIN}@10.0.0.1/a?token={ORIGIN}"),
        format!("http://{ORIGIN}:{ORIGIN}@no-such-host.invalid/a?token={ORIGIN}"),
        format!("ftp://user:{ORIGIN}@h/a?token={ORIGIN}"),
    ] {
        let ask = fetch_blob(&[uri]).qualifier("http_header:Authorization", ORIGIN);
        told.fetch(client, ask).await;
    }
    for uri in places("127.0.0.1:1", ORIGIN) {
        for uri in [uri.replacen("https:", "http:", 1), uri] {
            told.fetch(client, fetch_blob(&[&uri])).await;
            let ask = fetch_blob(&[uri.replace("://", "://\\")]);
            told.fetch(client, ask).await;
        }
    }
    let ask = fetch_blob(&[origin.url("/header")]);
    for (name, value) in [
        ("http_header_url:9:X", ORIGIN.to_owned()),
        ("http_header:Host", ORIGIN.to_owned()),
        ("http_header:X", format!("{ORIGIN}\r\nEvil: 1")),
        ("bazel.auth_headers", format!("{{\"{ORIGIN}")),
        ("checksum.sri", format!("sha256-{ORIGIN}")),
        ("unknown", format!("https://user:{ORIGIN}@h/?sig={ORIGIN}")),
    ] {
        told.fetch(client, ask.clone().qualifier(name, &value))
            .await;
    }
}

fn loaded<M: Qualified>(message: M) -> M {
    message
        .qualifier("http_header:Authorization", ORIGIN)
        .qualifier("auth.basic.password", ORIGIN)
        .qualifier("bazel.canonical_id", &format!("https://u:{ORIGIN}@h/"))
}

async fn pushes(client: &Client, told: &mut Told) {
    let blob = client.upload(b"blob").await;
    let dir = Dir::new().file("f", b"blob");
    client.upload_all(&dir.closure()).await;
    let uri = format!("https://user:{ORIGIN}@example.org/a?v=1&sig={ORIGIN}");
    let absent = Digest {
        hash: "0".repeat(64),
        size_bytes: 7,
    };
    for digest in [blob, absent.clone()] {
        let push = client.request(loaded(push_blob(&[&uri], digest)));
        told.answer(client.push().push_blob(push).await);
    }
    for digest in [dir.digest(), absent] {
        let push = client.request(loaded(push_directory(&[&uri], digest)));
        told.answer(client.push().push_directory(push).await);
    }
    let found = client.fetch_blob(loaded(fetch_blob(&[&uri]))).await;
    hit(found);
    for uri in [uri, format!("https://u:{ORIGIN}@h/none?sig={ORIGIN}")] {
        let fetch = client.request(loaded(fetch_directory(&[uri])));
        let mut answer = client.fetch().fetch_directory(fetch).await;
        if let Ok(answer) = &mut answer {
            answer.get_mut().uri.clear();
        }
        told.answer(answer);
    }
}

/// A download that stands still while it is spooled.
async fn spooled(proxy: &Running, client: &Client, origin: &Serving, gate: &Gate, spool: &Path) {
    let ask = client.fetch_blob(request("all", &origin.url("/large"), ORIGIN));
    let look = async {
        let content = noise(3 << 20, 1);
        eventually("a spooled download", async || {
            let mut open = proxy.open_files();
            open.retain(|file| !file.is_empty() && content.starts_with(file));
            (!open.is_empty()).then_some(())
        })
        .await;
        for file in proxy.open_files() {
            assert_none("an open file", &file, &MARKS);
        }
        assert_none("the spool directory", &files(spool), &MARKS);
        gate.open();
    };
    hit(tokio::join!(ask, look).0);
}

async fn assert_unmarked(proxy: &Running, told: &Told) {
    assert_none("an answer", &told.0, &MARKS);
    let logs = proxy.stderr().text();
    assert!(
        logs.contains("assetgate-") || logs.contains("request"),
        "logs are on"
    );
    assert_none("the logs", logs.as_bytes(), &MARKS);
    assert_none("what was printed", proxy.stdout().text().as_bytes(), &MARKS);
    assert_none("the metrics", proxy.metrics().await.0.as_bytes(), &MARKS);
    for page in ["/", "/status", "/fetches", "/readyz", "/livez"] {
        let text = crate::support::admin::get(proxy.admin(), page).await.1;
        assert_none(page, text.as_bytes(), &MARKS);
    }
}

fn spooling(spool: &Path, keys: &Path, more: &str) -> String {
    let (spool, keys) = (spool.display(), keys.display());
    format!(
        "[fetch]\nmemory = \"1MiB\"\nspool_dir = \"{spool}\"\n\
         [references]\nmac_key = \"{keys}\"\n{more}"
    )
}

/// A file with a key that signs references, and its directory.
fn signing() -> (TempDir, std::path::PathBuf) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("keys");
    std::fs::write(&file, format!("{SIGNING}-0123456789abcdef\n")).unwrap();
    (dir, file)
}

/// A status that repeats what the cache was shown, wherever it may.
fn quoting(service: &str) -> Status {
    let quoting = quotation(service);
    let details = tonic_types::Status {
        code: Code::Unauthenticated as i32,
        message: quoting.clone(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.DebugInfo".into(),
            value: quoting.clone().into_bytes(),
        }],
    };
    let mut trailers = MetadataMap::new();
    trailers.insert("x-quoted", quoting.parse().unwrap());
    Status::with_details_and_metadata(
        Code::Unauthenticated,
        &quoting,
        details.encode_to_vec().into(),
        trailers,
    )
}

async fn refusals(
    client: &Client,
    origin: &Serving,
    cache: &Upstream,
    service: &str,
    told: &mut Told,
) {
    for method in [
        "UpdateActionResult",
        "BatchUpdateBlobs",
        "FindMissingBlobs",
        "GetActionResult",
    ] {
        cache.fail(method, quoting(service));
        let late = request("all", &origin.url("/all"), ORIGIN);
        let late = fetch_blob(&[format!("{}#{method}", origin.url("/all"))])
            .with_qualifiers(late.qualifiers[..2].to_vec());
        told.fetch(client, pinned(late, b"all")).await;
        let uri = format!("https://u:{ORIGIN}@example.org/{method}?sig={ORIGIN}");
        let push = push_blob(&[uri], crate::support::digest_of(b"blob"));
        match client.push_blob(loaded(push)).await {
            // A push reads no entry.
            Ok(_) => assert_eq!(method, "GetActionResult"),
            Err(status) => {
                says(status.message(), &["refused: …"]);
                told.status(&status);
            }
        }
        cache.heal(method);
    }
}

/// The suite over a cache that records everything, and then refuses
/// everything with a quotation of what it was shown.
async fn over_a_remote_cache(proxy: Proxy, more: &str, service: &str) {
    let (gate, spool) = (Gate::new(), TempDir::new().unwrap());
    let origin = origin(&gate).await;
    let own = Own::new().await;
    let cache = Upstream::start();
    cache.record_messages();
    let (_dir, keys) = signing();
    let proxy = own.give(proxy).config(spooling(spool.path(), &keys, more));
    let proxy = proxy.upstream(&cache).log_level("trace");
    let (proxy, client) = proxy.connected().await;
    let client = authenticated(&client);
    let mut told = Told::default();
    fetches(&client, &origin, &mut told).await;
    failures(&client, &origin, &mut told).await;
    pushes(&client, &mut told).await;
    spooled(&proxy, &client, &origin, &gate, spool.path()).await;
    own.used(&client, &mut told).await;
    Own::complained_of(&proxy).await;
    assert!(
        cache.entries().len() > FORMS.len(),
        "references were recorded"
    );
    let messages = cache.calls_of("UpdateActionResult");
    assert!(messages.iter().all(|call| !call.messages.lock().is_empty()));

    refusals(&client, &origin, &cache, service, &mut told).await;
    assert_unmarked(&proxy, &told).await;
    assert_none("the cache", &cache.contents(), &MARKS);
    let shown = [ORIGIN, SIGNING];
    assert_none("what the cache was shown", &cache.everything(), &shown);
}

#[tokio::test]
async fn l7_p4_no_secret_lands_anywhere_around_a_remote_cache() {
    over_a_remote_cache(Proxy::new(), "", "none").await;
}

#[tokio::test]
async fn l7_p4_no_secret_lands_anywhere_with_a_service_credential() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("credential");
    std::fs::write(&file, format!("authorization: Bearer {CACHE}-service\n")).unwrap();
    let proxy = Proxy::new().arg("--upstream-credential").arg(&file);
    let service = format!("Bearer {CACHE}-service; {CACHE}-service");
    over_a_remote_cache(proxy, "[push]\ninstances = [\"*\"]\n", &service).await;
}

#[tokio::test]
async fn l7_p4_no_secret_lands_in_the_embedded_cache() {
    let (gate, spool, data) = (
        Gate::new(),
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
    );
    let origin = origin(&gate).await;
    let (_dir, keys) = signing();
    let own = Own::new().await;
    let proxy = own
        .give(Proxy::new())
        .config(spooling(spool.path(), &keys, ""));
    let proxy = proxy.data_dir(data.path()).log_level("trace");
    let (proxy, client) = proxy.connected().await;
    let client = authenticated(&client);
    let mut told = Told::default();
    fetches(&client, &origin, &mut told).await;
    failures(&client, &origin, &mut told).await;
    pushes(&client, &mut told).await;
    spooled(&proxy, &client, &origin, &gate, spool.path()).await;
    own.used(&client, &mut told).await;
    Own::complained_of(&proxy).await;
    assert_unmarked(&proxy, &told).await;
    proxy.terminate();
    proxy.ended().await;
    let disk = files(data.path());
    assert!(disk.len() > 3 << 20, "the cache is on disk");
    assert!(find(&disk, "assetentry").is_some(), "entries too");
    assert_none("the embedded cache", &disk, &MARKS);
    assert_none("the logs", proxy.stderr().text().as_bytes(), &MARKS);
}

/// What commands print that look at the cache, about requests with secrets.
async fn printed(cache: &Upstream, origin: &Serving) -> Vec<u8> {
    let mut runs: Vec<Vec<String>> = Vec::new();
    for form in FORMS {
        let request = request(form, &origin.url(&format!("/{form}")), ORIGIN);
        for json in [false, true] {
            let mut run = vec!["explain".to_owned()];
            for uri in &request.uris {
                run.extend(["--uri".into(), String::from_utf8(uri.to_vec()).unwrap()]);
            }
            for q in &request.qualifiers {
                run.extend(["--qualifier".into(), format!("{}={}", q.name, q.value)]);
            }
            run.extend(json.then(|| "--json".to_owned()));
            runs.push(run);
        }
    }
    runs.push(vec!["doctor".to_owned()]);
    let url = cache.url();
    let all = tokio::task::spawn_blocking(move || {
        let mut printed = Vec::new();
        for run in runs {
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_assetgate"))
                .args(&run)
                .args(["--upstream", &url])
                .env_clear()
                .env("HOME", "/home/nobody")
                .output()
                .unwrap();
            assert!(output.stdout.len() > 40, "{run:?}: {output:?}");
            printed.extend(output.stdout);
            printed.extend(output.stderr);
        }
        printed
    });
    all.await.unwrap()
}

#[tokio::test]
async fn l7_p4_no_secret_is_printed_by_commands_that_explain() {
    let gate = Gate::new();
    let origin = origin(&gate).await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let mut told = Told::default();
    fetches(&client, &origin, &mut told).await;
    let digest = client.upload(b"blob").await;
    for form in FORMS {
        let fetch = request(form, &origin.url(&format!("/{form}")), ORIGIN);
        let push = push_blob(&fetch.uris, digest.clone()).with_qualifiers(fetch.qualifiers);
        client.push_blob(push).await.unwrap();
    }
    let printed = printed(&cache, &origin).await;
    assert_none("what commands print", &printed, &MARKS);
    assert_none("an answer", &told.0, &MARKS);
}

/// Everything the libraries log too, which is what people switch on who look
/// for an error.
#[tokio::test]
async fn l7_p4_no_secret_is_logged_at_any_level() {
    let gate = Gate::new();
    let origin = origin(&gate).await;
    let cache = Upstream::start();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("credential");
    std::fs::write(&file, format!("authorization: Bearer {CACHE}-service\n")).unwrap();
    let proxy = Proxy::new().upstream(&cache).variable("RUST_LOG", "trace");
    let proxy = proxy.arg("--upstream-credential").arg(&file);
    let proxy = proxy.config("[push]\ninstances = [\"*\"]\n");
    let own = Own::new().await;
    let (proxy, client) = own.give(proxy).connected().await;
    let client = authenticated(&client);
    own.used(&client, &mut Told::default()).await;
    Own::complained_of(&proxy).await;
    for form in FORMS {
        let loaded = request(form, &origin.url(&format!("/{form}")), ORIGIN);
        hit(client.fetch_blob(loaded).await);
    }
    client.upload(b"blob").await;
    let logs = proxy.stderr().text();
    assert!(logs.contains("\"TRACE\""), "{logs}");
    assert_none("the logs", logs.as_bytes(), &MARKS);
}

/// Keys read and keys written per form and use, with one secret.
async fn keys(origin: &Serving, secret: &str) -> BTreeMap<String, BTreeSet<String>> {
    let cache = Upstream::start();
    cache.record_messages();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let mut keys = BTreeMap::new();
    let read = |call: &crate::support::upstream::Call| {
        let message = call.messages.lock().split_off(5);
        let request = GetActionResultRequest::decode(&*message).unwrap();
        request.action_digest.unwrap().hash
    };
    for form in FORMS {
        let loaded = request(form, &origin.url(&format!("/{form}")), secret);
        for (use_, request) in [
            ("pinned", pinned(loaded.clone(), form.as_bytes())),
            ("unpinned", loaded),
        ] {
            let mut reads = Vec::new();
            for _ in 0..2 {
                cache.forget_calls();
                hit(client.fetch_blob(request.clone()).await);
                let calls = cache.calls_of("GetActionResult");
                reads.push(calls.iter().map(read).collect::<BTreeSet<_>>());
            }
            // What was read both times: not what looks at the cache itself.
            let both: BTreeSet<String> = reads[0].intersection(&reads[1]).cloned().collect();
            assert!(!both.is_empty(), "{form} {use_}");
            keys.insert(format!("{form} {use_} read"), both);
        }
    }
    let digest = cache.put(b"blob");
    for form in FORMS {
        let fetch = request(form, &format!("http://push.example/{form}"), secret);
        let push = push_blob(&fetch.uris, digest.clone());
        let push = push.with_qualifiers(fetch.qualifiers);
        client.push_blob(push).await.unwrap();
    }
    let written = cache.entries().into_iter().map(|(key, _)| key.digest.hash);
    let written: BTreeSet<String> = written.collect();
    assert!(written.len() >= 2 * FORMS.len(), "{}", written.len());
    keys.insert("written".to_owned(), written);
    keys
}

#[tokio::test]
async fn l7_p4_requests_that_differ_only_in_a_secret_have_the_same_keys() {
    let gate = Gate::new();
    let origin = origin(&gate).await;
    let one = keys(&origin, &format!("{ORIGIN}-one")).await;
    let other = keys(&origin, "something-else-altogether").await;
    assert_eq!(one, other);
}
