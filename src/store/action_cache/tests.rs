//! Push and fetch of references over a cache that misbehaves on demand.

mod explaining;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message as _;

use super::*;
use crate::asset::{AssetKind, KeySpace, Qualifiers, Source, Uri, Validators};
use crate::digest::{Digest, DigestFunction};
use crate::proto::rev2;
use crate::upstream::double::{Double, scope, sha256};

pub(in crate::store) fn ctx() -> CallContext {
    CallContext::default()
}

fn store(double: &Double) -> ActionCacheStore {
    ActionCacheStore::new(
        double.cache(),
        ReferenceSettings::default(),
        Probes::default(),
    )
}

pub(in crate::store) fn key(kind: AssetKind, uri: &str) -> AssetKey {
    AssetKey {
        scope: scope(),
        kind,
        space: KeySpace::Exact {
            uri: Uri::new(uri.to_owned()),
            qualifiers: Qualifiers::default(),
        },
    }
}

pub(in crate::store) fn reference(kind: AssetKind, digest: &Digest) -> AssetReference {
    AssetReference {
        kind,
        digest: digest.clone(),
        uri: "urn:a".to_owned(),
        qualifiers: Qualifiers::default(),
        content_time: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        expire_at: None,
        source: Source::Push,
        validators: Validators::default(),
        verified: Vec::new(),
        signed_at: None,
        referenced_blobs: Vec::new(),
        referenced_directories: Vec::new(),
    }
}

pub(in crate::store) fn dir(double: &Double, files: &[&Digest], dirs: &[&Digest]) -> Digest {
    let files = files.iter().enumerate().map(|(i, d)| rev2::FileNode {
        name: format!("f{i}"),
        digest: Some(d.to_wire()),
        ..Default::default()
    });
    let dirs = dirs.iter().enumerate().map(|(i, d)| rev2::DirectoryNode {
        name: format!("d{i}"),
        digest: Some(d.to_wire()),
    });
    let message = rev2::Directory {
        files: files.collect(),
        directories: dirs.collect(),
        ..Default::default()
    };
    double.put(message.encode_to_vec())
}

/// A tree of two levels with a file on each.
pub(in crate::store) struct Sample {
    pub(in crate::store) files: [Digest; 2],
    pub(in crate::store) sub: Digest,
    pub(in crate::store) root: Digest,
}

pub(in crate::store) fn sample(double: &Double) -> Sample {
    let files = [double.put("one"), double.put("two")];
    let sub = dir(double, &[&files[1]], &[]);
    let root = dir(double, &[&files[0]], &[&sub, &sha256(b"")]);
    Sample { files, sub, root }
}

async fn get(double: &Double, key: &AssetKey) -> Lookup {
    store(double).get(&ctx(), key).await.unwrap()
}

async fn put(double: &Double, keys: &[AssetKey], reference: &AssetReference) {
    store(double).put(&ctx(), keys, reference).await.unwrap();
}

pub(in crate::store) fn hit(reference: &AssetReference) -> Lookup {
    let mut reference = reference.clone();
    reference.referenced_blobs.clear();
    reference.referenced_directories.clear();
    Lookup::Hit(Box::new(reference))
}

fn action_of(key: &AssetKey) -> String {
    encode_key("", key, key.scope.function)
        .unwrap()
        .action
        .0
        .hash()
        .to_owned()
}

pub(in crate::store) fn stored(double: &Double, key: &AssetKey) -> rev2::ActionResult {
    double.set(|s| s.entries[&action_of(key)].clone())
}

pub(in crate::store) fn tree_digest(entry: &rev2::ActionResult, path: &str) -> Digest {
    let output = entry
        .output_directories
        .iter()
        .find(|d| d.path == path)
        .unwrap();
    Digest::from_wire(DigestFunction::Sha256, output.tree_digest.as_ref()).unwrap()
}

fn pinned(double: &Double, key: &AssetKey) -> BTreeSet<Digest> {
    let pins = tree_digest(&stored(double, key), "pins");
    let tree = double.set(|s| s.blobs[&pins].clone());
    let named = super::super::tree::decode_pins(DigestFunction::Sha256, tree).unwrap();
    named.into_iter().collect()
}

