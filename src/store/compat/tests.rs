//! The published test vectors of its layout, and entries it never wrote.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::upstream::double::{scope, sha256};

const TXT: &str = "https://example.com/example.txt";
const TGZ: &str = "https://example.com/a.tar.gz";

fn qualifiers(pairs: &[(&str, &str)]) -> Qualifiers {
    let owned = pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    Qualifiers::new(owned).unwrap()
}

fn key_on(uri: &str, pairs: &[(&str, &str)], platform: &[(&str, &str)]) -> Option<String> {
    let platform: Vec<(String, String)> = platform
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    let uri = Uri::new(uri.to_owned());
    let key = bb_key(&scope(), &uri, &qualifiers(pairs), &platform)?;
    Some(key.to_string())
}

fn key(uri: &str, pairs: &[(&str, &str)]) -> Option<String> {
    key_on(uri, pairs, &[])
}

#[test]
fn vectors() {
    let checksum = "sha256-GF+NsyJx/iX1Yab8k4suJkMG7DBO2lGAB9F2SCY4GWk=";
    let linux = [("OSFamily", "Linux")];
    for (got, want) in [
        (
            key(TXT, &[("test", "test")]),
            "80fa2440711e986859b84bb5bc5f63b3a9987aa498a4019824a7bed622593f6e/140",
        ),
        (
            key(TXT, &[]),
            "7bef991fed17d0a31d1ea1b536f2ac865e567e34ebfa2bfc081d3672110b93be/140",
        ),
        (
            key_on(TXT, &[("test", "test")], &linux),
            "3446ac03ac6fb6a683fca8e245dbdb404045ba350873e44a8f9dc84fec775862/161",
        ),
        (
            key(
                TGZ,
                &[("checksum.sri", checksum), ("bazel.canonical_id", "x")],
            ),
            "36e1075a2f9af52239d51226cb06df3e4f98f1436e68109174a76ae650ab80eb/140",
        ),
    ] {
        assert_eq!(got.as_deref(), Some(want));
    }
}

#[test]
fn what_its_fetches_leave_out_is_left_out() {
    let volatile = [
        ("http_header_url:0:Authorization", "x"),
        ("bazel.auth_headers", "{}"),
        ("test", "test"),
    ];
    assert_eq!(key(TXT, &volatile), key(TXT, &[("test", "test")]));
}

#[test]
fn keys_that_cannot_be_have_no_digest() {
    let with = |t| key(TXT, &[("resource_type", t)]);
    assert_eq!(with("application/x-git"), None);
    assert_eq!(with("application/octet-stream"), None);
    assert!(with("application/x-tar").is_some());
    // No secret is sent upstream, not even hashed.
    assert_eq!(key("https://u:p@example.com/a", &[]), None);
    assert_eq!(key("https://example.com/a?sig=1", &[]), None);
    assert_eq!(key(TXT, &[("other", "https://u:p@example.com/")]), None);

    let none = Qualifiers::default();
    let not_text = Uri::new(&b"urn:\xff"[..]);
    assert_eq!(bb_key(&scope(), &not_text, &none, &[]), None);
    for function in DigestFunction::all() {
        let scope = Scope::new(scope().instance, *function);
        let key = bb_key(&scope, &Uri::new(TXT), &none, &[]);
        assert_eq!(key.is_some(), function.is_computable());
        assert!(key.is_none_or(|k| k.hash().len() == function.hex_length()));
    }
}

fn queued() -> Option<rev2::ExecutedActionMetadata> {
    Some(rev2::ExecutedActionMetadata {
        queued_timestamp: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 5,
        }),
        ..Default::default()
    })
}

fn blob_entry() -> rev2::ActionResult {
    rev2::ActionResult {
        output_files: vec![rev2::OutputFile {
            path: "out".to_owned(),
            digest: Some(sha256(b"blob").to_wire()),
            ..Default::default()
        }],
        execution_metadata: queued(),
        ..Default::default()
    }
}

fn directory_entry() -> rev2::ActionResult {
    rev2::ActionResult {
        output_directories: vec![rev2::OutputDirectory {
            path: "out".to_owned(),
            tree_digest: Some(sha256(b"tree").to_wire()),
            root_directory_digest: Some(sha256(b"root").to_wire()),
            ..Default::default()
        }],
        execution_metadata: queued(),
        ..Default::default()
    }
}

fn read(
    kind: AssetKind,
    entry: &rev2::ActionResult,
) -> Result<(AssetReference, Option<Digest>), &'static str> {
    bb_reference(
        kind,
        &scope(),
        &Uri::new(TXT),
        &qualifiers(&[("test", "test")]),
        entry,
    )
}

