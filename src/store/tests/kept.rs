//! What a cache makes of an entry it acknowledged, and where the payload
//! stands if it keeps no metadata.

use std::time::Duration;

use super::*;
use crate::asset::AssetKind;
use crate::upstream;

/// The code of a put that was refused.
async fn refusal(double: &Double, reference: &AssetReference) -> tonic::Code {
    let store = store(double, ReferenceSettings::default());
    let keys = [key(AssetKind::Blob, "urn:a")];
    match store.put(&ctx(), &keys, reference).await {
        Err(Error::Upstream(upstream::Error::Status { status, .. })) => status.code(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_cache_that_keeps_nothing_takes_none_from_this_caller() {
    let double = Double::new();
    let reference = reference(AssetKind::Blob, &double.put("blob"));
    double.set(|s| {
        s.drop_updates = true;
        s.empty_update_answer = true;
    });
    let code = refusal(&double, &reference).await;
    assert_eq!(code, tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn a_cache_that_keeps_the_first_entry_is_told_from_a_later_push() {
    let double = Double::new();
    let key = key(AssetKind::Blob, "urn:a");
    let store = store(&double, ReferenceSettings::default());
    let first = reference(AssetKind::Blob, &double.put("first"));
    put(&store, &key, &first).await;
    double.set(|s| s.first_writer_wins = true);
    let mut second = reference(AssetKind::Blob, &double.put("second"));
    second.content_time += Duration::from_secs(1);
    let code = refusal(&double, &second).await;
    assert_eq!(code, tonic::Code::FailedPrecondition);
    // What stands there is younger: somebody else pushed in between.
    let mut earlier = reference(AssetKind::Blob, &double.put("earlier"));
    earlier.content_time -= Duration::from_secs(1);
    put(&store, &key, &earlier).await;
    assert_eq!(get(&store, &key).await, hit(&first));
}

#[tokio::test]
async fn where_metadata_is_dropped_the_payload_stands_in_a_blob() {
    let double = Double::new();
    double.set(|s| s.loses_payload = true);
    let store = store(&double, ReferenceSettings::default());
    let carried = Modes {
        carrier: Carrier::Blob,
        ..Modes::default()
    };
    store.probes.set(&scope().instance, carried);
    let sample = sample(&double);
    for (kind, digest) in [
        (AssetKind::Blob, double.put("blob")),
        (AssetKind::Directory, sample.root),
    ] {
        let key = key(kind, "urn:a");
        let reference = reference(kind, &digest);
        put(&store, &key, &reference).await;
        assert_eq!(get(&store, &key).await, hit(&reference));
        let entry = stored(&double, &key);
        let payload = entry.output_files.iter().find(|f| f.path == "entry");
        let payload = payload.unwrap().digest.as_ref();
        let payload = Digest::from_wire(scope().function, payload).unwrap();
        double.evict(&payload);
        assert_eq!(get(&store, &key).await, miss(Miss::Unusable));
    }
}
