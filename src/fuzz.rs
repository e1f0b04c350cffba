//! Fuzz targets: what must hold of everything that reads what others wrote.
//!
//! Built for tests, which run each body over its seeds and a little noise, and
//! under `cfg(fuzzing)`, for the binaries in `fuzz/`. A body asserts what is
//! true of any input; that nothing panics is the least of it.
//! Called by: `fuzz/fuzz_targets`, and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a finding is told"
)]

use std::path::PathBuf;

pub use crate::api::fuzz as qualifiers;
pub use crate::asset::fuzz as sri;
pub use crate::fetcher::fuzz::{netrc, url_rules};
pub use crate::proto::estimate::fuzz as estimate;
pub use crate::store::fuzz::{bb_entry, entry, tree};

/// Writes a target's seeds into the folder that `ASSETGATE_FUZZ_SEEDS` names,
/// if it does: into its corpus, before that is read.
pub fn write_seeds(seeds: fn() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os("ASSETGATE_FUZZ_SEEDS") else {
        return;
    };
    for (index, seed) in seeds().into_iter().enumerate() {
        let file = PathBuf::from(&folder).join(format!("seed-{index:02}"));
        std::fs::write(file, seed).expect("the folder ASSETGATE_FUZZ_SEEDS can be written");
    }
}

/// Bytes as a sequence of choices; where they end, every choice is 0.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A number below `n`, which is not 0 and not above 256.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    pub(crate) fn number(&mut self) -> u64 {
        (0..8).fold(0, |n, _| (n << 8) | u64::from(self.byte()))
    }

    /// Up to 255 bytes, their number first.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    type Target = (&'static str, fn() -> Vec<Vec<u8>>, fn(&[u8]));

    const TARGETS: [Target; 8] = [
        ("entry", super::entry::seeds, super::entry::run),
        ("bb_entry", super::bb_entry::seeds, super::bb_entry::run),
        ("tree", super::tree::seeds, super::tree::run),
        (
            "qualifiers",
            super::qualifiers::seeds,
            super::qualifiers::run,
        ),
        ("sri", super::sri::seeds, super::sri::run),
        ("netrc", super::netrc::seeds, super::netrc::run),
        ("url_rules", super::url_rules::seeds, super::url_rules::run),
        ("estimate", super::estimate::seeds, super::estimate::run),
    ];

    #[test]
    fn every_target_has_a_binary_and_small_seeds_that_pass() {
        let manifest = include_str!("../fuzz/Cargo.toml");
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
        for (name, seeds, run) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
            let seeds = seeds();
            assert!(!seeds.is_empty());
            for seed in seeds {
                assert!(seed.len() < 4096, "{name}");
                run(&seed);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 24,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Seeds with a few bytes changed and an end missing.
        #[test]
        fn noise_passes(
            changes in prop::collection::vec((any::<u16>(), any::<u8>()), 0..6),
            keep in any::<u16>(),
        ) {
            for (_, seeds, run) in TARGETS {
                for mut seed in seeds() {
                    for (at, byte) in &changes {
                        let at = usize::from(*at) % seed.len().max(1);
                        if let Some(old) = seed.get_mut(at) {
                            *old = *byte;
                        }
                    }
                    seed.truncate(usize::from(keep) % (2 * seed.len() + 1));
                    run(&seed);
                }
            }
        }
    }
}
