//! Trees and directories with cycles, gaps, doubles and far too many nodes.

use std::time::Duration;

use super::*;
use crate::store::tree;
use crate::upstream::TreeNode;
use crate::upstream::double::sha256;

/// Nothing here may take longer, however slow the machine that tests it.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, what)
        .await
        .expect("bounded work")
}

fn directory(children: &[(&str, Digest)]) -> rev2::Directory {
    rev2::Directory {
        directories: children.iter().map(|(n, d)| directory_node(n, d)).collect(),
        ..Default::default()
    }
}

fn tree_of(root: rev2::Directory, children: Vec<rev2::Directory>) -> Vec<u8> {
    let root = Some(root);
    rev2::Tree { root, children }.encode_to_vec()
}

/// The root of the pushed directory, as a message.
fn root_of(double: &Double, reference: &AssetReference) -> rev2::Directory {
    let bytes = double.set(|s| s.blobs[&reference.digest].clone());
    rev2::Directory::decode(bytes).unwrap()
}

#[tokio::test]
async fn trees_with_cycles_and_gaps_are_misses() {
    let double = Double::new();
    let reference = pushed(&double, AssetKind::Directory).await;
    let root = root_of(&double, &reference);
    // Children that name each other: whatever the digests say, no hash fits.
    let one = directory(&[("two", sha256(b"two"))]);
    let two = directory(&[("one", sha256(&one.encode_to_vec()))]);
    for children in [
        vec![],
        vec![root.clone()],
        vec![one.clone(), two.clone()],
        vec![root.clone(), one, two, rev2::Directory::default()],
    ] {
        plant_tree(&double, tree_of(root.clone(), children));
        assert!(is_unusable(&get(&double, AssetKind::Directory).await));
    }
    // Another root, under which everything else is as it should be.
    let good = directory(&[("d", child_of(&root))]);
    let other = rev2::Directory {
        files: vec![file_node("more", &sha256(b"file"))],
        ..good
    };
    plant_tree(&double, tree_of(other, Vec::new()));
    assert!(is_unusable(&get(&double, AssetKind::Directory).await));
    for nonsense in [&b""[..], b"\xff\xff", b"\x0a\x7f", b"\x12\x00"] {
        plant_tree(&double, nonsense.to_vec());
        assert!(is_unusable(&get(&double, AssetKind::Directory).await));
    }
}

/// The digest of the only child.
fn child_of(root: &rev2::Directory) -> Digest {
    let node = root.directories[0].digest.as_ref();
    Digest::from_wire(scope().function, node).unwrap()
}

#[tokio::test]
async fn a_child_a_million_times_in_a_tree_is_one_directory() {
    let double = Double::new();
    let reference = pushed(&double, AssetKind::Directory).await;
    let root = root_of(&double, &reference);
    let child = double.set(|s| s.blobs[&child_of(&root)].clone());
    let child = rev2::Directory::decode(child).unwrap();
    let size = child.encoded_len() + 2;
    let times = tree::MAX_TREE / size - 10;
    plant_tree(&double, tree_of(root, vec![child; times]));
    let found = soon(get(&double, AssetKind::Directory)).await;
    assert_eq!(found, Lookup::Hit(Box::new(reference)));
}

#[tokio::test]
async fn millions_of_empty_children_are_one_directory() {
    // Two bytes each: four million in the largest Tree that is read.
    let double = Double::new();
    let reference = pushed(&double, AssetKind::Directory).await;
    let root = root_of(&double, &reference);
    let mut bytes = tree_of(root, Vec::new());
    let times = (tree::MAX_TREE - bytes.len()) / 2;
    bytes.extend_from_slice(&[0x12, 0].repeat(times));
    plant_tree(&double, bytes);
    let found = soon(get(&double, AssetKind::Directory)).await;
    assert!(is_unusable(&found), "the child is not in it: {found:?}");
}

/// A `Directory` of so many nodes with names and no digests, two bytes or so
/// of memory each: cheap to make and, decoded, dear to hold.
fn crowd(field: u8, nodes: usize) -> Vec<u8> {
    [field, 0].repeat(nodes)
}

