//! Entries that only Assetgate can have issued.

use super::*;
use crate::asset::{AssetKind, KeySpace, Qualifiers, Uri};

const ONE: &str = "11111111111111111111111111111111";
const TWO: &str = "22222222222222222222222222222222";

fn signing(keys: &str) -> ReferenceSettings {
    ReferenceSettings {
        mac: Some(MacKeys::parse(keys).unwrap()),
        ..ReferenceSettings::default()
    }
}

#[tokio::test]
async fn an_entry_without_a_valid_signature_is_a_miss() {
    let double = Double::new();
    let key = key(AssetKind::Blob, "urn:a");
    let reference = reference(AssetKind::Blob, &double.put("blob"));
    let unsigned = store(&double, ReferenceSettings::default());
    let one = store(&double, signing(ONE));
    let both = store(&double, signing(&format!("{TWO}\n{ONE}")));

    put(&unsigned, &key, &reference).await;
    assert_eq!(get(&one, &key).await, miss(Miss::Unusable));
    put(&one, &key, &reference).await;
    assert_eq!(get(&unsigned, &key).await, hit(&reference));
    let signed = AssetReference {
        signed_at: Some(reference.content_time),
        ..reference.clone()
    };
    for reader in [&one, &both] {
        assert_eq!(get(reader, &key).await, hit(&signed));
    }
    // The first key signs, so the old one does not read what is new.
    put(&both, &key, &reference).await;
    assert_eq!(get(&both, &key).await, hit(&signed));
    assert_eq!(get(&one, &key).await, miss(Miss::Unusable));
}

#[tokio::test]
async fn a_signed_entry_holds_under_its_key_and_with_its_outputs_only() {
    let double = Double::new();
    let one = store(&double, signing(ONE));
    let key_a = key(AssetKind::Blob, "urn:a");
    let mut reference = reference(AssetKind::Blob, &double.put("blob"));
    reference.referenced_blobs = vec![double.put("extra")];
    put(&one, &key_a, &reference).await;
    let signed = stored(&double, &key_a);

    let mut key_b = key_a.clone();
    key_b.space = KeySpace::Exact {
        uri: Uri::new("urn:b"),
        qualifiers: Qualifiers::default(),
    };
    put(&one, &key_b, &reference).await;
    let forge = |key: &AssetKey, entry: crate::proto::rev2::ActionResult| {
        let action = one.encode(key, key.scope.function).unwrap().action.0;
        double.set(|s| s.entries.insert(action.hash().to_owned(), entry));
    };
    forge(&key_b, signed.clone());
    assert_eq!(get(&one, &key_b).await, miss(Miss::Unusable));

    // Fewer pins would be a hit although what they pinned is gone.
    let mut unpinned = signed;
    unpinned.output_directories.clear();
    forge(&key_a, unpinned);
    let found = one.explain(&ctx(), &key_a).await.unwrap();
    assert_eq!(found.detail, "mac");
    assert_eq!(get(&one, &key_a).await, miss(Miss::Unusable));
}

#[tokio::test]
async fn nobody_else_can_withdraw() {
    let double = Double::new();
    let one = store(&double, signing(ONE));
    let key = key(AssetKind::Blob, "urn:a");
    let mut reference = reference(AssetKind::Blob, &double.put("blob"));
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    reference.expire_at = Some(later);
    put(&one, &key, &reference).await;
    assert!(matches!(get(&one, &key).await, Lookup::Hit(_)));
    double.set(|s| {
        for entry in s.entries.values_mut() {
            entry.output_files.clear();
        }
    });
    assert_eq!(get(&one, &key).await, miss(Miss::Unusable));
}

#[tokio::test]
async fn the_key_is_nowhere_in_what_is_stored() {
    let double = Double::new();
    let one = store(&double, signing(ONE));
    let key = key(AssetKind::Blob, "urn:a");
    put(&one, &key, &reference(AssetKind::Blob, &double.put("blob"))).await;
    let entry = prost::Message::encode_to_vec(&stored(&double, &key));
    let holds = |bytes: &[u8]| bytes.windows(ONE.len()).any(|w| w == ONE.as_bytes());
    assert!(!holds(&entry));
    assert!(!double.set(|s| s.blobs.values().any(|b| holds(b))));
    assert!(!format!("{one:?}").contains(ONE));
}
