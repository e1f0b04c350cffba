//! The Trees an entry names: the asset's own, which also is a backup of its
//! Directory blobs, and pin trees, whose files are whatever else has to stay.
//!
//! Messages are put together from the bytes of their parts, never encoded
//! anew, so that fields we do not know survive and digests hold.
//! Called by: `action_cache.rs`, `presence.rs`.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use prost::Message as _;

use super::encoding::Blob;
use crate::digest::{Digest, DigestFunction};
use crate::proto::estimate::{Field, Kind, Label, MessageShape, Shape, Shaped};
use crate::proto::{self, rev2};
use crate::upstream::TreeNode;

/// A Tree above this is left out (NativeLink takes 10 MiB, others less).
pub(super) const MAX_TREE: usize = 8 << 20;
/// Most memory that a stored one may take once it is taken apart, beside its
/// bytes: room for 262,144 children.
const MAX_DECODED: u64 = 9 << 20;
/// So is one with a Directory above this (Buildbarn's sample configuration).
const MAX_DIRECTORY: u64 = 2 << 20;
/// Pins in one Directory of a pin tree.
const PINS_PER_DIRECTORY: usize = 10_000;
/// Directories below the root of one pin tree: 7.9 MB with SHA-256.
const DIRECTORIES_PER_TREE: usize = 10;
/// All Trees of an entry together.
pub(super) const MAX_TREES: usize = 48 << 20;

/// `Tree` with its parts as they are: on the wire, a message and a byte string
/// are the same thing.
#[derive(Clone, PartialEq, prost::Message)]
struct RawTree {
    #[prost(bytes = "bytes", optional, tag = "1")]
    root: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    children: Vec<Bytes>,
}

impl RawTree {
    /// A stored one, if it is a message and no larger than we write them.
    fn read(bytes: Bytes) -> Option<Self> {
        proto::decode(bytes, MAX_DECODED).ok()
    }
}

static RAW_TREE: MessageShape = MessageShape {
    name: "Tree",
    size: size_of::<RawTree>(),
    fields: &[
        Field {
            number: 1,
            kind: Kind::Shared,
            label: Label::Single,
        },
        Field {
            number: 2,
            kind: Kind::Shared,
            label: Label::Repeated {
                slot: 0,
                size: size_of::<Bytes>(),
            },
        },
    ],
};

impl Shaped for RawTree {
    fn shape() -> Shape {
        Shape::by_hand(&RAW_TREE)
    }
}

/// The `Tree` of these nodes, the root first: each directory once, parents
/// before children. `None` if it is too large to be kept as one.
pub(super) fn encode(nodes: &[TreeNode]) -> Option<Bytes> {
    let total: u64 = nodes.iter().map(|n| n.digest.size() + 16).sum();
    let largest = nodes.iter().map(|n| n.digest.size()).max()?;
    if largest > MAX_DIRECTORY || total > MAX_TREE as u64 {
        return None;
    }
    let mut parts = topological(nodes).into_iter().map(|n| n.bytes.clone());
    let tree = RawTree {
        root: parts.next(),
        children: parts.collect(),
    };
    Some(tree.encode_to_vec().into())
}

/// Reverse post-order of a depth-first walk, which puts parents first.
fn topological(nodes: &[TreeNode]) -> Vec<&TreeNode> {
    let index: HashMap<&Digest, &TreeNode> = nodes.iter().map(|n| (&n.digest, n)).collect();
    let mut order = Vec::with_capacity(nodes.len());
    let mut seen = HashSet::new();
    let mut stack = Vec::new();
    if let Some(root) = nodes.first() {
        seen.insert(&root.digest);
        stack.push((root, root.directories.iter()));
    }
    while let Some((node, children)) = stack.last_mut() {
        let unseen = children.find(|d| index.contains_key(d) && seen.insert(d));
        match unseen.and_then(|d| index.get(d)) {
            Some(child) => stack.push((child, child.directories.iter())),
            None => {
                order.push(*node);
                stack.pop();
            }
        }
    }
    order.reverse();
    order
}