#[tokio::test]
async fn a_pushed_blob_is_found_by_every_replica_under_every_key() {
    let double = Double::new();
    let blob = double.put("blob");
    let keys = [key(AssetKind::Blob, "urn:a"), key(AssetKind::Blob, "urn:b")];
    let reference = reference(AssetKind::Blob, &blob);
    put(&double, &keys, &reference).await;
    for key in &keys {
        assert_eq!(get(&double, key).await, hit(&reference));
        let encoded = encode_key("", key, key.scope.function).unwrap();
        assert!(double.has(&encoded.action.0) && double.has(&encoded.command.0));
    }
    let other = key(AssetKind::Blob, "urn:c");
    assert_eq!(get(&double, &other).await, Lookup::Miss(Miss::Absent));
    let team = ReferenceSettings {
        namespace: "team".into(),
        ..ReferenceSettings::default()
    };
    let namespaced = ActionCacheStore::new(double.cache(), team, Probes::default());
    let found = namespaced.get(&ctx(), &keys[0]).await.unwrap();
    assert_eq!(found, Lookup::Miss(Miss::Absent));
}

#[tokio::test]
async fn blobs_and_directories_do_not_answer_for_each_other() {
    let double = Double::new();
    let sample = sample(&double);
    let directory = reference(AssetKind::Directory, &sample.root);
    put(&double, &[key(AssetKind::Directory, "urn:d")], &directory).await;
    let found = get(&double, &key(AssetKind::Blob, "urn:d")).await;
    assert_eq!(found, Lookup::Miss(Miss::Absent));
}

#[tokio::test]
async fn calls_of_a_push_and_of_a_hit() {
    let double = Double::new();
    let blob = double.put("blob");
    let store = store(&double);
    let key = key(AssetKind::Blob, "urn:a");
    let reference = reference(AssetKind::Blob, &blob);
    store
        .put(&ctx(), std::slice::from_ref(&key), &reference)
        .await
        .unwrap();
    let push = [
        "FindMissingBlobs",
        "GetCapabilities",
        "BatchUpdateBlobs",
        "UpdateActionResult",
    ];
    assert_eq!(double.take_log(), push);
    store.get(&ctx(), &key).await.unwrap();
    assert_eq!(double.take_log(), ["GetActionResult", "FindMissingBlobs"]);
}

#[tokio::test]
async fn the_first_key_is_written_last_and_a_failed_write_fails_the_push() {
    let double = Double::new();
    let blob = double.put("blob");
    let keys: Vec<AssetKey> = (0..5)
        .map(|i| key(AssetKind::Blob, &format!("urn:{i}")))
        .collect();
    let reference = reference(AssetKind::Blob, &blob);
    put(&double, &keys, &reference).await;
    let updates = double.set(|s| std::mem::take(&mut s.updates));
    assert_eq!(updates.len(), 5);
    assert_eq!(updates.last(), Some(&action_of(&keys[0])));

    for failing in 1..=5 {
        double.set(|s| {
            s.updates.clear();
            s.entries.clear();
            s.fail_update = Some(failing);
        });
        let error = store(&double)
            .put(&ctx(), &keys, &reference)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Upstream(e) if e.is_refusal()),
            "{error}"
        );
        assert_eq!(get(&double, &keys[0]).await, Lookup::Miss(Miss::Absent));
    }
}

#[tokio::test]
async fn a_cache_that_keeps_another_entry_is_noticed() {
    let double = Double::new();
    double.set(|s| s.first_writer_wins = true);
    let key = key(AssetKind::Blob, "urn:a");
    let keys = std::slice::from_ref(&key);
    let first = reference(AssetKind::Blob, &double.put("first"));
    let second = reference(AssetKind::Blob, &double.put("second"));
    put(&double, keys, &first).await;
    put(&double, keys, &first).await;
    for empty in [false, true] {
        double.set(|s| s.empty_update_answer = empty);
        let error = store(&double).put(&ctx(), keys, &second).await.unwrap_err();
        let Error::Upstream(error) = error else {
            panic!("{error}")
        };
        assert_eq!(error.code(), Some(tonic::Code::FailedPrecondition));
    }
    double.set(|s| s.first_writer_wins = false);
    put(&double, keys, &second).await;
    assert_eq!(get(&double, &key).await, hit(&second));
}

