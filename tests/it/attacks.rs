//! Attacks on a fetch: checksums, headers, URLs, redirects and bodies that are
//! not what they should be. Each gets the status DESIGN has for it, stores
//! nothing and leaves nothing behind.

use assetgate::proto::asset::{FetchBlobRequest, FetchBlobResponse};
use tempfile::TempDir;
use tonic::Status;

use crate::support::content::noise;
use crate::support::origin::Serving;
use crate::support::{
    Answer as _, Client, Code, Function, Gate, Origin, Proxy, Qualified as _, Reply, Running,
    Upstream, digest_of, eventually, fetch_blob, hit, sri,
};

/// Above what is kept in memory.
const LARGE: usize = 3 << 20;

struct Rig {
    cache: Upstream,
    proxy: Running,
    client: Client,
    origin: Serving,
    spool: TempDir,
    descriptors: usize,
}

impl Rig {
    async fn new(origin: Origin) -> Self {
        let origin = origin.file("/fine", "content").start().await;
        let spool = TempDir::new().unwrap();
        let cache = Upstream::start();
        let config = format!(
            "[fetch]\nattempts = 1\nmax_size = \"4MiB\"\nstall_timeout = \"1s\"\n\
             spool_dir = {:?}\n",
            spool.path()
        );
        let proxy = Proxy::new().config(config).upstream(&cache);
        let (proxy, client) = proxy.connected().await;
        let rig = Self {
            descriptors: 0,
            cache,
            proxy,
            client,
            origin,
            spool,
        };
        // Connections that stay open are open from here on.
        hit(rig.client.fetch_blob(rig.at("/fine")).await);
        let descriptors = rig.proxy.descriptors();
        for (_, blob) in rig.cache.blobs() {
            rig.cache.drop_blob(&digest_of(&blob));
        }
        Self { descriptors, ..rig }
    }

    fn at(&self, path: &str) -> FetchBlobRequest {
        fetch_blob(&[self.origin.url(path)])
    }

    /// The code of a call that must fail, inside the answer or outside.
    async fn code(&self, what: &str, request: FetchBlobRequest) -> (Code, bool) {
        let answer: Result<FetchBlobResponse, Status> = self.client.fetch_blob(request).await;
        match answer {
            Ok(answer) => {
                assert_eq!(answer.digest(), None, "{what}: {answer:?}");
                let status = answer.status();
                assert!(!status.message.is_empty(), "{what}: no reason");
                (Code::from_i32(status.code), true)
            }
            Err(status) => {
                assert!(!status.message().is_empty(), "{what}: no reason");
                (status.code(), false)
            }
        }
    }

    async fn inline(&self, what: &str, request: FetchBlobRequest, code: Code) {
        assert_eq!(self.code(what, request).await, (code, true), "{what}");
    }

    async fn invalid(&self, what: &str, request: FetchBlobRequest) {
        let expected = (Code::InvalidArgument, false);
        assert_eq!(self.code(what, request).await, expected, "{what}");
    }

    /// Nothing was stored and nothing stays behind; it serves as before.
    async fn is_clean(&self) {
        assert_eq!(self.cache.writes(), []);
        for (key, blob) in self.cache.blobs() {
            // What shows whether a caller may write is small.
            assert!(blob.len() < 1000, "{key:?} was stored");
        }
        let references = self.cache.entries().len();
        assert!(references <= 1, "{references}: only that of `/fine`");
        let metrics = self.proxy.metrics().await;
        assert_eq!(metrics.sum("assetgate_panics_total", &[]), 0.0);
        eventually("the end of what the attacks took", async || {
            let spooled = std::fs::read_dir(self.spool.path()).unwrap().count();
            let open = self.proxy.open_files();
            let held = self.proxy.metrics().await.sum("assetgate_spool_bytes", &[]);
            let clean = spooled == 0 && held == 0.0 && open.iter().all(|f| f.len() < LARGE / 2);
            // A connection to the origin more may be kept for the next fetch.
            (clean && self.proxy.descriptors() <= self.descriptors + 2).then_some(())
        })
        .await;
        assert_eq!(
            hit(self.client.fetch_blob(self.at("/fine")).await),
            digest_of(b"content")
        );
    }
}

