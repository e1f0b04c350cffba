//! Names of blobs and uploads, well-formed and not.

use proptest::prelude::*;

use super::*;

const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const ID: &str = "0c5e9d3c-8b0c-4b5f-9a36-3b6f1c2c6c4e";

fn digest() -> Digest {
    Digest::new(DigestFunction::Sha256, HASH, 5).unwrap()
}

/// R1: every documented form.
#[test]
fn r1_documented_forms() {
    for instance in ["", "a/", "a/b/c/", "müller/"] {
        let read = Blob::parse_read(&format!("{instance}blobs/{HASH}/5")).unwrap();
        assert_eq!(read.digest, digest());
        assert_eq!((read.function, read.zstd), (DigestFunction::Sha256, false));
        let read = format!("{instance}compressed-blobs/zstd/blake3/{HASH}/5");
        let read = Blob::parse_read(&read).unwrap();
        assert_eq!((read.function, read.zstd), (DigestFunction::Blake3, true));
        let write = Blob::parse_write(&format!("{instance}uploads/{ID}/blobs/{HASH}/5"));
        assert_eq!(write.unwrap().digest, digest());
        let write = format!("{instance}uploads/{ID}/compressed-blobs/zstd/{HASH}/5/x");
        assert!(Blob::parse_write(&write).unwrap().zstd);
    }
}

/// R1: metadata is free text with slashes and reserved words.
#[test]
fn r1_metadata_is_ignored() {
    for metadata in ["a", "a/b", "blobs/uploads/x", "uploads", "", "//"] {
        let name = format!("i/uploads/{ID}/blobs/{HASH}/5/{metadata}");
        assert_eq!(Blob::parse_write(&name).unwrap().digest, digest());
    }
}

#[test]
fn r1_malformed_names_say_what_is_wrong() {
    let upper = HASH.to_uppercase();
    for (name, reason) in [
        (format!("/blobs/{HASH}/5"), "slash"),
        (format!("a//blobs/{HASH}/5"), "slash"),
        (format!("blobs/{HASH}"), "size"),
        (format!("blobs/{HASH}/-5"), "size"),
        (format!("blobs/{HASH}/+5"), "size"),
        (format!("blobs/{HASH}/5x"), "size"),
        (format!("blobs/{HASH}/99999999999999999999"), "size"),
        (format!("blobs/{HASH}/5/6"), "follows"),
        (format!("blobs/{upper}/5"), "lower-case"),
        ("blobs/abc/5".into(), "characters"),
        (format!("blobs/gitsha1/{HASH}/5"), "characters"),
        (format!("compressed-blobs/deflate/{HASH}/5"), "deflate"),
        (format!("compressed-blobs/identity/{HASH}/5"), "identity"),
        (format!("uploads/{ID}/blobs/{HASH}/5"), "writing"),
        ("blobs".into(), "characters"),
    ] {
        match Blob::parse_read(&name) {
            Err(Error::Malformed(text)) => assert!(text.contains(reason), "{name}: {text}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    for (name, reason) in [
        (format!("uploads/not-a-uuid/blobs/{HASH}/5"), "UUID"),
        (format!("uploads/{ID}/{HASH}/5"), "blobs"),
        (format!("blobs/{HASH}/5"), "reading"),
        ("uploads".into(), "UUID"),
    ] {
        match Blob::parse_write(&name) {
            Err(Error::Malformed(text)) => assert!(text.contains(reason), "{name}: {text}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn r1_names_of_other_shapes_name_no_blob() {
    assert!(matches!(Blob::parse_read(""), Err(Error::Malformed(_))));
    for name in ["logstream/1", "a/operations/7", "actionResults/x/1"] {
        assert_eq!(Blob::parse_read(name), Err(Error::Foreign), "{name}");
        assert_eq!(Blob::parse_write(name), Err(Error::Foreign), "{name}");
    }
}

fn instance() -> impl Strategy<Value = String> {
    let segment = "[a-zA-Z0-9._ é-]{1,8}";
    proptest::collection::vec(segment, 0..4)
        .prop_map(|s| s.join("/"))
        .prop_filter("a keyword", |name| InstanceName::new(name).is_ok())
}

proptest! {
    #[test]
    fn what_is_built_is_parsed_back(
        instance in instance(),
        which in 0..ANNOUNCED.len(),
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
        size in 0..=i64::MAX as u64,
        zstd: bool,
        metadata in proptest::option::of("[a-z/]{0,12}"),
    ) {
        let function = ANNOUNCED[which];
        let hash = Digest::of(function, &bytes).unwrap();
        let digest = Digest::new(function, hash.hash(), size).unwrap();
        let prefix = InstanceName::new(&instance).unwrap().prefix();
        let form = if zstd { "compressed-blobs/zstd" } else { "blobs" };
        let tail = format!("{form}/{}", digest.resource_name(function));
        let want = Blob { function, digest, zstd };
        prop_assert_eq!(Blob::parse_read(&format!("{prefix}{tail}")), Ok(want.clone()));
        let metadata = metadata.map(|m| format!("/{m}")).unwrap_or_default();
        let name = format!("{prefix}uploads/{ID}/{tail}{metadata}");
        prop_assert_eq!(Blob::parse_write(&name), Ok(want));
    }

    #[test]
    fn no_name_panics(name in ".{0,200}", shape in "(blobs|uploads|/|[0-9a-f]{64}|[0-9]){0,9}") {
        for name in [&name, &shape] {
            let _ = Blob::parse_read(name);
            let _ = Blob::parse_write(name);
        }
    }
}
