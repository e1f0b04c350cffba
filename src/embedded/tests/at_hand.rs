//! Entries that a caller in this process gets from memory.

use super::*;
use crate::digest::{InstanceName, Scope};
use rev2::{ActionResult, OutputDirectory, OutputFile};

fn scope(instance: &str) -> Scope {
    Scope::new(InstanceName::new(instance).unwrap(), F)
}

fn at_hand(cache: &Cache, instance: &str, action: &Digest) -> Option<ActionResult> {
    let embedded = cache.embedded.as_ref().unwrap();
    embedded.entry_at_hand(&scope(instance), action)
}

async fn update(cache: &Cache, action: &Digest, result: &ActionResult) {
    let request = rev2::UpdateActionResultRequest {
        action_digest: Some(action.to_wire()),
        action_result: Some(result.clone()),
        ..Default::default()
    };
    cache.actions().update_action_result(request).await.unwrap();
}

async fn get(cache: &Cache, action: &Digest) -> Result<ActionResult, Status> {
    let request = rev2::GetActionResultRequest {
        action_digest: Some(action.to_wire()),
        ..Default::default()
    };
    let answer = cache.actions().get_action_result(request).await;
    answer.map(tonic::Response::into_inner)
}

fn of_file(digest: &Digest, exit_code: i32) -> ActionResult {
    ActionResult {
        output_files: vec![OutputFile {
            path: "out".into(),
            digest: Some(digest.to_wire()),
            ..Default::default()
        }],
        exit_code,
        ..Default::default()
    }
}

#[tokio::test]
async fn what_was_read_is_at_hand_until_it_is_written_again() {
    let cache = Cache::new();
    let file = cache.put(b"file").await;
    let action = absent(1);
    update(&cache, &action, &of_file(&file, 1)).await;
    assert_eq!(at_hand(&cache, "", &action), None, "nobody has read it");
    assert_eq!(get(&cache, &action).await.unwrap(), of_file(&file, 1));
    assert_eq!(at_hand(&cache, "", &action), Some(of_file(&file, 1)));
    assert_eq!(at_hand(&cache, "other", &action), None);
    update(&cache, &action, &of_file(&file, 2)).await;
    let seen = at_hand(&cache, "", &action);
    assert!(seen.is_none_or(|seen| seen == of_file(&file, 2)));
    assert_eq!(get(&cache, &action).await.unwrap(), of_file(&file, 2));
    assert_eq!(at_hand(&cache, "", &action), Some(of_file(&file, 2)));
}

#[tokio::test]
async fn an_entry_read_before_a_write_is_not_kept_after_it() {
    let cache = Cache::new();
    let file = cache.put(b"file").await;
    let action = absent(1);
    update(&cache, &action, &of_file(&file, 1)).await;
    let store = &cache.inner().store;
    let key = key::Key::action(&InstanceName::default(), F, &action);
    let writes = store.recent.writes();
    let (read, _) = action::read(store, &key).unwrap();
    update(&cache, &action, &of_file(&file, 2)).await;
    store.recent.keep(key, F, &read, writes);
    assert_eq!(at_hand(&cache, "", &action), None);
}

#[tokio::test]
async fn an_entry_whose_content_is_gone_is_not_at_hand() {
    let cache = Cache::of_size(1 << 20);
    let file = cache.put(b"file").await;
    let action = absent(1);
    update(&cache, &action, &of_file(&file, 1)).await;
    get(&cache, &action).await.unwrap();
    // Fills the cache; entry and file are the least recently used.
    for n in 0..300 {
        cache.put(&noise(n, 4096)).await;
    }
    assert!(cache.is_missing(&file).await);
    assert_eq!(at_hand(&cache, "", &action), None);
    // The file alone.
    cache.put(b"file").await;
    assert_eq!(at_hand(&cache, "", &action), None, "the entry is gone too");
}

#[tokio::test]
async fn a_use_at_hand_is_a_use() {
    let cache = Cache::of_size(1 << 20);
    let file = cache.put(b"file").await;
    let action = absent(1);
    update(&cache, &action, &of_file(&file, 1)).await;
    get(&cache, &action).await.unwrap();
    for n in 0..300 {
        cache.put(&noise(n, 4096)).await;
        assert!(at_hand(&cache, "", &action).is_some(), "after {n} blobs");
    }
    assert!(!cache.is_missing(&file).await);
    assert_eq!(get(&cache, &action).await.unwrap(), of_file(&file, 1));
}

#[tokio::test]
async fn entries_that_take_more_than_a_look_are_not_kept() {
    let cache = Cache::new();
    let file = cache.put(b"file").await;
    let tree = cache.put_message(&rev2::Tree::default()).await;
    let mut with_tree = of_file(&file, 1);
    with_tree.output_directories = vec![OutputDirectory {
        path: "dir".into(),
        tree_digest: Some(tree.to_wire()),
        ..Default::default()
    }];
    let mut large = of_file(&file, 1);
    large.stdout_raw = noise(1, 5000).into();
    for (n, result) in [with_tree, large].iter().enumerate() {
        let action = absent(n as u32);
        update(&cache, &action, result).await;
        assert_eq!(get(&cache, &action).await.unwrap(), *result);
        assert_eq!(at_hand(&cache, "", &action), None, "{n}");
    }
}

#[tokio::test]
async fn whoever_asks_does_not_wait_for_a_look_at_the_file() {
    let cache = Cache::new();
    let file = cache.put(b"file").await;
    let action = absent(1);
    update(&cache, &action, &of_file(&file, 1)).await;
    get(&cache, &action).await.unwrap();
    let key = key::Key::blob(F, &file);
    let looked_before = |seconds| {
        let then = index::now() - seconds;
        cache.inner().store.index.lock().looked(&key, then);
    };
    looked_before(10);
    assert!(at_hand(&cache, "", &action).is_some(), "it waited");
    std::fs::remove_file(cache.path(&file)).unwrap();
    looked_before(10);
    let mut answers = 0;
    while at_hand(&cache, "", &action).is_some() {
        answers += 1;
        assert!(answers < 1000, "the file was never looked at");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(cache.is_missing(&file).await);
    // Nobody looked for long: then it takes more than memory.
    cache.put(b"file").await;
    looked_before(1000);
    assert_eq!(at_hand(&cache, "", &action), None);
    assert_eq!(get(&cache, &action).await.unwrap(), of_file(&file, 1));
    assert!(at_hand(&cache, "", &action).is_some());
}
