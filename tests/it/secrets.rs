//! L7, the second half: secrets reach the origin they are meant for and nothing
//! else (promise P4 of the design).

use std::time::{Duration, SystemTime};

use assetgate::proto::asset::FetchBlobRequest;

use crate::support::origin::Serving;
use crate::support::{
    Client, Fetching as _, Function, Origin, Proxy, Pushing as _, Qualified as _, Reply, Running,
    Upstream, digest_of, fetch_blob, fetch_directory, hit, push_blob, sri,
};

/// Stands in every secret, so that one search finds any of them.
const MARK: &str = "hunter2";

fn marked(name: &str) -> String {
    format!("{MARK}-{name}")
}

/// A request with a secret in every place there is for one.
fn loaded(uri: &str) -> FetchBlobRequest {
    let json = format!(r#"{{"{uri}":{{"X-Json":"{}"}}}}"#, marked("json"));
    fetch_blob(&[uri])
        .qualifier(
            "http_header:Authorization",
            &format!("Bearer {}", marked("global")),
        )
        .qualifier("http_header_url:0:X-Per-Url", &marked("per-url"))
        .qualifier("bazel.auth_headers", &json)
        .qualifier("auth.basic.password", &marked("password"))
        .qualifier("bazel.canonical_id", uri)
}

/// The URL of `path` with a secret in user info and parameters.
fn signed(origin: &Serving, path: &str) -> String {
    let plain = origin.url(path);
    let host = plain.strip_prefix("http://").unwrap();
    let secret = marked("url");
    format!("http://user:{secret}@{host}?v=1&X-Amz-Signature={secret}&token={secret}")
}

/// The same without the secrets.
fn clean(origin: &Serving, path: &str) -> String {
    format!("{}?v=1", origin.url(path))
}

#[track_caller]
fn assert_unmarked(place: &str, bytes: &[u8]) {
    let found = bytes.windows(MARK.len()).position(|w| w == MARK.as_bytes());
    if let Some(at) = found {
        let around = &bytes[at.saturating_sub(200)..(at + 100).min(bytes.len())];
        panic!("a secret in {place}: …{}…", String::from_utf8_lossy(around));
    }
}

async fn assert_no_secret(proxy: &Running, cache: &Upstream) {
    assert_unmarked("the cache", &cache.everything());
    assert_unmarked("the logs", proxy.stderr().text().as_bytes());
    assert_unmarked("what was printed", proxy.stdout().text().as_bytes());
    assert_unmarked("the metrics", proxy.metrics().await.0.as_bytes());
    for page in ["/", "/status", "/fetches", "/readyz", "/livez"] {
        let text = crate::support::admin::get(proxy.admin(), page).await.1;
        assert_unmarked(page, text.as_bytes());
    }
}

fn pinned(request: FetchBlobRequest, content: &[u8]) -> FetchBlobRequest {
    request.qualifier("checksum.sri", &sri(Function::Sha256, content))
}

#[tokio::test]
async fn l7_scenario_29_secrets_of_fetches_that_succeed() {
    let origin = Origin::new()
        .file("/a", "content")
        .file("/b", "content")
        .start()
        .await;
    let cache = Upstream::start();
    let proxy = Proxy::new().upstream(&cache).log_level("trace");
    let (proxy, client) = proxy.connected().await;
    for path in ["/a", "/b"] {
        let request = loaded(&signed(&origin, path));
        for request in [pinned(request.clone(), b"content"), request] {
            for _ in 0..2 {
                let answer = client.fetch_blob(request.clone()).await.unwrap();
                assert_eq!(answer.uri, request.uris[0], "the wire has it verbatim");
                let rest = assetgate::proto::asset::FetchBlobResponse {
                    uri: bytes::Bytes::new(),
                    ..answer
                };
                assert_unmarked("the answer", format!("{rest:?}").as_bytes());
            }
        }
    }
    let seen = &origin.seen_at("/a")[0];
    assert_eq!(
        seen.header("authorization"),
        Some(&*format!("Bearer {}", marked("global")))
    );
    assert_eq!(seen.header("x-per-url"), Some(&*marked("per-url")));
    assert_eq!(seen.header("x-json"), Some(&*marked("json")));
    assert!(seen.target.contains(&marked("url")), "{}", seen.target);
    assert_no_secret(&proxy, &cache).await;
}

fn failing(origin: &Serving) -> Vec<FetchBlobRequest> {
    let paths = [
        "/404", "/403", "/503", "/a", "/cut", "/away", "/loop", "/silent",
    ];
    let all = paths.iter().map(|path| {
        let request = pinned(loaded(&signed(origin, path)), b"other");
        request.timeout(Duration::from_millis(500))
    });
    let broken = format!("http://user:{}@[oops/a", marked("broken"));
    let elsewhere = format!("http://user:{MARK}@10.0.0.1/a?token={MARK}");
    let nowhere = format!("http://{MARK}:{MARK}@no-such-host.invalid/a?token={MARK}");
    let more = [broken, elsewhere, nowhere];
    all.chain(more.iter().map(|uri| loaded(uri))).collect()
}

#[tokio::test]
async fn l7_scenario_29_secrets_of_fetches_that_fail() {
    let away = format!("http://10.0.0.1/?token={}", marked("redirect"));
    let cut = Reply::ok("content").declaring(70);
    let origin = Origin::new()
        .status("/404", 404)
        .status("/403", 403)
        .status("/503", 503)
        .file("/a", "content")
        .reply("/cut", cut)
        .reply("/away", Reply::redirect(&away))
        .reply("/loop", Reply::redirect(&format!("/loop?token={MARK}")))
        .reply("/silent", Reply::silence());
    let origin = origin.start().await;
    let cache = Upstream::start();
    let proxy = Proxy::new().upstream(&cache).log_level("trace");
    let (proxy, client) = proxy.connected().await;
    for request in failing(&origin) {
        let shown = match client.fetch_blob(request.clone()).await {
            Ok(answer) => {
                assert_ne!(answer.status.as_ref().unwrap().code, 0, "{request:?}");
                format!("{:?}", answer.status)
            }
            Err(status) => format!("{status:?} {:?}", status.metadata()),
        };
        assert_unmarked("the error", shown.as_bytes());
    }
    assert_no_secret(&proxy, &cache).await;
}

#[tokio::test]
async fn l7_secrets_of_requests_that_are_refused() {
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let secret = marked("value");
    let uri = format!("http://user:{MARK}@127.0.0.1:1/a?sig={MARK}");
    let base = || fetch_blob(&[&uri]);
    for request in [
        base().qualifier("http_header_url:9:X", &secret),
        base().qualifier("http_header:Host", &secret),
        base().qualifier("http_header:X", &format!("{secret}\r\nEvil: 1")),
        base().qualifier("bazel.auth_headers", &format!("{{{secret}")),
        base()
            .qualifier("http_header:X", &secret)
            .qualifier("http_header:x", &secret),
        base()
            .qualifier("foo", &uri)
            .qualifier("http_header:X", &secret),
    ] {
        let status = client.fetch_blob(request).await.unwrap_err();
        let shown = format!("{status:?} {:?}", status.metadata());
        assert_unmarked("the refusal", shown.as_bytes());
    }
    let directory = fetch_directory(&[&uri]).qualifier("auth.basic.password", &secret);
    let answer = client.fetch_directory(directory).await.unwrap();
    assert_unmarked("the answer", format!("{:?}", answer.status).as_bytes());
    assert_no_secret(&proxy, &cache).await;
}

#[tokio::test]
async fn l7_secrets_of_pushes() {
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = cache.put(b"blob");
    let uri = format!("https://user:{MARK}@example.org/a?v=1&sig={MARK}");
    let push = push_blob(&[&uri], digest.clone())
        .qualifier("http_header:Authorization", MARK)
        .qualifier("auth.basic.password", MARK)
        .qualifier("bazel.canonical_id", &uri)
        .expire_at(SystemTime::now() + Duration::from_secs(60));
    client.push_blob(push).await.unwrap();
    let fetch = fetch_blob(&["https://example.org/a?v=1"])
        .qualifier("bazel.canonical_id", "https://example.org/a?v=1");
    let answer = client.fetch_blob(fetch).await.unwrap();
    assert_unmarked("the answer", format!("{answer:?}").as_bytes());
    assert_eq!(hit(Ok(answer)), digest);
    assert_no_secret(&proxy, &cache).await;
}

/// The keys of all references after one fetch.
async fn keys_after(client: &Client, cache: &Upstream, request: FetchBlobRequest) -> Vec<String> {
    hit(client.fetch_blob(request).await);
    let keys = cache.entries().into_iter().map(|(key, _)| key.digest.hash);
    keys.collect()
}

#[tokio::test]
async fn l7_a_secret_is_no_part_of_any_key() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let plain = pinned(fetch_blob(&[clean(&origin, "/a")]), b"content")
        .qualifier("bazel.canonical_id", &clean(&origin, "/a"));
    let first = keys_after(&client, &cache, plain).await;
    assert!(!first.is_empty());
    let secret = pinned(loaded(&signed(&origin, "/a")), b"content");
    let mut other = secret.clone();
    for qualifier in &mut other.qualifiers {
        qualifier.value = qualifier.value.replace("global", "another");
    }
    for request in [secret, other] {
        assert_eq!(keys_after(&client, &cache, request).await, first);
    }
    assert_eq!(origin.count("/a"), 1, "a secret makes no other asset of it");
}

#[tokio::test]
async fn l7_unpinned_content_fetched_with_credentials_is_kept_for_nobody() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let header = |value| {
        let request = fetch_blob(&[origin.url("/a")]);
        request.qualifier("http_header:Authorization", value)
    };
    for (requests, request) in [
        (1, header("Bearer one")),
        (2, header("Bearer one")),
        (3, header("Bearer two")),
        (4, fetch_blob(&[origin.url("/a")])),
    ] {
        assert_eq!(hit(client.fetch_blob(request).await), digest_of(b"content"));
        assert_eq!(origin.count("/a"), requests);
    }
}

#[tokio::test]
async fn l7_headers_that_choose_a_representation_choose_the_reference_too() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let accept = |value| {
        let request = fetch_blob(&[origin.url("/a")]).oldest(SystemTime::UNIX_EPOCH);
        request.qualifier("http_header:Accept", value)
    };
    for (requests, value) in [(1, "text/plain"), (1, "text/plain"), (2, "text/html")] {
        hit(client.fetch_blob(accept(value)).await);
        assert_eq!(origin.count("/a"), requests, "{value}");
    }
}