#[tokio::test]
async fn a_cache_that_takes_each_entry_once_is_told_from_one_that_fails() {
    let double = Double::new();
    let keys = [key(AssetKind::Blob, "urn:a")];
    let [first, second] = ["first", "second"].map(|b| reference(AssetKind::Blob, &double.put(b)));
    let push = async |reference| match store(&double).put(&ctx(), &keys, reference).await {
        Err(Error::Upstream(error)) => error.code(),
        other => other.map(|()| None).unwrap(),
    };
    for code in [tonic::Code::Internal, tonic::Code::AlreadyExists] {
        double.set(|s| s.entries.clear());
        double.set(|s| s.refuse_overwrites_with = Some(code));
        put(&double, &keys, &first).await;
        // A write of which only the answer got lost.
        put(&double, &keys, &first).await;
        let refused = push(&second).await;
        assert_eq!(refused, Some(tonic::Code::FailedPrecondition));
        assert_eq!(get(&double, &keys[0]).await, hit(&first));
    }
    // A cache that fails, whatever it holds, is passed on as it is.
    double.set(|s| s.refuse_overwrites_with = Some(tonic::Code::Unavailable));
    assert_eq!(push(&second).await, Some(tonic::Code::Unavailable));
}

#[tokio::test]
async fn a_push_of_what_is_not_there_is_refused_and_stores_nothing() {
    let double = Double::new();
    let absent = sha256(b"absent");
    let blob = reference(AssetKind::Blob, &absent);
    let keys = [key(AssetKind::Blob, "urn:a")];
    let error = store(&double).put(&ctx(), &keys, &blob).await.unwrap_err();
    assert!(matches!(error, Error::Missing(d) if d == [absent.clone()]));

    let sample = sample(&double);
    let keys = [key(AssetKind::Directory, "urn:a")];
    let directory = reference(AssetKind::Directory, &sample.root);
    for gone in [&sample.files[1], &sample.sub, &sample.root] {
        double.evict(gone);
        let error = store(&double)
            .put(&ctx(), &keys, &directory)
            .await
            .unwrap_err();
        let Error::Missing(missing) = error else {
            panic!("{error}")
        };
        assert!(missing.contains(gone));
    }
    let text = double.put("some text, surely");
    let error = store(&double)
        .put(&ctx(), &keys, &reference(AssetKind::Directory, &text))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotADirectory(d, _) if d == text));
    assert!(double.set(|s| s.entries.is_empty()));
}

#[tokio::test]
async fn an_entry_of_a_directory_keeps_and_names_all_of_it() {
    let double = Double::new();
    let sample = sample(&double);
    let key = key(AssetKind::Directory, "urn:d");
    let reference = reference(AssetKind::Directory, &sample.root);
    put(&double, std::slice::from_ref(&key), &reference).await;
    let entry = stored(&double, &key);
    let asset = &entry.output_directories[0];
    assert_eq!(asset.root_directory_digest, Some(sample.root.to_wire()));
    assert_eq!(entry.output_directories[1].root_directory_digest, None);
    let want = BTreeSet::from([sample.root.clone(), sample.sub.clone()]);
    assert_eq!(pinned(&double, &key), want);
    assert_eq!(get(&double, &key).await, hit(&reference));
    double.set(|s| s.loses_root_digest = true);
    assert_eq!(get(&double, &key).await, hit(&reference));
}

#[tokio::test]
async fn a_lost_directory_blob_is_put_back_and_a_lost_file_is_a_miss() {
    let double = Double::new();
    let sample = sample(&double);
    let key = key(AssetKind::Directory, "urn:d");
    let reference = reference(AssetKind::Directory, &sample.root);
    put(&double, std::slice::from_ref(&key), &reference).await;
    double.evict(&sample.sub);
    double.evict(&sample.root);
    assert_eq!(get(&double, &key).await, hit(&reference));
    assert!(double.has(&sample.sub) && double.has(&sample.root));

    double.evict(&sample.sub);
    double.set(|s| s.refuse_cas_writes = true);
    assert_eq!(get(&double, &key).await, Lookup::Miss(Miss::Incomplete));
    double.set(|s| s.refuse_cas_writes = false);
    double.evict(&sample.files[1]);
    assert_eq!(get(&double, &key).await, Lookup::Miss(Miss::Incomplete));
    assert!(!double.has(&sample.sub), "nothing is healed in vain");
}

