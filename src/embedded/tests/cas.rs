//! FindMissing and the batches.

use super::*;

fn zstd_update(digest: &Digest, data: &[u8]) -> rev2::batch_update_blobs_request::Request {
    rev2::batch_update_blobs_request::Request {
        compressor: rev2::compressor::Value::Zstd.into(),
        ..identity(digest, &compress::compress(data).unwrap())
    }
}

async fn batch_read(
    cache: &Cache,
    digests: &[&Digest],
    zstd: bool,
) -> Result<Vec<rev2::batch_read_blobs_response::Response>, Status> {
    let compressors = [rev2::compressor::Value::Zstd.into()];
    let request = rev2::BatchReadBlobsRequest {
        digests: digests.iter().map(|d| d.to_wire()).collect(),
        acceptable_compressors: compressors[..usize::from(zstd)].to_vec(),
        ..Default::default()
    };
    let response = cache.cas().batch_read_blobs(request).await?;
    Ok(response.into_inner().responses)
}

/// R5.
#[tokio::test]
async fn r5_find_missing_compares_hash_and_size() {
    let cache = Cache::new();
    let here = cache.put(b"here").await;
    let longer = Digest::new(F, here.hash(), 5).unwrap();
    let gone = absent(1);
    let empty = Digest::of(F, b"").unwrap();
    let false_empty = Digest::new(F, here.hash(), 0).unwrap();
    let all = [&here, &longer, &gone, &empty, &false_empty];
    let missing = cache.missing(&all).await;
    let want = [longer.to_wire(), gone.to_wire(), false_empty.to_wire()];
    assert_eq!(missing, want);
    assert!(cache.missing(&[]).await.is_empty());
}

#[tokio::test]
async fn malformed_requests_are_refused_with_the_field() {
    use tonic_types::StatusExt;
    let cache = Cache::new();
    let digest = absent(1).to_wire();
    let bad = |change: fn(&mut rev2::FindMissingBlobsRequest)| {
        let mut request = rev2::FindMissingBlobsRequest {
            blob_digests: vec![digest.clone()],
            ..Default::default()
        };
        change(&mut request);
        let mut cas = cache.cas();
        async move { cas.find_missing_blobs(request).await.unwrap_err() }
    };
    for (error, field) in [
        (
            bad(|r| r.instance_name = "a//b".into()).await,
            "instance_name",
        ),
        (bad(|r| r.digest_function = 99).await, "digest_function"),
        (bad(|r| r.digest_function = 4).await, "digest_function"),
        (
            bad(|r| r.blob_digests[0].size_bytes = -1).await,
            "blob_digests",
        ),
        (
            bad(|r| r.blob_digests[0].hash = "AB".repeat(32)).await,
            "blob_digests",
        ),
        (
            bad(|r| r.blob_digests[0].hash = "abc".into()).await,
            "digest.hash",
        ),
    ] {
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
        let details = error.get_details_bad_request().unwrap();
        assert_eq!(details.field_violations[0].field, field);
    }
}

/// R6.
#[tokio::test]
async fn r6_batches_have_a_status_per_blob() {
    let cache = Cache::new();
    let (one, two, empty) = (noise(1, 5000), noise(2, 3000), Vec::new());
    let digests = [&one, &two, &empty].map(|d| Digest::of(F, d).unwrap());
    let wrong = absent(9);
    let cut = compress::compress(&one).unwrap();
    let mut cut_update = zstd_update(&wrong, b"");
    cut_update.data = cut[..cut.len() / 2].to_vec().into();
    let mut unknown = identity(&wrong, b"x");
    unknown.compressor = 2;
    let statuses = cache
        .update(vec![
            identity(&digests[0], &one),
            zstd_update(&digests[1], &two),
            identity(&digests[2], &empty),
            identity(&wrong, b"something else"),
            zstd_update(&wrong, &one),
            cut_update,
            unknown,
        ])
        .await;
    let (ok, bad) = (Code::Ok, Code::InvalidArgument);
    assert_eq!(statuses.unwrap(), [ok, ok, ok, bad, bad, bad, bad]);
    assert!(cache.is_missing(&wrong).await);

    let all = [&digests[0], &digests[1], &digests[2], &wrong];
    for zstd in [false, true] {
        let read = batch_read(&cache, &all, zstd).await.unwrap();
        for (n, want) in [&one, &two, &empty].into_iter().enumerate() {
            let is_zstd = read[n].compressor == 1;
            assert_eq!(is_zstd, zstd && want.len() > 256);
            let data = match is_zstd {
                true => compress::decompress(&read[n].data, want.len()).unwrap(),
                false => read[n].data.to_vec(),
            };
            assert_eq!(data, *want);
            assert_eq!(read[n].status.as_ref().unwrap().code, 0);
            assert_eq!(read[n].digest, Some(digests[n].to_wire()));
        }
        let status = read[3].status.as_ref().unwrap();
        assert_eq!(status.code, i32::from(Code::NotFound));
    }
}

#[tokio::test]
async fn r6_a_batch_over_the_limit_is_refused_whole() {
    let cache = Cache::new();
    let large = noise(1, 3 << 20);
    let digest = Digest::of(F, &large).unwrap();
    let twice = vec![identity(&digest, &large), identity(&digest, &large)];
    let error = cache.update(twice).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(cache.is_missing(&digest).await);

    cache.put(&large).await;
    let error = batch_read(&cache, &[&digest, &digest], false).await;
    assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
    // A small message that claims to unpack to a large blob.
    let huge = Digest::new(F, digest.hash(), 1 << 40).unwrap();
    let statuses = cache.update(vec![zstd_update(&huge, b"x")]).await.unwrap();
    assert_eq!(statuses, [Code::InvalidArgument]);
    // What counts is what comes out, not what is sent.
    let zeros = vec![0; 3 << 20];
    let digest = Digest::of(F, &zeros).unwrap();
    let zstd = || zstd_update(&digest, &zeros);
    let error = cache.update(vec![zstd(), zstd()]).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(cache.update(vec![zstd()]).await.unwrap(), [Code::Ok]);
}

/// R4.
#[tokio::test]
async fn r4_split_and_splice_are_unimplemented() {
    let cache = Cache::new();
    let mut cas = cache.cas();
    let split = cas.split_blob(rev2::SplitBlobRequest::default());
    assert_eq!(split.await.unwrap_err().code(), Code::Unimplemented);
    let splice = cas.splice_blob(rev2::SpliceBlobRequest::default());
    assert_eq!(splice.await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_blob_damaged_on_disk_is_not_served() {
    let cache = Cache::new();
    for damage in [0, 3, 100] {
        let digest = cache.put(b"some content").await;
        std::fs::write(cache.path(&digest), vec![b'x'; damage]).unwrap();
        assert_eq!(cache.get(&digest).await.unwrap_err().code(), Code::NotFound);
        assert!(cache.is_missing(&digest).await);
        assert!(!cache.path(&digest).exists());
        cache.put(b"some content").await;
        assert_eq!(cache.get(&digest).await.unwrap(), b"some content");
        std::fs::remove_file(cache.path(&digest)).unwrap();
        let read = batch_read(&cache, &[&digest], false).await.unwrap();
        assert_eq!(read[0].status.as_ref().unwrap().code, 5);
        assert!(cache.is_missing(&digest).await);
    }
}
