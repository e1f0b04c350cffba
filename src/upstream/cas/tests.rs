//! Batches, limits and verification; walks over directories.

use super::*;
use crate::proto::rev2;
use crate::upstream::WalkError;
use crate::upstream::double::{Double, scope, sha256};
use prost::Message as _;

fn ctx() -> CallContext {
    CallContext::default()
}

#[test]
fn batches_respect_bytes_and_count() {
    let (batches, large) = pack(vec![10u64, 400, 10, 10_000], 700, |n| *n);
    assert_eq!(batches, [vec![10], vec![400], vec![10]]);
    assert_eq!(large, [10_000]);
    let (batches, _) = pack(vec![0u64; 2_500], usize::MAX, |n| *n);
    assert_eq!(
        batches.iter().map(Vec::len).collect::<Vec<_>>(),
        [1000, 1000, 500]
    );
}

#[tokio::test]
async fn missing_blobs_are_found_in_chunks_and_each_asked_once() {
    let double = Double::new();
    let digests: Vec<Digest> = (0..25_000u32).map(|i| sha256(&i.to_le_bytes())).collect();
    for i in 0..24_990u32 {
        double.put(i.to_le_bytes().to_vec());
    }
    let mut asked = digests.clone();
    asked.extend_from_slice(&digests[..100]);
    asked.push(sha256(b""));
    let cache = double.cache();
    let missing = cache.find_missing(&ctx(), &scope(), &asked).await.unwrap();
    assert_eq!(missing, digests[24_990..].iter().cloned().collect());
    assert_eq!(double.calls(FIND.name), 3);
    let none = cache.find_missing(&ctx(), &scope(), [&sha256(b"")]).await;
    assert!(none.unwrap().is_empty());
    assert_eq!(double.calls(FIND.name), 3);
}

#[tokio::test]
async fn blobs_of_all_sizes_go_and_come_back_within_the_limit() {
    let double = Double::new();
    double.set(|s| s.max_batch = 65_536);
    let cache = double.cache();
    let blobs: Vec<(Digest, Bytes)> = [0usize, 1, 40_000, 40_001, 65_536, 200_000]
        .into_iter()
        .map(|n| Bytes::from(vec![b'a'; n]))
        .map(|data| (sha256(&data), data))
        .collect();
    cache
        .write_blobs(&ctx(), &scope(), blobs.clone())
        .await
        .unwrap();
    assert!(double.set(|s| s.largest_batch) <= 65_536);
    assert_eq!(double.calls("Write"), 2);
    let absent = sha256(b"absent");
    let wanted = blobs.iter().map(|(d, _)| d).chain([&absent]);
    let found = cache.read_blobs(&ctx(), &scope(), wanted).await.unwrap();
    assert_eq!(found, blobs.into_iter().collect());
    assert_eq!(
        cache.read_blob(&ctx(), &scope(), &absent).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn other_content_than_the_digests_is_an_error() {
    let double = Double::new();
    let small = double.put("small");
    let large = double.put(vec![1u8; 5 << 20]);
    double.set(|s| (s.serve_corrupt, s.break_reads) = (true, true));
    let cache = double.cache();
    for digest in [small, large] {
        let error = cache
            .read_blob(&ctx(), &scope(), &digest)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Corrupt(d) if d == digest));
    }
}

#[tokio::test]
async fn a_refused_item_of_a_batch_is_an_error() {
    let double = Double::new();
    double.set(|s| s.refuse_cas_writes = true);
    let blob = (sha256(b"x"), Bytes::from_static(b"x"));
    let error = double
        .cache()
        .write_blobs(&ctx(), &scope(), vec![blob])
        .await;
    assert_eq!(error.unwrap_err().code(), Some(Code::PermissionDenied));
}

#[tokio::test]
async fn an_unreachable_cache_is_unavailable_and_named() {
    let double = Double::new();
    double.set(|s| s.unreachable = true);
    let digest = sha256(b"x");
    let error = double
        .cache()
        .find_missing(&ctx(), &scope(), [&digest])
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(Code::Unavailable));
    assert!(
        error.to_string().contains("127.0.0.1:1: refused"),
        "{error}"
    );
}

fn directory(double: &Double, files: &[(&str, &Digest)], dirs: &[(&str, &Digest)]) -> Digest {
    let message = rev2::Directory {
        files: files
            .iter()
            .map(|(name, d)| rev2::FileNode {
                name: (*name).to_owned(),
                digest: Some(d.to_wire()),
                ..Default::default()
            })
            .collect(),
        directories: dirs
            .iter()
            .map(|(name, d)| rev2::DirectoryNode {
                name: (*name).to_owned(),
                digest: Some(d.to_wire()),
            })
            .collect(),
        ..Default::default()
    };
    double.put(message.encode_to_vec())
}

#[tokio::test]
async fn a_walk_reads_each_directory_once_and_level_by_level() {
    let double = Double::new();
    let file = sha256(b"file");
    let leaf = directory(&double, &[("f", &file)], &[]);
    let gone = directory(&double, &[("g", &file)], &[]);
    let middle = directory(&double, &[], &[("a", &leaf), ("b", &gone)]);
    let empty = sha256(b"");
    let root = directory(&double, &[], &[("l", &leaf), ("m", &middle), ("n", &empty)]);
    double.evict(&gone);
    let cache = double.cache();
    let closure = cache.directories(&ctx(), &scope(), &root).await.unwrap();
    let got: Vec<_> = closure.nodes.iter().map(|n| n.digest.clone()).collect();
    assert_eq!(got.len(), 4);
    assert_eq!(got[0], root);
    assert_eq!(closure.missing, [gone]);
    assert_eq!(double.calls(READ.name), 3);
}

#[tokio::test]
async fn what_is_not_a_directory_is_refused() {
    let double = Double::new();
    let file = sha256(b"file");
    let text = double.put("#!/bin/sh\necho hello\n");
    let unknown = double.put(vec![0xfa, 0x06, 1, 0]);
    let slash = directory(&double, &[("a/b", &file)], &[]);
    let dots = directory(&double, &[("..", &file)], &[]);
    let twice = directory(&double, &[("a", &file)], &[("a", &file)]);
    let tree = rev2::Tree {
        root: Some(rev2::Directory {
            files: vec![rev2::FileNode {
                name: "f".into(),
                digest: Some(file.to_wire()),
                ..Default::default()
            }],
            ..Default::default()
        }),
        children: Vec::new(),
    };
    let tree = double.put(tree.encode_to_vec());
    for digest in [text, unknown, slash, dots, twice, tree] {
        let got = double.cache().directories(&ctx(), &scope(), &digest).await;
        assert!(matches!(got, Err(WalkError::NotADirectory(d, _)) if d == digest));
    }
}

#[tokio::test]
async fn walks_are_bounded_before_anything_is_read() {
    let double = Double::new();
    let claimed = Digest::new(scope().function, &"0".repeat(64), 1 << 40).unwrap();
    let got = double.cache().directories(&ctx(), &scope(), &claimed).await;
    assert!(matches!(got, Err(WalkError::TooLarge(_))));
    assert_eq!(double.take_log(), Vec::<String>::new());

    let mut child = sha256(b"");
    for _ in 0..600 {
        child = directory(&double, &[], &[("d", &child)]);
    }
    let got = double.cache().directories(&ctx(), &scope(), &child).await;
    assert!(matches!(got, Err(WalkError::TooLarge(what)) if what.contains("levels")));
}
