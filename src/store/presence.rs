//! Whether what a reference names is in the CAS, completely, at this moment.
//!
//! Asked by ourselves, unless a probe has seen that the cache withholds entries
//! of which something is gone.
//! A Directory blob that is gone is put back from the entry's Tree; most
//! caches never look at Directory blobs and evict them first.
//! Called by: `action_cache.rs`.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::encoding::Outputs;
use super::{Error, Modes, tree};
use crate::asset::{AssetKind, AssetReference};
use crate::digest::{Digest, Scope};
use crate::upstream::{self, Cache, CallContext, Closure, TreeNode, WalkError};

/// Most memory that the nodes of all Trees of an entry may take: those we write
/// take less than four times their bytes where these are many.
const MAX_DECODED: u64 = 4 * tree::MAX_TREES as u64;

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Everything is there.
    Complete,
    /// Something is not.
    Incomplete,
    /// The entry's Trees are not what they should be.
    Unusable(&'static str),
}

/// Whether the cache would have withheld the entry if anything it names were
/// gone. A directory is guarded by its Tree and by the pins of its Directory
/// blobs; an entry without these is not one of ours.
pub(super) fn is_proved_by_the_cache(
    modes: Modes,
    reference: &AssetReference,
    outputs: &Outputs,
) -> bool {
    if outputs.detached.is_some() {
        return false;
    }
    let pinned = !outputs.pins.is_empty();
    match reference.kind {
        AssetKind::Blob => modes.checks_files && (!pinned || modes.checks_trees),
        AssetKind::Directory => modes.checks_trees && (pinned || reference.digest.is_empty()),
    }
}

/// Checks the content of one reference.
pub(super) async fn check(
    cache: &Cache,
    context: &CallContext,
    scope: &Scope,
    reference: &AssetReference,
    outputs: &Outputs,
) -> Result<Presence, Error> {
    let trees: BTreeSet<&Digest> = outputs.pins.iter().chain(&outputs.tree).collect();
    let Some(size) = memory(reference.kind, outputs, &trees) else {
        return Ok(Presence::Unusable("trees too large"));
    };
    // One connection's checks leave room for those of others.
    let _look = match context.connection() {
        Some(connection) if size > 0 => Some(connection.look(size as u64).await),
        _ => None,
    };
    let check = Check {
        cache,
        context,
        scope,
    };
    match check.run(reference, outputs, trees).await {
        Ok(presence) => Ok(presence),
        Err(Error::Upstream(upstream::Error::Corrupt(_))) => Ok(Presence::Unusable("tree corrupt")),
        Err(error) => Err(error),
    }
}

/// Whether one blob is there. A directory would have to be walked; until any
/// is fetched from an origin, not to know is enough.
pub(super) async fn is_present(
    cache: &Cache,
    context: &CallContext,
    scope: &Scope,
    kind: AssetKind,
    digest: &Digest,
) -> Result<bool, Error> {
    if kind == AssetKind::Directory {
        return Ok(false);
    }
    let missing = cache.find_missing(context, scope, [digest]).await?;
    Ok(missing.is_empty())
}

/// What a check may have in memory at once, or `None` if that is too much. A
/// directory without a Tree is walked, and may be as large as all Trees.
fn memory(kind: AssetKind, outputs: &Outputs, trees: &BTreeSet<&Digest>) -> Option<usize> {
    let size = trees.iter().fold(0, |n: u64, d| n.saturating_add(d.size()));
    let size = usize::try_from(size).ok()?;
    let tree = outputs.tree.as_ref().map_or(0, Digest::size);
    let walked = match (kind, &outputs.tree) {
        (AssetKind::Directory, None) => tree::MAX_TREES,
        _ => 0,
    };
    let fits = size <= tree::MAX_TREES && tree <= tree::MAX_TREE as u64 + 1024;
    fits.then_some(size + walked)
}

/// What the nodes of Trees will take in memory; `None` if they are no Trees,
/// or more than an entry may have.
fn nodes(trees: &HashMap<Digest, Bytes>) -> Option<u64> {
    trees.values().try_fold(0, |sum, tree| {
        let left = MAX_DECODED.checked_sub(sum)?;
        Some(sum + upstream::estimate_tree(tree, left).ok()?)
    })
}

struct Check<'a> {
    cache: &'a Cache,
    context: &'a CallContext,
    scope: &'a Scope,
}

/// What has to be present, and what could be put back.
#[derive(Default)]
struct Wanted {
    digests: BTreeSet<Digest>,
    healable: HashMap<Digest, Bytes>,
}

