//! Uploads that stream.

mod compressed;

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;

use super::*;
use crate::digest::{DigestFunction, InstanceName};
use crate::upstream::double::{Double, scope, sha256};

fn chunks(data: &[u8], size: usize) -> Vec<io::Result<Bytes>> {
    data.chunks(size)
        .map(|c| Ok(Bytes::copy_from_slice(c)))
        .collect()
}

#[test]
fn resource_names_follow_the_protocol() {
    let digest = Digest::new(DigestFunction::Blake3, &"ab".repeat(32), 7).unwrap();
    let scope = Scope::new(InstanceName::new("a/b").unwrap(), DigestFunction::Blake3);
    let name = write_name(&scope, &digest, "blobs");
    let rest = name.strip_prefix("a/b/uploads/").unwrap();
    let (uuid, rest) = rest.split_once('/').unwrap();
    assert_eq!(uuid::Uuid::parse_str(uuid).unwrap().get_version_num(), 4);
    assert_eq!(rest, format!("blobs/blake3/{}/7", "ab".repeat(32)));
}

#[tokio::test]
async fn content_of_any_chunking_arrives() {
    let double = Double::new();
    let cache = double.cache();
    let data: Vec<u8> = (0..700_000u32).map(|i| (i % 251) as u8).collect();
    for size in [1_000, 65_536, 300_000, 700_000] {
        let content = stream::iter(chunks(&data, size));
        cache
            .write_stream(&CallContext::default(), &scope(), &sha256(&data), content)
            .await
            .unwrap();
        double.evict(&sha256(&data));
    }
}

#[tokio::test]
async fn a_source_that_fails_or_lies_leaves_nothing_behind() {
    let double = Double::new();
    let cache = double.cache();
    let data = vec![7u8; 300_000];
    let digest = sha256(&data);
    let broken = || Err(io::Error::other("checksum mismatch"));
    let mut held_back = chunks(&data, 100_000);
    held_back.push(broken());
    let mut early = chunks(&data[..200_000], 100_000);
    early.push(broken());
    let mut long = chunks(&data, 100_000);
    long.push(Ok(Bytes::from_static(b"x")));
    let cases = [
        (held_back, "checksum mismatch"),
        (early, "checksum mismatch"),
        (chunks(&data[..299_999], 100_000), "299999 of 300000"),
        (long, "longer than 300000"),
    ];
    for (content, want) in cases {
        let error = cache
            .write_stream(
                &CallContext::default(),
                &scope(),
                &digest,
                stream::iter(content),
            )
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Source(_)), "{error}");
        assert!(error.to_string().contains(want), "{error}");
        assert!(!double.has(&digest));
    }
}

#[tokio::test]
async fn an_early_answer_ends_the_upload() {
    ends_early(&Double::new()).await;
}

/// An upload without end, which the cache ends.
async fn ends_early(double: &Double) {
    double.set(|s| s.early_success = true);
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = taken.clone();
    let endless = stream::repeat_with(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(Bytes::from_static(&[0; 65_536]))
    });
    let digest = Digest::new(DigestFunction::Sha256, &"0".repeat(64), 1 << 40).unwrap();
    double
        .cache()
        .write_stream(&CallContext::default(), &scope(), &digest, endless)
        .await
        .unwrap();
    assert!(taken.load(Ordering::Relaxed) < 100);
}

#[tokio::test]
async fn the_empty_blob_is_never_uploaded() {
    let double = Double::new();
    double
        .cache()
        .write_stream(
            &CallContext::default(),
            &scope(),
            &sha256(b""),
            stream::empty(),
        )
        .await
        .unwrap();
    assert_eq!(double.take_log(), Vec::<String>::new());
}

/// A cache that answers nothing, or only the head.
fn hanging(head: bool) -> Cache {
    let service = tower::service_fn(move |_: http::Request<tonic::body::Body>| async move {
        if !head {
            std::future::pending::<()>().await;
        }
        let never = stream::pending::<Result<http_body::Frame<Bytes>, tonic::Status>>();
        let body = tonic::body::Body::new(http_body_util::StreamBody::new(never));
        let answer = http::Response::builder().header("content-type", "application/grpc");
        Ok::<_, tower::BoxError>(answer.body(body).unwrap())
    });
    Cache::new(crate::upstream::Upstream::new(service))
}

fn assert_stalled(error: Error, method: &str) {
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("nothing moved for 120 s"), "{text}");
    assert!(text.contains(method), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_hangs_is_given_up() {
    let scope = scope();
    let context = CallContext::default();
    let digest = sha256(&[7; 300_000]);
    for head in [false, true] {
        let cache = hanging(head).without_zstd();
        let read = cache.read_whole(&context, &scope, &digest).await;
        assert_stalled(read.unwrap_err(), READ);
        let content = stream::iter(chunks(&[7; 300_000], 100_000));
        let write = cache.write_stream(&context, &scope, &digest, content);
        assert_stalled(write.await.unwrap_err(), WRITE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_may_take_longer_than_a_cache() {
    let double = Double::new();
    let data = vec![7u8; 300_000];
    let content = stream::iter(chunks(&data, 100_000)).then(|piece| async {
        tokio::time::sleep(STALL * 3).await;
        piece
    });
    double
        .cache()
        .write_stream(&CallContext::default(), &scope(), &sha256(&data), content)
        .await
        .unwrap();
    assert!(double.has(&sha256(&data)));
}
