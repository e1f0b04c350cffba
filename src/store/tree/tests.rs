//! Layout of Trees and pins, and Trees that lie.

use super::*;
use crate::upstream::double::sha256;

const F: DigestFunction = DigestFunction::Sha256;

fn message(files: &[&Digest], dirs: &[&Digest]) -> rev2::Directory {
    let files = files.iter().enumerate().map(|(i, d)| rev2::FileNode {
        name: format!("f{i}"),
        digest: Some(d.to_wire()),
        ..Default::default()
    });
    let dirs = dirs.iter().enumerate().map(|(i, d)| rev2::DirectoryNode {
        name: format!("d{i}"),
        digest: Some(d.to_wire()),
    });
    rev2::Directory {
        files: files.collect(),
        directories: dirs.collect(),
        ..Default::default()
    }
}

fn node(files: &[&Digest], dirs: &[&Digest]) -> TreeNode {
    let bytes = Bytes::from(message(files, dirs).encode_to_vec());
    TreeNode::parse(F, sha256(&bytes), bytes).unwrap()
}

#[test]
fn parents_come_before_children_and_each_once() {
    let file = sha256(b"f");
    let a = node(&[&file], &[]);
    let b = node(&[], &[&a.digest]);
    let c = node(&[], &[&b.digest, &a.digest]);
    // `a` is met at the first level already, yet has to come last.
    let root = node(&[], &[&a.digest, &b.digest, &c.digest, &a.digest]);
    let by_level = [root.clone(), a.clone(), b.clone(), c.clone()];
    let tree = encode(&by_level).unwrap();
    let raw = RawTree::decode(tree.clone()).unwrap();
    assert_eq!(raw.root.as_ref(), Some(&root.bytes));
    assert_eq!(raw.children, [c.bytes, b.bytes, a.bytes]);
    // It is a Tree for everybody else, too.
    let tree_message = rev2::Tree::decode(tree.clone()).unwrap();
    assert_eq!(tree_message.encode_to_vec(), tree);
    assert_eq!(tree[0], 0x0a);

    let mut nodes = decode(F, &root.digest, tree).unwrap();
    let mut want = by_level.to_vec();
    nodes.sort_by(|a, b| a.digest.cmp(&b.digest));
    want.sort_by(|a, b| a.digest.cmp(&b.digest));
    assert_eq!(nodes, want);
}

#[test]
fn empty_directories_are_directories() {
    let empty = node(&[], &[]);
    let tree = encode(std::slice::from_ref(&empty)).unwrap();
    assert_eq!(&tree[..], [0x0a, 0]);
    let nodes = decode(F, &empty.digest, tree).unwrap();
    assert_eq!(nodes, std::slice::from_ref(&empty));
    let root = node(&[], &[&empty.digest]);
    let without = RawTree {
        root: Some(root.bytes.clone()),
        children: Vec::new(),
    };
    let nodes = decode(F, &root.digest, without.encode_to_vec().into()).unwrap();
    assert_eq!(nodes, [root, empty]);
}

#[test]
fn fields_we_do_not_know_survive() {
    let mut bytes = message(&[&sha256(b"f")], &[]).encode_to_vec();
    bytes.extend_from_slice(&[0xfa, 0x06, 1, b'x']);
    let bytes = Bytes::from(bytes);
    let node = TreeNode::parse(F, sha256(&bytes), bytes).unwrap();
    let tree = encode(std::slice::from_ref(&node)).unwrap();
    assert_eq!(decode(F, &node.digest, tree).unwrap(), [node]);
}

