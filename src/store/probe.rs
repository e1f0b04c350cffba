//! What a cache does with references in practice, as far as it is known.
//!
//! Nothing is assumed of a cache: until a probe has seen that it checks an
//! entry's content on every read, Assetgate checks by itself.
//! Called by: `action_cache.rs` (reads), `server` (construction).

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::digest::InstanceName;

/// Where the payload of an entry stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Carrier {
    /// In `auxiliary_metadata`, which every known cache keeps.
    #[default]
    Metadata,
    /// In a blob of the CAS that the entry lists as an output file, for caches
    /// that drop what they do not know.
    Blob,
}

/// How references are written and read, by what a probe has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modes {
    /// The cache withholds an entry whose output files are not all present.
    pub checks_files: bool,
    /// The same for Trees that stand in output directories, and the files in
    /// them, with and without a root digest.
    pub checks_trees: bool,
    /// Where to write payloads. Both are read.
    pub carrier: Carrier,
}

/// What is known, by instance name. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Probes {
    modes: Arc<ArcSwap<HashMap<InstanceName, Modes>>>,
}

impl Probes {
    /// The modes of an instance name; the careful ones while nothing is known.
    /// Takes no lock: asked on every look-up.
    #[must_use]
    pub fn modes(&self, instance: &InstanceName) -> Modes {
        let known = self.modes.load();
        known.get(instance).copied().unwrap_or_default()
    }

    /// Notes what was seen.
    pub fn set(&self, instance: &InstanceName, modes: Modes) {
        self.modes.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.insert(instance.clone(), modes);
            known
        });
    }
}