#[tokio::test]
async fn a_lost_blob_tree_or_pin_tree_is_a_miss() {
    let double = Double::new();
    let blob = double.put("blob");
    let blob_key = key(AssetKind::Blob, "urn:b");
    let keys = std::slice::from_ref(&blob_key);
    put(&double, keys, &reference(AssetKind::Blob, &blob)).await;
    double.evict(&blob);
    assert_eq!(
        get(&double, &blob_key).await,
        Lookup::Miss(Miss::Incomplete)
    );

    let sample = sample(&double);
    let key = key(AssetKind::Directory, "urn:d");
    let reference = reference(AssetKind::Directory, &sample.root);
    for path in ["asset", "pins"] {
        put(&double, std::slice::from_ref(&key), &reference).await;
        double.evict(&tree_digest(&stored(&double, &key), path));
        assert_eq!(get(&double, &key).await, Lookup::Miss(Miss::Incomplete));
    }
}

#[tokio::test]
async fn references_are_pinned_and_missing_ones_dropped() {
    let double = Double::new();
    let blob = double.put("blob");
    let extra = double.put("extra");
    let sample = sample(&double);
    let lost = double.put("lost");
    let partial = dir(&double, &[&lost, &extra], &[]);
    double.evict(&lost);
    let text = double.put("no directory at all");
    let key = key(AssetKind::Blob, "urn:a");
    let mut reference = reference(AssetKind::Blob, &blob);
    reference.referenced_blobs = vec![
        extra.clone(),
        blob.clone(),
        sha256(b"never there"),
        sha256(b""),
    ];
    reference.referenced_directories = vec![
        sample.root.clone(),
        partial.clone(),
        text,
        sha256(b"nor this"),
        sha256(b""),
    ];
    put(&double, std::slice::from_ref(&key), &reference).await;
    let [one, two] = sample.files.clone();
    let want = BTreeSet::from([extra.clone(), sample.root, sample.sub, one, two, partial]);
    assert_eq!(pinned(&double, &key), want);
    assert_eq!(get(&double, &key).await, hit(&reference));
    double.evict(&extra);
    assert_eq!(get(&double, &key).await, Lookup::Miss(Miss::Incomplete));
}

#[tokio::test]
async fn a_directory_of_another_size_is_not_there_where_only_hashes_count() {
    let double = Double::new();
    let root = dir(&double, &[&double.put("one")], &[]);
    let bytes = double.set(|s| s.blobs[&root].clone());
    let wrong = Digest::new(DigestFunction::Sha256, root.hash(), root.size() + 1).unwrap();
    double.set(|s| s.blobs.insert(wrong.clone(), bytes));
    let key = key(AssetKind::Directory, "urn:a");
    let reference = reference(AssetKind::Directory, &wrong);
    let refused = store(&double).put(&ctx(), &[key], &reference).await;
    assert!(
        matches!(&refused, Err(Error::Missing(m)) if *m == [wrong]),
        "{refused:?}"
    );
}

#[tokio::test]
async fn no_push_makes_us_walk_any_number_of_trees() {
    let double = Double::new();
    let key = key(AssetKind::Blob, "urn:a");
    let mut reference = reference(AssetKind::Blob, &double.put("blob"));
    let roots = (0..1_010).map(|i| {
        let file = double.put(format!("file {i}"));
        dir(&double, &[&file], &[])
    });
    reference.referenced_directories = roots.collect();
    put(&double, std::slice::from_ref(&key), &reference).await;
    assert_eq!(double.calls("BatchReadBlobs"), 1_000);
    assert_eq!(pinned(&double, &key).len(), 2_000);
    assert_eq!(get(&double, &key).await, hit(&reference));
}

#[tokio::test]
async fn a_tree_too_large_to_be_kept_is_pinned_file_by_file() {
    let double = Double::new();
    let file = double.put("file");
    // One Directory above 2 MiB.
    let links = (0..30_000).map(|i| rev2::SymlinkNode {
        name: format!("l{i:06}"),
        target: "x".repeat(80),
        ..Default::default()
    });
    let message = rev2::Directory {
        files: vec![rev2::FileNode {
            name: "f".to_owned(),
            digest: Some(file.to_wire()),
            ..Default::default()
        }],
        symlinks: links.collect(),
        ..Default::default()
    };
    let root = double.put(message.encode_to_vec());
    assert!(root.size() > 2 << 20);
    let key = key(AssetKind::Directory, "urn:d");
    let reference = reference(AssetKind::Directory, &root);
    put(&double, std::slice::from_ref(&key), &reference).await;
    let entry = stored(&double, &key);
    assert!(entry.output_directories.iter().all(|d| d.path != "asset"));
    assert_eq!(
        pinned(&double, &key),
        BTreeSet::from([root.clone(), file.clone()])
    );
    assert_eq!(get(&double, &key).await, hit(&reference));
    double.evict(&file);
    assert_eq!(get(&double, &key).await, Lookup::Miss(Miss::Incomplete));
    double.put("file");
    double.evict(&root);
    assert_eq!(get(&double, &key).await, Lookup::Miss(Miss::Incomplete));
}

