//! Uploads to a cache that announces zstd.

use std::time::Duration;

use super::*;
use crate::upstream::compress::BLOCK;

/// Text of numbers, which shrinks.
fn text(size: usize) -> Vec<u8> {
    let lines = (0u32..).flat_map(|i| format!("line {}\n", i * 7919).into_bytes());
    lines.take(size).collect()
}

/// What does not shrink.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

fn announcing() -> Double {
    let double = Double::new();
    double.set(|s| s.zstd = true);
    double
}

async fn write(
    cache: &Cache,
    digest: &Digest,
    content: Vec<io::Result<Bytes>>,
) -> Result<(), Error> {
    let (context, scope) = (CallContext::default(), scope());
    let write = cache.write_stream(&context, &scope, digest, stream::iter(content));
    tokio::time::timeout(Duration::from_secs(60), write)
        .await
        .unwrap()
}

/// Name without the UUID, and bytes sent, of the one write.
fn written(double: &Double) -> (String, usize) {
    let writes = double.set(|s| std::mem::take(&mut s.writes));
    let [(name, sent)] = &writes[..] else {
        panic!("{writes:?}")
    };
    let rest = name.strip_prefix("uploads/").unwrap();
    let (_, rest) = rest.split_once('/').unwrap();
    (rest.to_owned(), sent.len())
}

/// How much of a blob comes out of the beginning of its zstd stream.
fn decoded(mut sent: &[u8]) -> usize {
    let mut decoder = zstd::stream::read::Decoder::new(&mut sent).unwrap();
    let mut buffer = [0; 4096];
    let mut total = 0;
    while let Ok(read @ 1..) = io::Read::read(&mut decoder, &mut buffer) {
        total += read;
    }
    total
}

#[tokio::test]
async fn content_of_any_size_and_chunking_arrives() {
    let double = announcing();
    let cache = double.cache();
    for size in [5_000, 131_072, BLOCK, BLOCK + 1, 1_500_000] {
        let data = text(size);
        let digest = sha256(&data);
        for chunk in [1_000, 65_536, BLOCK, size] {
            write(&cache, &digest, chunks(&data, chunk)).await.unwrap();
            let (name, sent) = written(&double);
            assert_eq!(name, format!("compressed-blobs/zstd/{digest}"));
            assert!(sent < size / 2, "{sent} of {size}");
            assert!(double.set(|s| s.blobs.remove(&digest)).unwrap() == data);
        }
    }
    assert_eq!(double.calls("GetCapabilities"), 1);
}

#[tokio::test]
async fn what_does_not_shrink_by_a_tenth_goes_plain() {
    let double = announcing();
    let cache = double.cache();
    let mut late = noise(200_000);
    late.extend(text(2_000_000));
    let mut nearly = noise(120_000);
    nearly.extend(vec![0; 8_000]);
    for data in [noise(300_000), late, nearly, text(4_000)] {
        let digest = sha256(&data);
        for chunk in [1_000, 200_000] {
            write(&cache, &digest, chunks(&data, chunk)).await.unwrap();
            assert_eq!(written(&double), (format!("blobs/{digest}"), data.len()));
            assert!(double.set(|s| s.blobs.remove(&digest)).unwrap() == data);
        }
    }
}

#[tokio::test]
async fn nothing_is_compressed_unannounced_or_unwanted() {
    let data = text(300_000);
    let digest = sha256(&data);
    let double = Double::new();
    write(&double.cache(), &digest, chunks(&data, 100_000))
        .await
        .unwrap();
    assert_eq!(written(&double).0, format!("blobs/{digest}"));

    let double = announcing();
    let cache = double.cache().without_zstd();
    write(&cache, &digest, chunks(&data, 100_000))
        .await
        .unwrap();
    assert_eq!(written(&double).0, format!("blobs/{digest}"));
    assert_eq!(double.calls("GetCapabilities"), 0);
}