#[tokio::test]
async fn bad_checksums_are_invalid_and_ask_nobody() {
    use base64::Engine as _;
    let rig = Rig::new(Origin::new()).await;
    let before = rig.origin.total();
    let good = sri(Function::Sha256, b"content");
    let raw = |length: usize| {
        let standard = base64::engine::general_purpose::STANDARD;
        format!("sha256-{}", standard.encode(vec![7; length]))
    };
    let many = vec![good.as_str(); 33].join(" ");
    let huge = format!("sha256-{}", "A".repeat(10_000));
    let hex = format!("sha256-{}", digest_of(b"content").hash);
    for bad in [
        "",
        " \t\n",
        "-",
        "sha256",
        "sha256-",
        "sha256--",
        "sha256-====",
        "sha256-@@@@",
        "sha256-AAAA\0",
        "sha256-\u{e9}\u{e9}",
        "sha999-AAAA",
        "md4-AAAA sha3-AAAA",
        &raw(31),
        &raw(33),
        &raw(0),
        &hex,
        &many,
        &huge,
        &format!("{good} {}", raw(31)),
        &format!("{} {good}", raw(33)),
        &format!("{good} sha512-AAAA"),
    ] {
        let request = rig.at("/fine").qualifier("checksum.sri", bad);
        rig.invalid(bad, request).await;
    }
    assert_eq!(rig.origin.total(), before);
    rig.is_clean().await;
}

