//! Parameters of URLs whose values are secrets: which names these have, where
//! they may stand, and that nothing else is taken for one.
//!
//! Not for: the other forms of secrets (`secrets.rs`, `secrets_everywhere.rs`).

use crate::support::answer::says;
use crate::support::marks::{ORIGIN, assert_none};
use crate::support::{
    Code, Function, Origin, Proxy, Qualified as _, Running, Upstream, bounded, digest_of,
    fetch_blob, hit, push_blob, refused, sri,
};

/// Names seen in the wild, and the ways to write what they are made of.
const SECRET: [&str; 86] = [
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
        ["/x?token=t&v=1", "/x?token=t&v=2"],
        ["/y?token=t,v=1", "/y?token=t,v=2"],
        [
            "host/x?token=t host/y?token=t",
            "host/x?token=t host/z?token=t",
        ],
        [
            "a?token=t https%3A%2F%2Fh%2F1",
            "a?token=t https%3A%2F%2Fh%2F2",
        ],
        ["%3Ftoken%3Dt%26v%3D1", "%3Ftoken%3Dt%26v%3D2"],
        ["https://h/token=t/1", "https://h/token=t/2"],
        ["https://h/policy=a/1", "https://h/policy=b/1"],
        ["https://h/pkg-auth=a.zip", "https://h/pkg-auth=b.zip"],
        ["https://h/cmp(pass=1)", "https://h/cmp(pass=2)"],
        ["a policy=strict rev 1", "a policy=strict rev 2"],
        ["auth=none / linux / x86", "auth=none / darwin / arm"],
        ["token=t version 1.2", "token=t version 2.0"],
        ["sha256-abSig=", "sha256-acSig="],
        ["sha256-abSig= sha512-a", "sha256-abSig= sha512-b"],
        ["a=1,sha256-abSig=", "a=1,sha256-acSig="],
        ["100%25a", "100%25b"],
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

/// `text` percent-encoded so many times over.
fn encoded(text: &str, times: usize) -> String {
    (0..times).fold(text.to_owned(), |text, _| {
        let byte = |b: u8| match b {
            b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        };
        text.bytes().map(byte).collect()
    })
}

/// Texts with a secret, and what is left of them.
fn texts(s: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = [
        (format!("/x?token={s}"), "/x"),
        (format!("?token={s}"), ""),
        (format!("?token={s}&v=1"), "?v=1"),
        (format!("host/x?token={s}&v=1"), "host/x?v=1"),
        (format!("host/x;token={s}/y"), "host/x/y"),
        (format!("urn:a:b?v=1&token={s}"), "urn:a:b?v=1"),
        (format!("name token={s}"), "name "),
        (format!("name; token = {s}"), "name; "),
        (format!("token={s}"), ""),
        (format!("token=={s}"), ""),
        (format!("token = {s}"), ""),
        (format!("x#access_token={s}"), "x"),
        (
            format!("https://h/x?v=1,token={s},w=2"),
            "https://h/x?v=1,w=2",
        ),
        (format!("https://h/x?token={s},w=2"), "https://h/x?w=2"),
        (format!("https://h/x,token={s}/y"), "https://h/x/y"),
        (format!("https://h/token={s}/y"), "https://h//y"),
        (format!("https://h/x?q=token={s}"), "https://h/x?q="),
        (format!("https://h/x?v=1|token={s}"), "https://h/x?v=1|"),
        (
            format!("https%3A//u%3A{s}%40h/x%3Ftoken%3D{s}"),
            "https%3A//h/x",
        ),
        (format!("https://u%3A{s}%40h/x"), "https://h/x"),
    ]
    .map(|(text, clean)| (text, clean.to_owned()))
    .into();
    for times in 1..=8 {
        for (text, clean) in [
            (format!("https://host/x?token={s}"), "https://host/x"),
            (
                format!("https://u:{s}@host/x?v=1&sig={s}&w=2"),
                "https://host/x?v=1&w=2",
            ),
            (format!("/x?v=1;token={s}"), "/x?v=1"),
            (format!("v=1,token={s}"), "v=1"),
            (
                format!("https://h/a?token={s},https://i/b?token={s}&v=1"),
                "https://h/a,https://i/b?v=1",
            ),
        ] {
            let [text, clean] = [&text, clean].map(|text| encoded(text, times));
            all.push((
                format!("https://h/x?to={text}&v=1"),
                format!("https://h/x?to={clean}&v=1"),
            ));
            all.push((
                format!("https://h/{text}/y"),
                format!("https://h/{clean}/y"),
            ));
            all.push((text, clean));
        }
    }
    all
}

#[tokio::test]
async fn l7_p4_texts_without_a_scheme_and_however_encoded_lose_their_secrets() {
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = client.upload(b"blob").await;
    let mut wrong = Vec::new();
    for (index, (text, clean)) in texts(ORIGIN).into_iter().enumerate() {
        let uri = format!("https://h{index}/a");
        let push = push_blob(&[&uri], digest.clone()).qualifier("bazel.canonical_id", &text);
        client.push_blob(push).await.unwrap();
        // The value that is stored.
        let ask = fetch_blob(&[&uri]).qualifier("bazel.canonical_id", &clean);
        if client.fetch_blob(ask).await.is_err() {
            wrong.push((text, clean));
        }
    }
    assert!(wrong.is_empty(), "other ids: {wrong:#?}");
    assert_none("the cache", &cache.contents(), &[ORIGIN]);
    assert_none("what the cache was shown", &cache.everything(), &[ORIGIN]);
    let logs = proxy.stderr().text();
    assert_none("the logs", logs.as_bytes(), &[ORIGIN]);
}

/// Deeper than anybody looks, it goes as a whole.
#[tokio::test]
async fn p4_what_is_encoded_too_often_to_be_read_is_not_kept() {
    let cache = Upstream::start();
    let (_proxy, client) = Proxy::new().upstream(&cache).connected().await;
    let digest = client.upload(b"blob").await;
    for times in [9, 12, 40] {
        let secret = encoded(&format!("https://u:{ORIGIN}@h/?token={ORIGIN}"), times);
        let uri = format!("https://h{times}/a?v=1&to={secret}&w=2#{secret}");
        let id = format!("{uri} {secret} /x?{secret}={ORIGIN}");
        let push = push_blob(&[&uri], digest.clone()).qualifier("bazel.canonical_id", &id);
        client.push_blob(push).await.unwrap();
    }
    assert_none("the cache", &cache.contents(), &[ORIGIN]);
    assert_none("what the cache was shown", &cache.everything(), &[ORIGIN]);
}

/// Signed URLs: without what is different with each signature.
const SIGNED: [(&str, &str); 8] = [
    (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=K&X-Amz-Date=@&X-Amz-Expires=@\
         &X-Amz-SignedHeaders=host&X-Amz-Signature=@",
        "S3",
    ),
    ("AWSAccessKeyId=K&Expires=@&Signature=@", "S3, version 2"),
    ("GoogleAccessId=K&Expires=@&Signature=@", "GCS, version 2"),
    (
        "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Date=@&X-Goog-Expires=@&X-Goog-Signature=@",
        "GCS",
    ),
    (
        "sv=2024-11-04&st=@&se=@&sr=b&sp=r&skt=@&ske=@&sig=@",
        "Azure",
    ),
    ("Expires=@&Signature=@&Key-Pair-Id=K", "CloudFront"),
    ("OSSAccessKeyId=K&Expires=@&Signature=@", "OSS"),
    (
        "q-sign-algorithm=sha1&q-ak=K&q-sign-time=@&q-key-time=@&q-signature=@",
        "COS",
    ),
];

#[tokio::test]
async fn l7_a_url_that_is_signed_again_downloads_nothing_again() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let mut wrong = Vec::new();
    for (index, (query, scheme)) in SIGNED.iter().enumerate() {
        let before = origin.total();
        for time in ["1700000000", "1700086400"] {
            let query = query.replace('@', time);
            let uri = format!("{}?n={index}&{query}&v=1", origin.url("/a"));
            let encoded = encoded(&format!("https://h/?{query}"), 1);
            let id = format!("{uri} https://h/?to={encoded} {encoded} /x?{query}");
            hit(client.fetch_blob(pinned(&uri, &id)).await);
        }
        if origin.total() != before + 1 {
            wrong.push(*scheme);
        }
    }
    assert!(wrong.is_empty(), "downloaded again: {wrong:?}");
}

