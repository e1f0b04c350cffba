//! What the double's Action Cache makes of entries: which it refuses, which
//! it withholds, what it loses of them.

use prost::Message as _;
use tonic::{Code, Status};

use super::{Double, State};
use crate::digest::Digest;
use crate::proto::rev2;

/// What is done where a Tree is not there.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum LostTree {
    /// The entry is withheld.
    #[default]
    Withheld,
    /// It is given out, unchecked.
    GivenOut,
    /// The root directory stands in for it, if the entry has one.
    RootWalked,
    /// The write is refused.
    UpdateRefused,
}

/// Completeness checks of GetActionResult.
#[derive(Clone, Copy, Default)]
pub(crate) struct Checks {
    pub(crate) files: bool,
    pub(crate) trees: bool,
    pub(crate) lost_tree: LostTree,
}

impl Checks {
    pub(crate) fn all() -> Self {
        Self {
            files: true,
            trees: true,
            ..Self::default()
        }
    }
}

impl State {
    /// What an entry stands under.
    pub(super) fn key(&self, instance: &str, digest: &rev2::Digest) -> Result<String, Status> {
        match self.refuse_instances_with {
            Some(code) if !instance.is_empty() => Err(Status::new(code, "no such instance")),
            _ if self.knows_instances && !instance.is_empty() => {
                Ok(format!("{instance}/{}", digest.hash))
            }
            _ => Ok(digest.hash.clone()),
        }
    }

    pub(super) fn check_update(&self, key: &str, entry: &rev2::ActionResult) -> Result<(), Status> {
        if self.refuse_updates || self.fail_update == Some(self.updates.len()) {
            return Err(Status::permission_denied("read only"));
        }
        if let Some((code, text)) = &self.refuse_updates_with {
            return Err(Status::new(*code, text.clone()));
        }
        match self.refuse_overwrites_with {
            Some(code) if self.entries.contains_key(key) => {
                return Err(Status::new(code, "write once"));
            }
            _ => {}
        }
        let lost = |d: &rev2::OutputDirectory| !self.there(d.tree_digest.as_ref());
        let refused = self.checks.lost_tree == LostTree::UpdateRefused
            && entry.output_directories.iter().any(lost);
        if refused {
            return Err(Status::new(Code::Unknown, "tree not found"));
        }
        Ok(())
    }

    pub(super) fn is_complete(&self, entry: &rev2::ActionResult) -> bool {
        let files = entry.output_files.iter();
        let files = !self.checks.files || files.into_iter().all(|f| self.there(f.digest.as_ref()));
        let mut directories = entry.output_directories.iter();
        files && (!self.checks.trees || directories.all(|d| self.is_tree_complete(d)))
    }

    fn is_tree_complete(&self, directory: &rev2::OutputDirectory) -> bool {
        let tree = self.blob(directory.tree_digest.as_ref());
        let Some(tree) = tree.and_then(|bytes| rev2::Tree::decode(bytes).ok()) else {
            return match (self.checks.lost_tree, &directory.root_directory_digest) {
                (LostTree::GivenOut, _) => true,
                (LostTree::RootWalked, Some(root)) => self.is_directory_complete(root),
                _ => false,
            };
        };
        let directories = tree.root.iter().chain(&tree.children);
        let mut files = directories.flat_map(|d| &d.files);
        files.all(|f| self.there(f.digest.as_ref()))
    }

    fn is_directory_complete(&self, digest: &rev2::Digest) -> bool {
        let message = self.blob(Some(digest));
        let Some(directory) = message.and_then(|bytes| rev2::Directory::decode(bytes).ok()) else {
            return false;
        };
        let mut below = directory.directories.iter().flat_map(|d| &d.digest);
        let mut files = directory.files.iter();
        files.all(|f| self.there(f.digest.as_ref()))
            && below.all(|child| self.is_directory_complete(child))
    }

    fn blob(&self, digest: Option<&rev2::Digest>) -> Option<bytes::Bytes> {
        let digest: Digest = Double::digest(digest).ok()?;
        match digest.is_empty() {
            true => Some(bytes::Bytes::new()),
            false => self.blobs.get(&digest).cloned(),
        }
    }

    fn there(&self, digest: Option<&rev2::Digest>) -> bool {
        self.blob(digest).is_some()
    }

    pub(super) fn with_losses(&self, mut entry: rev2::ActionResult) -> rev2::ActionResult {
        if self.loses_root_digest {
            for directory in &mut entry.output_directories {
                directory.root_directory_digest = None;
            }
        }
        if self.loses_payload
            && let Some(metadata) = &mut entry.execution_metadata
        {
            metadata.auxiliary_metadata.clear();
        }
        entry
    }
}
