//! What is recorded beside the keys: proves that the content is there, and
//! builds the Trees that keep it there.
//!
//! Missing content fails the push; a missing reference is a hint that did not
//! hold, dropped and counted.
//! Called by: `action_cache.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::encoding::{Blob, Outputs};
use super::{Error, tree};
use crate::asset::{AssetKind, AssetReference};
use crate::budget::Permit;
use crate::digest::{Digest, Scope};
use crate::upstream::{self, Cache, CallContext, TreeNode, WalkError};

/// Referenced trees walked at once; each may be large.
const WALKS: usize = 2;

/// Referenced trees of one push that are walked, and what these may name
/// together before no further one is: each can be as large as an asset.
const MAX_WALKS: usize = 1_000;
const MAX_NAMED: usize = 2_000_000;

/// Digests kept with a detached entry: 75 to 140 bytes each, in an entry that
/// has to stay below the message limits of every cache.
const MAX_DETACHED: usize = 5_000;

/// The outputs of an entry, and the blobs they need.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) outputs: Outputs,
    pub(super) blobs: Vec<Blob>,
    /// What it holds of the budget.
    pub(super) held: Vec<Arc<Permit>>,
}

/// Looks at everything a reference names.
pub(super) async fn gather(
    cache: &Cache,
    context: &CallContext,
    scope: &Scope,
    reference: &AssetReference,
    detached: bool,
) -> Result<Content, Error> {
    let gather = Gather {
        cache,
        context,
        scope,
    };
    let (asset, hints) = tokio::try_join!(gather.asset(reference), gather.hints(reference))?;
    let wanted = asset.wanted().chain(&hints.digests);
    let missing = cache.find_missing(context, scope, wanted).await?;
    let lost: Vec<Digest> = asset
        .wanted()
        .filter(|d| missing.contains(d))
        .cloned()
        .collect();
    if !lost.is_empty() {
        let unique: BTreeSet<Digest> = lost.into_iter().collect();
        return Err(Error::Missing(unique.into_iter().collect()));
    }
    let given = hints.digests.len();
    let mut hinted = hints.digests;
    hinted.retain(|d| !missing.contains(d));
    let dropped = hints.dropped + given - hinted.len();
    let mut pins = BTreeSet::new();
    let dropped = dropped
        + match detached {
            true => excess(&mut hinted, MAX_DETACHED),
            false => {
                pins = asset.pins();
                hints_over(tree::MAX_TREES, scope, (&asset, &pins), &mut hinted)?
            }
        };
    if dropped > 0 {
        tracing::debug!(dropped, "references of a push dropped");
        metrics::counter!("assetgate_push_references_dropped_total").increment(dropped as u64);
    }
    if detached {
        return Ok(detached_content(hinted));
    }
    pins.append(&mut hinted);
    let mut content = asset.content(scope, &pins)?;
    content.held = hints.held;
    if let Asset::Directory { held, .. } = asset {
        content.held.extend(held);
    }
    Ok(content)
}

/// What a detached entry keeps stands in its payload, which is small.
fn detached_content(hinted: BTreeSet<Digest>) -> Content {
    Content {
        outputs: Outputs {
            detached: Some(hinted.into_iter().collect()),
            ..Outputs::default()
        },
        ..Content::default()
    }
}

/// The asset itself, as far as it has been read.
enum Asset {
    Blob(Digest),
    Directory {
        nodes: Vec<TreeNode>,
        tree: Option<Bytes>,
        held: Option<Arc<Permit>>,
    },
}

impl Asset {
    /// What has not been seen to be present.
    fn wanted(&self) -> Box<dyn Iterator<Item = &Digest> + Send + '_> {
        match self {
            Asset::Blob(digest) => Box::new(std::iter::once(digest)),
            Asset::Directory { nodes, .. } => Box::new(nodes.iter().flat_map(|n| &n.files)),
        }
    }

    /// What the asset's own outputs keep already.
    fn kept(&self) -> BTreeSet<Digest> {
        match self {
            Asset::Directory { tree: None, .. } => BTreeSet::new(),
            _ => self.wanted().cloned().collect(),
        }
    }

    /// What has to be pinned for the asset's sake.
    fn pins(&self) -> BTreeSet<Digest> {
        let Asset::Directory { nodes, tree, .. } = self else {
            return BTreeSet::new();
        };
        let files = nodes
            .iter()
            .filter(|_| tree.is_none())
            .flat_map(|n| &n.files);
        let pins = nodes.iter().map(|n| &n.digest).chain(files);
        // At once: a set that grows one by one takes several times as long.
        pins.filter(|d| !d.is_empty()).cloned().collect()
    }

    fn tree(&self) -> Option<&Bytes> {
        match self {
            Asset::Blob(_) => None,
            Asset::Directory { tree, .. } => tree.as_ref(),
        }
    }

    /// What is recorded: the Tree if it has one, and what has to be pinned.
    fn content(&self, scope: &Scope, pins: &BTreeSet<Digest>) -> Result<Content, Error> {
        let function = scope.function;
        let uncomputable = || upstream::Error::UnsupportedFunction(function);
        let mut content = Content::default();
        if let Some(tree) = self.tree() {
            let digest = Digest::of(function, tree).ok_or_else(uncomputable)?;
            content.outputs.tree = Some(digest.clone());
            content.blobs.push((digest, tree.clone()));
        }
        for pins in tree::pin_trees(function, pins).ok_or_else(uncomputable)? {
            content.outputs.pins.push(pins.tree.0.clone());
            content.blobs.push(pins.tree);
            content.blobs.extend(pins.directories);
        }
        Ok(content)
    }
}