/// An end that no signature stands beside says which content is meant.
#[tokio::test]
async fn l7_times_without_a_signature_beside_them_are_kept() {
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().connected().await;
    let uri = origin.url("/a");
    for (index, id) in [
        "https://h/?Expires=@",
        "https://h/?Expires=@&token=t",
        "https://h/?se=@&st=1&Signature=s",
        "https://h/?Expires=@&sig=s",
        "https://h/?Expires=@ https://i/?Signature=s",
        "https://h/?Expires=@#Signature=s",
        "https://h/?Expires=@&to=https%3A%2F%2Fi%2F%3FSignature%3Ds",
        "https://h/?Signature=s&to=https%3A%2F%2Fi%2F%3FExpires%3D@",
        "https://h/Expires=@/?Signature=s",
    ]
    .into_iter()
    .enumerate()
    {
        for time in ["1", "2"] {
            let before = origin.total();
            let id = format!("{index} {}", id.replace('@', time));
            hit(client.fetch_blob(pinned(&uri, &id)).await);
            assert_eq!(origin.total(), before + 1, "{id}");
        }
    }
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

/// What `assetgate fetch` prints, as a client of this server.
async fn printed(proxy: &Running, uri: &str, more: &[&str], variable: &str) -> (i32, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_assetgate"));
    command.args(["fetch", uri, "--endpoint"]);
    command.arg(format!("grpc://{}", proxy.address()));
    command.args(["--admin", "off"]).args(more);
    command.env_clear().env("HOME", "/nonexistent");
    if !variable.is_empty() {
        command.env("ASSETGATE__FETCH__SECRET_PARAMETERS", variable);
    }
    let output = bounded("the program", command.kill_on_drop(true).output());
    let output = output.await.unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(printed).unwrap(),
    )
}

