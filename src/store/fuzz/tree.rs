//! Trees, pin trees and single Directories: what a look-up takes out of them
//! is bounded by what is in them, each directory once, and complete.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use prost::Message as _;

use super::{Choices, F, sha256};
use crate::digest::Digest;
use crate::proto::rev2;
use crate::store::tree::{decode, decode_pins, encode, pin_trees};
use crate::upstream::TreeNode;

/// Directories of a made-up tree.
const DIRECTORIES: usize = 24;

/// Trees as they are written, and lists of choices that make some.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let leaf = rev2::Directory {
        files: vec![rev2::FileNode {
            name: "f".to_owned(),
            digest: Some(sha256(b"file").to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let child = rev2::DirectoryNode {
        name: "d".to_owned(),
        digest: Some(sha256(&leaf.encode_to_vec()).to_wire()),
    };
    let root = rev2::Directory {
        directories: vec![child],
        ..leaf.clone()
    };
    let tree = rev2::Tree {
        root: Some(root.clone()),
        children: vec![leaf.clone()],
    };
    let with = |mode: u8, bytes: Vec<u8>| [&[mode], &bytes[..]].concat();
    let pins = pin_trees(F, &BTreeSet::from([sha256(b"a"), sha256(b"b")])).unwrap();
    vec![
        with(0, tree.encode_to_vec()),
        with(1, root.encode_to_vec()),
        with(2, pins[0].tree.1.to_vec()),
        with(3, (0..120).collect()),
        with(3, vec![3, 0, 0, 0, 1, 1, 0, 2, 1, 0, 1, 2, 3]),
        with(3, [vec![12], [2, 255, 1].repeat(12)].concat()),
        with(3, [vec![9], [3, 0, 7, 0].repeat(12)].concat()),
    ]
}

/// A Tree, a Directory or pins as they are, or a Tree made of choices.
pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    match choices.byte() % 4 {
        0 => as_tree(Bytes::copy_from_slice(choices.0)),
        1 => directory(choices.0),
        2 => as_pins(Bytes::copy_from_slice(choices.0)),
        _ => made_up(&mut choices),
    }
}

/// Any bytes, as the Tree of whatever root stands in it, and of another one.
fn as_tree(bytes: Bytes) {
    let root = rev2::Tree::decode(bytes.clone()).ok().and_then(|t| t.root);
    let root = root.unwrap_or_default().encode_to_vec();
    for root in [sha256(&root), sha256(b""), sha256(b"another")] {
        tree(&root, bytes.clone());
    }
}

/// Whether it is a Tree of that root; if so, everything in it is as it should.
fn tree(root: &Digest, bytes: Bytes) -> bool {
    let Ok(nodes) = decode(F, root, bytes.clone()) else {
        return false;
    };
    // A part has two bytes at least; the empty Directory need not be one.
    assert!(nodes.len() <= bytes.len() / 2 + 1, "more nodes than parts");
    let size: u64 = nodes.iter().map(|n| n.digest.size()).sum();
    assert!(size <= bytes.len() as u64, "more bytes than there are");
    assert_eq!(&nodes[0].digest, root);
    for node in &nodes {
        assert_eq!(sha256(&node.bytes), node.digest);
        let again = TreeNode::parse(F, node.digest.clone(), node.bytes.clone());
        assert_eq!(again.as_ref(), Ok(node));
        check_names(&node.bytes);
    }
    let by_digest: HashMap<&Digest, &TreeNode> = nodes.iter().map(|n| (&n.digest, n)).collect();
    assert_eq!(
        by_digest.len(),
        nodes.len(),
        "a directory stands in it twice"
    );
    let mut reached = HashSet::from([root]);
    let mut open = vec![root];
    while let Some(digest) = open.pop() {
        let node = by_digest.get(digest).expect("every child is there");
        open.extend(node.directories.iter().filter(|d| reached.insert(*d)));
    }
    assert_eq!(reached.len(), nodes.len(), "nobody names one of them");
    written_again(root, &nodes);
    true
}

fn written_again(root: &Digest, nodes: &[TreeNode]) {
    let bytes = encode(nodes).expect("what fits in memory here is no large tree");
    let sorted = |nodes: &[TreeNode]| {
        let mut digests: Vec<Digest> = nodes.iter().map(|n| n.digest.clone()).collect();
        digests.sort();
        digests
    };
    let again = decode(F, root, bytes).expect("what was read can be written");
    assert_eq!(sorted(&again), sorted(nodes));
}

fn check_names(bytes: &Bytes) {
    // What we have no use for is not looked at.
    let Ok(message) = rev2::Directory::decode(bytes.clone()) else {
        return;
    };
    let files = message.files.iter().map(|n| &n.name);
    let directories = message.directories.iter().map(|n| &n.name);
    let links = message.symlinks.iter().map(|n| &n.name);
    let names: Vec<_> = files.chain(directories).chain(links).collect();
    let unique: HashSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "a name stands in it twice");
    assert!(names.iter().all(|n| !n.is_empty() && !n.contains('/')));
}

