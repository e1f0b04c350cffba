//! Directories of the CAS: what a `Directory` names, and the walk over all
//! that are below one.
//!
//! Breadth first with batched reads, as some caches have no GetTree and others
//! leave out what is missing without a word. Bounded in depth, number and
//! bytes.
//! Not for: `Tree` messages (`store::tree`).
//! Called by: `store`.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::{Cache, CallContext, Error};
use crate::budget::{Permit, Share};
use crate::digest::{Digest, DigestFunction, Scope};
use crate::proto::estimate::{Excess, Field, Kind, Label, Limits, MessageShape, Shape, Shaped};
use crate::proto::{self, rev2};

/// Most levels of a tree.
const MAX_DEPTH: usize = 512;
/// Most distinct directories of a tree.
pub const MAX_DIRECTORIES: usize = 200_000;
/// Most memory that one directory may take once it is decoded: a million nodes
/// without a digest, or more files than `MAX_BYTES` has room for.
const MAX_DECODED: u64 = 128 << 20;
/// Most bytes of all `Directory` messages of a tree.
const MAX_BYTES: u64 = 48 << 20;
/// Bytes of memory that each of them takes while the tree is looked at: what it
/// names stands in it, in lists and in sets. Of the budget a tree takes at most
/// half, so that messages are received beside it.
const HELD: u64 = 6;

/// One `Directory`, reduced to what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeNode {
    /// Digest of the message.
    pub digest: Digest,
    /// The message exactly as stored, fields we do not know included.
    pub bytes: Bytes,
    /// Digests of its child directories, in its order.
    pub directories: Vec<Digest>,
    /// Digests of its files, in its order.
    pub files: Vec<Digest>,
}

impl TreeNode {
    /// Reads a message whose digest is verified already; the error says why
    /// these bytes are not a `Directory`.
    pub fn parse(
        function: DigestFunction,
        digest: Digest,
        bytes: Bytes,
    ) -> Result<TreeNode, String> {
        let message: Slim =
            proto::decode(bytes.clone(), MAX_DECODED).map_err(|error| error.to_string())?;
        // Unknown fields alone: some other content that happens to parse.
        if message == Slim::default() && !bytes.is_empty() {
            return Err("it holds no field of a Directory".to_owned());
        }
        check_names(&message)?;
        let read = |wire: &Option<rev2::Digest>| {
            Digest::of_content(function, wire.as_ref()).map_err(|e| format!("a node's digest: {e}"))
        };
        let directories = message.directories.iter().map(|d| read(&d.digest));
        let files = message.files.iter().map(|f| read(&f.digest));
        Ok(TreeNode {
            directories: directories.collect::<Result<_, _>>()?,
            files: files.collect::<Result<_, _>>()?,
            digest,
            bytes,
        })
    }
}

/// A `Directory` without what is of no interest here, and with names where
/// they stand: a message takes little more memory than its bytes, whatever is
/// in it.
#[derive(Clone, PartialEq, prost::Message)]
struct Slim {
    #[prost(message, repeated, tag = "1")]
    files: Vec<SlimNode>,
    #[prost(message, repeated, tag = "2")]
    directories: Vec<SlimNode>,
    #[prost(message, repeated, tag = "3")]
    symlinks: Vec<SlimLink>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    properties: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SlimNode {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(message, optional, tag = "2")]
    digest: Option<rev2::Digest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SlimLink {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
}

const fn field(number: u32, kind: Kind, label: Label) -> Field {
    Field {
        number,
        kind,
        label,
    }
}

const fn repeated(slot: usize, size: usize) -> Label {
    Label::Repeated { slot, size }
}

static DIGEST: MessageShape = MessageShape {
    name: "Digest",
    size: size_of::<rev2::Digest>(),
    fields: &[
        field(1, Kind::Copied, Label::Single),
        field(2, Kind::Varint, Label::Single),
    ],
};

static NODE: MessageShape = MessageShape {
    name: "FileNode or DirectoryNode",
    size: size_of::<SlimNode>(),
    fields: &[
        field(1, Kind::Shared, Label::Single),
        field(2, Kind::Message(&DIGEST), Label::Single),
    ],
};

static LINK: MessageShape = MessageShape {
    name: "SymlinkNode",
    size: size_of::<SlimLink>(),
    fields: &[field(1, Kind::Shared, Label::Single)],
};

static DIRECTORY: MessageShape = MessageShape {
    name: "Directory",
    size: size_of::<Slim>(),
    fields: &[
        field(1, Kind::Message(&NODE), repeated(0, NODE.size)),
        field(2, Kind::Message(&NODE), repeated(1, NODE.size)),
        field(3, Kind::Message(&LINK), repeated(2, LINK.size)),
        field(5, Kind::Shared, Label::Single),
    ],
};

/// How much memory the nodes of a `Tree` take beside its bytes, at most.
///
/// # Errors
/// That it is no `Tree`, or takes more than `limit`.
pub fn estimate_tree(tree: &[u8], limit: u64) -> Result<u64, Excess> {
    let estimate = Shape::by_hand(&TREE).estimate(tree, Limits::bytes(limit));
    Ok(estimate?.bytes)
}

static TREE: MessageShape = MessageShape {
    name: "Tree",
    size: 0,
    fields: &[
        field(1, Kind::Message(&DIRECTORY), Label::Single),
        field(
            2,
            Kind::Message(&DIRECTORY),
            repeated(0, size_of::<TreeNode>()),
        ),
    ],
};

impl Shaped for Slim {
    fn shape() -> Shape {
        Shape::by_hand(&DIRECTORY)
    }
}

/// Names are one path segment each and unique over all kinds of nodes.
fn check_names(message: &Slim) -> Result<(), String> {
    let files = message.files.iter().map(|n| &n.name);
    let directories = message.directories.iter().map(|n| &n.name);
    let links = message.symlinks.iter().map(|n| &n.name);
    let mut seen = HashSet::new();
    for bytes in files.chain(directories).chain(links) {
        let name = std::str::from_utf8(bytes).map_err(|_| "a name is not UTF-8".to_owned())?;
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(format!("{name:?} is not a name"));
        }
        if !seen.insert(name) {
            return Err(format!("the name {name:?} stands in it twice"));
        }
    }
    Ok(())
}

