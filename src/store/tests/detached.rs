//! Entries on a server that does not hold the content.

use bytes::Bytes;

use super::*;
use crate::asset::AssetKind;
use crate::digest::DigestFunction;

/// Content here, entries there.
struct Apart {
    content: Double,
    entries: Double,
    store: ActionCacheStore,
}

fn apart() -> Apart {
    let (content, entries) = (Double::new(), Double::new());
    let near = store(&content, ReferenceSettings::default());
    Apart {
        store: near.with_references(entries.cache()),
        content,
        entries,
    }
}

#[tokio::test]
async fn the_entry_stands_elsewhere_and_its_content_is_asked_of_the_cache() {
    let apart = apart();
    let blob = apart.content.put("blob");
    let key = key(AssetKind::Blob, "urn:a");
    let reference = reference(AssetKind::Blob, &blob);
    put(&apart.store, &key, &reference).await;
    assert!(apart.content.set(|s| s.entries.is_empty()));
    let entry = stored(&apart.entries, &key);
    assert!(entry.output_files.is_empty() && entry.output_directories.is_empty());
    assert!(!apart.entries.has(&blob), "no content goes there");

    // What is seen of the cache's own Action Cache says nothing of these.
    let trusting = Modes {
        checks_files: true,
        checks_trees: true,
        carrier: Carrier::Metadata,
    };
    apart.store.probes.set(&scope().instance, trusting);
    apart.content.take_log();
    assert_eq!(get(&apart.store, &key).await, hit(&reference));
    assert_eq!(apart.content.take_log(), ["FindMissingBlobs"]);
    apart.content.evict(&blob);
    assert_eq!(get(&apart.store, &key).await, miss(Miss::Incomplete));
}

#[tokio::test]
async fn a_read_only_cache_can_have_references() {
    let apart = apart();
    let sample = sample(&apart.content);
    let extra = apart.content.put("extra");
    apart.content.set(|s| {
        s.refuse_updates = true;
        s.refuse_cas_writes = true;
    });
    let key = key(AssetKind::Directory, "urn:d");
    let mut reference = reference(AssetKind::Directory, &sample.root);
    reference.referenced_blobs = vec![extra.clone(), sha256(b"never there")];
    put(&apart.store, &key, &reference).await;
    assert_eq!(get(&apart.store, &key).await, hit(&reference));
    for lost in [&sample.files[1], &sample.sub, &extra] {
        let bytes = apart.content.set(|s| s.blobs.remove(lost).unwrap());
        assert_eq!(get(&apart.store, &key).await, miss(Miss::Incomplete));
        apart.content.put(bytes);
    }
    assert_eq!(get(&apart.store, &key).await, hit(&reference));
}

#[tokio::test]
async fn missing_content_is_refused_there_too() {
    let apart = apart();
    let reference = reference(AssetKind::Blob, &sha256(b"never there"));
    let keys = [key(AssetKind::Blob, "urn:a")];
    let refused = apart.store.put(&ctx(), &keys, &reference).await;
    assert!(matches!(refused, Err(Error::Missing(_))), "{refused:?}");
    assert!(apart.entries.set(|s| s.entries.is_empty()));
}

#[tokio::test]
async fn a_withdrawal_is_found_there() {
    let apart = apart();
    let key = key(AssetKind::Blob, "urn:a");
    let mut reference = reference(AssetKind::Blob, &apart.content.put("blob"));
    put(&apart.store, &key, &reference).await;
    reference.expire_at = Some(std::time::UNIX_EPOCH);
    put(&apart.store, &key, &reference).await;
    assert_eq!(get(&apart.store, &key).await, miss(Miss::Expired));
}

#[tokio::test]
async fn the_other_server_need_not_know_the_function_of_the_content() {
    let apart = apart();
    apart
        .content
        .set(|s| s.functions = vec![DigestFunction::Blake3.to_wire()]);
    let data = Bytes::from_static(b"blob");
    let digest = Digest::of(DigestFunction::Blake3, &data).unwrap();
    apart.content.set(|s| s.blobs.insert(digest.clone(), data));
    let mut key = key(AssetKind::Blob, "urn:a");
    key.scope.function = DigestFunction::Blake3;
    let reference = reference(AssetKind::Blob, &digest);
    put(&apart.store, &key, &reference).await;
    assert_eq!(get(&apart.store, &key).await, hit(&reference));
    let mut same = key.clone();
    same.scope.function = DigestFunction::Sha256;
    assert_eq!(get(&apart.store, &same).await, miss(Miss::Absent));
}

#[tokio::test]
async fn more_references_than_an_entry_has_room_for_are_dropped() {
    let apart = apart();
    let key = key(AssetKind::Blob, "urn:a");
    let mut reference = reference(AssetKind::Blob, &apart.content.put("blob"));
    reference.referenced_blobs = (0..5_010)
        .map(|i| apart.content.put(format!("{i}")))
        .collect();
    put(&apart.store, &key, &reference).await;
    assert_eq!(get(&apart.store, &key).await, hit(&reference));
    let entry = stored(&apart.entries, &key);
    assert!(prost::Message::encoded_len(&entry) < 1 << 20);
}
