//! Promise P4: a secret reaches the origin it was meant for and nothing else.

use super::*;
use crate::fetcher::Failure;

const SECRET: &str = "s3cret";

/// A secret in every place a request can hold one.
fn with_secrets(pinned: Option<&str>) -> FetchBlobRequest {
    let json = r#"{"https://origin.example/a.tgz":{"X-Old":"s3cret"}}"#;
    let mut with = vec![
        ("http_header:Authorization", "Bearer s3cret"),
        ("http_header_url:0:X-Token", "s3cret"),
        ("bazel.auth_headers", json),
        ("auth.basic.password", "s3cret"),
        (
            "bazel.canonical_id",
            "https://u:s3cret@h/a https://h/b?X-Amz-Signature=s3cret",
        ),
    ];
    with.extend(pinned.map(|sri| ("checksum.sri", sri)));
    let of = [HTTP, "https://u:s3cret@origin.example/a.tgz?token=s3cret"];
    blob(&of, &with)
}

/// What is left behind anywhere, as text.
fn traces(server: &Server, report: &Report) -> String {
    let keys: Vec<_> = server.world.store.gets.lock().clone();
    let entries = server.world.store.entries.lock().clone();
    let material = keys
        .iter()
        .chain(entries.keys())
        .filter_map(|key| key.space.uri())
        .map(|uri| String::from_utf8_lossy(&uri.key_bytes()).into_owned());
    let material: Vec<String> = material.collect();
    let requests = server.world.fetcher.requests.lock();
    format!("{keys:?} {entries:?} {material:?} {report:?} {requests:?}").replace("had_secret", "")
}

#[tokio::test]
async fn no_secret_is_left_behind() {
    let pinned = sri(DigestFunction::Sha256, b"from the origin");
    for pinned in [None, Some(pinned.as_str())] {
        for failure in [
            None,
            Some(Failure::NotFound),
            Some(Failure::Unavailable { retry_after: None }),
        ] {
            let server = Server::new();
            if let Some(failure) = failure {
                server.world.fetcher.fails(failure);
            }
            let (answer, report) = server.fetch_noting(with_secrets(pinned)).await;
            let said = match &answer {
                Ok(answer) => format!("{:?} {:?}", answer.status, answer.qualifiers),
                Err(status) => format!("{status:?}"),
            };
            assert!(!said.contains(SECRET), "{said}");
            let left = traces(&server, &report);
            assert!(!left.contains(SECRET), "{left}");
            assert_eq!(server.world.fetcher.count(), 1);
        }
    }
}

#[tokio::test]
async fn the_origin_gets_them() {
    use secrecy::ExposeSecret as _;
    let server = Server::new();
    server.fetch(with_secrets(None)).await.unwrap();
    let requests = server.world.fetcher.requests.lock();
    let sent = requests[0].headers.for_uri(0, HTTP);
    let sent: Vec<String> = sent
        .iter()
        .map(|(name, value)| format!("{name}={}", value.expose_secret()))
        .collect();
    let want = [
        "authorization=Bearer s3cret",
        "x-old=s3cret",
        "x-token=s3cret",
    ];
    assert_eq!(sent, want);
}

#[tokio::test]
async fn refusals_do_not_show_them() {
    for with in [
        ("http_header:X\r\nY", SECRET),
        ("http_header:Host", SECRET),
        ("http_header_url:9:X", SECRET),
        ("bazel.auth_headers", SECRET),
    ] {
        let server = Server::new();
        let (answer, report) = server.fetch_noting(blob(&[HTTP], &[with])).await;
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            !format!("{status:?} {report:?}").contains(SECRET),
            "{status:?}"
        );
        assert!(!String::from_utf8_lossy(status.details()).contains(SECRET));
    }
}

#[tokio::test]
async fn a_push_keeps_none() {
    let server = Server::new();
    let fetch = with_secrets(None);
    let mut message = push(&[], &[], b"x");
    message.uris = fetch.uris;
    message.qualifiers = fetch.qualifiers;
    server.push(message).await.unwrap();
    let left = traces(&server, &Report::default());
    assert!(!left.contains(SECRET), "{left}");
}

#[tokio::test]
async fn a_credential_that_the_cache_quotes_goes_no_further() {
    const TOKEN: &str = "t0ken-of-the-caller";
    let server = Server::new();
    let mut status = Status::unauthenticated(format!("no such key: {TOKEN}"));
    status = Status::with_details(
        status.code(),
        status.message(),
        tonic_types::Status {
            code: 16,
            message: String::new(),
            details: vec![prost_types::Any {
                type_url: "type.googleapis.com/x".into(),
                value: TOKEN.as_bytes().to_vec(),
            }],
        }
        .encode_to_vec()
        .into(),
    );
    let error = crate::upstream::Error::from_status("GetActionResult", status);
    *server.world.store.get_error.lock() = Some(error.clone().into());
    *server.world.store.put_error.lock() = Some(error.into());
    let authorization: tonic::metadata::MetadataValue<_> =
        format!("Bearer {TOKEN}").parse().unwrap();
    let (mut request, call) = server.request(blob(&[HTTP], &[]));
    request
        .metadata_mut()
        .insert("authorization", authorization.clone());
    let mut client = FetchClient::new(server.routes());
    let fetched = client.fetch_blob(request).await.unwrap_err();
    let (mut request, other) = server.request(push(&[URN], &[], b"x"));
    request
        .metadata_mut()
        .insert("authorization", authorization);
    let mut client = PushClient::new(server.routes());
    let pushed = client.push_blob(request).await.unwrap_err();
    for (status, call) in [(fetched, call), (pushed, other)] {
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().contains("no such key"), "{status}");
        let details = String::from_utf8_lossy(status.details()).into_owned();
        let left = format!("{status:?} {details} {:?}", call.read(Clone::clone));
        assert!(!left.contains(TOKEN), "{left}");
    }
}