/// All directories at and below a root.
#[derive(Debug, Clone, Default)]
pub struct Closure {
    /// Each distinct directory once, the root first, by level.
    pub nodes: Vec<TreeNode>,
    /// Directories that are not in the CAS.
    pub missing: Vec<Digest>,
    /// What it holds of the budget: to be kept as long as the nodes are.
    pub held: Option<Arc<Permit>>,
}

/// Why a tree cannot be walked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalkError {
    /// The cache failed.
    #[error(transparent)]
    Upstream(#[from] Error),
    /// The bytes under a digest are not a `Directory`.
    #[error("{0} is not a Directory message: {1}")]
    NotADirectory(Digest, String),
    /// A bound was met.
    #[error("the tree has more than {0}")]
    TooLarge(String),
}

/// Waits until the permit is of so many bytes; of the budget trees take at most
/// half.
pub async fn grow_for_trees(permit: Option<&mut Permit>, bytes: u64) {
    if let Some(permit) = permit {
        let takes = bytes.min(permit.share().limit() / 2);
        permit.grow(takes.saturating_sub(permit.bytes())).await;
    }
}

impl Cache {
    /// A permit of no bytes yet for what is read of trees beside the walk. Not
    /// to be held incomplete during one: nobody might go on.
    #[must_use]
    pub fn claim_for_trees(&self) -> Option<Permit> {
        self.trees.as_ref().map(Share::claim)
    }

    /// Reads and verifies the directories at and below `root`.
    pub async fn directories(
        &self,
        context: &CallContext,
        scope: &Scope,
        root: &Digest,
    ) -> Result<Closure, WalkError> {
        let mut closure = Closure::default();
        let mut seen = HashSet::from([root.clone()]);
        let mut bytes = 0u64;
        let mut level = vec![root.clone()];
        let mut permit = self.trees.as_ref().map(Share::claim);
        for _ in 0..MAX_DEPTH {
            if level.is_empty() {
                closure.held = permit.map(|mut permit| {
                    permit.complete();
                    Arc::new(permit)
                });
                return Ok(closure);
            }
            bytes = level.iter().fold(bytes, |n, d| n.saturating_add(d.size()));
            if bytes > MAX_BYTES {
                return Err(WalkError::TooLarge(format!("{MAX_BYTES} bytes")));
            }
            grow_for_trees(permit.as_mut(), bytes * HELD).await;
            let mut blobs = self.read_blobs(context, scope, &level).await?;
            let mut next = Vec::new();
            for digest in level {
                let Some(blob) = blobs.remove(&digest) else {
                    closure.missing.push(digest);
                    continue;
                };
                let node = TreeNode::parse(scope.function, digest.clone(), blob)
                    .map_err(|reason| WalkError::NotADirectory(digest, reason))?;
                let unseen: BTreeSet<_> = node
                    .directories
                    .iter()
                    .filter(|d| !seen.contains(*d))
                    .cloned()
                    .collect();
                seen.extend(unseen.iter().cloned());
                next.extend(unseen);
                closure.nodes.push(node);
            }
            if seen.len() > MAX_DIRECTORIES {
                return Err(WalkError::TooLarge(format!(
                    "{MAX_DIRECTORIES} directories"
                )));
            }
            level = next;
        }
        Err(WalkError::TooLarge(format!("{MAX_DEPTH} levels")))
    }
}