#[tokio::test]
async fn bad_headers_are_invalid_and_ask_nobody() {
    let rig = Rig::new(Origin::new()).await;
    let before = rig.origin.total();
    let long = "x".repeat(70_000);
    for (name, value) in [
        ("http_header:X", "a\r\nHost: evil"),
        ("http_header:X", "a\nb"),
        ("http_header:X", "a\0b"),
        ("http_header:X\r\nY", "a"),
        ("http_header:X Y", "a"),
        ("http_header:X:", "a"),
        ("http_header:", "a"),
        ("http_header:\u{e9}", "a"),
        ("http_header:Host", "evil"),
        ("http_header:Content-Length", "5"),
        ("http_header:Transfer-Encoding", "chunked"),
        ("http_header:Connection", "X-Token"),
        ("http_header:Upgrade", "h2c"),
        ("http_header:TE", "trailers"),
        ("http_header:Proxy-Authorization", "Basic x"),
        ("http_header:Expect", "100-continue"),
        ("http_header:X", &long),
        ("http_header_url:0:X", "a\r\n\r\nGET /evil HTTP/1.1"),
        ("http_header_url:1:X", "a"),
        ("http_header_url:18446744073709551616:X", "a"),
        ("http_header_url:0", "a"),
        ("http_header_url::X", "a"),
        ("bazel.auth_headers", "{"),
        ("bazel.auth_headers", "[]"),
        ("bazel.auth_headers", r#"{"http://h/":5}"#),
        ("bazel.auth_headers", r#"{"http://h/":{"A":{"b":1}}}"#),
        ("bazel.auth_headers", r#"{"http://h/":{"A":"x\r\ny"}}"#),
        ("bazel.auth_headers", &"[".repeat(60_000)),
    ] {
        let what = format!("{name:.40}: {value:.40}");
        let request = rig.at("/fine").qualifier(name, value);
        rig.invalid(&what, request).await;
    }
    assert_eq!(rig.origin.total(), before);
    rig.is_clean().await;
}

#[tokio::test]
async fn bad_urls_are_never_fetched() {
    let rig = Rig::new(Origin::new()).await;
    let before = rig.origin.total();
    let port = rig.origin.address().port();
    let long = format!("http://127.0.0.1:{port}/{}", "a".repeat(60_000));
    for uri in [
        "http://",
        "http:///a",
        "http://[",
        "http://[::1",
        "http://[::1]evil/a",
        "http://:80/a",
        "http://h:0x50/a",
        "http://h:65536/a",
        "http://h:-1/a",
        "http://a b/",
        "http://%00/a",
        "http://h\0/a",
        "//127.0.0.1/a",
        "\\\\127.0.0.1\\a",
        "javascript:alert(1)",
        "data:,content",
        "file:///etc/passwd",
        "gopher://127.0.0.1/a",
        "unix:/var/run/docker.sock",
        "ftp://127.0.0.1/a",
        "ws://127.0.0.1/a",
        "git+ssh://127.0.0.1/a",
    ] {
        let (code, inline) = rig.code(uri, fetch_blob(&[uri])).await;
        let told = matches!(code, Code::NotFound | Code::PermissionDenied);
        assert!(told && inline, "{uri:?}: {code:?}");
    }
    // Where an address may be written in many ways, what it is decides.
    for host in [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[fe80::1]",
        "[fd00::1]",
        "10.0.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "[::]",
        "good.example@169.254.169.254",
    ] {
        let uri = format!("http://{host}/latest");
        let request = fetch_blob(&[&uri]);
        rig.inline(&uri, request, Code::PermissionDenied).await;
    }
    let (code, _) = rig.code("a long URL", fetch_blob(&[long])).await;
    assert_ne!(code, Code::Internal);
    assert_eq!(rig.origin.seen_at("/latest").len(), 0);
    assert!(rig.origin.total() <= before + 1, "all but the long one");
    rig.is_clean().await;
}

#[tokio::test]
async fn bad_redirects_lead_nowhere() {
    let long = format!("/{}", "a".repeat(20_000));
    let table = [
        ("/file", "file:///etc/passwd", Code::PermissionDenied),
        ("/data", "data:,content", Code::PermissionDenied),
        ("/script", "javascript:alert(1)", Code::PermissionDenied),
        ("/ftp", "ftp://127.0.0.1/a", Code::PermissionDenied),
        (
            "/metadata",
            "http://169.254.169.254/",
            Code::PermissionDenied,
        ),
        ("/decimal", "http://2852039166/", Code::PermissionDenied),
        (
            "/mapped",
            "http://[::ffff:10.0.0.1]/",
            Code::PermissionDenied,
        ),
        ("/loop", "/loop", Code::NotFound),
        ("/there", "/back", Code::NotFound),
        ("/back", "/there", Code::NotFound),
        ("/bad", "http://[", Code::NotFound),
        ("/none", "", Code::NotFound),
    ];
    let mut origin = Origin::new()
        .reply("/nowhere", Reply::status(302))
        .reply("/long", Reply::redirect(&long))
        .reply(
            "/split",
            Reply::raw("HTTP/1.1 302 Found\r\nLocation: /fine\0\r\nContent-Length: 0\r\n\r\n"),
        );
    for (path, to, _) in &table {
        origin = origin.reply(path, Reply::redirect(to));
    }
    for hop in 0..20 {
        let to = format!("/hop{}", hop + 1);
        origin = origin.reply(&format!("/hop{hop}"), Reply::redirect(&to));
    }
    let rig = Rig::new(origin).await;
    for (path, _, code) in table {
        rig.inline(path, rig.at(path), code).await;
    }
    rig.inline("/nowhere", rig.at("/nowhere"), Code::NotFound)
        .await;
    rig.inline("/hop0", rig.at("/hop0"), Code::NotFound).await;
    assert_eq!(rig.origin.count("/hop10"), 1);
    assert_eq!(rig.origin.count("/hop11"), 0);
    for path in ["/long", "/split"] {
        let (code, _) = rig.code(path, rig.at(path)).await;
        let told = matches!(code, Code::NotFound | Code::Unavailable);
        assert!(told, "{path}: {code:?}");
    }
    rig.is_clean().await;
}

/// Answers that are none, and what each is told as.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    let many = "x-a: b\r\n".repeat(100_000);
    let informed = "HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000);
    let table: [(&str, String); 14] = [
        ("/nothing", String::new()),
        ("/words", "content\r\n".into()),
        ("/old", "content".into()),
        ("/version", "HTTP/9.9 200 OK\r\n\r\ncontent".into()),
        ("/status", "HTTP/1.1 20x OK\r\n\r\ncontent".into()),
        ("/no-colon", "HTTP/1.1 200 OK\r\nnonsense\r\n\r\nx".into()),
        ("/many", format!("HTTP/1.1 200 OK\r\n{many}\r\nx")),
        ("/informed", informed),
        (
            "/negative",
            "HTTP/1.1 200 OK\r\nContent-Length: -7\r\n\r\ncontent".into(),
        ),
        (
            "/overflow",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\ncontent".into(),
        ),
        (
            "/two-lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 3\r\n\r\ncontent".into(),
        ),
        (
            "/chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF1\r\nx".into(),
        ),
        (
            "/no-chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\ncontent".into(),
        ),
        (
            "/preface",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0".into(),
        ),
    ];
    table.map(|(path, text)| (path, text.into_bytes())).into()
}

#[tokio::test]
async fn bad_answers_of_origins_are_failures() {
    let mut origin = Origin::new();
    for (path, bytes) in nonsense() {
        origin = origin.reply(path, Reply::raw(bytes));
    }
    for status in [201, 204, 206, 304, 305, 416] {
        let body = if status == 201 { "content" } else { "" };
        let length = body.len();
        let text = format!("HTTP/1.1 {status} Odd\r\nContent-Length: {length}\r\n\r\n{body}");
        let reply = Reply::raw(text);
        origin = origin.reply(&format!("/{status}"), reply);
    }
    let rig = Rig::new(origin).await;
    for (path, _) in nonsense() {
        let (code, _) = rig.code(path, rig.at(path)).await;
        let told = matches!(code, Code::Unavailable | Code::Aborted | Code::NotFound);
        assert!(told, "{path}: {code:?}");
    }
    for status in [201, 204, 206, 304, 305, 416] {
        let path = format!("/{status}");
        rig.inline(&path, rig.at(&path), Code::NotFound).await;
    }
    rig.is_clean().await;
}

#[tokio::test]
async fn bad_bodies_store_nothing() {
    let never = Gate::new();
    let large = noise(LARGE, 3);
    let piece = vec![0; 1 << 20];
    let wanted = noise(LARGE, 4);
    let origin = Origin::new()
        .reply("/short", Reply::ok(&large).declaring(4_000_000))
        .reply("/cut", Reply::ok(&large).cut_after(LARGE - 1))
        .reply(
            "/cut-chunk",
            Reply::ok(&large).chunked().cut_after(LARGE / 2),
        )
        .reply("/announced", Reply::ok("x").declaring(1 << 40))
        .reply("/endless", Reply::ok(&piece).times(5000).chunked())
        .reply(
            "/endless-plain",
            Reply::ok(&piece).times(5000).until_close(),
        )
        .reply("/other", Reply::ok(&large))
        .reply("/other-chunk", Reply::ok(&large).chunked())
        .reply("/stall", Reply::ok(&large).gated_after(LARGE / 2, &never));
    let rig = Rig::new(origin).await;
    for pinned in [false, true] {
        for (path, code) in [
            ("/short", Code::Aborted),
            ("/cut", Code::Aborted),
            ("/cut-chunk", Code::Aborted),
            ("/announced", Code::ResourceExhausted),
            ("/endless", Code::ResourceExhausted),
            ("/endless-plain", Code::ResourceExhausted),
        ] {
            let mut request = rig.at(path);
            if pinned {
                request = request.qualifier("checksum.sri", &sri(Function::Sha256, &wanted));
            }
            rig.inline(path, request, code).await;
        }
        let mut request = rig.at("/stall");
        if pinned {
            request = request.qualifier("checksum.sri", &sri(Function::Sha256, &large));
        }
        let stalled = rig.code("/stall", request).await;
        assert_eq!(stalled, (Code::Unavailable, false), "/stall");
    }
    for path in ["/other", "/other-chunk"] {
        for algorithm in [Function::Sha256, Function::Sha512] {
            let checksum = sri(algorithm, &wanted);
            let request = rig.at(path).qualifier("checksum.sri", &checksum);
            rig.inline(path, request, Code::Aborted).await;
        }
    }
    rig.is_clean().await;
}