#[test]
fn trees_that_lie_are_refused() {
    let leaf = node(&[&sha256(b"f")], &[]);
    let root = node(&[], &[&leaf.digest]);
    let tree = |root: &TreeNode, children: &[&TreeNode]| -> Bytes {
        let children = children.iter().map(|n| n.bytes.clone());
        let root = Some(root.bytes.clone());
        RawTree {
            root,
            children: children.collect(),
        }
        .encode_to_vec()
        .into()
    };
    assert!(decode(F, &root.digest, tree(&root, &[&leaf])).is_ok());
    assert_eq!(
        decode(F, &root.digest, tree(&root, &[])),
        Err("tree incomplete")
    );
    assert_eq!(
        decode(F, &root.digest, tree(&leaf, &[])),
        Err("tree incomplete")
    );
    assert!(decode(F, &root.digest, Bytes::from_static(b"nonsense")).is_err());
    assert_eq!(
        decode(F, &root.digest, Bytes::new()),
        Err("tree incomplete")
    );
    // Children that nobody names do not get in.
    let stray = node(&[&sha256(b"stray")], &[]);
    let nodes = decode(F, &root.digest, tree(&root, &[&stray, &leaf])).unwrap();
    assert!(!nodes.contains(&stray));
}

#[test]
fn too_large_a_tree_is_left_out() {
    let big = TreeNode {
        digest: Digest::new(F, &"0".repeat(64), MAX_DIRECTORY + 1).unwrap(),
        bytes: Bytes::new(),
        directories: Vec::new(),
        files: Vec::new(),
    };
    assert_eq!(encode(&[big]), None);
    let many: Vec<TreeNode> = (0..9u32)
        .map(|i| TreeNode {
            digest: Digest::new(F, &format!("{i:064}"), 1 << 20).unwrap(),
            bytes: Bytes::new(),
            directories: Vec::new(),
            files: Vec::new(),
        })
        .collect();
    assert_eq!(encode(&many), None);
}

fn digests(count: u32) -> BTreeSet<Digest> {
    (0..count).map(|i| sha256(&i.to_le_bytes())).collect()
}

#[test]
fn few_pins_are_one_directory() {
    assert_eq!(pin_trees(F, &BTreeSet::new()), Some(vec![]));
    assert_eq!(pin_trees(F, &BTreeSet::from([sha256(b"")])), Some(vec![]));
    let pins = digests(10_000);
    let trees = pin_trees(F, &pins).unwrap();
    assert_eq!(trees.len(), 1);
    assert!(trees[0].directories.is_empty());
    let tree = rev2::Tree::decode(trees[0].tree.1.clone()).unwrap();
    assert!(tree.children.is_empty());
    let files = tree.root.unwrap().files;
    assert_eq!((&*files[0].name, &*files[9_999].name), ("0000", "270f"));
    assert!(files.windows(2).all(|w| w[0].name < w[1].name));
    let named = decode_pins(F, trees[0].tree.1.clone()).unwrap();
    assert_eq!(named, pins.into_iter().collect::<Vec<_>>());
}

#[test]
fn many_pins_are_directories_and_trees() {
    let pins = digests(110_001);
    let trees = pin_trees(F, &pins).unwrap();
    assert_eq!(trees.len(), 2);
    assert_eq!(
        trees
            .iter()
            .map(|t| t.directories.len())
            .collect::<Vec<_>>(),
        [10, 2]
    );
    let mut named = BTreeSet::new();
    for tree in &trees {
        assert!(tree.tree.1.len() < MAX_TREE);
        assert_eq!(sha256(&tree.tree.1), tree.tree.0);
        let message = rev2::Tree::decode(tree.tree.1.clone()).unwrap();
        let root = message.root.unwrap();
        assert!(root.files.is_empty());
        for (node, (digest, bytes)) in root.directories.iter().zip(&tree.directories) {
            assert_eq!(node.digest, Some(digest.to_wire()));
            assert_eq!(sha256(bytes), *digest);
        }
        named.extend(decode_pins(F, tree.tree.1.clone()).unwrap());
    }
    let total: usize = trees.iter().map(|t| t.tree.1.len()).sum();
    assert!(total <= pins_size(F, pins.len()));
    assert_eq!(named, pins);
}
