//! Attacks by who answers: redirects, heads, bodies.

use super::{LARGE, Rig};
use crate::support::content::noise;
use crate::support::{Code, Function, Gate, Origin, Qualified as _, Reply, sri};

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
