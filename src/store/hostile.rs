//! Entries and Trees made to hurt, through the whole store: each is a miss or
//! an error of the pusher's, with bounded work.

mod entries;
mod trees;

use prost::Message as _;

use super::action_cache::tests::reference;
use super::encoding::encode_key;
use super::{ActionCacheStore, AssetStore as _, Error, Lookup, Miss, Probes, ReferenceSettings};
use crate::asset::{AssetKey, AssetKind, AssetReference, KeySpace, Qualifiers, Uri};
use crate::digest::Digest;
use crate::proto::rev2;
use crate::upstream::CallContext;
use crate::upstream::double::{Double, scope};

fn store(double: &Double) -> ActionCacheStore {
    ActionCacheStore::new(
        double.cache(),
        ReferenceSettings::default(),
        Probes::default(),
    )
}

fn key(kind: AssetKind) -> AssetKey {
    AssetKey {
        scope: scope(),
        kind,
        space: KeySpace::Exact {
            uri: Uri::new("urn:a"),
            qualifiers: Qualifiers::default(),
        },
    }
}

fn file_node(name: &str, digest: &Digest) -> rev2::FileNode {
    rev2::FileNode {
        name: name.to_owned(),
        digest: Some(digest.to_wire()),
        ..Default::default()
    }
}

fn directory_node(name: &str, digest: &Digest) -> rev2::DirectoryNode {
    rev2::DirectoryNode {
        name: name.to_owned(),
        digest: Some(digest.to_wire()),
    }
}

/// A pushed asset of a kind; a directory has one file and one child.
async fn pushed(double: &Double, kind: AssetKind) -> AssetReference {
    let file = double.put("file");
    let digest = match kind {
        AssetKind::Blob => file,
        AssetKind::Directory => {
            let child = rev2::Directory {
                files: vec![file_node("f", &file)],
                ..Default::default()
            };
            let child = double.put(child.encode_to_vec());
            let root = rev2::Directory {
                directories: vec![directory_node("d", &child)],
                ..Default::default()
            };
            double.put(root.encode_to_vec())
        }
    };
    let reference = reference(kind, &digest);
    put(double, &reference).await.unwrap();
    reference
}

async fn put(double: &Double, reference: &AssetReference) -> Result<(), Error> {
    let keys = [key(reference.kind)];
    store(double)
        .put(&CallContext::default(), &keys, reference)
        .await
}

async fn get(double: &Double, kind: AssetKind) -> Lookup {
    let (store, key) = (store(double), key(kind));
    store.get(&CallContext::default(), &key).await.unwrap()
}

fn is_unusable(found: &Lookup) -> bool {
    *found == Lookup::Miss(Miss::Unusable)
}

fn action(kind: AssetKind) -> String {
    encode_key("", &key(kind), scope().function)
        .unwrap()
        .action
        .0
        .hash()
        .to_owned()
}

fn edit(double: &Double, kind: AssetKind, change: impl FnOnce(&mut rev2::ActionResult)) {
    double.set(|s| change(s.entries.get_mut(&action(kind)).unwrap()));
}

/// Puts another Tree in the entry of the pushed directory.
fn plant_tree(double: &Double, tree: Vec<u8>) {
    let tree = double.put(tree).to_wire();
    edit(double, AssetKind::Directory, |entry| {
        entry.output_directories[0].tree_digest = Some(tree);
    });
}
