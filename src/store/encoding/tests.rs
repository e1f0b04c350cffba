//! The format byte by byte, and everything an entry may not be.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::asset::{Algorithm, BAZEL_CANONICAL_ID, Checksum, Qualifiers, Uri, Validators};
use crate::digest::{InstanceName, Scope};

fn qualifiers(pairs: &[(&str, &str)]) -> Qualifiers {
    let owned = pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    Qualifiers::new(owned).unwrap()
}

fn exact(uri: &str, pairs: &[(&str, &str)]) -> AssetKey {
    AssetKey {
        scope: Scope::new(InstanceName::default(), DigestFunction::Sha256),
        kind: AssetKind::Blob,
        space: KeySpace::Exact {
            uri: Uri::new(uri.to_owned()),
            qualifiers: qualifiers(pairs),
        },
    }
}

fn in_space(uri: &str, space: impl Fn(Uri, Qualifiers) -> KeySpace) -> AssetKey {
    AssetKey {
        space: space(Uri::new(uri.to_owned()), qualifiers(&[("a", "1")])),
        ..exact("", &[])
    }
}

fn abc() -> Digest {
    Digest::of(DigestFunction::Sha256, b"abc").unwrap()
}

fn checksum_key(kind: AssetKind) -> AssetKey {
    let checksum = Checksum::new(Algorithm::Sha256, &abc().raw()).unwrap();
    AssetKey {
        kind,
        space: KeySpace::Checksum {
            checksum,
            qualifiers: qualifiers(&[(BAZEL_CANONICAL_ID, "id")]),
        },
        ..exact("", &[])
    }
}

fn reference(kind: AssetKind) -> AssetReference {
    AssetReference {
        kind,
        digest: abc(),
        uri: "https://h.example/a?…".to_owned(),
        qualifiers: qualifiers(&[("b", "2"), ("a", "1"), (BAZEL_CANONICAL_ID, "id")]),
        content_time: UNIX_EPOCH + Duration::new(1_700_000_000, 5),
        expire_at: Some(UNIX_EPOCH + Duration::from_secs(4_000_000_000)),
        source: Source::Fetch,
        validators: Validators {
            etag: Some("\"v1\"".to_owned()),
            last_modified: None,
        },
        verified: vec![Checksum::new(Algorithm::Sha256, &abc().raw()).unwrap()],
        signed_at: None,
        referenced_blobs: Vec::new(),
        referenced_directories: Vec::new(),
    }
}

fn key_of(reference: &AssetReference) -> AssetKey {
    AssetKey {
        kind: reference.kind,
        space: KeySpace::Exact {
            uri: Uri::new("https://h.example/a?b=1"),
            qualifiers: reference.qualifiers.clone(),
        },
        ..exact("", &[])
    }
}

fn outputs(kind: AssetKind) -> Outputs {
    let digest = |data: &[u8]| Digest::of(DigestFunction::Sha256, data).unwrap();
    Outputs {
        tree: (kind == AssetKind::Directory).then(|| digest(b"tree")),
        pins: vec![digest(b"pins"), digest(b"more pins")],
        ..Outputs::default()
    }
}

fn encoded(key: &AssetKey) -> EncodedKey {
    encode_key("", key, key.scope.function).unwrap()
}

fn entry(key: &AssetKey, reference: &AssetReference, outputs: &Outputs) -> rev2::ActionResult {
    let format = Format::default();
    encode_entry(
        &format,
        key,
        &encoded(key),
        reference,
        outputs,
        Carrier::Metadata,
    )
    .0
}

fn decode(key: &AssetKey, entry: &rev2::ActionResult) -> Result<AssetReference, &'static str> {
    decode_whole(&Format::default(), key, entry).map(|(reference, _)| reference)
}

fn decode_whole(
    format: &Format,
    key: &AssetKey,
    entry: &rev2::ActionResult,
) -> Result<(AssetReference, Outputs), &'static str> {
    let Some(Payload::Here(payload)) = find_payload(key.scope.function, entry) else {
        return Err("no payload");
    };
    decode_entry(format, key, &encoded(key), entry, payload)
}

