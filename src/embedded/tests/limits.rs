//! The bound on disk space, eviction, and a full disk.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::call::ConnectionId;

fn name(digest: &Digest) -> String {
    let id = uuid::Uuid::new_v4();
    format!("uploads/{id}/blobs/{}", digest.resource_name(F))
}

fn part(name: &str, offset: usize, data: &[u8], finish_write: bool) -> bs::WriteRequest {
    bs::WriteRequest {
        resource_name: name.into(),
        write_offset: offset as i64,
        finish_write,
        data: data.to_vec().into(),
    }
}

fn files(cache: &Cache) -> u64 {
    fn walk(dir: &std::path::Path) -> u64 {
        let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
        let sizes = entries.map(|e| match e.file_type().unwrap().is_dir() {
            true => walk(&e.path()),
            false => index::blocks(e.metadata().unwrap().len()) * index::BLOCK,
        });
        sizes.sum()
    }
    ["cas", "ac", "tmp"]
        .map(|d| walk(&cache.dir.path().join(d)))
        .iter()
        .sum()
}

#[tokio::test]
async fn the_least_recently_used_blobs_go_and_the_bound_holds_on_disk() {
    let cache = Cache::of_size(100 * 4096);
    let kept = cache.put(&noise(0, 100)).await;
    let mut last = kept.clone();
    for n in 1..300 {
        last = cache.put(&noise(n, 5000)).await;
        assert!(!cache.is_missing(&kept).await, "FindMissing is a use");
        let (bytes, _) = cache.inner().store.usage();
        assert!(bytes <= cache.max_size);
        if n % 50 == 0 {
            assert_eq!(files(&cache), bytes);
        }
    }
    let first = Digest::of(F, &noise(1, 5000)).unwrap();
    assert!(cache.is_missing(&first).await);
    assert_eq!(cache.get(&first).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(cache.get(&last).await.unwrap(), noise(299, 5000));
}

#[tokio::test]
async fn an_open_reader_goes_on_when_its_blob_is_evicted() {
    let cache = Cache::of_size(300 * 4096);
    let data = noise(1, 1_000_000);
    let digest = cache.put(&data).await;
    let request = bs::ReadRequest {
        resource_name: format!("blobs/{}", digest.resource_name(F)),
        ..Default::default()
    };
    let mut stream = cache
        .byte_stream()
        .read(request)
        .await
        .unwrap()
        .into_inner();
    let mut got = stream.message().await.unwrap().unwrap().data.to_vec();
    for n in 0..70 {
        cache.put(&noise(100 + n, 16_000)).await;
    }
    assert!(cache.is_missing(&digest).await);
    while let Some(message) = stream.message().await.unwrap() {
        got.extend_from_slice(&message.data);
    }
    assert!(got == data);
}

#[tokio::test]
async fn a_blob_larger_than_the_cache_is_refused_and_evicts_nothing() {
    let cache = Cache::of_size(64 << 10);
    let kept = cache.put(b"kept").await;
    let large = noise(1, 100_000);
    let digest = Digest::of(F, &large).unwrap();
    let error = cache
        .write(vec![part(&name(&digest), 0, &large, true)])
        .await;
    assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
    let statuses = cache.update(vec![identity(&digest, &large)]).await.unwrap();
    assert_eq!(statuses, [Code::InvalidArgument]);
    assert!(!cache.is_missing(&kept).await);
}

#[tokio::test]
async fn an_upload_counts_as_it_arrives_and_idle_ones_give_way() {
    let cache = Cache::of_size(500 * 4096);
    let kept = cache.put(b"kept").await;
    let data = noise(1, 490 * 4096);
    let digest = Digest::of(F, &data).unwrap();
    // Announced, and only a little sent: nothing is evicted for it.
    let begun = vec![part(&name(&digest), 0, &data[..100], false)];
    assert_eq!(cache.write(begun).await.unwrap(), 100);
    assert_eq!(cache.inner().store.usage(), (2 * 4096, 1));
    assert!(!cache.is_missing(&kept).await);

    // Two unfinished uploads hold 240 blocks; what needs their room gets it.
    let half = 120 * 4096;
    for _ in 0..2 {
        cache
            .write(vec![part(&name(&digest), 0, &data[..half], false)])
            .await
            .unwrap();
    }
    let whole = vec![part(&name(&digest), 0, &data, true)];
    assert_eq!(cache.write(whole).await.unwrap(), data.len() as i64);
    assert_eq!(files(&cache), cache.inner().store.usage().0);
    assert!(cache.inner().store.usage().0 <= cache.max_size);
}

#[tokio::test]
async fn idle_uploads_are_bounded() {
    let cache = Cache::of_size(400 * 4096);
    let data = noise(1, 300 * 4096);
    let digest = Digest::of(F, &data).unwrap();
    let quarter = 60 * 4096;
    for _ in 0..5 {
        cache
            .write(vec![part(&name(&digest), 0, &data[..quarter], false)])
            .await
            .unwrap();
    }
    cache.inner().uploads.prune();
    let bytes = cache.inner().store.usage().0;
    assert!(bytes <= cache.max_size / 4, "{bytes}");
}

#[tokio::test]
async fn idle_uploads_are_few_as_each_holds_a_file() {
    let cache = Cache::new();
    let digest = Digest::of(F, &noise(1, 300)).unwrap();
    for _ in 0..300 {
        let begun = vec![part(&name(&digest), 0, &noise(1, 100), false)];
        assert_eq!(cache.write(begun).await.unwrap(), 100);
    }
    cache.inner().uploads.prune();
    assert_eq!(cache.inner().store.usage(), (256 * 4096, 0));
}

#[tokio::test]
async fn idle_uploads_make_room_on_a_full_disk() {
    let cache = Cache::new();
    let digest = Digest::of(F, &noise(1, 300)).unwrap();
    let begun = vec![part(&name(&digest), 0, &noise(1, 100), false)];
    assert_eq!(cache.write(begun).await.unwrap(), 100);
    assert_eq!(files(&cache), 4096);
    cache.inner().store.disk.full.store(true, Ordering::Relaxed);
    let statuses = cache.update(vec![identity(&digest, &noise(1, 300))]).await;
    assert_eq!(statuses.unwrap(), [Code::ResourceExhausted]);
    assert_eq!(files(&cache), 0);
}

#[tokio::test]
async fn a_full_disk_is_an_error_to_the_writer_and_reads_go_on() {
    let cache = Cache::new();
    let kept = cache.put(b"kept").await;
    let full = &cache.inner().store.disk.full;
    full.store(true, Ordering::Relaxed);
    let data = noise(1, 600_000);
    let digest = Digest::of(F, &data).unwrap();
    let statuses = cache.update(vec![identity(&digest, &data)]).await.unwrap();
    assert_eq!(statuses, [Code::ResourceExhausted]);
    let error = cache
        .write(vec![part(&name(&digest), 0, &data, true)])
        .await;
    assert_eq!(error.unwrap_err().code(), Code::ResourceExhausted);
    let update = rev2::UpdateActionResultRequest {
        action_digest: Some(digest.to_wire()),
        action_result: Some(rev2::ActionResult::default()),
        ..Default::default()
    };
    let error = cache.actions().update_action_result(update).await;
    assert_eq!(error.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(cache.get(&kept).await.unwrap(), b"kept");
    assert_eq!(
        cache.inner().store.usage(),
        (4096, 1),
        "nothing is left behind"
    );

    full.store(false, Ordering::Relaxed);
    let written = cache
        .write(vec![part(&name(&digest), 0, &data, true)])
        .await;
    assert_eq!(written.unwrap(), 600_000);
}

#[tokio::test]
async fn the_disk_becoming_full_in_mid_upload_stores_nothing() {
    let cache = Cache::new();
    let data = noise(1, 600_000);
    let digest = Digest::of(F, &data).unwrap();
    let name = name(&digest);
    cache
        .write(vec![part(&name, 0, &data[..400_000], false)])
        .await
        .unwrap();
    cache.inner().store.disk.full.store(true, Ordering::Relaxed);
    let error = cache
        .write(vec![part(&name, 400_000, &data[400_000..], true)])
        .await;
    assert_eq!(error.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(cache.inner().store.usage(), (0, 0));
    assert_eq!(files(&cache), 0);
}

/// An upload that sends so many bytes every so often: what became of it, and
/// when.
async fn trickle(cache: &Cache, piece: usize, every: u64) -> (Result<i64, Status>, u64) {
    let data = noise(1, 600_000);
    let digest = Digest::of(F, &data).unwrap();
    let name = name(&digest);
    let begun = tokio::time::Instant::now();
    let messages = futures_util::stream::unfold(0, move |sent| {
        let end = data.len().min(sent + piece);
        let next = (sent < end).then(|| part(&name, sent, &data[sent..end], end == data.len()));
        async move {
            if sent > 0 {
                tokio::time::sleep(Duration::from_secs(every)).await;
            }
            Some((next?, end))
        }
    });
    let mut client = cache.byte_stream();
    let call = client.write(messages);
    let call = tokio::time::timeout(Duration::from_secs(36_000), call).await;
    let written = call
        .expect("it ends")
        .map(|r| r.into_inner().committed_size);
    (written, begun.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_does_not_get_on_ends_and_gives_its_room_back() {
    let cache = Cache::new();
    // Something comes all the time, but too little.
    let (slow, seconds) = trickle(&cache, 1000, 10).await;
    assert_eq!(slow.unwrap_err().code(), Code::DeadlineExceeded);
    assert!((120..=241).contains(&seconds), "after {seconds} s");
    assert_eq!(cache.inner().store.usage(), (0, 0));
    assert_eq!(files(&cache), 0);
    // Just enough, for longer than that.
    let (enough, seconds) = trickle(&cache, 20_000, 100).await;
    assert_eq!(enough.unwrap(), 600_000);
    assert!(seconds > 1000, "after {seconds} s");
}

#[test]
fn what_waits_for_space_holds_no_thread() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let cache = Cache::of_size(400 * 4096);
        let kept = cache.put(b"kept").await;
        // All space is held by an upload that does not let go of it.
        let inner = cache.inner();
        let room = room::Room::new(ConnectionId::next(), absent(1).size());
        let upload = upload::Upload::new(&inner.store, F, &absent(1), room).unwrap();
        let stuck = inner.uploads.begin("stuck", upload).unwrap();
        let held = inner.store.reserve(399 * 4096).unwrap();
        let data = noise(2, 9000);
        let digest = Digest::of(F, &data).unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        for n in 0..16 {
            let (mut cas, mut stream) = (cache.cas(), cache.byte_stream());
            let (digest, data) = (digest.clone(), data.clone());
            waiting.spawn(async move {
                if n % 2 == 0 {
                    let request = rev2::BatchUpdateBlobsRequest {
                        requests: vec![identity(&digest, &data)],
                        ..Default::default()
                    };
                    let answer = cas.batch_update_blobs(request).await.unwrap();
                    return answer.into_inner().responses.remove(0).status.unwrap().code;
                }
                let messages = vec![part(&name(&digest), 0, &data, true)];
                let written = stream.write(futures_util::stream::iter(messages)).await;
                written.map_or_else(|status| status.code().into(), |_| 0)
            });
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = tokio::time::Instant::now();
        assert_eq!(cache.get(&kept).await.unwrap(), b"kept");
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(1), "a read waited {waited:?}");
        // All find space once there is some.
        drop((held, stuck));
        assert_eq!(waiting.join_all().await, [0; 16]);
    });
}