/// Takes from the hints what is kept anyway, and those for which no room is
/// left among `limit` bytes of Trees; returns how many these are.
fn hints_over(
    limit: usize,
    scope: &Scope,
    (asset, pins): (&Asset, &BTreeSet<Digest>),
    hints: &mut BTreeSet<Digest>,
) -> Result<usize, Error> {
    if !hints.is_empty() {
        let kept = asset.kept();
        hints.retain(|d| !kept.contains(d) && !pins.contains(d));
    }
    let size = |pins| tree::pins_size(scope.function, pins);
    let own = asset.tree().map_or(0, Bytes::len) + size(pins.len());
    let Some(left) = limit.checked_sub(own) else {
        return Err(Error::TooLarge(format!(
            "its pins take {own} bytes of at most {limit}"
        )));
    };
    Ok(excess(hints, left / size(1)))
}

/// Drops what is more than `room`; returns how many these are.
fn excess(hints: &mut BTreeSet<Digest>, room: usize) -> usize {
    let first = hints.iter().nth(room).cloned();
    first.map_or(0, |first| hints.split_off(&first).len())
}

/// `references_*` of a push: digests to keep, and how many did not hold.
#[derive(Default)]
struct Hints {
    digests: BTreeSet<Digest>,
    dropped: usize,
    held: Vec<Arc<Permit>>,
}

struct Gather<'a> {
    cache: &'a Cache,
    context: &'a CallContext,
    scope: &'a Scope,
}

impl Gather<'_> {
    async fn asset(&self, reference: &AssetReference) -> Result<Asset, Error> {
        if reference.kind == AssetKind::Blob {
            return Ok(Asset::Blob(reference.digest.clone()));
        }
        let walk = self
            .cache
            .directories(self.context, self.scope, &reference.digest);
        match walk.await {
            Ok(closure) if closure.missing.is_empty() => {
                let tree = tree::encode(&closure.nodes);
                let (nodes, held) = (closure.nodes, closure.held);
                Ok(Asset::Directory { nodes, tree, held })
            }
            Ok(closure) => Err(Error::Missing(closure.missing)),
            Err(WalkError::Upstream(error)) => Err(error.into()),
            Err(WalkError::NotADirectory(digest, why)) => Err(Error::NotADirectory(digest, why)),
            Err(WalkError::TooLarge(what)) => Err(Error::TooLarge(format!("more than {what}"))),
        }
    }

    async fn hints(&self, reference: &AssetReference) -> Result<Hints, Error> {
        let roots: BTreeSet<&Digest> = reference.referenced_directories.iter().collect();
        let roots = roots
            .into_iter()
            .filter(|d| !d.is_empty() && **d != reference.digest);
        let mut walks: Vec<_> = roots.map(|root| self.hinted_tree(root)).collect();
        let mut left = walks.len();
        walks.truncate(MAX_WALKS);
        let mut walks = stream::iter(walks).buffer_unordered(WALKS);
        let mut hints = Hints::default();
        let mut named = 0;
        while named < MAX_NAMED
            && let Some(found) = walks.try_next().await?
        {
            left -= 1;
            named += found.digests.len();
            hints.digests.extend(found.digests);
            hints.held.extend(found.held);
            hints.dropped += found.dropped;
        }
        hints.dropped += left;
        hints
            .digests
            .extend(reference.referenced_blobs.iter().cloned());
        hints.digests.retain(|d| !d.is_empty());
        Ok(hints)
    }

    async fn hinted_tree(&self, root: &Digest) -> Result<Hints, Error> {
        match self.cache.directories(self.context, self.scope, root).await {
            Ok(closure) => {
                let named = closure.nodes.into_iter().flat_map(|node| {
                    let files = node.files.into_iter();
                    files.chain([node.digest])
                });
                Ok(Hints {
                    digests: named.collect(),
                    dropped: closure.missing.len(),
                    held: closure.held.into_iter().collect(),
                })
            }
            Err(WalkError::Upstream(error @ upstream::Error::Corrupt(_))) => {
                tracing::debug!(%error, "a referenced directory is dropped");
                Ok(Hints {
                    dropped: 1,
                    ..Hints::default()
                })
            }
            Err(WalkError::Upstream(error)) => Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "a referenced directory is dropped");
                Ok(Hints {
                    dropped: 1,
                    ..Hints::default()
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::double::{scope, sha256};

    #[test]
    fn hints_give_way_where_room_is_short_and_the_asset_never_does() {
        let hints: BTreeSet<Digest> = (0..10u8).map(|i| sha256(&[i])).collect();
        let blob = Asset::Blob(sha256(&[3]));
        let size = |n| tree::pins_size(scope().function, n);
        let mut kept = hints.clone();
        let dropped = hints_over(size(4), &scope(), (&blob, &blob.pins()), &mut kept);
        assert_eq!((dropped.unwrap(), kept.len()), (5, 4));
        let mut kept = hints.clone();
        let dropped = hints_over(size(9), &scope(), (&blob, &blob.pins()), &mut kept);
        assert_eq!((dropped.unwrap(), kept.len()), (0, 9));

        let node = |data: &'static [u8]| TreeNode {
            digest: sha256(data),
            bytes: Bytes::from_static(data),
            directories: Vec::new(),
            files: vec![sha256(&[1])],
        };
        let nodes = vec![node(b"a"), node(b"b"), node(b"c")];
        let large = Asset::Directory {
            nodes,
            tree: None,
            held: None,
        };
        let mut kept = hints.clone();
        let error = hints_over(size(3), &scope(), (&large, &large.pins()), &mut kept);
        assert!(matches!(error, Err(Error::TooLarge(_))));
        let dropped = hints_over(size(4), &scope(), (&large, &large.pins()), &mut kept);
        assert_eq!((dropped.unwrap(), kept.len()), (9, 0));
    }
}