/// With the key "0123456789abcdef0123456789abcdef".
fn signing() -> Format {
    Format {
        mac: Some(MacKeys::parse("0123456789abcdef0123456789abcdef").unwrap()),
        ..Format::default()
    }
}

fn in_full(
    format: &Format,
    kind: AssetKind,
    carrier: Carrier,
) -> (rev2::ActionResult, Option<Blob>) {
    let reference = reference(kind);
    let key = key_of(&reference);
    let (encoded, outputs) = (encoded(&key), outputs(kind));
    encode_entry(format, &key, &encoded, &reference, &outputs, carrier)
}

fn entry_of(kind: AssetKind) -> rev2::ActionResult {
    in_full(&Format::default(), kind, Carrier::Metadata).0
}

fn payload_of(entry: &rev2::ActionResult) -> &[u8] {
    match find_payload(DigestFunction::Sha256, entry) {
        Some(Payload::Here(payload)) => payload,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_payload_in_a_blob_is_the_same_payload() {
    for kind in [AssetKind::Blob, AssetKind::Directory] {
        let reference = reference(kind);
        let key = key_of(&reference);
        let (entry, blob) = in_full(&Format::default(), kind, Carrier::Blob);
        let (digest, payload) = blob.unwrap();
        let found = find_payload(DigestFunction::Sha256, &entry);
        assert_eq!(found, Some(Payload::Blob(digest)));
        let format = Format::default();
        let got = decode_entry(&format, &key, &encoded(&key), &entry, &payload);
        assert_eq!(got, Ok((reference, outputs(kind))));
    }
    let mut huge = in_full(&Format::default(), AssetKind::Blob, Carrier::Blob).0;
    for file in &mut huge.output_files {
        file.digest.as_mut().unwrap().size_bytes = MAX_PAYLOAD as i64 + 1;
    }
    assert_eq!(find_payload(DigestFunction::Sha256, &huge), None);
}

/// One golden file: `name hex` lines.
fn golden(file: &str, got: &[(&str, Vec<u8>)]) {
    let got: String = got
        .iter()
        .map(|(name, bytes)| format!("{name} {}\n", hex::encode(bytes)))
        .collect();
    let want: String = file
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .map(|l| format!("{l}\n"))
        .collect();
    assert_eq!(got, want, "the stored format changed");
}

#[test]
fn keys_are_what_they_always_were() {
    let mut blake3 = exact("urn:x", &[]);
    blake3.scope = Scope::new(InstanceName::new("a/b").unwrap(), DigestFunction::Blake3);
    let keys = [
        (
            "exact",
            "",
            exact("https://u:p@h/a?sig=1&b=2", &[("b", "2"), ("a", "1")]),
        ),
        (
            "directory",
            "team",
            AssetKey {
                kind: AssetKind::Directory,
                ..exact("urn:x", &[])
            },
        ),
        ("blake3", "", blake3),
        ("checksum", "", checksum_key(AssetKind::Blob)),
        (
            "subset",
            "",
            in_space("urn:x", |uri, qualifiers| KeySpace::Subset {
                uri,
                qualifiers,
            }),
        ),
        (
            "fetched",
            "",
            in_space("https://h/f", |uri, qualifiers| KeySpace::Fetched {
                uri,
                qualifiers,
            }),
        ),
        (
            "migrated",
            "",
            in_space("urn:x", |uri, qualifiers| KeySpace::Migrated {
                uri,
                qualifiers,
            }),
        ),
    ];
    let names: Vec<[String; 4]> = keys
        .iter()
        .map(|(name, ..)| {
            ["material", "command", "action", "digest"].map(|w| format!("{name}.{w}"))
        })
        .collect();
    let mut got = Vec::new();
    for ((_, namespace, key), names) in keys.iter().zip(&names) {
        let encoded = encode_key(namespace, key, key.scope.function).unwrap();
        got.push((names[0].as_str(), material(namespace, key)));
        got.push((names[1].as_str(), encoded.command.1.to_vec()));
        got.push((names[2].as_str(), encoded.action.1.to_vec()));
        got.push((names[3].as_str(), encoded.action.0.raw()));
    }
    golden(include_str!("../../../tests/golden/key_v1.txt"), &got);
}

/// A signed entry that was signed anew a minute after its first time.
fn renewed() -> rev2::ActionResult {
    let mut reference = reference(AssetKind::Blob);
    reference.signed_at = Some(reference.content_time + Duration::from_secs(60));
    let (key, outputs) = (checksum_key(AssetKind::Blob), outputs(AssetKind::Blob));
    let (encoded, carrier) = (encoded(&key), Carrier::Metadata);
    encode_entry(&signing(), &key, &encoded, &reference, &outputs, carrier).0
}

#[test]
fn entries_are_what_they_always_were() {
    let withdrawn = Outputs {
        withdrawn: true,
        ..Outputs::default()
    };
    let encode = |kind, outputs: &Outputs| {
        let reference = reference(kind);
        entry(&key_of(&reference), &reference, outputs).encode_to_vec()
    };
    let (blob, directory) = (AssetKind::Blob, AssetKind::Directory);
    let checksum = entry(&checksum_key(blob), &reference(blob), &outputs(blob));
    let detached = Outputs {
        detached: Some(vec![abc()]),
        ..Outputs::default()
    };
    let subset = AssetKey {
        space: KeySpace::Subset {
            uri: Uri::new("https://h.example/a?b=1"),
            qualifiers: qualifiers(&[("a", "1")]),
        },
        ..exact("", &[])
    };
    let subset = entry(&subset, &reference(blob), &outputs(blob));
    let (signed, _) = in_full(&signing(), blob, Carrier::Metadata);
    let renewed = renewed();
    let (carried, payload) = in_full(&Format::default(), blob, Carrier::Blob);
    let got = [
        ("blob", encode(blob, &outputs(blob))),
        ("directory", encode(directory, &outputs(directory))),
        ("withdrawn", encode(blob, &withdrawn)),
        ("checksum", checksum.encode_to_vec()),
        ("subset", subset.encode_to_vec()),
        ("detached", encode(blob, &detached)),
        ("signed", signed.encode_to_vec()),
        ("carried", carried.encode_to_vec()),
        ("renewed", renewed.encode_to_vec()),
    ];
    assert_eq!(payload.unwrap().1, payload_of(&entry_of(blob)));
    // The version of the program stands in entries, and is no part of the format.
    let got = got.map(|(name, bytes)| {
        let mut entry = rev2::ActionResult::decode(&*bytes).unwrap();
        entry.execution_metadata.as_mut().unwrap().worker = "assetgate/0".to_owned();
        (name, entry.encode_to_vec())
    });
    golden(include_str!("../../../tests/golden/entry_v1.txt"), &got);
}

#[test]
fn only_a_signature_says_when_it_was_made() {
    let mut later = reference(AssetKind::Blob);
    later.signed_at = Some(later.content_time + Duration::from_secs(60));
    let key = checksum_key(AssetKind::Blob);
    let outputs = outputs(AssetKind::Blob);
    let write = |format: &Format, reference: &AssetReference| {
        let carrier = Carrier::Metadata;
        encode_entry(format, &key, &encoded(&key), reference, &outputs, carrier).0
    };
    let read = |format: &Format, entry: &rev2::ActionResult| {
        let decoded = decode_whole(format, &key, entry).map(|(reference, _)| reference);
        decoded.map(|reference| reference.signed_at)
    };
    let (plain, signing) = (Format::default(), signing());
    let first = reference(AssetKind::Blob);
    // As the release before wrote it, which knew of no such time.
    let entry = write(&signing, &first);
    assert_eq!(read(&signing, &entry), Ok(Some(first.content_time)));
    assert_eq!(read(&plain, &entry), Ok(None));
    let mut entry = write(&signing, &later);
    assert_eq!(read(&signing, &entry), Ok(later.signed_at));
    assert_eq!(read(&plain, &entry), Ok(None));
    assert_eq!(write(&plain, &later), write(&plain, &first));
    let metadata = entry.execution_metadata.as_mut().unwrap();
    let value = &mut metadata.auxiliary_metadata[0].value;
    let mut payload = AssetEntry::decode(&**value).unwrap();
    payload.signed_at.as_mut().unwrap().seconds += 1;
    *value = payload.encode_to_vec();
    assert_eq!(read(&signing, &entry), Err("mac"));
}

#[test]
fn what_is_written_is_read_back() {
    for kind in [AssetKind::Blob, AssetKind::Directory] {
        let reference = reference(kind);
        for key in [key_of(&reference), checksum_key(kind)] {
            let stored = entry(&key, &reference, &outputs(kind));
            let got = decode_whole(&Format::default(), &key, &stored);
            assert_eq!(got, Ok((reference.clone(), outputs(kind))));
        }
    }
}

#[test]
fn a_cache_may_lose_the_root_digest_and_add_metadata() {
    let reference = reference(AssetKind::Directory);
    let key = key_of(&reference);
    let mut stored = entry(&key, &reference, &outputs(AssetKind::Directory));
    stored.output_directories[0].root_directory_digest = None;
    let other = prost_types::Any {
        type_url: "type.googleapis.com/other".to_owned(),
        value: b"x".to_vec(),
    };
    let metadata = stored.execution_metadata.as_mut().unwrap();
    metadata.auxiliary_metadata.insert(0, other);
    assert_eq!(decode(&key, &stored), Ok(reference));
}

/// Changes the payload of a good entry.
fn altered(change: impl FnOnce(&mut AssetEntry)) -> Result<AssetReference, &'static str> {
    let reference = reference(AssetKind::Blob);
    let key = key_of(&reference);
    let mut stored = entry(&key, &reference, &outputs(AssetKind::Blob));
    let any = &mut stored
        .execution_metadata
        .as_mut()
        .unwrap()
        .auxiliary_metadata[0];
    let mut payload = AssetEntry::decode(&*any.value).unwrap();
    change(&mut payload);
    any.value = payload.encode_to_vec();
    decode(&key, &stored)
}

#[test]
fn any_doubt_about_a_payload_is_a_miss() {
    assert!(altered(|_| ()).is_ok());
    assert_eq!(altered(|p| p.version = 2), Err("version"));
    assert_eq!(altered(|p| p.namespace = "other".into()), Err("namespace"));
    assert_eq!(altered(|p| p.space = 3), Err("space"));
    assert_eq!(altered(|p| p.kind = 2), Err("kind"));
    assert_eq!(altered(|p| p.key_material_hash = Bytes::new()), Err("key"));
    assert_eq!(altered(|p| p.digest_function = 2), Err("digest function"));
    assert_eq!(altered(|p| p.unpacker_version = 1), Err("unpacker version"));
    assert_eq!(altered(|p| p.detached = true), Err("outputs"));
    assert_eq!(altered(|p| p.pins.push(abc().to_wire())), Err("detached"));
    assert_eq!(altered(|p| p.source = 0), Err("source"));
    assert_eq!(altered(|p| p.content_time = None), Err("time"));
    let never = prost_types::Timestamp {
        seconds: i64::MAX,
        nanos: 0,
    };
    assert_eq!(altered(|p| p.content_time = Some(never)), Err("time"));
    assert_eq!(altered(|p| p.digest = None), Err("digest"));
    let other = Digest::of(DigestFunction::Sha256, b"other").unwrap();
    assert_eq!(
        altered(|p| p.digest = Some(other.to_wire())),
        Err("outputs")
    );
    assert_eq!(altered(|p| p.qualifiers.clear()), Err("qualifiers"));
    assert_eq!(
        altered(|p| p.qualifiers[0].value = "9".into()),
        Err("qualifiers")
    );
    assert_eq!(
        altered(|p| p.verified[0].algorithm = "crc".into()),
        Err("verified hash")
    );
    let secret = wire::Qualifier {
        name: "auth.password".into(),
        value: "x".into(),
    };
    assert_eq!(
        altered(|p| p.qualifiers.push(secret)),
        Err("secret qualifiers")
    );
    assert_eq!(
        altered(|p| p.uri = "x".repeat(MAX_PAYLOAD)),
        Err("payload too large")
    );
}

#[test]
fn any_doubt_about_outputs_is_a_miss() {
    type Change = fn(&mut rev2::ActionResult);
    let root = |e: &mut rev2::ActionResult| {
        e.output_directories[0].root_directory_digest = e.output_directories[0].tree_digest.clone();
    };
    let changes: [(AssetKind, Change, &str); 8] = [
        (
            AssetKind::Blob,
            |e| e.output_files[0].path = "x".into(),
            "outputs",
        ),
        (
            AssetKind::Blob,
            |e| e.output_files.push(e.output_files[0].clone()),
            "outputs",
        ),
        (AssetKind::Blob, |e| e.output_files.clear(), "outputs"),
        (
            AssetKind::Blob,
            |e| e.output_directories[0].path = "asset".into(),
            "outputs",
        ),
        (
            AssetKind::Blob,
            |e| e.output_directories[1].path = "pins-2".into(),
            "outputs",
        ),
        (
            AssetKind::Blob,
            |e| e.output_directories[1].tree_digest = None,
            "digest",
        ),
        (
            AssetKind::Blob,
            |e| e.execution_metadata = None,
            "no payload",
        ),
        (AssetKind::Directory, root, "root directory"),
    ];
    for (kind, change, want) in changes {
        let reference = reference(kind);
        let key = key_of(&reference);
        let mut stored = entry(&key, &reference, &outputs(kind));
        change(&mut stored);
        let mut got = decode(&key, &stored);
        if want == "outputs" && got == Err("root directory") {
            got = Err("outputs");
        }
        assert_eq!(got, Err(want));
    }
    // No outputs at all mean something only with an expiry.
    let mut reference = reference(AssetKind::Blob);
    reference.expire_at = None;
    let key = key_of(&reference);
    let mut stored = entry(&key, &reference, &Outputs::default());
    stored.output_files.clear();
    assert_eq!(decode(&key, &stored), Err("outputs"));
}

#[test]
fn a_checksum_key_needs_content_of_that_checksum() {
    let key = checksum_key(AssetKind::Blob);
    let good = reference(AssetKind::Blob);
    let stored = |reference: &AssetReference| entry(&key, reference, &Outputs::default());
    assert!(decode(&key, &stored(&good)).is_ok());

    let mut claimed = good.clone();
    claimed.verified.clear();
    assert_eq!(decode(&key, &stored(&claimed)), Err("checksum"));

    let mut other = good.clone();
    other.digest = Digest::of(DigestFunction::Sha256, b"other").unwrap();
    assert_eq!(decode(&key, &stored(&other)), Err("checksum"));

    let mut renamed = good;
    renamed.qualifiers = renamed.qualifiers.with(BAZEL_CANONICAL_ID, "x");
    assert_eq!(decode(&key, &stored(&renamed)), Err("qualifiers"));
}

#[test]
fn an_entry_copied_under_another_key_is_a_miss() {
    let reference = reference(AssetKind::Blob);
    let key = key_of(&reference);
    let stored = entry(&key, &reference, &outputs(AssetKind::Blob));
    let mut elsewhere = key.clone();
    elsewhere.scope.instance = InstanceName::new("other").unwrap();
    assert_eq!(decode(&elsewhere, &stored), Err("key"));
    let mut other = key;
    let qualifiers = reference.qualifiers;
    other.space = KeySpace::Exact {
        uri: Uri::new("urn:other"),
        qualifiers,
    };
    assert_eq!(decode(&other, &stored), Err("key"));
}

#[test]
fn every_part_of_a_key_counts() {
    let base = exact("urn:a", &[("n", "v")]);
    let with = |change: fn(&mut AssetKey)| {
        let mut key = base.clone();
        change(&mut key);
        material("", &key)
    };
    let mut all = vec![
        material("", &base),
        material("ns", &base),
        with(|k| k.kind = AssetKind::Directory),
        with(|k| k.scope.instance = InstanceName::new("i").unwrap()),
        with(|k| k.scope.function = DigestFunction::Blake3),
        material("", &exact("urn:b", &[("n", "v")])),
        material("", &exact("urn:a", &[("n", "w")])),
        material("", &exact("urn:a", &[])),
        material("", &exact("urn:an", &[("", "v")])),
        material("", &exact("urn:a", &[("nv", "")])),
        material("", &exact("urn:a", &[("", "nv")])),
    ];
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn functions_we_cannot_compute_have_no_keys() {
    for function in DigestFunction::all() {
        let mut key = exact("urn:a", &[]);
        key.scope.function = *function;
        let own = encode_key("", &key, *function);
        assert_eq!(own.is_some(), function.is_computable());
        // Under another function they do, and one of their own.
        let other = encode_key("", &key, DigestFunction::Sha256).unwrap();
        let sha256 = encode_key("", &exact("urn:a", &[]), DigestFunction::Sha256).unwrap();
        assert_eq!(other == sha256, *function == DigestFunction::Sha256);
    }
}

#[test]
fn secrets_get_into_neither_key_nor_entry() {
    let pairs = [
        ("http_header:Authorization", "hunter2"),
        ("auth.basic.password", "hunter2"),
        ("bazel.auth_headers", "hunter2"),
        ("other", "https://u:hunter2@h/?token=hunter2"),
    ];
    let key = exact("https://u:hunter2@h/x?X-Amz-Signature=hunter2", &pairs);
    let KeySpace::Exact { uri, qualifiers } = &key.space else {
        unreachable!()
    };
    let mut reference = reference(AssetKind::Blob);
    reference.uri = uri.redacted();
    reference.qualifiers = qualifiers.clone();
    let stored = entry(&key, &reference, &Outputs::default());
    for bytes in [
        material("", &key),
        stored.encode_to_vec(),
        encoded(&key).action.1.to_vec(),
    ] {
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"));
    }
    // The same asset with another secret has the same key.
    let same = exact("https://h/x", &[("other", "https://h/")]);
    assert_eq!(encoded(&key), encoded(&same));
    assert!(decode(&key, &stored).is_ok());
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::btree_map("[a-z.]{0,3}", "[a-z]{0,3}", 0..4)
        .prop_map(|map| map.into_iter().collect())
}

proptest! {
    #[test]
    fn different_keys_have_different_material(
        a in ("[a-z]{0,3}", pairs()), b in ("[a-z]{0,3}", pairs()),
    ) {
        let key = |(uri, pairs): &(String, Vec<(String, String)>)| {
            let mut key = exact("", &[]);
            key.space = KeySpace::Exact {
                uri: Uri::new(uri.clone()),
                qualifiers: Qualifiers::new(pairs.clone()).unwrap(),
            };
            key
        };
        let (a, b) = (key(&a), key(&b));
        prop_assert_eq!(a == b, material("", &a) == material("", &b));
    }

    #[test]
    fn the_order_of_qualifiers_does_not_count(pairs in pairs(), seed in any::<usize>()) {
        let mut shuffled = pairs.clone();
        if !shuffled.is_empty() {
            let by = seed % shuffled.len();
            shuffled.rotate_left(by);
            shuffled.reverse();
        }
        let key = |pairs: Vec<(String, String)>| AssetKey {
            space: KeySpace::Exact {
                uri: Uri::new("urn:a"),
                qualifiers: Qualifiers::new(pairs).unwrap(),
            },
            ..exact("", &[])
        };
        prop_assert_eq!(encoded(&key(pairs)), encoded(&key(shuffled)));
    }

    #[test]
    fn arbitrary_payloads_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let reference = reference(AssetKind::Blob);
        let key = key_of(&reference);
        let mut stored = entry(&key, &reference, &outputs(AssetKind::Blob));
        let any = &mut stored.execution_metadata.as_mut().unwrap().auxiliary_metadata[0];
        any.value = bytes.clone();
        prop_assert!(decode(&key, &stored).is_err());
        if let Ok(stored) = rev2::ActionResult::decode(&*bytes) {
            prop_assert!(decode(&key, &stored).is_err());
        }
    }

    #[test]
    fn one_flipped_byte_never_yields_other_content(at in any::<usize>(), bits in 1u8..) {
        let reference = reference(AssetKind::Blob);
        let key = key_of(&reference);
        let mut bytes = entry(&key, &reference, &outputs(AssetKind::Blob)).encode_to_vec();
        let at = at % bytes.len();
        bytes[at] ^= bits;
        if let Ok(stored) = rev2::ActionResult::decode(&*bytes)
            && let Ok(got) = decode(&key, &stored)
        {
            prop_assert_eq!(got.digest, reference.digest);
        }
    }
}
