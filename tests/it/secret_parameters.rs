//! Parameters of URLs whose values are secrets: which names these have, where
//! they may stand, and that nothing else is taken for one.
//!
//! Not for: the other forms of secrets (`secrets.rs`, `secrets_everywhere.rs`).

use crate::support::answer::says;
use crate::support::marks::{ORIGIN, assert_none};
use crate::support::{
    Code, Function, Origin, Proxy, Qualified as _, Upstream, digest_of, fetch_blob, hit, push_blob,
    refused, sri,
};

/// Names seen in the wild, and the ways to write what they are made of.
const SECRET: [&str; 44] = [
    "job_token",
    "auth_token",
    "oauth_token",
    "authtoken",
    "x-auth-token",
    "personal_access_token",
    "private_token",
    "client_secret",
    "jwt",
    "hdnts",
    "Policy",
    "security-token",
    "x-oss-credential",
    "x-oss-date",
    "q-signature",
    "sas",
    "pwd",
    "passwd",
    "password",
    "user_pass",
    "X-Amz-Credential",
    "X-Goog-Date",
    "Signature",
    "sig",
    "Key-Pair-Id",
    "AWSAccessKeyId",
    "OSSAccessKeyId",
    "access.key",
    "apiKey",
    "api-key",
    "X-API-KEY",
    "apikey",
    "authorization",
    "Auth",
    "hmac",
    "sasToken",
    "idToken",
    "refreshTOKEN",
    "url_sig",
    "SIGNATURE",
    "credential",
    "%61uth%5Ftoken",
    "auth%5Btoken%5D",
    "data[secret]",
    "tokens",
    "secrets",
    "job_tokens",
    "token2",
    "Signature1",
    "sig_2",
    "apiKey2",
    "clientsecret",
    "sessiontoken",
    "bearertoken",
    "refreshtoken",
    "idtoken",
    "securitytoken",
    "accesstoken",
    "AccessTokens",
    "usertoken",
    "csrftoken",
    "oauth2token",
    "authcode",
    "auth-code",
    "passphrase",
    "passcode",
    "private_key",
    "privateKey",
    "privatekey",
    "apisecret",
    "appsecret",
    "secretkey",
    "secretaccesskey",
    "sharedkey",
    "signing-key",
    "license_key",
    "account.key",
    "dbpassword",
    "userpwd",
    "urlsignature",
    "tokensecret",
    "basicauth",
    "creds",
    "bearer",
    "jsessionid",
    "awscredentials",
];

/// What such words are merely part of.
const PLAIN: [&str; 35] = [
    "author",
    "design",
    "keyword",
    "tokenizer",
    "passenger",
    "policyholder",
    "authority",
    "signal",
    "accesskeys",
    "key",
    "api",
    "bypass",
    "sasl",
    "v",
    "secretary",
    "compass",
    "passive",
    "authors",
    "designs",
    "keywords",
    "tokenize",
    "signals",
    "trespass",
    "public_key",
    "primarykey",
    "storage_key",
    "authuser",
    "passes",
    "otp",
    "sha256",
    "Expires",
    "se",
    "st",
    "GoogleAccessId",
    "q-sign-time",
];

fn pinned(uri: &str, id: &str) -> assetgate::proto::asset::FetchBlobRequest {
    fetch_blob(&[uri])
        .qualifier("checksum.sri", &sri(Function::Sha256, b"content"))
        .qualifier("bazel.canonical_id", id)
}

#[tokio::test]
async fn l7_ids_that_differ_in_a_secret_alone_are_one_id() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let mut wrong = Vec::new();
    for (index, name) in SECRET.iter().enumerate() {
        let before = origin.total();
        for job in ["1", "2"] {
            let uri = format!("{}?n={index}&{name}={ORIGIN}{job}", origin.url("/a"));
            let other = format!("https://mirror.example/{index}?{name}={ORIGIN}{job}&v=1");
            let id = format!("{uri} {other}");
            hit(client.fetch_blob(pinned(&uri, &id)).await);
        }
        if origin.total() != before + 1 {
            wrong.push(*name);
        }
    }
    assert!(wrong.is_empty(), "downloaded again: {wrong:?}");
    assert_none("the cache", &cache.contents(), &[ORIGIN]);
    assert_none("what the cache was shown", &cache.everything(), &[ORIGIN]);
}

#[tokio::test]
async fn l7_any_other_difference_is_another_id() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let uri = origin.url("/a");
    let named = PLAIN.map(|name| {
        let id = |value| format!("{uri}?{name}={value}&token=t https://b.example/");
        [id(1), id(2)]
    });
    let others = [
        ["project/element/0a1b", "project/element/0a1c"],
        [
            "https://h/a?token=1,https://i/x",
            "https://h/a?token=1,https://i/y",
        ],
        [
            "https://h/a?token=1 https://i/x",
            "https://h/a?token=1 https://i/y",
        ],
        ["https://h/a;token=1/x", "https://h/a;token=1/y"],
        ["https://h/a;v=1", "https://h/a;v=2"],
        ["https://h/a#v=1&token=t", "https://h/a#v=2&token=t"],
    ];
    let others = others.map(|pair| pair.map(str::to_owned));
    for pair in named.into_iter().chain(others) {
        for id in pair {
            let before = origin.total();
            hit(client.fetch_blob(pinned(&uri, &id)).await);
            assert_eq!(origin.total(), before + 1, "{id}");
            hit(client.fetch_blob(pinned(&uri, &id)).await);
            assert_eq!(origin.total(), before + 1, "{id}, again");
        }
    }
}

