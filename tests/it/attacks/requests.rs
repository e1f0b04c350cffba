//! Attacks by who asks: checksums, headers, URLs.

use super::Rig;
use crate::support::{Code, Function, Origin, Qualified as _, digest_of, fetch_blob, sri};

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
