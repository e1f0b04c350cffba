//! What a probe writes: references as real ones are, in a namespace nobody
//! else has, some of which name content that was never uploaded.
//!
//! Not for: sending them (`run.rs`).
//! Called by: `run.rs`.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;

use super::super::encoding::{Blob, Format, Outputs, encode_entry, encode_key};
use super::super::tree;
use super::Carrier;
use crate::asset::{
    AssetKey, AssetKind, AssetReference, KeySpace, Qualifiers, Source, Uri, Validators,
};
use crate::digest::{Digest, DigestFunction, InstanceName, Scope};
use crate::proto::rev2;
use crate::upstream::TreeNode;

/// An entry and the action it stands under.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) action: Digest,
    pub(super) result: rev2::ActionResult,
}

/// Everything one probe writes.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) scope: Scope,
    /// The same for entries, which may stand in another cache.
    pub(super) at: Scope,
    /// A name nobody uses.
    pub(super) other_instance: InstanceName,
    /// To upload before the entries: content, and the messages of their keys.
    pub(super) blobs: Vec<Blob>,
    pub(super) messages: Vec<Blob>,
    /// Digests never uploaded, and one of uploaded content with another size.
    pub(super) absent: Digest,
    pub(super) resized: Digest,
    /// Content that is there.
    pub(super) present: Digest,
    /// Two contents for one key, both complete, with a pin tree.
    pub(super) first: Entry,
    pub(super) second: Entry,
    /// A complete directory.
    pub(super) directory: Entry,
    pub(super) root: Digest,
    /// No content at all.
    pub(super) bare: Entry,
    /// Entries that lack something.
    pub(super) no_file: Entry,
    pub(super) no_tree_file: Entry,
    pub(super) no_pin: Entry,
    pub(super) no_tree: Entry,
    pub(super) no_pin_tree: Entry,
}

impl Sample {
    /// A new one, with entries that name content of `function` under keys of
    /// `at`; `None` if a digest function cannot be computed.
    pub(super) fn new(
        instance: &InstanceName,
        function: DigestFunction,
        at: DigestFunction,
        detached: bool,
    ) -> Option<Self> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut maker = Maker {
            format: Format {
                namespace: format!("assetgate-probe-{id}").into(),
                mac: None,
            },
            scope: Scope::new(instance.clone(), function),
            at: Scope::new(instance.clone(), at),
            now: SystemTime::now(),
            blobs: Vec::new(),
            messages: Vec::new(),
        };
        let (one, two, pinned) = (maker.upload("1")?, maker.upload("2")?, maker.upload("3")?);
        let pins = [maker.pin(&pinned, true)?];
        let (whole, tree) = maker.tree(&one, true)?;
        let nodes: BTreeSet<Digest> = whole.iter().map(|n| n.digest.clone()).collect();
        let tree_pins = maker.pins(&nodes, true)?;
        let root = whole.first()?.digest.clone();
        let (bad_tree, lost_tree) = (
            maker.broken_tree("4", true)?,
            maker.broken_tree("5", false)?,
        );
        let bad_pin = [maker.pin(&maker.absent("6")?, true)?];
        let lost_pins = [maker.pin(&maker.absent("7")?, false)?];
        let no_file = maker.absent("8")?;
        Some(Self {
            other_instance: InstanceName::new(&maker.format.namespace).ok()?,
            absent: maker.absent("9")?,
            resized: Digest::new(function, one.hash(), one.size() + 1).ok()?,
            first: maker.control(&one, &pins, detached)?,
            second: maker.control(&two, &pins, detached)?,
            directory: maker.directory("directory", &root, tree, &[tree_pins])?,
            bare: maker.bare(&one)?,
            no_file: maker.blob("no-file", &no_file, &[])?,
            no_tree_file: maker.directory("no-tree-file", &bad_tree.0, bad_tree.1, &[])?,
            no_pin: maker.blob("no-pin", &one, &bad_pin)?,
            no_tree: maker.directory("no-tree", &lost_tree.0, lost_tree.1, &[])?,
            no_pin_tree: maker.blob("no-pin-tree", &one, &lost_pins)?,
            root,
            present: one,
            scope: maker.scope,
            at: maker.at,
            blobs: maker.blobs,
            messages: maker.messages,
        })
    }
}

struct Maker {
    format: Format,
    scope: Scope,
    at: Scope,
    now: SystemTime,
    blobs: Vec<Blob>,
    messages: Vec<Blob>,
}

impl Maker {
    fn content(&self, name: &str) -> Bytes {
        format!("{} {name}\n", self.format.namespace).into()
    }

    /// Content of this name, which nobody uploads.
    fn absent(&self, name: &str) -> Option<Digest> {
        Digest::of(self.scope.function, &self.content(name))
    }

    fn upload(&mut self, name: &str) -> Option<Digest> {
        let content = self.content(name);
        self.add(content, true)
    }

