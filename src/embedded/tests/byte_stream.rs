//! R1 to R3 over the wire: reading, writing, resuming.

use super::*;
use futures_util::stream;

fn write_name(digest: &Digest) -> String {
    format!(
        "up/uploads/{ID}/blobs/{}/meta/data",
        digest.resource_name(F)
    )
}

fn zstd_name(digest: &Digest) -> String {
    let digest = digest.resource_name(F);
    format!("uploads/{ID}/compressed-blobs/zstd/{digest}")
}

fn pieces(
    name: &str,
    first: usize,
    data: &[u8],
    size: usize,
    finish: bool,
) -> Vec<bs::WriteRequest> {
    let mut offset = first;
    let mut messages: Vec<_> = data
        .chunks(size)
        .map(|piece| {
            let message = bs::WriteRequest {
                resource_name: if offset == first {
                    name.into()
                } else {
                    String::new()
                },
                write_offset: offset as i64,
                finish_write: false,
                data: piece.to_vec().into(),
            };
            offset += piece.len();
            message
        })
        .collect();
    if messages.is_empty() {
        messages.push(bs::WriteRequest {
            resource_name: name.into(),
            write_offset: first as i64,
            ..Default::default()
        });
    }
    messages.last_mut().unwrap().finish_write = finish;
    messages
}

async fn status(cache: &Cache, name: &str) -> (i64, bool) {
    let request = bs::QueryWriteStatusRequest {
        resource_name: name.into(),
    };
    let response = cache.byte_stream().query_write_status(request).await;
    let response = response.unwrap().into_inner();
    (response.committed_size, response.complete)
}

fn temps(cache: &Cache) -> usize {
    std::fs::read_dir(cache.dir.path().join("tmp"))
        .unwrap()
        .count()
}

#[tokio::test]
async fn r2_what_is_written_is_read() {
    let cache = Cache::new();
    for (seed, length) in [(1, 1), (2, 70_000), (3, 256 << 10), (4, 1_000_003)] {
        let data = noise(seed, length);
        let digest = Digest::of(F, &data).unwrap();
        let name = write_name(&digest);
        let written = cache.write(pieces(&name, 0, &data, 60_000, true)).await;
        assert_eq!(written.unwrap(), length as i64);
        assert_eq!(cache.get(&digest).await.unwrap(), data);
        assert_eq!(status(&cache, &name).await, (length as i64, true));
    }
    assert_eq!(temps(&cache), 0);
}

