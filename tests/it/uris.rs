//! U1 to U9: which of several URIs answers, and which are never asked.

use crate::support::answer::says;
use crate::support::{
    Answer as _, Code, Function, Origin, Proxy, Qualified as _, RawCall, RawClient, Reply,
    digest_of, fetch_blob, hit, inline, push_blob, refused, sri,
};

#[tokio::test]
async fn u1_the_first_uri_in_request_order_that_matches_answers() {
    let (_proxy, client) = Proxy::new().connected().await;
    let strong = client.upload(b"strong").await;
    let weak = client.upload(b"weak").await;
    client
        .push_blob(push_blob(&["urn:u:weak"], weak.clone()))
        .await
        .unwrap();
    let ask = || client.fetch_blob(fetch_blob(&["urn:u:strong", "urn:u:weak"]));
    let answer = ask().await.unwrap();
    assert_eq!(
        (answer.digest(), answer.uri().as_str()),
        (Some(&weak), "urn:u:weak")
    );
    client
        .push_blob(push_blob(&["urn:u:strong"], strong.clone()))
        .await
        .unwrap();
    let answer = ask().await.unwrap();
    assert_eq!(
        (answer.digest(), answer.uri().as_str()),
        (Some(&strong), "urn:u:strong")
    );
}

#[tokio::test]
async fn u2_what_was_pushed_under_two_uris_is_found_under_either() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"blob").await;
    let push = push_blob(&["urn:u:a", "urn:u:b"], digest.clone());
    client.push_blob(push).await.unwrap();
    for (uris, found) in [
        (vec!["urn:u:a"], "urn:u:a"),
        (vec!["urn:u:b"], "urn:u:b"),
        (vec!["urn:u:b", "urn:u:z"], "urn:u:b"),
        (vec!["urn:u:z", "urn:u:b"], "urn:u:b"),
    ] {
        let answer = client.fetch_blob(fetch_blob(&uris)).await.unwrap();
        assert_eq!(answer.digest(), Some(&digest));
        assert_eq!(answer.uri(), found);
    }
}

#[tokio::test]
async fn u3_qualifiers_apply_to_every_uri() {
    let (_proxy, client) = Proxy::new().connected().await;
    let one = client.upload(b"one").await;
    let two = client.upload(b"two").await;
    let push = push_blob(&["urn:u:a"], one).qualifier("v", "1");
    client.push_blob(push).await.unwrap();
    let push = push_blob(&["urn:u:b"], two.clone()).qualifier("v", "2");
    client.push_blob(push).await.unwrap();
    let fetch = fetch_blob(&["urn:u:a", "urn:u:b"]).qualifier("v", "2");
    let answer = client.fetch_blob(fetch).await.unwrap();
    assert_eq!(answer.digest(), Some(&two));
    assert_eq!(answer.uri(), "urn:u:b");
}

#[tokio::test]
async fn u4_a_failing_mirror_means_the_next_one() {
    let origin = Origin::new()
        .status("/404", 404)
        .status("/400", 400)
        .status("/503", 503)
        .reply("/cut", Reply::ok("content").declaring(70))
        .reply("/loop", Reply::redirect("/loop"))
        .file("/good", "content");
    let origin = origin.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    for bad in ["/404", "/400", "/503", "/cut", "/loop"] {
        let uris = [origin.url(bad), origin.url("/good")];
        let fetch = fetch_blob(&uris).qualifier("bazel.canonical_id", bad);
        let answer = client.fetch_blob(fetch).await.unwrap();
        assert_eq!(answer.digest(), Some(&digest_of(b"content")), "{bad}");
        assert_eq!(answer.uri(), uris[1], "{bad}");
    }
}

#[tokio::test]
async fn u4_of_several_failures_the_one_worth_acting_on_is_told() {
    let origin = Origin::new()
        .status("/404", 404)
        .status("/403", 403)
        .status("/503", 503);
    let origin = origin.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let uris = |paths: &[&str]| -> Vec<String> { paths.iter().map(|p| origin.url(p)).collect() };
    for order in [["/404", "/403"], ["/403", "/404"]] {
        let uris = uris(&order);
        let answer = client.fetch_blob(fetch_blob(&uris)).await;
        assert_eq!(answer.as_ref().unwrap().uri(), origin.url("/403"));
        let message = inline(answer, Code::PermissionDenied);
        says(&message, &[&uris[0], &uris[1], "403", "404"]);
    }
    for order in [["/404", "/503"], ["/503", "/404"]] {
        let status = refused(
            client.fetch_blob(fetch_blob(&uris(&order))).await,
            Code::Unavailable,
        );
        says(status.message(), &[&origin.url("/503"), "503"]);
    }
    let none = uris(&["/404", "/none"]);
    let answer = client.fetch_blob(fetch_blob(&none)).await;
    assert!(none.contains(&answer.as_ref().unwrap().uri()));
    inline(answer, Code::NotFound);
}

