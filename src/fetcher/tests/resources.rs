//! Limits, budgets, and nothing left behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::origin::{Origin, Step, ok, raw};
use super::*;

const WAIT: Duration = Duration::from_millis(100);

/// Waits until `done`, at most five seconds.
async fn until(done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to that");
}

fn large(path: &str) -> Vec<Step> {
    let size = 2 << 20;
    let mut steps = match path {
        "/unknown/close" => raw("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"),
        _ => raw(&format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n"
        )),
    };
    steps.push(Step::Send(vec![1; size / 2]));
    steps.push(if path == "/hang" {
        Step::Hang
    } else {
        Step::Sleep(WAIT)
    });
    steps.push(Step::Send(vec![1; size / 2]));
    steps
}

#[tokio::test]
async fn no_more_fetches_run_at_once_than_the_limit() {
    let slow = |_: &str| vec![Step::Sleep(WAIT), ok(b"x").remove(0)];
    let origin = Origin::start(slow).await;
    let rig = Rig::with(|s| s.max_concurrent = 2, FakeCache::default());
    let urls: Vec<String> = (0..6).map(|i| origin.url(&format!("/{i}"))).collect();
    let all = urls.iter().map(|u| async { rig.get(&[u.as_str()]).await });
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(origin.requests(), 6);
    assert!(origin.most.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn waiting_for_a_turn_is_part_of_the_time() {
    let origin = Origin::start(|_| vec![Step::Hang]).await;
    let rig = Rig::with(|s| s.max_concurrent = 1, FakeCache::default());
    let (url, mut late) = (origin.url("/1"), request(&[&origin.url("/2")]));
    late.timeout = Some(WAIT);
    let first = request(&[&url]);
    let second = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        rig.failure(&late).await
    };
    tokio::select! {
        _ = rig.fetch(&first) => panic!("it hangs"),
        (failure, _, message) = second => {
            assert_eq!(failure, Failure::TimedOut);
            assert!(message.contains("turn"), "{message}");
        }
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn t3_a_dropped_fetch_leaves_no_file_connection_or_slot() {
    let origin = Origin::start(large).await;
    let rig = Rig::with(|s| s.max_concurrent = 1, FakeCache::default());
    let hang = request(&[&origin.url("/hang")]);
    for _ in 0..3 {
        let fetch = rig.fetch(&hang);
        tokio::select! {
            _ = fetch => panic!("it hangs"),
            () = until(|| rig.open_files() == 1) => {}
        }
        until(|| rig.open_files() == 0 && origin.open.load(Ordering::SeqCst) == 0).await;
    }
    rig.get(&[&origin.url("/fine")]).await.unwrap();
}

#[tokio::test]
async fn small_bodies_go_to_disk_when_the_memory_is_used_up() {
    let origin = Origin::start(|_| ok(b"small")).await;
    let rig = Rig::with(|_| {}, FakeCache::default());
    let all = rig.fetcher.clone();
    let taken = all.occupy_memory().unwrap();
    rig.get(&[&origin.url("/1")]).await.unwrap();
    assert_eq!(rig.cache.streamed.load(Ordering::SeqCst), 1);
    drop(taken);
    rig.cache.blobs.lock().clear();
    rig.get(&[&origin.url("/2")]).await.unwrap();
    assert_eq!(rig.cache.small.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn temporary_files_keep_to_their_budget() {
    let origin = Origin::start(large).await;
    let tight = |s: &mut Settings| s.spool_size = 3 << 20;
    let rig = Rig::with(tight, FakeCache::default());
    // Of known length: one after another.
    let urls: Vec<String> = (0..3).map(|i| origin.url(&format!("/{i}"))).collect();
    let all = urls.iter().map(|u| async { rig.get(&[u.as_str()]).await });
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    // More than there ever is.
    let tight = |s: &mut Settings| s.spool_size = 1 << 20;
    let rig = Rig::with(tight, FakeCache::default());
    for path in ["/known", "/unknown/close"] {
        let error = rig.get(&[&origin.url(path)]).await.unwrap_err();
        assert!(
            matches!(&error, FetchError::NoRoom(m) if m.contains("fetch.spool_size")),
            "{error}"
        );
    }
    assert_eq!(rig.open_files(), 0);
}

#[tokio::test]
async fn a_spool_that_cannot_be_written_is_our_own_failure() {
    let origin = Origin::start(large).await;
    let rig = Rig::new();
    std::fs::remove_dir(rig.dir.path()).unwrap();
    std::fs::write(rig.dir.path(), "in its place").unwrap();
    let error = rig.get(&[&origin.url("/1"), &origin.url("/2")]).await;
    std::fs::remove_file(rig.dir.path()).unwrap();
    let error = error.unwrap_err();
    assert!(
        matches!(&error, FetchError::Internal(m) if m.contains("cannot keep")),
        "{error}"
    );
    assert_eq!(origin.requests(), 1, "another mirror would not help");
}

#[test]
fn a_full_disk_is_no_room_and_says_where() {
    use crate::fetcher::receive::Stop;
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    match Stop::from(full) {
        Stop::Fatal(FetchError::NoRoom(m)) => {
            assert!(
                m.contains("fetch.spool_dir") && !m.contains("os error"),
                "{m}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_upload_the_cache_refuses_is_the_caches_answer() {
    let origin = Origin::start(large).await;
    let cache = FakeCache {
        refuses_writes: true,
        ..FakeCache::default()
    };
    let rig = Rig::with(|_| {}, cache);
    let error = rig.get(&[&origin.url("/1"), &origin.url("/2")]).await;
    let code = match error.unwrap_err() {
        FetchError::Upstream(error) => error.code(),
        other => panic!("{other}"),
    };
    assert_eq!(code, Some(tonic::Code::ResourceExhausted));
    assert_eq!((origin.requests(), rig.open_files()), (1, 0));
}

#[tokio::test]
async fn h1_content_the_cache_acknowledged_and_dropped_is_no_answer() {
    let origin = Origin::start(|path| match path {
        "/small" => ok(b"small"),
        _ => large(path),
    })
    .await;
    let cache = FakeCache {
        forgets: true,
        ..FakeCache::default()
    };
    let rig = Rig::with(|_| {}, cache);
    for path in ["/small", "/large"] {
        let error = rig.get(&[&origin.url(path)]).await.unwrap_err();
        assert!(error.to_string().contains("does not have it"), "{error}");
    }
}
