//! What a directory looks like after `kill -9` or a power cut, and what is
//! made of it.

use std::fs;
use std::time::Duration;

use super::*;

async fn eventually(mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within five seconds");
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let mut cache = Cache::new();
    let small = cache.put(b"small").await;
    let large = cache.put(&noise(1, 300_000)).await;
    let update = rev2::UpdateActionResultRequest {
        action_digest: Some(small.to_wire()),
        action_result: Some(rev2::ActionResult {
            exit_code: 3,
            ..Default::default()
        }),
        ..Default::default()
    };
    cache.actions().update_action_result(update).await.unwrap();
    let before = cache.inner().store.usage();
    cache.reopen();
    eventually(async || cache.inner().store.usage() == before).await;
    assert!(cache.missing(&[&small, &large]).await.is_empty());
    assert_eq!(cache.get(&large).await.unwrap(), noise(1, 300_000));
    let request = rev2::GetActionResultRequest {
        action_digest: Some(small.to_wire()),
        ..Default::default()
    };
    let result = cache.actions().get_action_result(request).await.unwrap();
    assert_eq!(result.into_inner().exit_code, 3);
}

#[tokio::test]
async fn orphans_are_removed_and_foreign_files_left_alone() {
    let mut cache = Cache::new();
    let kept = cache.put(b"kept").await;
    let short = cache.put(&noise(1, 9000)).await;
    let zero = cache.put(&noise(2, 9000)).await;
    fs::write(cache.dir.path().join("tmp/17"), b"half a blob").unwrap();
    let foreign = cache.path(&kept).with_file_name("README");
    fs::write(&foreign, b"?").unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(cache.path(&short))
        .unwrap()
        .set_len(4096)
        .unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(cache.path(&zero))
        .unwrap()
        .set_len(0)
        .unwrap();
    cache.reopen();
    assert!(!cache.dir.path().join("tmp/17").exists());
    assert!(foreign.exists());
    assert_eq!(cache.get(&short).await.unwrap_err().code(), Code::NotFound);
    eventually(async || cache.inner().store.usage() == (4096, 1)).await;
    let missing = cache.missing(&[&kept, &short, &zero]).await;
    assert_eq!(missing, [short.to_wire(), zero.to_wire()]);
    assert!(!cache.path(&short).exists() && !cache.path(&zero).exists());
}

#[tokio::test]
async fn recency_survives_a_restart() {
    let mut cache = Cache::of_size(16 * 4096);
    let mut digests = Vec::new();
    for n in 0..4 {
        let digest = cache.put(&noise(n, 100)).await;
        digests.push(digest);
    }
    // As if written hours ago, the first used last.
    for (digest, hours) in digests.iter().zip([1, 4, 3, 2]) {
        let key = key::Key::blob(F, digest);
        let then = index::now() - hours * 3600;
        cache.inner().store.disk.touch(&key, then).unwrap();
        let file = fs::File::open(cache.path(digest)).unwrap();
        let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
        file.set_modified(long_ago).unwrap();
    }
    cache.reopen();
    // The second is used now, which must reach the disk.
    assert!(!cache.is_missing(&digests[1]).await);
    cache.reopen();
    for n in 10..24 {
        cache.put(&noise(n, 100)).await;
    }
    let missing = cache.missing(&digests.iter().collect::<Vec<_>>()).await;
    assert_eq!(missing, [digests[2].to_wire(), digests[3].to_wire()]);
}

#[tokio::test]
async fn a_lowered_bound_holds_after_the_restart() {
    let mut cache = Cache::of_size(100 * 4096);
    for n in 0..100 {
        cache.put(&noise(n, 100)).await;
    }
    cache.max_size = 20 * 4096;
    cache.reopen();
    eventually(async || cache.inner().store.usage() == (20 * 4096, 20)).await;
}

#[tokio::test]
async fn a_second_process_on_the_directory_is_refused() {
    let cache = Cache::new();
    let error = Embedded::open(cache.settings()).unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    assert!(
        error.contains(&format!("pid {}", std::process::id())),
        "{error}"
    );
}

#[tokio::test]
async fn a_lock_file_left_by_a_killed_process_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("lock"), "pid 1\n").unwrap();
    let settings = Settings {
        dir: dir.path().to_owned(),
        max_size: 1 << 20,
    };
    Embedded::open(settings).unwrap();
}

#[test]
fn a_cache_of_no_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        dir: dir.path().to_owned(),
        max_size: 1000,
    };
    let error = Embedded::open(settings).unwrap_err();
    assert!(matches!(error, Error::TooSmall(1000)), "{error}");
}

