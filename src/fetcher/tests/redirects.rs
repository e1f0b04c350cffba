//! Redirects, and the addresses that may not be reached.

use std::sync::Arc;

use parking_lot::Mutex;

use super::origin::{Origin, ok, redirect};
use super::*;

#[tokio::test]
async fn scenario_18_ten_redirects_are_followed_and_no_more() {
    let origin = Origin::start(|path| {
        let left: u32 = path[1..].parse().unwrap_or(0);
        match left {
            0 => ok(b"end"),
            _ => redirect(&format!("/{}", left - 1)),
        }
    });
    let (origin, rig) = (origin.await, Rig::new());
    let fetched = rig.get(&[&origin.url("/10")]).await.unwrap();
    assert_eq!((fetched.digest, fetched.attempts), (digest(b"end"), 1));
    let (failure, _, message) = rig.failure(&request(&[&origin.url("/11")])).await;
    assert_eq!(failure, Failure::Unusable);
    assert!(message.contains("more than 10 redirects"), "{message}");
}

#[tokio::test]
async fn scenario_18_circles_dead_ends_and_other_schemes() {
    let origin = Origin::start(|path| match path {
        "/a" => redirect("/b"),
        "/b" => redirect("/a"),
        "/self" => redirect("/self"),
        "/ftp" => redirect("ftp://h/x"),
        "/file" => redirect("file:///etc/passwd"),
        "/gone" => redirect("/missing?q=SECRET"),
        "/none" => super::origin::status("302 Found"),
        "/missing?q=SECRET" => super::origin::status("410 Gone"),
        _ => ok(b"mirror"),
    });
    let (origin, rig) = (origin.await, Rig::new());
    for (path, want, text) in [
        ("/a", Failure::Unusable, "in a circle"),
        ("/self", Failure::Unusable, "in a circle"),
        ("/none", Failure::Unusable, "a redirect to nowhere"),
        ("/ftp", Failure::Disallowed, "a redirect to ftp:"),
        ("/file", Failure::Disallowed, "a redirect to file:"),
        ("/gone", Failure::NotFound, "/missing?...): 410 Gone"),
    ] {
        let (failure, _, message) = rig.failure(&request(&[&origin.url(path)])).await;
        assert_eq!(failure, want, "{message}");
        assert!(
            message.contains(text) && !message.contains("SECRET"),
            "{message}"
        );
        let fetched = rig.get(&[&origin.url(path), &origin.url("/mirror")]).await;
        assert_eq!(fetched.unwrap().uri_index, 1);
    }
}

#[tokio::test]
async fn l7_credentials_stay_with_their_origin() {
    let other = Origin::start(|_| ok(b"end")).await;
    let elsewhere = other.url("/final");
    let target = Arc::new(Mutex::new(String::new()));
    let to = Arc::clone(&target);
    let origin = Origin::start(move |path| match path {
        "/same" => redirect("/end"),
        "/cross" => redirect(&elsewhere),
        "/away-and-back" => redirect(&to.lock()),
        _ => ok(b"end"),
    });
    let (origin, rig) = (origin.await, Rig::new());
    let headers = [
        ("http_header:Authorization", "Bearer S3CRET"),
        ("http_header:X-Api-Key", "S3CRET"),
        ("http_header:Accept", "text/plain"),
    ];
    rig.fetch(&with_headers(&[&origin.url("/same")], &headers))
        .await
        .unwrap();
    assert!(
        origin.head(0).contains("Bearer S3CRET") && origin.head(1).contains("x-api-key: S3CRET")
    );
    rig.fetch(&with_headers(&[&origin.url("/cross")], &headers))
        .await
        .unwrap();
    let head = other.head(0).to_lowercase();
    assert!(
        !head.contains("s3cret") && !head.contains("authorization"),
        "{head}"
    );
    assert!(head.contains("accept: text/plain"), "{head}");
    // Once away, the credentials do not come back.
    let back = origin.url("/end");
    let bounce = Origin::start(move |_| redirect(&back)).await;
    *target.lock() = bounce.url("/");
    rig.fetch(&with_headers(&[&origin.url("/away-and-back")], &headers))
        .await
        .unwrap();
    let last = origin.heads.lock().last().cloned().unwrap();
    assert!(
        last.starts_with("GET /end") && !last.contains("S3CRET"),
        "{last}"
    );
}