#[tokio::test]
async fn p4_the_command_that_fetches_prints_no_secret_of_a_url_or_an_id() {
    let origin = Origin::new().file("/a", "content").start().await;
    let config = "[fetch]\nsecret_parameters = [\"build_pin\", \"X-Corp-*\"]\n";
    let proxy = Proxy::new().config(config).start().await;
    let uri = format!(
        "{}?v=1&build_pin={ORIGIN}&x-corp-id={ORIGIN}&token={ORIGIN}",
        origin.url("/a")
    );
    let id = format!("{uri} id?token={ORIGIN}");
    let flags = [
        "--secret-parameter",
        "build_pin",
        "--secret-parameter",
        "x-corp-*",
    ];
    for json in [&[][..], &["--json"]] {
        for (flags, variable) in [(&flags[..], ""), (&[], "build_pin, x-corp-*")] {
            let more = [flags, &["--canonical-id", &id], json].concat();
            let (code, text) = printed(&proxy, &uri, &more, variable).await;
            assert_eq!(code, 0, "{text}");
            assert_none("what is printed", text.as_bytes(), &[ORIGIN]);
            says(&text, &[&format!("{}?v=1", origin.url("/a")), "id"]);
        }
    }
    // A flag takes the place of the variable, as with every setting.
    let flag = ["--secret-parameter", "x"];
    let (_, text) = printed(&proxy, &uri, &flag, "build_pin").await;
    assert!(text.contains(&format!("build_pin={ORIGIN}")), "{text}");
    for (flag, variable, says_) in [
        ("hunter=2", "", "--secret-parameter: "),
        ("", "hunter=2", "ASSETGATE__FETCH__SECRET_PARAMETERS: "),
    ] {
        let flag = ["--secret-parameter", flag];
        let flag = if flag[1].is_empty() { &[][..] } else { &flag };
        let (code, text) = printed(&proxy, &uri, flag, variable).await;
        assert_eq!(code, 64, "{text}");
        says(&text, &[says_, "a name of a parameter"]);
        assert!(!text.contains("hunter"), "{text}");
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