/// R3.
#[tokio::test]
async fn r3_offsets_and_limits() {
    let cache = Cache::new();
    let data = noise(1, 500_000);
    let digest = cache.put(&data).await;
    let name = || format!("i/blobs/{}", digest.resource_name(F));
    for (offset, limit, want) in [
        (0, 0, 0..500_000),
        (0, 1, 0..1),
        (100, 200, 100..300),
        (499_999, 0, 499_999..500_000),
        (400_000, 1 << 40, 400_000..500_000),
        (500_000, 0, 500_000..500_000),
        (500_000, 5, 500_000..500_000),
        (1, i64::MAX, 1..500_000),
    ] {
        let got = cache.read(name(), offset, limit).await.unwrap();
        assert!(got == data[want], "{offset} {limit}");
    }
    for (offset, limit, code) in [
        (500_001, 0, Code::OutOfRange),
        (-1, 0, Code::OutOfRange),
        (0, -1, Code::InvalidArgument),
    ] {
        let error = cache.read(name(), offset, limit).await.unwrap_err();
        assert_eq!(error.code(), code);
    }
    let gone = format!("blobs/{}", absent(9).resource_name(F));
    let error = cache.read(gone, 0, 0).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn r3_compressed_reads() {
    let cache = Cache::new();
    let data = noise(1, 500_000);
    let digest = cache.put(&data).await;
    let name = || format!("compressed-blobs/zstd/{}", digest.resource_name(F));
    for offset in [0usize, 1, 300_000, 500_000] {
        let stream = cache.read(name(), offset as i64, 0).await.unwrap();
        let got = compress::decompress(&stream, 500_000).unwrap();
        assert!(got == data[offset..], "{offset}");
    }
    let error = cache.read(name(), 0, 10).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn r3_the_empty_blob_is_there_in_every_form() {
    let cache = Cache::new();
    let empty = Digest::of(F, b"").unwrap();
    assert_eq!(cache.get(&empty).await.unwrap(), b"");
    let name = format!("compressed-blobs/zstd/{}", empty.resource_name(F));
    let stream = cache.read(name, 0, 0).await.unwrap();
    assert_eq!(compress::decompress(&stream, 0).unwrap(), b"");
    let name = write_name(&empty);
    let written = cache.write(pieces(&name, 0, b"", 1, true)).await;
    assert_eq!(written.unwrap(), 0);
    assert_eq!(cache.inner().store.usage(), (0, 0));
}

#[tokio::test]
async fn r2_a_blob_that_is_present_ends_the_call_at_once() {
    let cache = Cache::new();
    let data = noise(1, 100_000);
    let digest = cache.put(&data).await;
    for (name, want) in [(write_name(&digest), 100_000), (zstd_name(&digest), -1)] {
        // The client never ends its side.
        let first = pieces(&name, 0, &data[..10], 10, false);
        let messages = stream::StreamExt::chain(stream::iter(first), stream::pending());
        let response = cache.byte_stream().write(messages).await.unwrap();
        assert_eq!(response.into_inner().committed_size, want);
    }
}

#[tokio::test]
async fn r2_a_mismatch_stores_nothing() {
    let cache = Cache::new();
    let data = noise(1, 300_000);
    let digest = Digest::of(F, &data).unwrap();
    let name = write_name(&digest);
    let mut wrong = data.clone();
    wrong[7] ^= 1;
    let short = &data[..299_999];
    let long = [&data[..], b"x"].concat();
    for bad in [&wrong[..], short, &long] {
        for size in [64_000, 1 << 20] {
            let error = cache.write(pieces(&name, 0, bad, size, true)).await;
            assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
            assert!(cache.is_missing(&digest).await);
            assert_eq!(status(&cache, &name).await, (0, false));
        }
    }
    assert_eq!(temps(&cache), 0);
    assert_eq!(cache.inner().store.usage(), (0, 0), "space is given back");
}

#[tokio::test]
async fn r2_a_broken_upload_is_resumed() {
    let cache = Cache::new();
    let data = noise(1, 900_000);
    let digest = Digest::of(F, &data).unwrap();
    let name = write_name(&digest);
    let begin = pieces(&name, 0, &data[..600_000], 100_000, false);
    assert_eq!(cache.write(begin).await.unwrap(), 600_000);
    assert_eq!(status(&cache, &name).await, (600_000, false));
    assert!(cache.is_missing(&digest).await);

    let gap = pieces(&name, 700_000, &data[700_000..], 100_000, true);
    let error = cache.write(gap).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
    // Some of it again, which a client may think was lost.
    let rest = pieces(&name, 500_000, &data[500_000..], 70_000, true);
    assert_eq!(cache.write(rest).await.unwrap(), 900_000);
    assert_eq!(cache.get(&digest).await.unwrap(), data);
    assert_eq!(temps(&cache), 0);
}

#[tokio::test]
async fn r2_a_resumed_upload_is_taken_from_a_call_that_hangs() {
    let cache = Cache::new();
    let data = noise(1, 900_000);
    let digest = Digest::of(F, &data).unwrap();
    let name = write_name(&digest);
    let begin = pieces(&name, 0, &data[..600_000], 300_000, false);
    let hanging = stream::StreamExt::chain(stream::iter(begin), stream::pending());
    let mut client = cache.byte_stream();
    let drain = crate::drain::Drain::new();
    let hanging = drain.spawn(async move { client.write(hanging).await });
    while status(&cache, &name).await.0 < 600_000 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let rest = pieces(&name, 600_000, &data[600_000..], 100_000, true);
    assert_eq!(cache.write(rest).await.unwrap(), 900_000);
    assert_eq!(hanging.await.unwrap().unwrap_err().code(), Code::Aborted);
    assert_eq!(cache.get(&digest).await.unwrap(), data);
}

#[tokio::test]
async fn r2_beginning_again_at_zero_discards_what_was_there() {
    let cache = Cache::new();
    let data = noise(1, 600_000);
    let digest = Digest::of(F, &data).unwrap();
    let name = write_name(&digest);
    let garbage = noise(2, 400_000);
    cache
        .write(pieces(&name, 0, &garbage, 400_000, false))
        .await
        .unwrap();
    let whole = pieces(&name, 0, &data, 100_000, true);
    assert_eq!(cache.write(whole).await.unwrap(), 600_000);
    assert_eq!(temps(&cache), 0);
}

#[tokio::test]
async fn r2_compressed_writes_and_their_resumption() {
    let cache = Cache::new();
    let data = noise(1, 900_000);
    let digest = Digest::of(F, &data).unwrap();
    let name = zstd_name(&digest);
    let whole = compress::compress(&data).unwrap();
    // A frame is cut off in the middle, so what is committed is known only
    // from the status.
    let half = &whole[..whole.len() / 2];
    let committed = cache.write(pieces(&name, 0, half, 300_000, false)).await;
    let committed = committed.unwrap() as usize;
    assert!(committed > 100_000, "{committed}");
    assert_eq!(status(&cache, &name).await, (committed as i64, false));
    let rest = compress::compress(&data[committed..]).unwrap();
    let written = cache
        .write(pieces(&name, committed, &rest, 50_000, true))
        .await;
    assert_eq!(written.unwrap() as usize, committed + rest.len());
    assert_eq!(cache.get(&digest).await.unwrap(), data);

    let other = absent(5);
    let name = zstd_name(&other);
    let wrong = cache.write(pieces(&name, 0, &whole, 50_000, true)).await;
    assert_eq!(wrong.unwrap_err().code(), Code::InvalidArgument);
    let cut = cache.write(pieces(&name, 0, half, 50_000, true)).await;
    assert_eq!(cut.unwrap_err().code(), Code::InvalidArgument);
    let garbage = cache.write(pieces(&name, 0, &data[..100], 50, true)).await;
    assert_eq!(garbage.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(temps(&cache), 0);
}

#[tokio::test]
async fn r2_offsets_and_names_must_follow_from_the_last_message() {
    let cache = Cache::new();
    let data = noise(1, 1000);
    let digest = Digest::of(F, &data).unwrap();
    let name = write_name(&digest);
    let mut offset = pieces(&name, 0, &data, 400, true);
    offset[1].write_offset = 0;
    let mut renamed = pieces(&name, 0, &data, 400, true);
    renamed[1].resource_name = zstd_name(&digest);
    let mut negative = pieces(&name, 0, &data, 400, true);
    negative[0].write_offset = -1;
    for bad in [offset, renamed, negative, Vec::new()] {
        let error = cache.write(bad).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    }
    assert!(cache.is_missing(&digest).await);
}

#[tokio::test]
async fn concurrent_writers_of_one_blob_all_succeed() {
    let cache = Cache::new();
    let data = noise(1, 700_000);
    let digest = Digest::of(F, &data).unwrap();
    let writes = (0..8).map(|n| {
        let id = uuid::Uuid::new_v4();
        let name = format!("uploads/{id}/blobs/{}", digest.resource_name(F));
        let messages = pieces(&name, 0, &data, 50_000 + n, true);
        cache.write(messages)
    });
    for written in futures_util::future::join_all(writes).await {
        assert_eq!(written.unwrap(), 700_000);
    }
    assert_eq!(cache.get(&digest).await.unwrap(), data);
    assert_eq!(temps(&cache), 0);
    assert_eq!(cache.inner().store.usage(), (171 * 4096, 1));
}

#[tokio::test]
async fn r1_malformed_names_are_invalid_and_foreign_ones_not_found() {
    let cache = Cache::new();
    let digest = absent(1).resource_name(F);
    for (name, code) in [
        (format!("a//blobs/{digest}"), Code::InvalidArgument),
        ("blobs/xyz/1".into(), Code::InvalidArgument),
        ("logstream/7".into(), Code::NotFound),
    ] {
        let error = cache.read(name.clone(), 0, 0).await.unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
        let error = cache.write(pieces(&name, 0, b"x", 1, true)).await;
        assert_eq!(error.unwrap_err().code(), code);
    }
    let mut request = tonic::Request::new(bs::ReadRequest {
        resource_name: format!("blobs/{digest}"),
        ..Default::default()
    });
    let other = "other".parse().unwrap();
    let header = "build.bazel.remote.execution.v2.resource-name";
    request.metadata_mut().insert(header, other);
    let error = cache.byte_stream().read(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}