    fn add(&mut self, bytes: Bytes, upload: bool) -> Option<Digest> {
        let digest = Digest::of(self.scope.function, &bytes)?;
        if upload {
            self.blobs.push((digest.clone(), bytes));
        }
        Some(digest)
    }

    fn pin(&mut self, pin: &Digest, upload: bool) -> Option<Digest> {
        self.pins(&BTreeSet::from([pin.clone()]), upload)
    }

    /// A pin tree; with `upload`, it is there.
    fn pins(&mut self, pins: &BTreeSet<Digest>, upload: bool) -> Option<Digest> {
        let mut trees = tree::pin_trees(self.scope.function, pins)?;
        let (_, bytes) = trees.pop()?.tree;
        self.add(bytes, upload)
    }

    fn node(&mut self, message: &rev2::Directory) -> Option<TreeNode> {
        let bytes = Bytes::from(message.encode_to_vec());
        let digest = self.add(bytes.clone(), true)?;
        TreeNode::parse(self.scope.function, digest, bytes).ok()
    }

    /// A directory in a directory, with one file in it: caches have to look
    /// below the root. Its messages are uploaded, its Tree with `upload`.
    fn tree(&mut self, file: &Digest, upload: bool) -> Option<(Vec<TreeNode>, Digest)> {
        let child = self.node(&rev2::Directory {
            files: vec![rev2::FileNode {
                name: "file".to_owned(),
                digest: Some(file.to_wire()),
                ..Default::default()
            }],
            ..Default::default()
        })?;
        let root = self.node(&rev2::Directory {
            directories: vec![rev2::DirectoryNode {
                name: "directory".to_owned(),
                digest: Some(child.digest.to_wire()),
            }],
            ..Default::default()
        })?;
        let nodes = vec![root, child];
        let tree = self.add(tree::encode(&nodes)?, upload)?;
        Some((nodes, tree))
    }

    /// The same with a file that was never uploaded: root and Tree.
    fn broken_tree(&mut self, name: &str, upload: bool) -> Option<(Digest, Digest)> {
        let file = self.absent(name)?;
        let (nodes, tree) = self.tree(&file, upload)?;
        Some((nodes.first()?.digest.clone(), tree))
    }

    /// One of the two for the same key; later ones are of a later time.
    fn control(&mut self, digest: &Digest, pins: &[Digest], detached: bool) -> Option<Entry> {
        self.now += Duration::from_secs(1);
        if !detached {
            return self.blob("control", digest, pins);
        }
        let outputs = Outputs {
            detached: Some(Vec::new()),
            ..Outputs::default()
        };
        self.entry("control", AssetKind::Blob, digest, &outputs)
    }

    fn blob(&mut self, name: &str, digest: &Digest, pins: &[Digest]) -> Option<Entry> {
        let outputs = Outputs {
            pins: pins.to_vec(),
            ..Outputs::default()
        };
        self.entry(name, AssetKind::Blob, digest, &outputs)
    }

    fn directory(
        &mut self,
        name: &str,
        root: &Digest,
        tree: Digest,
        pins: &[Digest],
    ) -> Option<Entry> {
        let outputs = Outputs {
            tree: Some(tree),
            pins: pins.to_vec(),
            ..Outputs::default()
        };
        self.entry(name, AssetKind::Directory, root, &outputs)
    }

    fn bare(&mut self, digest: &Digest) -> Option<Entry> {
        let outputs = Outputs {
            withdrawn: true,
            ..Outputs::default()
        };
        self.entry("bare", AssetKind::Blob, digest, &outputs)
    }

    fn entry(
        &mut self,
        name: &str,
        kind: AssetKind,
        digest: &Digest,
        outputs: &Outputs,
    ) -> Option<Entry> {
        let uri = format!("urn:assetgate:probe:{name}");
        let key = AssetKey {
            scope: self.scope.clone(),
            kind,
            space: KeySpace::Exact {
                uri: Uri::new(uri.clone()),
                qualifiers: Qualifiers::default(),
            },
        };
        let encoded = encode_key(&self.format.namespace, &key, self.at.function)?;
        let reference = AssetReference {
            kind,
            digest: digest.clone(),
            uri,
            qualifiers: Qualifiers::default(),
            content_time: self.now,
            expire_at: None,
            source: Source::Push,
            validators: Validators::default(),
            verified: Vec::new(),
            signed_at: None,
            referenced_blobs: Vec::new(),
            referenced_directories: Vec::new(),
        };
        let carrier = Carrier::Metadata;
        let (format, reference) = (&self.format, &reference);
        let (result, _) = encode_entry(format, &key, &encoded, reference, outputs, carrier);
        let action = encoded.action.0.clone();
        self.messages.extend([encoded.command, encoded.action]);
        Some(Entry { action, result })
    }
}