/// Wherever in a URL they stand, and in a URL within one.
#[tokio::test]
async fn p4_values_go_from_every_place_of_a_url() {
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = client.upload(b"blob").await;
    let s = ORIGIN;
    for (index, (uri, clean)) in [
        (format!("https://h/a;jwt={s}/b"), "https://h/a/b"),
        (
            format!("https://h/a;v=1;auth_token={s};w=2/b"),
            "https://h/a;v=1;w=2/b",
        ),
        (format!("https://h/a;%61uth_token={s}"), "https://h/a"),
        (
            format!("https://h/a?v=1;jwt={s};w=2"),
            "https://h/a?v=1;w=2",
        ),
        (format!("https://h/a#v=1&jwt={s}"), "https://h/a#v=1"),
        (format!("https://h/a?jw%74=%68{s}&v=1"), "https://h/a?v=1"),
        (format!("https://u:{s}@h/a?jwt={s}"), "https://h/a"),
        (
            format!("https://h/a?to=https%3A%2F%2Fi%2F%3Fjob_token%3D{s}%26v%3D1"),
            "https://h/a?to=https%3A%2F%2Fi%2F%3Fv%3D1",
        ),
        (
            format!("https://h/a?to=%2Flogin%3Fjob_token%3D{s}"),
            "https://h/a?to=%2Flogin",
        ),
        (
            format!("https://h/a?q=1&hdnts=exp=1~acl=/*~hmac={s}&v=1"),
            "https://h/a?q=1&v=1",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        // A host of its own for each.
        let [uri, clean] = [uri, clean.to_owned()];
        let [uri, clean] = [uri, clean].map(|u| u.replace("h/a", &format!("h{index}/a")));
        let push = push_blob(&[&uri], digest.clone()).qualifier("bazel.canonical_id", &uri);
        client.push_blob(push).await.unwrap();
        let ask = fetch_blob(&[&clean]).qualifier("bazel.canonical_id", &clean);
        assert_eq!(hit(client.fetch_blob(ask).await), digest, "{clean}");
    }
    assert_none("the cache", &cache.contents(), &[ORIGIN]);
    assert_none("what the cache was shown", &cache.everything(), &[ORIGIN]);
    let logs = proxy.stderr().text();
    assert_none("the logs", logs.as_bytes(), &[ORIGIN]);
}

#[tokio::test]
async fn p4_operators_add_names() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let config = "[fetch]\nsecret_parameters = [\"build_pin\", \"X-Corp-*\"]\n";
    let proxy = Proxy::new().upstream(&cache).config(config);
    let (_proxy, client) = proxy.connected().await;
    for name in ["build_pin", "Build_Pin", "x-corp-id"] {
        let before = origin.total();
        for job in [1, 2] {
            let uri = format!("{}?n={}&{name}={ORIGIN}{job}", origin.url("/a"), name.len());
            hit(client
                .fetch_blob(pinned(&uri, &format!("{name} {uri}")))
                .await);
        }
        assert_eq!(origin.total(), before + 1, "{name}");
    }
    let other = format!("{}?build_pins=1", origin.url("/a"));
    assert_eq!(
        hit(client.fetch_blob(pinned(&other, &other)).await),
        digest_of(b"content")
    );
    assert_none("the cache", &cache.contents(), &[ORIGIN]);
    for bad in ["", "a b", "a=b", "*"] {
        let config = format!("[fetch]\nsecret_parameters = [\"{bad}\"]\n");
        let (status, printed) = Proxy::new().config(config).start_to_end().await;
        assert_eq!(status.code(), Some(64), "{bad}: {printed}");
        assert!(printed.contains("fetch.secret_parameters"), "{printed}");
    }
}

/// Limits are about what is kept; a long token is nobody's mistake.
#[tokio::test]
async fn v6_limits_count_without_secrets() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let uri = origin.url("/a");
    let long = |bytes: usize, name: &str| {
        let value = "x".repeat(bytes);
        client.fetch_blob(pinned(&uri, &format!("{uri}?{name}={value}")))
    };
    hit(long(40 << 10, "jwt").await);
    assert_eq!(origin.total(), 1);
    for (bytes, name) in [(17 << 10, "v"), (70 << 10, "jwt")] {
        let status = refused(long(bytes, name).await, Code::InvalidArgument);
        says(status.message(), &["bytes of qualifiers; at most"]);
    }
}
