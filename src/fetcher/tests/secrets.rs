//! Headers reach the mirror they were meant for, and secrets nothing else.

use super::origin::{Origin, ok, redirect, status};
use super::*;

#[tokio::test]
async fn scenarios_23_24_26_headers_of_all_forms_reach_their_mirror() {
    let first = Origin::start(|_| status("404 Not Found")).await;
    let second = Origin::start(|_| ok(b"x")).await;
    let rig = Rig::new();
    let urls = [first.url("/a"), second.url("/b")];
    let json = format!(r#"{{"{}":{{"X-Old":"json"}}}}"#, urls[0]);
    let request = with_headers(
        &[&urls[0], &urls[1]],
        &[
            ("http_header:X-All", "all"),
            ("http_header:X-Token", "general"),
            ("http_header_url:1:x-tOKEN", "special"),
            ("bazel.auth_headers", &json),
            ("http_header:User-Agent", "mine/1"),
        ],
    );
    let fetched = rig.fetch(&request).await.unwrap();
    assert!(fetched.with_credentials);
    let (a, b) = (first.head(0), second.head(0));
    for (head, has, lacks) in [
        (
            &a,
            ["x-all: all", "x-token: general", "x-old: json"],
            "special",
        ),
        (
            &b,
            ["x-all: all", "x-token: special", "user-agent: mine/1"],
            "json",
        ),
    ] {
        for line in has {
            assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
        }
        assert!(!head.contains(lacks), "{head}");
        assert_eq!(head.matches("user-agent").count(), 1);
    }
    assert!(!b.contains("general"), "{b}");
}

#[tokio::test]
async fn user_info_is_sent_as_basic_to_its_origin() {
    let (origin, rig) = (Origin::start(|_| ok(b"x")).await, Rig::new());
    let url = origin.url("/x").replace("http://", "http://user:pa%20ss@");
    let fetched = rig.get(&[&url]).await.unwrap();
    assert!(fetched.with_credentials);
    let head = origin.head(0);
    assert!(
        head.contains("authorization: Basic dXNlcjpwYSBzcw=="),
        "{head}"
    );
    assert!(head.starts_with("GET /x HTTP/1.1"), "{head}");
    let explicit = with_headers(&[&url], &[("http_header:Authorization", "Bearer b")]);
    rig.fetch(&explicit).await.unwrap();
    assert!(origin.head(1).contains("Bearer b") && !origin.head(1).contains("Basic"));
}

#[tokio::test]
async fn user_info_follows_redirects_within_its_origin_only() {
    let other = Origin::start(|_| ok(b"end")).await;
    let elsewhere = other.url("/");
    let origin = Origin::start(move |path| match path {
        "/here" => redirect("/end"),
        "/there" => redirect(&elsewhere),
        _ => ok(b"end"),
    });
    let (origin, rig) = (origin.await, Rig::new());
    for path in ["/here", "/there"] {
        let url = origin.url(path).replace("http://", "http://user:pass@");
        rig.get(&[&url]).await.unwrap();
    }
    let basic = |head: String| head.contains("authorization: Basic");
    assert!(basic(origin.head(0)) && basic(origin.head(1)) && basic(origin.head(2)));
    assert!(!basic(other.head(0)));
}

#[tokio::test]
async fn a_fetch_counts_as_made_with_credentials_when_it_was() {
    let (origin, rig) = (Origin::start(|_| ok(b"x")).await, Rig::new());
    let plain = rig.get(&[&origin.url("/x?v=1")]).await.unwrap();
    assert!(!plain.with_credentials);
    assert!(
        origin.head(0).starts_with("GET /x?v=1 "),
        "the query reaches the origin"
    );
    assert!(
        rig.get(&[&origin.url("/x?sig=S")])
            .await
            .unwrap()
            .with_credentials
    );
    assert!(origin.head(1).starts_with("GET /x?sig=S "));
    let mut hidden = request(&[&origin.url("/x")]);
    let id = ("bazel.canonical_id".to_owned(), "https://u:p@h/".to_owned());
    hidden.qualifiers = Qualifiers::new([id]).unwrap();
    assert!(rig.fetch(&hidden).await.unwrap().with_credentials);
}

#[tokio::test]
async fn scenario_29_no_secret_is_in_any_message() {
    const SECRET: &str = "S3CRET";
    let origin = Origin::start(|path| match path.split('?').next().unwrap_or("") {
        "/401" => super::origin::answer("401 S3CRET", "x: S3CRET\r\n", b"S3CRET"),
        "/to" => redirect("http://S3CRET:S3CRET@127.0.0.1:1/x?t=S3CRET#S3CRET"),
        "/bad-location" => redirect("http://S3CRET:x@[/"),
        "/other" => redirect("ftp://S3CRET@h/S3CRET"),
        "/garbage" => super::origin::raw("S3CRET\r\n\r\n"),
        "/header" => super::origin::raw("HTTP/1.1 200 OK\r\nS3 CRET: S3CRET\r\n\r\n"),
        _ => ok(b"S3CRET"),
    })
    .await;
    let rig = Rig::new();
    let at = |path: &str| {
        let url = origin.url(&format!("{path}?q=S3CRET#S3CRET"));
        url.replace("http://", "http://S3CRET:S3CRET@")
    };
    for url in [
        at("/401"),
        at("/to"),
        at("/bad-location"),
        at("/other"),
        at("/garbage"),
        at("/header"),
        at("/mismatch"),
        "http://u:S3CRET@127.0.0.1:1/?S3CRET".into(),
        "https://u:S3CRET@nonexistent.invalid/?S3CRET".into(),
        "https://u:S3CRET@h:99999/?S3CRET".into(),
        "ftp://u:S3CRET@h/x".into(),
        "http://u:S3CRET@10.0.0.1/?S3CRET".into(),
    ] {
        let mut request = with_headers(&[&url], &[("http_header:X-Token", SECRET)]);
        request.integrity = pinned(&[&url], b"other").integrity;
        let error = rig.fetch(&request).await.unwrap_err();
        for text in [
            error.to_string(),
            format!("{error:?}"),
            format!("{request:?}"),
        ] {
            assert!(!text.contains(SECRET), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }
}