#[tokio::test]
async fn u5_addresses_that_are_not_public_are_refused() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().public_origins_only().connected().await;
    let port = origin.address().port();
    for uri in [
        origin.url("/a"),
        format!("http://localhost:{port}/a"),
        format!("http://[::1]:{port}/a"),
        format!("http://[::ffff:127.0.0.1]:{port}/a"),
        format!("http://0.0.0.0:{port}/a"),
        format!("http://2130706433:{port}/a"),
        "http://10.1.2.3/a".into(),
        "http://169.254.169.254/latest/meta-data/".into(),
    ] {
        let answer = client.fetch_blob(fetch_blob(&[&uri])).await;
        let message = inline(answer, Code::PermissionDenied);
        says(&message, &[&uri]);
    }
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn u5_a_redirect_leads_to_no_forbidden_place() {
    let origin = Origin::new()
        .reply(
            "/metadata",
            Reply::redirect("http://169.254.169.254/secret"),
        )
        .reply("/private", Reply::redirect("http://10.0.0.1/"))
        .reply("/file", Reply::redirect("file:///etc/passwd"))
        .file("/good", "content");
    let origin = origin.start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    for path in ["/metadata", "/private", "/file"] {
        let uri = origin.url(path);
        let message = inline(
            client.fetch_blob(fetch_blob(&[&uri])).await,
            Code::PermissionDenied,
        );
        says(&message, &[&uri]);
        let fetch = fetch_blob(&[uri, origin.url("/good")]);
        assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"content"));
    }
}

#[tokio::test]
async fn u6_a_uri_is_an_opaque_byte_string() {
    let (_proxy, client) = Proxy::new().connected().await;
    let digest = client.upload(b"blob").await;
    for (pushed, others) in [
        ("urn:u:%41", ["urn:u:A", "URN:u:%41"]),
        (
            "s3://bucket/a/../b",
            ["s3://bucket/b", "s3://bucket/a/../b/"],
        ),
        ("no scheme at all", ["no scheme at al", "no scheme at all "]),
    ] {
        client
            .push_blob(push_blob(&[pushed], digest.clone()))
            .await
            .unwrap();
        assert_eq!(hit(client.fetch_blob(fetch_blob(&[pushed])).await), digest);
        for other in others {
            inline(
                client.fetch_blob(fetch_blob(&[other])).await,
                Code::NotFound,
            );
        }
    }
    let raw: &[u8] = b"urn:\xff\xfe";
    client
        .push_blob(push_blob(&[raw], digest.clone()))
        .await
        .unwrap();
    let answer = client.fetch_blob(fetch_blob(&[raw])).await.unwrap();
    assert_eq!(answer.uri, raw);
    assert_eq!(answer.digest(), Some(&digest));
}

#[tokio::test]
async fn u7_a_hit_by_checksum_alone_names_the_first_uri_of_the_request() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let checksum = sri(Function::Sha256, b"content");
    let ask = |uris: &[String]| fetch_blob(uris).qualifier("checksum.sri", &checksum);
    hit(client.fetch_blob(ask(&[origin.url("/a")])).await);
    let others = [origin.url("/none"), origin.url("/neither")];
    let answer = client.fetch_blob(ask(&others)).await.unwrap();
    assert_eq!(answer.digest(), Some(&digest_of(b"content")));
    assert_eq!(answer.uri(), others[0]);
    assert_eq!(origin.total(), 1);
}

#[tokio::test]
async fn u8_mirrors_are_not_compared() {
    let origin = Origin::new()
        .file("/one", "one")
        .file("/two", "two")
        .start()
        .await;
    let (_proxy, client) = Proxy::new().connected().await;
    let fetch = fetch_blob(&[origin.url("/one"), origin.url("/two")]);
    let answer = client.fetch_blob(fetch).await.unwrap();
    assert_eq!(answer.digest(), Some(&digest_of(b"one")));
    assert_eq!(answer.uri(), origin.url("/one"));
    assert_eq!(origin.count("/two"), 0);
}

#[tokio::test]
async fn u9_unknown_methods_of_the_asset_services_are_unimplemented() {
    let cache = crate::support::RawUpstream::start().await;
    let (proxy, _client) = Proxy::new().upstream_at(&cache.url()).connected().await;
    let mut raw = RawClient::connect(proxy.address()).await;
    for path in ["Fetch/FetchNothing", "Push/PushNothing"] {
        let path = format!("/build.bazel.remote.asset.v1.{path}");
        let answer = raw.call(RawCall::new(&path).message(b"")).await;
        assert_eq!(answer.grpc_status(), Some("12"), "{path}: {answer:?}");
    }
    let rest = RawCall::new("/v1/assets:fetchBlob").instead("content-type", "application/json");
    let answer = raw.call(rest.data("{}")).await;
    assert_eq!(answer.status, 415);
    for method in ["FetchNothing", "PushNothing", "assets:fetchBlob"] {
        assert!(cache.exchanges(method).is_empty(), "{method} was forwarded");
    }
}