#[tokio::test]
async fn thousands_of_pins_within_a_batch_limit_of_64_kib() {
    let double = Double::new();
    double.set(|s| s.max_batch = 65_536);
    let extras: Vec<Digest> = (0..10_500u32)
        .map(|i| double.put(i.to_le_bytes().to_vec()))
        .collect();
    let key = key(AssetKind::Blob, "urn:a");
    let mut reference = reference(AssetKind::Blob, &double.put("blob"));
    reference.referenced_blobs = extras.clone();
    put(&double, std::slice::from_ref(&key), &reference).await;
    assert_eq!(pinned(&double, &key), extras.iter().cloned().collect());
    assert_eq!(get(&double, &key).await, hit(&reference));
    assert!(double.set(|s| s.largest_batch) <= 65_536);
    double.evict(&extras[10_000]);
    assert_eq!(get(&double, &key).await, Lookup::Miss(Miss::Incomplete));
}

#[tokio::test]
async fn an_expired_reference_is_withdrawn_without_content() {
    let double = Double::new();
    let key = key(AssetKind::Blob, "urn:a");
    let keys = std::slice::from_ref(&key);
    let mut reference = reference(AssetKind::Blob, &double.put("blob"));
    put(&double, keys, &reference).await;
    reference.expire_at = Some(UNIX_EPOCH + Duration::from_secs(1));
    double.evict(&reference.digest);
    put(&double, keys, &reference).await;
    assert_eq!(stored(&double, &key).output_files, []);
    assert_eq!(get(&double, &key).await, Lookup::Miss(Miss::Expired));

    double.put("blob");
    let soon = SystemTime::now() + Duration::from_millis(300);
    reference.expire_at = Some(soon);
    put(&double, keys, &reference).await;
    assert_eq!(get(&double, &key).await, hit(&reference));
    tokio::time::sleep(Duration::from_millis(320)).await;
    assert_eq!(get(&double, &key).await, Lookup::Miss(Miss::Expired));
}

#[tokio::test]
async fn foreign_and_corrupt_entries_are_misses() {
    let double = Double::new();
    let blob_key = key(AssetKind::Blob, "urn:a");
    let other_key = key(AssetKind::Blob, "urn:b");
    let reference = reference(AssetKind::Blob, &double.put("blob"));
    put(&double, std::slice::from_ref(&other_key), &reference).await;
    let copied = stored(&double, &other_key);
    let foreign = rev2::ActionResult {
        exit_code: 1,
        stdout_raw: Bytes::from_static(b"hello"),
        ..Default::default()
    };
    for entry in [copied, foreign, rev2::ActionResult::default()] {
        double.set(|s| s.entries.insert(action_of(&blob_key), entry));
        assert_eq!(get(&double, &blob_key).await, Lookup::Miss(Miss::Unusable));
    }
}

#[tokio::test]
async fn trees_that_are_not_what_the_entry_says_are_misses() {
    let double = Double::new();
    let sample = sample(&double);
    let key = key(AssetKind::Directory, "urn:d");
    let reference = reference(AssetKind::Directory, &sample.root);
    put(&double, std::slice::from_ref(&key), &reference).await;
    let good = stored(&double, &key);
    let nonsense = double.put(vec![0xff; 20]);
    let itself = double.put(sample.root.hash().to_owned());
    let huge = Digest::new(DigestFunction::Sha256, &"0".repeat(64), 1 << 40).unwrap();
    for index in [0, 1] {
        for tree in [&nonsense, &itself, &huge] {
            let mut entry = good.clone();
            entry.output_directories[index].tree_digest = Some(tree.to_wire());
            double.set(|s| s.entries.insert(action_of(&key), entry));
            assert_eq!(get(&double, &key).await, Lookup::Miss(Miss::Unusable));
        }
    }
    double.set(|s| {
        s.entries.insert(action_of(&key), good);
        s.serve_corrupt = true;
    });
    assert_eq!(get(&double, &key).await, Lookup::Miss(Miss::Unusable));
}

