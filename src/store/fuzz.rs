//! Entries and Trees under fuzzing: whoever may write the cache wrote them.
//!
//! Not for: single ways to lie, which the tests of each file name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a finding is told"
)]

pub mod bb_entry;
pub mod entry;
pub mod tree;

use std::time::{Duration, UNIX_EPOCH};

use prost::Message as _;

use super::encoding::{EncodedKey, Format, Outputs, Payload};
use super::encoding::{decode_entry, encode_entry, encode_key, find_payload};
use super::{Carrier, MacKeys};
use crate::asset::{
    Algorithm, AssetKey, AssetKind, AssetReference, Checksum, KeySpace, Qualifiers, Role, Source,
    Uri, Validators,
};
use crate::digest::{Digest, DigestFunction, InstanceName, Scope};
use crate::fuzz::Choices;
use crate::proto::rev2;

const F: DigestFunction = DigestFunction::Sha256;
const NAMESPACE: &str = "team";
const KINDS: [AssetKind; 2] = [AssetKind::Blob, AssetKind::Directory];

fn sha256(data: &[u8]) -> Digest {
    Digest::of(F, data).unwrap()
}

fn scope() -> Scope {
    Scope::new(InstanceName::new("a/b").unwrap(), F)
}

fn qualifiers() -> Qualifiers {
    let pairs = [("bazel.canonical_id", "id"), ("other", "label")];
    Qualifiers::new(pairs.map(|(n, v)| (n.to_owned(), v.to_owned()))).unwrap()
}

fn exact(kind: AssetKind) -> AssetKey {
    AssetKey {
        scope: scope(),
        kind,
        space: KeySpace::Exact {
            uri: Uri::new("https://h.example/a?b=1"),
            qualifiers: qualifiers(),
        },
    }
}

/// One key of each space and kind.
fn keys() -> Vec<AssetKey> {
    let uri = Uri::new("https://h.example/a?b=1");
    let all = qualifiers();
    let some = all.only(&["other"]);
    let spaces = [
        KeySpace::Exact {
            uri: uri.clone(),
            qualifiers: all.clone(),
        },
        KeySpace::Subset {
            uri: uri.clone(),
            qualifiers: some,
        },
        KeySpace::Fetched {
            uri: uri.clone(),
            qualifiers: all.clone(),
        },
        KeySpace::Migrated {
            uri,
            qualifiers: all.clone(),
        },
        KeySpace::Checksum {
            checksum: own_checksum(),
            qualifiers: all.only(&KeySpace::BESIDE_CHECKSUM),
        },
    ];
    let keys = spaces.into_iter().flat_map(|space| {
        KINDS.map(|kind| AssetKey {
            space: space.clone(),
            ..exact(kind)
        })
    });
    keys.collect()
}

/// With and without signatures.
fn format(signed: bool) -> Format {
    let keys = MacKeys::parse("a key of at least thirty-two bytes, it may say\n").unwrap();
    Format {
        namespace: NAMESPACE.into(),
        mac: signed.then_some(keys),
    }
}

fn own_checksum() -> Checksum {
    Checksum::new(Algorithm::Sha256, &sha256(b"asset").raw()).unwrap()
}

fn reference(kind: AssetKind) -> AssetReference {
    AssetReference {
        kind,
        digest: sha256(b"asset"),
        uri: "https://h.example/a?...".to_owned(),
        qualifiers: qualifiers(),
        content_time: UNIX_EPOCH + Duration::new(1_700_000_000, 5),
        expire_at: Some(UNIX_EPOCH + Duration::from_secs(4_000_000_000)),
        source: Source::Fetch,
        validators: Validators {
            etag: Some("\"v1\"".to_owned()),
            last_modified: None,
        },
        verified: vec![own_checksum()],
        signed_at: None,
        referenced_blobs: Vec::new(),
        referenced_directories: Vec::new(),
    }
}

fn outputs(kind: AssetKind) -> Outputs {
    Outputs {
        tree: (kind == AssetKind::Directory).then(|| sha256(b"tree")),
        pins: vec![sha256(b"pins"), sha256(b"more pins")],
        ..Outputs::default()
    }
}

fn encoded(key: &AssetKey) -> EncodedKey {
    encode_key(NAMESPACE, key, F).unwrap()
}

fn written(
    format: &Format,
    key: &AssetKey,
    reference: &AssetReference,
    outputs: &Outputs,
) -> rev2::ActionResult {
    let encoded = encoded(key);
    encode_entry(format, key, &encoded, reference, outputs, Carrier::Metadata).0
}

fn read(
    format: &Format,
    key: &AssetKey,
    entry: &rev2::ActionResult,
) -> Result<(AssetReference, Outputs), &'static str> {
    match find_payload(F, entry) {
        Some(Payload::Here(payload)) => decode_entry(format, key, &encoded(key), entry, payload),
        _ => Err("no payload in it"),
    }
}

/// Is a reference that may be answered with, and that our own entries can hold.
fn is_sound(format: &Format, key: &AssetKey, reference: &AssetReference, outputs: &Outputs) {
    assert_eq!(reference.kind, key.kind);
    let wire = reference.digest.to_wire();
    assert_eq!(
        Digest::of_content(F, Some(&wire)).as_ref(),
        Ok(&reference.digest)
    );
    let names = reference.qualifiers.iter().map(|q| Role::of(&q.name));
    assert!(names.into_iter().all(|role| role == Role::Identity));
    assert!(!reference.qualifiers.had_secret());
    // What is used can be written again, and is then what it was.
    let again = written(format, key, reference, outputs);
    let wire = rev2::ActionResult::decode(&*again.encode_to_vec()).unwrap();
    let (same, outputs_then) = read(format, key, &wire).expect("what was read can be written");
    assert_eq!((&same, &outputs_then), (reference, outputs));
}

/// Digests of an entry as hostile as the choices make them.
fn digest(choices: &mut Choices<'_>) -> Option<rev2::Digest> {
    let known = [&b""[..], b"asset", b"tree", b"pins"];
    Some(match choices.below(6) {
        n @ 0..4 => sha256(known[n]).to_wire(),
        4 => rev2::Digest {
            hash: sha256(b"asset").hash().to_owned(),
            size_bytes: choices.number().cast_signed(),
        },
        _ => match choices.text() {
            hash if hash.is_empty() => return None,
            hash => rev2::Digest {
                hash,
                size_bytes: i64::from(choices.byte()),
            },
        },
    })
}

fn timestamp(choices: &mut Choices<'_>) -> prost_types::Timestamp {
    let seconds = [0, -62_135_596_800, 253_402_300_799, i64::MIN, i64::MAX];
    prost_types::Timestamp {
        seconds: match choices.below(6) {
            5 => choices.number().cast_signed(),
            n => seconds[n],
        },
        nanos: match choices.below(4) {
            0 => 0,
            1 => 999_999_999,
            2 => -1,
            _ => (choices.number() as u32).cast_signed(),
        },
    }
}

/// A message with further fields appended, as the wire allows.
fn merged<M: prost::Message + Default>(message: &M, more: &[u8]) -> Option<M> {
    M::decode(&*[&message.encode_to_vec(), more].concat()).ok()
}
