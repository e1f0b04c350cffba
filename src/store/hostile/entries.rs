//! Forged, truncated, oversized, self-referring and wrong-kind entries.

use super::*;
use crate::proto::assetgate::v1::AssetEntry;

/// Changes the payload of the stored entry.
fn edit_payload(double: &Double, kind: AssetKind, change: impl FnOnce(&mut Vec<u8>)) {
    edit(double, kind, |entry| {
        let metadata = entry.execution_metadata.as_mut().unwrap();
        change(&mut metadata.auxiliary_metadata[0].value);
    });
}

#[tokio::test]
async fn a_payload_cut_anywhere_is_a_miss() {
    let double = Double::new();
    let reference = pushed(&double, AssetKind::Blob).await;
    let mut length = 0;
    edit_payload(&double, AssetKind::Blob, |payload| length = payload.len());
    for keep in (0..length).rev() {
        edit_payload(&double, AssetKind::Blob, |payload| payload.truncate(keep));
        let found = get(&double, AssetKind::Blob).await;
        assert!(is_unusable(&found), "{keep} of {length} bytes: {found:?}");
    }
    put(&double, &reference).await.unwrap();
    assert!(matches!(
        get(&double, AssetKind::Blob).await,
        Lookup::Hit(_)
    ));
}

#[tokio::test]
async fn an_oversized_payload_is_a_miss_before_it_is_decoded() {
    let double = Double::new();
    pushed(&double, AssetKind::Blob).await;
    // Well-formed, so only the size speaks against it: an unknown field of 2 MiB.
    edit_payload(&double, AssetKind::Blob, |payload| {
        payload.extend_from_slice(&[0xfa, 0x06, 0x80, 0x80, 0x80, 0x01]);
        payload.resize(payload.len() + (2 << 20), 0);
        assert!(AssetEntry::decode(&**payload).is_ok());
    });
    double.take_log();
    assert!(is_unusable(&get(&double, AssetKind::Blob).await));
    assert_eq!(double.take_log(), ["GetActionResult"]);
}

#[tokio::test]
async fn a_thousand_outputs_or_payloads_are_a_miss() {
    let double = Double::new();
    pushed(&double, AssetKind::Blob).await;
    edit(&double, AssetKind::Blob, |entry| {
        let file = entry.output_files[0].clone();
        entry.output_files = vec![file; 1000];
    });
    assert!(is_unusable(&get(&double, AssetKind::Blob).await));

    // Of several payloads the first counts; the rest is not looked at.
    let reference = pushed(&double, AssetKind::Blob).await;
    edit(&double, AssetKind::Blob, |entry| {
        let metadata = entry.execution_metadata.as_mut().unwrap();
        let mut other = metadata.auxiliary_metadata[0].clone();
        other.value = vec![0xff; 64];
        metadata.auxiliary_metadata.extend(vec![other; 1000]);
    });
    let found = get(&double, AssetKind::Blob).await;
    assert_eq!(found, Lookup::Hit(Box::new(reference)));
}

#[tokio::test]
async fn an_entry_of_the_other_kind_is_a_miss() {
    for (asked, stored) in [
        (AssetKind::Blob, AssetKind::Directory),
        (AssetKind::Directory, AssetKind::Blob),
    ] {
        let double = Double::new();
        pushed(&double, stored).await;
        double.set(|s| {
            let entry = s.entries[&action(stored)].clone();
            s.entries.insert(action(asked), entry);
        });
        assert!(is_unusable(&get(&double, asked).await));
    }
}

#[tokio::test]
async fn an_entry_that_names_its_own_action_or_tree_is_a_miss() {
    let double = Double::new();
    let reference = pushed(&double, AssetKind::Directory).await;
    // Its Action, which is in the CAS, as its Tree.
    let own = encode_key("", &key(AssetKind::Directory), scope().function)
        .unwrap()
        .action
        .0;
    assert!(double.has(&own));
    edit(&double, AssetKind::Directory, |entry| {
        entry.output_directories[0].tree_digest = Some(own.to_wire());
    });
    assert!(is_unusable(&get(&double, AssetKind::Directory).await));
    // Its root, which is no Tree of itself.
    edit(&double, AssetKind::Directory, |entry| {
        entry.output_directories[0].tree_digest = Some(reference.digest.to_wire());
    });
    assert!(is_unusable(&get(&double, AssetKind::Directory).await));
    // Its Tree as pins: it names what the asset does, and content that is there.
    pushed(&double, AssetKind::Directory).await;
    edit(&double, AssetKind::Directory, |entry| {
        let mut pins = entry.output_directories[0].clone();
        pins.path = match entry.output_directories.len() {
            1 => "pins".to_owned(),
            n => format!("pins-{}", n - 1),
        };
        entry.output_directories.push(pins);
    });
    let found = get(&double, AssetKind::Directory).await;
    assert_eq!(found, Lookup::Hit(Box::new(reference)));
}

#[tokio::test]
async fn trees_of_impossible_size_are_not_read() {
    for size in [9 << 20, 1 << 40, i64::MAX] {
        let double = Double::new();
        pushed(&double, AssetKind::Directory).await;
        edit(&double, AssetKind::Directory, |entry| {
            let tree = entry.output_directories[0].tree_digest.as_mut().unwrap();
            tree.size_bytes = size;
        });
        double.take_log();
        assert!(is_unusable(&get(&double, AssetKind::Directory).await));
        assert_eq!(double.take_log(), ["GetActionResult"], "{size}");
    }
    // Nor is what they come to together, here as pins.
    let double = Double::new();
    pushed(&double, AssetKind::Blob).await;
    edit(&double, AssetKind::Blob, |entry| {
        let pins = (0..7u8).map(|n| {
            let mut digest = crate::upstream::double::sha256(&[n]).to_wire();
            digest.size_bytes = 8 << 20;
            rev2::OutputDirectory {
                path: match n {
                    0 => "pins".to_owned(),
                    n => format!("pins-{n}"),
                },
                tree_digest: Some(digest),
                ..Default::default()
            }
        });
        entry.output_directories = pins.collect();
    });
    double.take_log();
    assert!(is_unusable(&get(&double, AssetKind::Blob).await));
    assert_eq!(double.take_log(), ["GetActionResult"]);
}

#[tokio::test]
async fn an_entry_of_countless_outputs_is_a_miss_before_it_is_decoded() {
    type Change = fn(&mut rev2::ActionResult);
    let changes: [Change; 2] = [
        |entry| entry.output_files.resize_with(1 << 19, Default::default),
        |entry| entry.stdout_raw = vec![b'x'; 3 << 20].into(),
    ];
    for change in changes {
        let double = Double::new();
        pushed(&double, AssetKind::Blob).await;
        double.set(|s| s.entries.values_mut().for_each(change));
        let (store, key) = (store(&double), key(AssetKind::Blob));
        let found = store.explain(&CallContext::default(), &key).await;
        let found = found.unwrap();
        assert_eq!(found.lookup, Lookup::Miss(Miss::Unusable));
        assert_eq!(found.detail, "undecodable");
    }
}