impl Check<'_> {
    async fn run(
        &self,
        reference: &AssetReference,
        outputs: &Outputs,
        trees: BTreeSet<&Digest>,
    ) -> Result<Presence, Error> {
        let mut blobs = HashMap::new();
        let mut held = None;
        if !trees.is_empty() {
            let size = trees.iter().fold(0, |n, d| n + d.size());
            held = self.cache.claim_for_trees();
            upstream::grow_for_trees(held.as_mut(), size).await;
            blobs = self
                .cache
                .read_blobs(self.context, self.scope, trees.iter().copied())
                .await?;
        }
        if trees.iter().any(|d| !blobs.contains_key(*d)) {
            return Ok(Presence::Incomplete);
        }
        let Some(takes) = nodes(&blobs) else {
            return Ok(Presence::Unusable("tree undecodable"));
        };
        let size = blobs.values().fold(0, |n, tree| n + tree.len() as u64);
        upstream::grow_for_trees(held.as_mut(), size + takes).await;
        let mut wanted = Wanted::default();
        let function = self.scope.function;
        wanted
            .digests
            .extend(outputs.detached.iter().flatten().cloned());
        for pins in outputs.pins.iter().filter_map(|d| blobs.get(d)) {
            match tree::decode_pins(function, pins.clone()) {
                Ok(pins) => wanted.digests.extend(pins),
                Err(why) => return Ok(Presence::Unusable(why)),
            }
        }
        match (
            reference.kind,
            outputs.tree.as_ref().and_then(|d| blobs.get(d)),
        ) {
            (AssetKind::Blob, _) => {
                wanted.digests.insert(reference.digest.clone());
            }
            (AssetKind::Directory, Some(tree)) => {
                match tree::decode(function, &reference.digest, tree.clone()) {
                    Ok(nodes) => wanted.add_tree(nodes),
                    Err(why) => return Ok(Presence::Unusable(why)),
                }
            }
            (AssetKind::Directory, None) => {
                if let Some(held) = &mut held {
                    held.complete();
                }
                match self.walk(&reference.digest).await? {
                    Some(closure) => wanted
                        .digests
                        .extend(closure.nodes.into_iter().flat_map(|n| n.files)),
                    None => return Ok(Presence::Incomplete),
                }
            }
        }
        drop(blobs);
        self.all_present(wanted).await
    }

    /// The directories of an asset too large to have a Tree, if all are there.
    async fn walk(&self, root: &Digest) -> Result<Option<Closure>, Error> {
        match self.cache.directories(self.context, self.scope, root).await {
            Ok(closure) if closure.missing.is_empty() => Ok(Some(closure)),
            Ok(_) | Err(WalkError::NotADirectory(..) | WalkError::TooLarge(_)) => Ok(None),
            Err(WalkError::Upstream(error)) => Err(error.into()),
        }
    }

    async fn all_present(&self, wanted: Wanted) -> Result<Presence, Error> {
        let Wanted {
            digests,
            mut healable,
        } = wanted;
        let missing = self
            .cache
            .find_missing(self.context, self.scope, &digests)
            .await?;
        if missing.is_empty() {
            return Ok(Presence::Complete);
        }
        let lost: Option<Vec<_>> = missing
            .into_iter()
            .map(|digest| healable.remove(&digest).map(|bytes| (digest, bytes)))
            .collect();
        let Some(lost) = lost else {
            return Ok(Presence::Incomplete);
        };
        let count = lost.len() as u64;
        match self.cache.write_blobs(self.context, self.scope, lost).await {
            Ok(()) => {
                metrics::counter!("assetgate_directories_healed_total").increment(count);
                Ok(Presence::Complete)
            }
            // A caller who may only read.
            Err(error) if error.is_refusal() => Ok(Presence::Incomplete),
            Err(error) => Err(error.into()),
        }
    }
}

impl Wanted {
    fn add_tree(&mut self, nodes: Vec<TreeNode>) {
        for node in nodes {
            self.digests.insert(node.digest.clone());
            self.digests.extend(node.files);
            self.healable.insert(node.digest, node.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::double::{scope, sha256};

    #[test]
    fn a_walk_counts_as_trees_do() {
        let sized = |n| Digest::new(scope().function, sha256(b"x").hash(), n).unwrap();
        let outputs = |tree| Outputs {
            tree,
            ..Outputs::default()
        };
        let of = |kind, tree: Option<u64>| {
            let outputs = outputs(tree.map(sized));
            memory(kind, &outputs, &outputs.tree.iter().collect())
        };
        assert_eq!(of(AssetKind::Blob, None), Some(0));
        assert_eq!(of(AssetKind::Directory, Some(7)), Some(7));
        assert_eq!(of(AssetKind::Directory, None), Some(tree::MAX_TREES));
        assert_eq!(of(AssetKind::Directory, Some(1 << 40)), None);
    }
}
