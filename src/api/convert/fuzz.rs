//! Requests off the wire under fuzzing: what is accepted is a sorted set of
//! unique names without credentials, and no text made of one holds a secret.

#![allow(clippy::unwrap_used, reason = "a panic is how a finding is told")]

use bytes::Bytes;
use http::HeaderValue;
use prost::Message as _;
use secrecy::ExposeSecret as _;

use super::{FetchMessage, Invalid, PushMessage, limits};
use crate::asset::{AssetKind, CHECKSUM_SRI, OriginHeaders, Qualifiers, Role, Uri};
use crate::fuzz::Choices;
use crate::proto::{asset, rev2};
use crate::resolver::Query;

const KINDS: [AssetKind; 2] = [AssetKind::Blob, AssetKind::Directory];
/// Put before every credential, to be found again where none may be.
const MARK: &str = "zQ7marked";

/// Requests as clients send them, as messages and as lines.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let lines = [
        "checksum.sri=sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=\nbazel.canonical_id=a b",
        "http_header:Authorization=Bearer x\nhttp_header_url:1:X-A=b\nhttp_header_url:1:X-A=c",
        "bazel.auth_headers={\"https://h/a\":{\"A\":\"b\",\"C\":[\"d\",\"e\"]}}",
        "directory=a/b/\nresource_type=application/x-tar\nvcs.branch=main\nvcs.commit=abc",
        "a=https://u:p@h/x?sig=1&b=https%3A%2F%2Fu%3Ap%40i%2F%3Ftoken%3Ds\nauth.basic.password=x",
        "bazel.canonical_id=/x?token=s,v=1 %252Fx%253Fsig%253Ds https%3A//u%40h\na=?Expires=1&Signature=s",
        "http_header:Accept=text/plain\nhttp_header:Host=h\n=\na=1\na=2",
    ];
    let mut seeds: Vec<Vec<u8>> = lines
        .iter()
        .map(|text| [&[1, 2], text.as_bytes()].concat())
        .collect();
    let message = asset::FetchBlobRequest {
        instance_name: "a/b".to_owned(),
        uris: vec![
            "https://u:p@h/x?X-Amz-Signature=s&v=1".into(),
            "urn:x".into(),
        ],
        qualifiers: from_lines(lines[0]),
        digest_function: 1,
        ..Default::default()
    };
    seeds.push([&[0], &message.encode_to_vec()[..]].concat());
    seeds
}

/// One request: a message, or a number of URIs and lines of `name=value`.
pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let message = match choices.byte() % 2 {
        0 => match asset::FetchBlobRequest::decode(choices.0) {
            Ok(message) => message,
            Err(_) => return,
        },
        _ => {
            let uris = 0..choices.below(4);
            let text = String::from_utf8_lossy(choices.0);
            asset::FetchBlobRequest {
                uris: uris.map(|i| format!("https://h/{i}").into()).collect(),
                qualifiers: from_lines(&text),
                ..Default::default()
            }
        }
    };
    for kind in KINDS {
        match FetchMessage::from(message.clone()).to_query(kind) {
            Ok(query) => accepted(&message, &query),
            Err(invalid) => refused(&invalid),
        }
        pushed(kind, &message);
    }
    keeps_secrets(message);
    data.split(|b| *b == b'\n').for_each(uri);
}

fn from_lines(text: &str) -> Vec<asset::Qualifier> {
    let pairs = text.split('\n').map(|line| line.split_once('='));
    pairs
        .flatten()
        .map(|(name, value)| asset::Qualifier {
            name: name.to_owned(),
            value: value.to_owned(),
        })
        .collect()
}

