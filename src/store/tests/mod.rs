//! How references are kept: what a hit costs, entries elsewhere, signed ones,
//! and those of another server.

mod detached;
mod kept;
mod migrate;
mod signed;
mod trust;

use super::action_cache::tests::{ctx, dir, hit, key, reference, sample, stored, tree_digest};
use super::*;
use crate::upstream::double::{Double, scope, sha256};

/// A store in a double, with other settings.
fn store(double: &Double, settings: ReferenceSettings) -> ActionCacheStore {
    ActionCacheStore::new(double.cache(), settings, Probes::default())
}

async fn put(store: &ActionCacheStore, key: &AssetKey, reference: &AssetReference) {
    let keys = std::slice::from_ref(key);
    store.put(&ctx(), keys, reference).await.unwrap();
}

async fn get(store: &ActionCacheStore, key: &AssetKey) -> Lookup {
    store.get(&ctx(), key).await.unwrap()
}

fn miss(miss: Miss) -> Lookup {
    Lookup::Miss(miss)
}