#[tokio::test]
async fn ten_million_nodes_are_refused_at_once() {
    // Fields 1, 2 and 3: files, directories and links.
    for field in [0x0a, 0x12, 0x1a] {
        let double = Double::new();
        let root = double.put(crowd(field, 10_000_000));
        let reference = reference(AssetKind::Directory, &root);
        let error = soon(put(&double, &reference)).await.unwrap_err();
        let refused = matches!(error, Error::NotADirectory(..) | Error::TooLarge(_));
        assert!(refused, "{error}");
        assert_eq!(double.set(|s| s.entries.len()), 0);
    }
}

#[tokio::test]
async fn a_tree_of_four_million_nodes_is_a_miss() {
    let double = Double::new();
    pushed(&double, AssetKind::Directory).await;
    let crowd = crowd(0x0a, tree::MAX_TREE / 2 - 16);
    let reference = reference(AssetKind::Directory, &sha256(&crowd));
    // A root like that, which our own entry names.
    let digest = double.put(crowd.clone());
    assert_eq!(digest, reference.digest);
    let mut bytes = vec![0x0a];
    prost::encoding::encode_varint(crowd.len() as u64, &mut bytes);
    bytes.extend_from_slice(&crowd);
    let found = soon(async { tree::decode(scope().function, &digest, bytes.clone().into()) }).await;
    assert_eq!(found, Err("tree of other content"));
    plant_tree(&double, bytes);
    assert!(is_unusable(&soon(get(&double, AssetKind::Directory)).await));
}

#[tokio::test]
async fn pins_of_four_million_nodes_are_a_miss() {
    let double = Double::new();
    pushed(&double, AssetKind::Blob).await;
    let crowd = crowd(0x0a, tree::MAX_TREE / 2 - 16);
    let mut bytes = vec![0x0a];
    prost::encoding::encode_varint(crowd.len() as u64, &mut bytes);
    bytes.extend_from_slice(&crowd);
    let pins = double.put(bytes).to_wire();
    edit(&double, AssetKind::Blob, |entry| {
        entry.output_directories.push(rev2::OutputDirectory {
            path: "pins".to_owned(),
            tree_digest: Some(pins),
            ..Default::default()
        });
    });
    assert!(is_unusable(&soon(get(&double, AssetKind::Blob)).await));
}

#[tokio::test]
async fn a_directory_that_names_missing_or_impossible_ones_is_refused() {
    let double = Double::new();
    let missing = directory(&[("d", sha256(b"missing"))]);
    let root = double.put(missing.encode_to_vec());
    let error = put(&double, &reference(AssetKind::Directory, &root)).await;
    assert!(matches!(error, Err(Error::Missing(_))), "{error:?}");

    let huge = Digest::new(scope().function, sha256(b"huge").hash(), 1 << 50).unwrap();
    let root = double.put(directory(&[("d", huge)]).encode_to_vec());
    let error = put(&double, &reference(AssetKind::Directory, &root)).await;
    assert!(matches!(error, Err(Error::TooLarge(_))), "{error:?}");
}

#[tokio::test]
async fn names_that_are_none_or_stand_twice_are_refused() {
    let file = sha256(b"file");
    let names: [&[&str]; 7] = [
        &["a", "a"],
        &[""],
        &["."],
        &[".."],
        &["a/b"],
        &["/"],
        &["a\0b"],
    ];
    for names in names {
        let double = Double::new();
        double.put("file");
        let message = rev2::Directory {
            files: names.iter().map(|n| file_node(n, &file)).collect(),
            ..Default::default()
        };
        let bytes = message.encode_to_vec();
        assert!(TreeNode::parse(scope().function, sha256(&bytes), bytes.clone().into()).is_err());
        let root = double.put(bytes);
        let error = put(&double, &reference(AssetKind::Directory, &root)).await;
        assert!(matches!(error, Err(Error::NotADirectory(..))), "{names:?}");
    }
    // Of different kinds, too.
    let double = Double::new();
    double.put("file");
    let mixed = rev2::Directory {
        files: vec![file_node("a", &file)],
        directories: vec![directory_node("a", &sha256(b""))],
        ..Default::default()
    };
    let root = double.put(mixed.encode_to_vec());
    let error = put(&double, &reference(AssetKind::Directory, &root)).await;
    assert!(matches!(error, Err(Error::NotADirectory(..))), "{error:?}");
}