#[tokio::test]
async fn u5_special_addresses_are_refused_in_every_spelling() {
    let origin = Origin::start(|_| ok(b"internal")).await;
    let port = origin.addr.port();
    let rig = Rig::with(|s| s.allow_cidr.clear(), FakeCache::default());
    for host in [
        "127.0.0.1",
        "localhost",
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "[::]",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "10.0.0.1",
        "[64:ff9b::7f00:1]",
    ] {
        let url = format!("http://{host}:{port}/latest/meta-data");
        let (failure, _, message) = rig.failure(&request(&[&url])).await;
        assert_eq!(failure, Failure::Disallowed, "{message}");
        assert!(message.contains("not allowed"), "{message}");
        assert!(message.contains("--origin-allow-cidr"), "{message}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn u5_a_redirect_to_a_refused_address_is_refused() {
    let origin = Origin::start(|path| match path {
        "/ip" => redirect("http://169.254.169.254/latest/meta-data"),
        _ => redirect("http://10.0.0.1/"),
    });
    let (origin, rig) = (origin.await, Rig::new());
    for path in ["/ip", "/private"] {
        let (failure, _, message) = rig.failure(&request(&[&origin.url(path)])).await;
        assert_eq!(failure, Failure::Disallowed);
        assert!(message.contains("(redirected to http://1"), "{message}");
    }
}

#[tokio::test]
async fn u5_denied_ranges_win_over_allowed_ones() {
    let origin = Origin::start(|_| ok(b"x")).await;
    let deny = |s: &mut Settings| s.deny_cidr = vec!["127.0.0.1/32".parse().unwrap()];
    let rig = Rig::with(deny, FakeCache::default());
    let (failure, _, _) = rig.failure(&request(&[&origin.url("/")])).await;
    assert_eq!(failure, Failure::Disallowed);
}

#[tokio::test]
async fn u5_a_name_is_judged_by_what_it_resolves_to_at_each_dial() {
    let origin = Origin::start(|_| ok(b"x")).await;
    let by = scripted(&["127.0.0.1", "10.0.0.1"]);
    let rig = Rig::resolving(|_| {}, FakeCache::default(), by);
    // The path makes the origin close, so that the next fetch dials again.
    let url = format!("http://rebinding.example:{}/close", origin.addr.port());
    rig.get(&[&url]).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let (failure, _, message) = rig.failure(&request(&[&url])).await;
    assert_eq!(failure, Failure::Disallowed, "{message}");
    assert!(
        message.contains("rebinding.example is a private address") && !message.contains("10.0.0.1"),
        "{message}"
    );
}

#[tokio::test]
async fn scenario_16_a_name_that_nobody_resolves_is_transient() {
    let quick = |s: &mut Settings| {
        s.connect_timeout = std::time::Duration::from_millis(100);
        s.attempts = 1;
    };
    let rig = Rig::resolving(quick, FakeCache::default(), scripted(&[]));
    let (failure, _, message) = rig.failure(&request(&["http://mute.example/"])).await;
    assert_eq!(failure, Failure::Unavailable { retry_after: None });
    assert!(message.contains("within 100ms"), "{message}");
}

#[tokio::test]
async fn of_several_addresses_the_allowed_ones_are_tried_until_one_answers() {
    let origin = Origin::start(|_| ok(b"x")).await;
    let url = format!("http://many.example:{}/", origin.addr.port());
    // The origin listens on 127.0.0.1 only; what is private must not be dialled.
    for addresses in [
        "127.0.0.9 127.0.0.1",
        "10.0.0.1 127.0.0.1",
        "::1 fe80::1 127.0.0.1",
    ] {
        let rig = Rig::resolving(|_| {}, FakeCache::default(), scripted(&[addresses]));
        rig.get(&[&url])
            .await
            .unwrap_or_else(|e| panic!("{addresses}: {e}"));
    }
    let by = scripted(&["127.0.0.9 127.0.0.8"]);
    let rig = Rig::resolving(|_| {}, FakeCache::default(), by);
    let (failure, _, message) = rig.failure(&request(&[&url])).await;
    assert_eq!(failure, Failure::Unavailable { retry_after: None });
    assert!(
        message.contains("cannot connect to many.example"),
        "{message}"
    );
}