#[test]
fn entries_as_it_writes_them() {
    let (blob, tree) = read(AssetKind::Blob, &blob_entry()).unwrap();
    let want = AssetReference {
        kind: AssetKind::Blob,
        digest: sha256(b"blob"),
        uri: TXT.to_owned(),
        qualifiers: qualifiers(&[("test", "test")]),
        content_time: UNIX_EPOCH + Duration::new(1_700_000_000, 5),
        expire_at: None,
        source: Source::Push,
        validators: Validators::default(),
        verified: Vec::new(),
        signed_at: None,
        referenced_blobs: Vec::new(),
        referenced_directories: Vec::new(),
    };
    assert_eq!((&blob, tree), (&want, None));

    let (directory, tree) = read(AssetKind::Directory, &directory_entry()).unwrap();
    let want = AssetReference {
        kind: AssetKind::Directory,
        digest: sha256(b"root"),
        ..want
    };
    assert_eq!((directory, tree), (want, Some(sha256(b"tree"))));

    // Whatever wrappers of caches add to the metadata does not count.
    let mut entry = blob_entry();
    let metadata = entry.execution_metadata.as_mut().unwrap();
    metadata.worker = "a host".to_owned();
    metadata.worker_completed_timestamp = metadata.queued_timestamp;
    assert!(read(AssetKind::Blob, &entry).is_ok());
}

#[test]
fn an_entry_of_the_other_kind_is_none() {
    assert_eq!(read(AssetKind::Directory, &blob_entry()), Err("kind"));
    assert_eq!(read(AssetKind::Blob, &directory_entry()), Err("kind"));
}

type Change = fn(&mut rev2::ActionResult);

fn refused(kind: AssetKind, changes: &[(Change, &str)]) {
    for (index, (change, want)) in changes.iter().enumerate() {
        let mut entry = match kind {
            AssetKind::Blob => blob_entry(),
            AssetKind::Directory => directory_entry(),
        };
        change(&mut entry);
        assert_eq!(read(kind, &entry), Err(*want), "change {index}");
    }
}

fn stamp(entry: &mut rev2::ActionResult, seconds: i64, nanos: i32) {
    entry.execution_metadata.as_mut().unwrap().queued_timestamp =
        Some(prost_types::Timestamp { seconds, nanos });
}

#[test]
#[expect(deprecated, reason = "on the wire these fields are as good as any")]
fn entries_it_never_wrote_are_refused() {
    refused(
        AssetKind::Blob,
        &[
            (|e| *e = rev2::ActionResult::default(), "outputs"),
            (|e| e.output_files[0].path = "asset".into(), "outputs"),
            (|e| e.output_files[0].path = "./out".into(), "outputs"),
            (
                |e| e.output_files.push(e.output_files[0].clone()),
                "outputs",
            ),
            (
                |e| e.output_directories = directory_entry().output_directories,
                "outputs",
            ),
            (|e| e.output_symlinks.push(<_>::default()), "outputs"),
            (|e| e.output_file_symlinks.push(<_>::default()), "outputs"),
            (|e| e.exit_code = 1, "outputs"),
            (|e| e.output_files[0].digest = None, "digest"),
            (|e| size(e, -1), "digest"),
            (|e| size(e, 0), "digest"),
            (|e| hash(e, "nonsense"), "digest"),
            (|e| hash(e, &"A".repeat(64)), "digest"),
            (|e| e.execution_metadata = None, "time"),
            (|e| e.execution_metadata = Some(<_>::default()), "time"),
            (|e| stamp(e, i64::MAX, 0), "time"),
            (|e| stamp(e, i64::MIN, 0), "time"),
            (|e| stamp(e, 0, -1), "time"),
            (|e| stamp(e, 0, 1_000_000_000), "time"),
        ],
    );
    refused(
        AssetKind::Directory,
        &[
            (|e| e.output_directories[0].path = "pins".into(), "outputs"),
            (
                |e| e.output_directories[0].root_directory_digest = None,
                "digest",
            ),
            (
                |e| e.output_directories[0].tree_digest = Some(<_>::default()),
                "digest",
            ),
            (
                |e| e.output_directories.push(e.output_directories[0].clone()),
                "outputs",
            ),
            (
                |e| e.output_directory_symlinks.push(<_>::default()),
                "outputs",
            ),
        ],
    );
}

fn size(entry: &mut rev2::ActionResult, size: i64) {
    entry.output_files[0].digest.as_mut().unwrap().size_bytes = size;
}

fn hash(entry: &mut rev2::ActionResult, hash: &str) {
    entry.output_files[0].digest.as_mut().unwrap().hash = hash.to_owned();
}

#[test]
fn a_directory_without_a_tree_is_one() {
    let mut entry = directory_entry();
    entry.output_directories[0].tree_digest = None;
    let (reference, tree) = read(AssetKind::Directory, &entry).unwrap();
    assert_eq!((reference.digest, tree), (sha256(b"root"), None));
}

#[test]
fn what_held_a_secret_is_not_read_either() {
    let uri = Uri::new("https://u:p@example.com/a");
    let none = Qualifiers::default();
    let got = bb_reference(AssetKind::Blob, &scope(), &uri, &none, &blob_entry());
    assert_eq!(got, Err("secret"));
    let had = qualifiers(&[("other", "https://u:p@example.com/")]);
    let uri = Uri::new(TXT);
    let got = bb_reference(AssetKind::Blob, &scope(), &uri, &had, &blob_entry());
    assert_eq!(got, Err("secret"));
}
