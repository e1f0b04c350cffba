//! How many calls to the cache a hit is, by what a probe has seen.

use super::*;
use crate::asset::AssetKind;

const GET: &str = "GetActionResult";
const READ: &str = "BatchReadBlobs";
const FIND: &str = "FindMissingBlobs";

const CAREFUL: Modes = Modes {
    checks_files: false,
    checks_trees: false,
    carrier: Carrier::Metadata,
};
const FILES: Modes = Modes {
    checks_files: true,
    ..CAREFUL
};
const TREES: Modes = Modes {
    checks_trees: true,
    ..CAREFUL
};
const ALL: Modes = Modes {
    checks_files: true,
    ..TREES
};

#[tokio::test]
async fn a_hit_is_one_call_where_the_cache_checks_and_two_or_three_elsewhere() {
    let double = Double::new();
    let sample = sample(&double);
    let blob = reference(AssetKind::Blob, &double.put("blob"));
    let mut pinned = blob.clone();
    pinned.referenced_blobs = vec![double.put("extra")];
    let directory = reference(AssetKind::Directory, &sample.root);
    let empty = reference(AssetKind::Directory, &sha256(b""));
    let cases: [(&AssetReference, Modes, &[&str]); 11] = [
        (&blob, CAREFUL, &[GET, FIND]),
        (&blob, TREES, &[GET, FIND]),
        (&blob, FILES, &[GET]),
        (&blob, ALL, &[GET]),
        (&pinned, CAREFUL, &[GET, READ, FIND]),
        (&pinned, FILES, &[GET, READ, FIND]),
        (&pinned, ALL, &[GET]),
        (&directory, CAREFUL, &[GET, READ, FIND]),
        (&directory, FILES, &[GET, READ, FIND]),
        (&directory, TREES, &[GET]),
        (&empty, TREES, &[GET]),
    ];
    for (reference, modes, calls) in cases {
        let store = store(&double, ReferenceSettings::default());
        store.probes.set(&scope().instance, modes);
        let key = key(reference.kind, "urn:a");
        put(&store, &key, reference).await;
        double.take_log();
        assert_eq!(get(&store, &key).await, hit(reference));
        assert_eq!(double.take_log(), calls, "{modes:?} {reference:?}");
    }
}

#[tokio::test]
async fn what_was_seen_of_one_instance_says_nothing_of_another() {
    let double = Double::new();
    let store = store(&double, ReferenceSettings::default());
    let other = crate::digest::InstanceName::new("other").unwrap();
    store.probes.set(&other, ALL);
    let key = key(AssetKind::Blob, "urn:a");
    let blob = double.put("blob");
    put(&store, &key, &reference(AssetKind::Blob, &blob)).await;
    double.evict(&blob);
    assert_eq!(get(&store, &key).await, miss(Miss::Incomplete));
    store.probes.set(&scope().instance, ALL);
    let trusting = get(&store, &key).await;
    assert!(matches!(trusting, Lookup::Hit(_)), "this is what trust is");
    store.probes.set(&scope().instance, CAREFUL);
    assert_eq!(get(&store, &key).await, miss(Miss::Incomplete));
}

#[tokio::test]
async fn a_directory_whose_directories_nothing_pins_is_not_left_to_the_cache() {
    let double = Double::new();
    let store = store(&double, ReferenceSettings::default());
    store.probes.set(&scope().instance, ALL);
    let sample = sample(&double);
    let key = key(AssetKind::Directory, "urn:d");
    let reference = reference(AssetKind::Directory, &sample.root);
    put(&store, &key, &reference).await;
    let forge = |s: &mut crate::upstream::double::State| {
        for entry in s.entries.values_mut() {
            entry.output_directories.truncate(1);
        }
    };
    double.set(forge);
    double.evict(&sample.sub);
    double.take_log();
    // From the Tree the Directory is put back, which trust would not do.
    assert_eq!(get(&store, &key).await, hit(&reference));
    assert!(double.has(&sample.sub));
}
