//! The Actions of all keys there are in the model, and their names.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::case::{NAMES, Set, URIS, qualifiers};
use crate::asset::{AssetKey, AssetKind, KeySpace, Uri};
use crate::store::action_hash;
use crate::upstream::double::scope;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Space {
    Exact,
    Subset,
    Fetched,
}

/// A key.
pub(super) type Key = (Space, AssetKind, usize, Set);

static ACTIONS: LazyLock<HashMap<Key, String>> = LazyLock::new(|| {
    let mut all = HashMap::new();
    for space in [Space::Exact, Space::Subset, Space::Fetched] {
        for kind in [AssetKind::Blob, AssetKind::Directory] {
            for uri in 0..URIS.len() {
                for n in 0..27u8 {
                    let set = [n % 3, n / 3 % 3, n / 9];
                    let key = (space, kind, uri, set);
                    all.insert(key, action_hash(&asset_key(key)));
                }
            }
        }
    }
    all
});

static KEYS: LazyLock<HashMap<String, Key>> =
    LazyLock::new(|| ACTIONS.iter().map(|(k, a)| (a.clone(), *k)).collect());

fn asset_key((space, kind, uri, set): Key) -> AssetKey {
    let (uri, qualifiers) = (Uri::new(URIS[uri]), qualifiers(set));
    let space = match space {
        Space::Exact => KeySpace::Exact { uri, qualifiers },
        Space::Subset => KeySpace::Subset { uri, qualifiers },
        Space::Fetched => KeySpace::Fetched { uri, qualifiers },
    };
    AssetKey {
        scope: scope(),
        kind,
        space,
    }
}

/// Hash of the Action that is a key.
pub(super) fn action(key: Key) -> &'static str {
    &ACTIONS[&key]
}

/// A key in words.
pub(super) fn name(action: &str) -> String {
    let Some((space, kind, uri, set)) = KEYS.get(action) else {
        return action.to_owned();
    };
    let named = NAMES.iter().zip(set).filter(|(_, value)| **value > 0);
    let set: Vec<String> = named
        .map(|(name, value)| format!("{name}=v{value}"))
        .collect();
    format!("{space:?} {kind} {} [{}]", URIS[*uri], set.join(" "))
}