fn accepted(message: &asset::FetchBlobRequest, query: &Query) {
    let request = &query.request;
    set(&request.qualifiers);
    assert!(request.uris.len() <= limits::URIS);
    assert_eq!(request.uris.len(), message.uris.len());
    let pinned = request.qualifiers.get(CHECKSUM_SRI).is_some();
    assert_eq!(request.integrity.is_some(), pinned, "a checksum was lost");
    // Nothing is dropped without a word but what is no label.
    let labels = message.qualifiers.iter();
    let labels = labels.filter(|q| Role::of(&q.name) == Role::Identity);
    assert_eq!(labels.count(), request.qualifiers.len());
    for (index, uri) in request.uris.iter().enumerate() {
        headers(&request.headers, index, uri.as_str().unwrap_or_default());
    }
    // The order of a request says nothing.
    let mut turned = message.clone();
    turned.qualifiers.reverse();
    let other = FetchMessage::from(turned).to_query(request.kind).unwrap();
    assert_eq!(other.request.qualifiers, request.qualifiers);
}

fn set(qualifiers: &Qualifiers) {
    let names: Vec<&str> = qualifiers.iter().map(|q| q.name.as_str()).collect();
    assert!(names.windows(2).all(|w| w[0] < w[1]), "{names:?}");
    assert!(names.iter().all(|n| !n.is_empty()));
    assert!(names.iter().all(|n| Role::of(n) == Role::Identity));
    assert!(names.len() <= limits::IDENTITY);
    // What is kept is read back as it is: there is no secret left to take out.
    let pairs = qualifiers.iter().map(|q| (q.name.clone(), q.value.clone()));
    let again = Qualifiers::new(pairs).unwrap();
    assert!(!again.had_secret(), "{qualifiers:?} is {again:?}");
    assert!(again.iter().eq(qualifiers.iter()));
}

fn headers(headers: &OriginHeaders, index: usize, uri: &str) {
    for (name, value) in headers.for_uri(index, uri) {
        assert!(!["host", "content-length", "te"].contains(&name.as_str()));
        HeaderValue::from_str(value.expose_secret()).unwrap();
    }
    let selecting = headers.selecting(index, uri).len();
    let all = headers.for_uri(index, uri).len();
    assert_eq!(headers.has_credentials(index, uri), all > selecting);
}

fn refused(invalid: &Invalid) {
    let said = invalid.violations();
    assert!((1..=limits::VIOLATIONS).contains(&said.len()));
    let longest = said.iter().map(|v| v.field.len() + v.description.len());
    assert!(longest.max().unwrap_or(0) < 16_384);
}

fn pushed(kind: AssetKind, message: &asset::FetchBlobRequest) {
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let push = asset::PushBlobRequest {
        uris: message.uris.clone(),
        qualifiers: message.qualifiers.clone(),
        blob_digest: Some(rev2::Digest {
            hash: hash.to_owned(),
            size_bytes: 3,
        }),
        ..Default::default()
    };
    match PushMessage::from(push).to_push(kind) {
        Ok(push) => set(&push.qualifiers),
        Err(invalid) => refused(&invalid),
    }
}

/// The same request with marked credentials: the mark is in no text made of it.
fn keeps_secrets(mut message: asset::FetchBlobRequest) {
    if format!("{message:?}").contains(MARK) {
        return;
    }
    for qualifier in &mut message.qualifiers {
        if Role::of(&qualifier.name) == Role::Credential {
            qualifier.value.insert_str(0, MARK);
        }
    }
    let text = match FetchMessage::from(message).to_query(AssetKind::Blob) {
        Ok(query) => format!("{:?} {:?}", query.request.qualifiers, query.request.headers),
        Err(invalid) => format!("{invalid:?}"),
    };
    assert!(!text.contains(MARK), "{text}");
}

/// A URI of any bytes.
fn uri(bytes: &[u8]) {
    let uri = Uri::new(Bytes::copy_from_slice(bytes));
    assert_eq!(uri.to_wire(), bytes);
    let key = uri.key_bytes();
    assert_eq!(uri.has_secret(), key != bytes, "{uri}");
    let again = Uri::new(key.clone());
    assert!(!again.has_secret(), "{key:?} is {:?}", again.key_bytes());
    assert!(!uri.redacted().chars().any(char::is_control));
}