#[tokio::test]
async fn a_source_that_fails_at_its_end_has_sent_no_whole_blob() {
    for size in [100_000, 2_000_000] {
        let double = announcing();
        let cache = double.cache();
        let data = text(size);
        let digest = sha256(&data);
        let failure = || Err(io::Error::other("checksum mismatch"));
        let mut held_back = chunks(&data, size / 20);
        held_back.push(failure());
        let mut short = chunks(&data[..size - 1], size / 20);
        short.truncate(19);
        let mut long = chunks(&data, size / 20);
        long.push(Ok(Bytes::from_static(b"x")));
        for (content, want) in [
            (held_back, "checksum mismatch"),
            (short, "it ended after"),
            (long, "longer than"),
        ] {
            let error = write(&cache, &digest, content).await.unwrap_err();
            assert!(matches!(error, Error::Source(_)), "{error}");
            assert!(error.to_string().contains(want), "{error}");
            assert!(!double.has(&digest));
            for (_, sent) in double.set(|s| std::mem::take(&mut s.writes)) {
                assert!(decoded(&sent) < size, "all of it was sent");
            }
        }
        // A failed source says nothing about the cache.
        write(&cache, &digest, chunks(&data, 10_000)).await.unwrap();
        let writes = double.set(|s| s.writes.clone());
        let (name, _) = writes.last().unwrap();
        assert!(name.contains("/compressed-blobs/zstd/"), "{name}");
    }
}

#[tokio::test]
async fn a_blob_that_is_there_ends_the_upload() {
    let double = announcing();
    super::ends_early(&double).await;
    assert!(written(&double).0.starts_with("compressed-blobs/"));
}

#[tokio::test]
async fn the_size_committed_is_checked() {
    let data = text(300_000);
    let digest = sha256(&data);
    for (commit, right) in [(-1, true), (300_000, false), (0, false), (-2, false)] {
        let double = announcing();
        double.set(|s| s.commit = Some(commit));
        let done = write(&double.cache(), &digest, chunks(&data, 100_000)).await;
        assert_eq!(done.is_ok(), right, "{commit}: {done:?}");
        if let Err(error) = done {
            assert!(matches!(error, Error::Malformed { .. }), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_refuses_what_it_announces_gets_plain_uploads_for_a_while() {
    let double = announcing();
    double.set(|s| s.refuse_zstd = true);
    let cache = double.cache();
    let data = text(300_000);
    let digest = sha256(&data);
    let failed = write(&cache, &digest, chunks(&data, 100_000)).await;
    let code = failed.unwrap_err().code();
    assert_eq!(code, Some(tonic::Code::Unimplemented));
    double.set(|s| s.writes.clear());
    write(&cache, &digest, chunks(&data, 100_000))
        .await
        .unwrap();
    assert_eq!(written(&double).0, format!("blobs/{digest}"));

    tokio::time::advance(Duration::from_secs(601)).await;
    double.set(|s| s.refuse_zstd = false);
    double.evict(&digest);
    write(&cache, &digest, chunks(&data, 100_000))
        .await
        .unwrap();
    assert!(written(&double).0.starts_with("compressed-blobs/"));
}

#[tokio::test]
async fn uploads_above_the_limit_go_plain() {
    let double = announcing();
    let cache = double.cache();
    let data = text(300_000);
    let digest = sha256(&data);
    let all: Vec<_> = std::iter::from_fn(|| cache.compression.admit()).collect();
    assert_eq!(all.len(), 16);
    write(&cache, &digest, chunks(&data, 100_000))
        .await
        .unwrap();
    assert_eq!(written(&double).0, format!("blobs/{digest}"));
    drop(all);
    // A permit comes back with the end of its upload.
    for _ in 0..20 {
        double.evict(&digest);
        write(&cache, &digest, chunks(&data, 100_000))
            .await
            .unwrap();
        assert!(written(&double).0.starts_with("compressed-blobs/"));
    }
}
