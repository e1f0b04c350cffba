//! What an explanation adds to a look-up, and that it leaves no trace.

use super::*;
use crate::store::compat;

async fn explain(store: &ActionCacheStore, key: &AssetKey) -> Explained {
    store.explain(&ctx(), key).await.unwrap()
}

#[tokio::test]
async fn an_explanation_is_the_look_up_with_what_led_to_it() {
    let double = Double::new();
    let key = key(AssetKind::Blob, "urn:a");
    let keys = std::slice::from_ref(&key);
    let store = store(&double);
    let told = explain(&store, &key).await;
    assert_eq!(told.action.hash(), action_of(&key));
    assert_eq!(
        (told.lookup, told.reference),
        (Lookup::Miss(Miss::Absent), None)
    );

    let mut reference = reference(AssetKind::Blob, &double.put("blob"));
    put(&double, keys, &reference).await;
    let told = explain(&store, &key).await;
    assert_eq!(told.lookup, get(&double, &key).await);
    assert_eq!(told.detail, "asked of the CAS");
    assert_eq!((told.signed, told.detached), (false, false));
    assert_eq!(told.reference.as_deref(), Some(&reference));

    double.evict(&reference.digest);
    let told = explain(&store, &key).await;
    assert_eq!(told.lookup, Lookup::Miss(Miss::Incomplete));
    assert_eq!(told.reference.as_deref(), Some(&reference));

    reference.expire_at = Some(UNIX_EPOCH + Duration::from_secs(1));
    put(&double, keys, &reference).await;
    let told = explain(&store, &key).await;
    assert_eq!(told.lookup, Lookup::Miss(Miss::Expired));
    assert_eq!(told.detail, "withdrawn by a later push");

    let foreign = rev2::ActionResult {
        exit_code: 1,
        ..Default::default()
    };
    double.set(|s| s.entries.insert(action_of(&key), foreign));
    let told = explain(&store, &key).await;
    assert_eq!(
        (told.lookup, told.detail),
        (Lookup::Miss(Miss::Unusable), "no payload")
    );
}

#[tokio::test]
async fn signatures_and_detached_entries_are_told() {
    let (content, elsewhere) = (Double::new(), Double::new());
    let settings = ReferenceSettings {
        mac: Some(MacKeys::parse(&"ab".repeat(32)).unwrap()),
        ..Default::default()
    };
    let store = ActionCacheStore::new(content.cache(), settings, Probes::default());
    let store = store.with_references(elsewhere.cache());
    let key = key(AssetKind::Blob, "urn:a");
    let reference = reference(AssetKind::Blob, &content.put("blob"));
    let keys = std::slice::from_ref(&key);
    store.put(&ctx(), keys, &reference).await.unwrap();
    let told = explain(&store, &key).await;
    let signed = AssetReference {
        signed_at: Some(reference.content_time),
        ..reference
    };
    assert_eq!(told.lookup, hit(&signed));
    assert_eq!((told.signed, told.detached), (true, true));
}

#[tokio::test]
async fn what_could_be_taken_over_is_not_recorded() {
    let double = Double::new();
    let settings = ReferenceSettings {
        bb_remote_asset: Some([].into()),
        ..Default::default()
    };
    let store = ActionCacheStore::new(double.cache(), settings, Probes::default());
    let (uri, none) = (Uri::new("urn:a"), Qualifiers::default());
    let theirs = compat::bb_key(&scope(), &uri, &none, &[]).unwrap();
    let entry = rev2::ActionResult {
        output_files: vec![rev2::OutputFile {
            path: "out".to_owned(),
            digest: Some(double.put("blob").to_wire()),
            ..Default::default()
        }],
        execution_metadata: Some(rev2::ExecutedActionMetadata {
            queued_timestamp: Some(SystemTime::now().into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    double.set(|s| s.entries.insert(theirs.hash().to_owned(), entry));
    let key = AssetKey {
        scope: scope(),
        kind: AssetKind::Blob,
        space: KeySpace::Migrated {
            uri,
            qualifiers: none,
        },
    };
    let told = explain(&store, &key).await;
    assert_eq!(told.detail, "taken over from bb-remote-asset");
    assert_eq!(double.set(|s| s.updates.len()), 0);
    let found = store.get(&ctx(), &key).await.unwrap();
    assert_eq!(found, told.lookup);
    assert_eq!(double.set(|s| s.updates.len()), 1);
}