#[tokio::test]
async fn a_cache_that_cannot_be_asked_is_an_error() {
    let double = Double::new();
    double.set(|s| s.unreachable = true);
    let blob = key(AssetKind::Blob, "urn:a");
    let error = store(&double).get(&ctx(), &blob).await.unwrap_err();
    assert!(matches!(error, Error::Upstream(e) if e.code() == Some(tonic::Code::Unavailable)));
}

#[tokio::test]
async fn content_under_a_function_we_cannot_compute_has_references() {
    let double = Double::new();
    let function = DigestFunction::Sha256Tree;
    let mut key = key(AssetKind::Blob, "urn:a");
    key.scope.function = function;
    let blob = Digest::new(function, &"ab".repeat(32), 7).unwrap();
    double.set(|s| s.blobs.insert(blob.clone(), Bytes::from_static(b"content")));
    let reference = reference(AssetKind::Blob, &blob);
    let keys = std::slice::from_ref(&key);
    put(&double, keys, &reference).await;
    assert_eq!(get(&double, &key).await, hit(&reference));
    double.evict(&blob);
    assert_eq!(get(&double, &key).await, Lookup::Miss(Miss::Incomplete));
}

#[tokio::test]
async fn what_is_dropped_healed_or_unusable_is_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let double = Double::new();
    let sample = sample(&double);
    let directory = key(AssetKind::Directory, "urn:d");
    let keys = std::slice::from_ref(&directory);
    let mut reference = reference(AssetKind::Directory, &sample.root);
    reference.referenced_blobs = vec![sha256(b"gone"), sha256(b"gone as well")];
    reference.referenced_directories = vec![sha256(b"not there either")];
    put(&double, keys, &reference).await;
    double.evict(&sample.sub);
    get(&double, &directory).await;
    double.set(|s| {
        let entry = rev2::ActionResult::default();
        s.entries.insert(action_of(&directory), entry);
    });
    get(&double, &directory).await;
    let shown = recorder.handle().render();
    for want in [
        "assetgate_push_references_dropped_total 3",
        "assetgate_directories_healed_total 1",
        "assetgate_reference_unusable_total{reason=\"no payload\"} 1",
    ] {
        assert!(shown.contains(want), "{shown}");
    }
}

#[tokio::test]
async fn every_computable_function_works_over_the_embedded_cache() {
    use crate::embedded::{Embedded, Settings};
    use tower::Service as _;

    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        dir: dir.path().to_owned(),
        max_size: 1 << 30,
    };
    let embedded = Embedded::open(settings).unwrap();
    let routes = embedded.routes();
    let service = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let answer = routes.clone().call(request);
        async move { answer.await.map_err(|e| match e {}) }
    });
    let cache = crate::upstream::Cache::new(crate::upstream::Upstream::new(service));
    let store = ActionCacheStore::new(
        cache.clone(),
        ReferenceSettings::default(),
        Probes::default(),
    );
    for function in DigestFunction::all()
        .iter()
        .copied()
        .filter(|f| f.is_computable())
    {
        let scope =
            crate::digest::Scope::new(crate::digest::InstanceName::new("a/b").unwrap(), function);
        let digest = |data: &[u8]| Digest::of(function, data).unwrap();
        let file = Bytes::from(vec![b'f'; 5 << 20]);
        let message = rev2::Directory {
            files: vec![rev2::FileNode {
                name: "f".to_owned(),
                digest: Some(digest(&file).to_wire()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let root = Bytes::from(message.encode_to_vec());
        let blobs = vec![(digest(&file), file.clone()), (digest(&root), root.clone())];
        cache.write_blobs(&ctx(), &scope, blobs).await.unwrap();
        let read = cache
            .read_blob(&ctx(), &scope, &digest(&file))
            .await
            .unwrap();
        assert_eq!(read, Some(file));
        let reference = reference(AssetKind::Directory, &digest(&root));
        let mut key = key(AssetKind::Directory, "urn:d");
        key.scope = scope;
        store
            .put(&ctx(), std::slice::from_ref(&key), &reference)
            .await
            .unwrap();
        assert_eq!(
            store.get(&ctx(), &key).await.unwrap(),
            hit(&reference),
            "{function}"
        );
    }
}