/// After a power cut a file may have its size and not its content.
#[tokio::test]
async fn after_a_power_cut_blobs_are_verified_before_they_are_served() {
    let mut cache = Cache::new();
    let good = cache.put(&noise(1, 50_000)).await;
    let damaged = cache.put(&noise(2, 50_000)).await;
    let old = cache.put(&noise(3, 50_000)).await;
    fs::write(cache.path(&damaged), vec![0; 50_000]).unwrap();
    cache.embedded = None;
    let now = index::now();
    fs::write(cache.dir.path().join("state"), format!("b {} .", now - 100)).unwrap();
    let then = std::time::UNIX_EPOCH + Duration::from_secs(u64::from(now) - 1000);
    let file = fs::File::open(cache.path(&old)).unwrap();
    file.set_modified(then).unwrap();
    let reopened = Embedded::open_in_boot(cache.settings(), Some("b2".into()));
    cache.embedded = Some(reopened.unwrap());
    assert!(!cache.is_missing(&old).await, "synced before the cut");
    eventually(async || !cache.is_missing(&good).await).await;
    eventually(async || !cache.path(&damaged).exists()).await;
    assert!(cache.is_missing(&damaged).await);
    assert_eq!(cache.get(&good).await.unwrap(), noise(1, 50_000));
    eventually(async || cache.inner().store.usage() == (2 * 13 * 4096, 2)).await;
    let state = || fs::read_to_string(cache.dir.path().join("state")).unwrap();
    eventually(async || state().starts_with("b2 ")).await;
}

/// What could not be read was not verified: the next start must not trust it.
#[tokio::test]
async fn a_suspect_that_cannot_be_read_stays_one() {
    let mut cache = Cache::new();
    let damaged = cache.put(&noise(2, 50_000)).await;
    let path = cache.path(&damaged);
    cache.embedded = None;
    fs::write(cache.dir.path().join("state"), "b 0 .").unwrap();
    let disk = disk::Disk::open(cache.dir.path()).unwrap();
    let scan = scan::files(&disk, Some(0)).unwrap();
    assert_eq!(scan.suspects.len(), 1);
    // Unreadable while it is verified, and readable again later.
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let store = Arc::new(Store::new(disk, 1 << 30));
    let restart = durability::Restart {
        state: State::read(cache.dir.path()),
        boot: Some("b2".into()),
        suspects: scan.suspects,
        by_name: false,
    };
    let maintenance = Maintenance::start(Arc::clone(&store), restart, || {}).unwrap();
    eventually(async || store.usage().0 == 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(maintenance);
    drop(store);
    let state = fs::read_to_string(cache.dir.path().join("state")).unwrap();
    assert!(state.starts_with("b "), "{state}");
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![0; 50_000]).unwrap();
    let reopened = Embedded::open_in_boot(cache.settings(), Some("b2".into()));
    cache.embedded = Some(reopened.unwrap());
    assert!(cache.is_missing(&damaged).await);
}

/// Within one boot nothing was lost, so nothing is verified or withheld.
#[tokio::test]
async fn after_a_kill_nothing_is_withheld() {
    let mut cache = Cache::new();
    let mut digests = Vec::new();
    for n in 0..50 {
        digests.push(cache.put(&noise(n, 5000)).await);
    }
    cache.reopen();
    let all: Vec<_> = digests.iter().collect();
    assert!(cache.missing(&all).await.is_empty());
}

/// The start with 5,000 blobs; `ASSETGATE_CACHE_DIR` names a directory with
/// as many as one likes, to measure time and memory.
#[test]
fn a_start_is_quick() {
    let dir = tempfile::tempdir().unwrap();
    let given = std::env::var_os("ASSETGATE_CACHE_DIR").map(PathBuf::from);
    let settings = Settings {
        dir: given.clone().unwrap_or(dir.path().to_owned()),
        max_size: 1 << 40,
    };
    if given.is_none() {
        let cache = Embedded::open(settings.clone()).unwrap();
        for n in 0..5_000u32 {
            let data = n.to_be_bytes();
            let digest = Digest::of(F, &data).unwrap();
            upload::store_blob(&cache.0.store, F, &digest, &data).unwrap();
        }
    }
    let before = resident();
    let begin = tokio::time::Instant::now();
    let cache = Embedded::open(settings).unwrap();
    let took = begin.elapsed();
    let blobs = cache.0.store.usage().1;
    let grown = resident().saturating_sub(before) / blobs as u64;
    println!("{blobs} blobs: start {took:?}, {grown} resident bytes a blob");
    assert!(blobs >= 5_000);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|p| p.parse().ok());
    pages.unwrap_or(0u64) * 4096
}
