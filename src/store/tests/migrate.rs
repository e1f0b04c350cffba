//! Taking over what bb-remote-asset left.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::asset::{AssetKind, KeySpace, Qualifiers, Uri};
use crate::proto::rev2;
use crate::store::compat::bb_key;

const URI: &str = "https://example.com/example.txt";

fn qualifiers() -> Qualifiers {
    Qualifiers::new([("test".to_owned(), "test".to_owned())]).unwrap()
}

fn migrated(kind: AssetKind) -> AssetKey {
    AssetKey {
        space: KeySpace::Migrated {
            uri: Uri::new(URI),
            qualifiers: qualifiers(),
        },
        ..key(kind, URI)
    }
}

fn taking_over(double: &Double, platform: &[(String, String)]) -> ActionCacheStore {
    let settings = ReferenceSettings {
        bb_remote_asset: Some(platform.into()),
        ..ReferenceSettings::default()
    };
    store(double, settings)
}

/// What bb-remote-asset would have written.
fn theirs(double: &Double, platform: &[(String, String)], outputs: rev2::ActionResult) {
    let action = bb_key(&scope(), &Uri::new(URI), &qualifiers(), platform).unwrap();
    let entry = rev2::ActionResult {
        execution_metadata: Some(rev2::ExecutedActionMetadata {
            queued_timestamp: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            ..Default::default()
        }),
        ..outputs
    };
    double.set(|s| s.entries.insert(action.hash().to_owned(), entry));
}

fn blob(digest: &Digest) -> rev2::ActionResult {
    rev2::ActionResult {
        output_files: vec![rev2::OutputFile {
            path: "out".to_owned(),
            digest: Some(digest.to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn expected(kind: AssetKind, digest: &Digest) -> AssetReference {
    AssetReference {
        uri: URI.to_owned(),
        qualifiers: qualifiers(),
        content_time: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        ..reference(kind, digest)
    }
}

#[tokio::test]
async fn a_blob_is_taken_over_and_outlives_their_entry() {
    let double = Double::new();
    let digest = double.put("blob");
    theirs(&double, &[], blob(&digest));
    let key = migrated(AssetKind::Blob);
    let without = store(&double, ReferenceSettings::default());
    assert_eq!(get(&without, &key).await, miss(Miss::Absent));

    let store = taking_over(&double, &[]);
    let want = expected(AssetKind::Blob, &digest);
    assert_eq!(get(&store, &key).await, hit(&want));
    assert_eq!(get(&without, &key).await, hit(&want), "ours now");
    double.evict(&digest);
    assert_eq!(get(&store, &key).await, miss(Miss::Incomplete));
}

#[tokio::test]
async fn a_directory_is_taken_over_with_pins_of_its_own() {
    let double = Double::new();
    let sample = sample(&double);
    let plain = store(&double, ReferenceSettings::default());
    let helper = key(AssetKind::Directory, "urn:helper");
    put(
        &plain,
        &helper,
        &reference(AssetKind::Directory, &sample.root),
    )
    .await;
    let tree = tree_digest(&stored(&double, &helper), "asset");
    let platform = [("OSFamily".to_owned(), "Linux".to_owned())];
    let outputs = rev2::ActionResult {
        output_directories: vec![rev2::OutputDirectory {
            path: "out".to_owned(),
            tree_digest: Some(tree.to_wire()),
            root_directory_digest: Some(sample.root.to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    };
    theirs(&double, &platform, outputs);
    let key = migrated(AssetKind::Directory);
    let other = taking_over(&double, &[]);
    assert_eq!(get(&other, &key).await, miss(Miss::Absent));
    let store = taking_over(&double, &platform);
    let want = expected(AssetKind::Directory, &sample.root);
    assert_eq!(get(&store, &key).await, hit(&want));
    assert_eq!(get(&other, &key).await, hit(&want));
    let kind = migrated(AssetKind::Blob);
    assert_eq!(get(&store, &kind).await, miss(Miss::Absent));
}

#[tokio::test]
async fn content_that_is_gone_and_callers_who_only_read() {
    let double = Double::new();
    let digest = double.put("blob");
    theirs(&double, &[], blob(&digest));
    let key = migrated(AssetKind::Blob);
    let store = taking_over(&double, &[]);
    double.evict(&digest);
    assert_eq!(get(&store, &key).await, miss(Miss::Incomplete));
    double.put("blob");
    double.set(|s| s.refuse_updates = true);
    let want = hit(&expected(AssetKind::Blob, &digest));
    assert_eq!(get(&store, &key).await, want);
    assert_eq!(double.set(|s| s.entries.len()), 1, "nothing of ours");
}

#[tokio::test]
async fn an_empty_directory_or_a_damaged_entry_never_panics() {
    let double = Double::new();
    let store = taking_over(&double, &[]);
    for kind in [AssetKind::Blob, AssetKind::Directory] {
        for entry in [rev2::ActionResult::default(), blob(&sha256(b"never there"))] {
            theirs(&double, &[], entry);
            let found = get(&store, &migrated(kind)).await;
            assert!(matches!(found, Lookup::Miss(_)), "{found:?}");
        }
    }
    let lost = dir(&double, &[&sha256(b"never there")], &[]);
    theirs(&double, &[], blob(&lost));
    let found = get(&store, &migrated(AssetKind::Directory)).await;
    assert_eq!(found, miss(Miss::Absent));
}