fn directory(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(node) = TreeNode::parse(F, sha256(&bytes), bytes.clone()) else {
        return;
    };
    check_names(&bytes);
    if let Ok(message) = rev2::Directory::decode(bytes) {
        assert_eq!(node.files.len(), message.files.len());
        assert_eq!(node.directories.len(), message.directories.len());
    }
    for digest in node.files.iter().chain(&node.directories) {
        assert_eq!(
            Digest::of_content(F, Some(&digest.to_wire())).as_ref(),
            Ok(digest)
        );
    }
}

fn as_pins(bytes: Bytes) {
    let Ok(pins) = decode_pins(F, bytes.clone()) else {
        return;
    };
    assert!(pins.len() <= bytes.len());
    let named: BTreeSet<Digest> = pins.into_iter().filter(|d| !d.is_empty()).collect();
    let mut again = BTreeSet::new();
    for tree in pin_trees(F, &named).unwrap() {
        assert_eq!(sha256(&tree.tree.1), tree.tree.0);
        again.extend(decode_pins(F, tree.tree.1).expect("what was read can be written"));
    }
    assert_eq!(again, named);
}

/// Directories that name earlier ones, themselves, strangers and each other by
/// a wrong digest; a Tree with some of them, some twice, the root anywhere.
fn made_up(choices: &mut Choices<'_>) {
    let count = 1 + choices.below(DIRECTORIES);
    let mut made: Vec<Bytes> = Vec::new();
    let mut whole = true;
    for index in 0..count {
        let mut message = rev2::Directory::default();
        for _ in 0..choices.below(4) {
            let target = choices.below(count + 1);
            let digest = match made.get(target) {
                Some(bytes) => sha256(bytes),
                // Of itself, of a later one, or of none: no hash fits.
                None => sha256(&[b'?', target as u8]),
            };
            whole &= target < index;
            message.directories.push(rev2::DirectoryNode {
                name: format!("{}", choices.below(8)),
                digest: Some(digest.to_wire()),
            });
        }
        let names: HashSet<_> = message.directories.iter().map(|d| &d.name).collect();
        whole &= names.len() == message.directories.len();
        made.push(message.encode_to_vec().into());
    }
    let root = made.pop().unwrap();
    let mut children: Vec<rev2::Directory> = Vec::new();
    let all = choices.byte().is_multiple_of(2);
    for bytes in &made {
        let times = if all { 1 } else { choices.below(3) };
        let child = rev2::Directory::decode(bytes.clone()).unwrap();
        children.extend(std::iter::repeat_n(child, times));
    }
    if choices.byte() % 2 == 1 {
        children.reverse();
    }
    let message = rev2::Tree {
        root: Some(rev2::Directory::decode(root.clone()).unwrap()),
        children,
    };
    let used = tree(&sha256(&root), message.encode_to_vec().into());
    if whole && all {
        assert!(used, "a good Tree was refused");
    }
    assert!(!tree(&sha256(b"another"), message.encode_to_vec().into()));
}