/// The nodes of a stored Tree that are at or below `root`; the error says why
/// it is not a Tree of that root. Children nobody refers to are left out.
pub(super) fn decode(
    function: DigestFunction,
    root: &Digest,
    tree: Bytes,
) -> Result<Vec<TreeNode>, &'static str> {
    let tree = RawTree::read(tree).ok_or("tree undecodable")?;
    let parts = tree.root.iter().chain(&tree.children);
    let parts = parts.map(|bytes| Some((Digest::of(function, bytes)?, bytes)));
    let parts: Option<HashMap<Digest, &Bytes>> = parts.collect();
    let parts = parts.ok_or("tree digest function")?;
    let mut nodes: Vec<TreeNode> = Vec::new();
    let mut seen = HashSet::from([root.clone()]);
    let mut wanted = vec![root.clone()];
    while let Some(digest) = wanted.pop() {
        let bytes = match parts.get(&digest) {
            Some(bytes) => (*bytes).clone(),
            None if digest.is_empty() => Bytes::new(),
            None => return Err("tree incomplete"),
        };
        let node = TreeNode::parse(function, digest, bytes).map_err(|_| "tree of other content")?;
        let unseen = node
            .directories
            .iter()
            .filter(|d| seen.insert((*d).clone()));
        wanted.extend(unseen.cloned());
        nodes.push(node);
    }
    Ok(nodes)
}

/// A pin tree, and Directories of it that some caches look up in the CAS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PinTree {
    pub(super) tree: Blob,
    pub(super) directories: Vec<Blob>,
}

/// Pin trees that together name all `pins`; none for no pins. `None` if the
/// digest function cannot be computed.
pub(super) fn pin_trees(function: DigestFunction, pins: &BTreeSet<Digest>) -> Option<Vec<PinTree>> {
    let pins: Vec<&Digest> = pins.iter().filter(|d| !d.is_empty()).collect();
    pins.chunks(PINS_PER_DIRECTORY * DIRECTORIES_PER_TREE)
        .map(|chunk| pin_tree(function, chunk))
        .collect()
}

fn pin_tree(function: DigestFunction, pins: &[&Digest]) -> Option<PinTree> {
    let leaves = pins.chunks(PINS_PER_DIRECTORY).map(pin_directory);
    let mut leaves: Vec<Bytes> = leaves.map(|d| d.encode_to_vec().into()).collect();
    let mut tree = RawTree::default();
    let mut directories = Vec::new();
    if leaves.len() == 1 {
        tree.root = leaves.pop();
    } else {
        for leaf in &leaves {
            directories.push((Digest::of(function, leaf)?, leaf.clone()));
        }
        let nodes = directories.iter().enumerate();
        let root = rev2::Directory {
            directories: nodes
                .map(|(index, (digest, _))| rev2::DirectoryNode {
                    name: pin_name(index),
                    digest: Some(digest.to_wire()),
                })
                .collect(),
            ..Default::default()
        };
        tree.root = Some(root.encode_to_vec().into());
        tree.children = leaves;
    }
    let bytes = Bytes::from(tree.encode_to_vec());
    Some(PinTree {
        tree: (Digest::of(function, &bytes)?, bytes),
        directories,
    })
}

fn pin_directory(pins: &[&Digest]) -> rev2::Directory {
    let files = pins
        .iter()
        .enumerate()
        .map(|(index, digest)| rev2::FileNode {
            name: pin_name(index),
            digest: Some(digest.to_wire()),
            ..Default::default()
        });
    rev2::Directory {
        files: files.collect(),
        ..Default::default()
    }
}

fn pin_name(index: usize) -> String {
    format!("{index:04x}")
}

/// Bytes that pin trees of so many digests take, rounded up.
pub(super) fn pins_size(function: DigestFunction, pins: usize) -> usize {
    pins.saturating_mul(function.hex_length() + 20)
}

/// The digests a pin tree names.
pub(super) fn decode_pins(
    function: DigestFunction,
    tree: Bytes,
) -> Result<Vec<Digest>, &'static str> {
    let tree = RawTree::read(tree).ok_or("pins undecodable")?;
    let mut pins = Vec::new();
    for bytes in tree.root.iter().chain(&tree.children) {
        let digest = Digest::of(function, bytes).ok_or("pins digest function")?;
        let node = TreeNode::parse(function, digest, bytes.clone()).map_err(|_| "pins digest")?;
        pins.extend(node.files);
    }
    Ok(pins)
}

#[cfg(test)]
mod tests;
