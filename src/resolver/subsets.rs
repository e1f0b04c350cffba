//! Under which subsets of its qualifiers a push can be found.
//!
//! # Why it is bounded
//!
//! A push with n qualifiers has 2^n - 1 proper subsets, each an entry for
//! every URI. A list per URI would be one entry, but writing it means reading
//! it first, and two that push at once would lose each other's entry
//! (conformance C3 compares both).
//!
//! Not for: looking them up (`candidates.rs`).
//! Called by: `push.rs`.

use std::collections::BTreeSet;

use crate::asset::Qualifiers;

/// Most entries of one push beside those for its exact qualifiers.
const MOST: usize = 256;

/// Most qualifiers of which every subset is written.
const LARGEST: usize = 6;

/// Which subsets are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsetRules {
    /// Up to so many qualifiers, every subset (6 at most); 0 is none at all.
    pub max: usize,
    /// For larger pushes, beside the empty subset: sets of names, used where
    /// the push has all of them.
    pub projections: Vec<Vec<String>>,
}

impl Default for SubsetRules {
    fn default() -> Self {
        Self {
            max: 4,
            projections: Vec::new(),
        }
    }
}

impl SubsetRules {
    /// The proper subsets under which a push for so many URIs is recorded.
    pub(super) fn of_push(&self, uris: usize, qualifiers: &Qualifiers) -> Vec<Qualifiers> {
        if self.max == 0 || qualifiers.is_empty() {
            return Vec::new();
        }
        let n = qualifiers.len();
        if n <= self.max.min(LARGEST) && uris.saturating_mul(1 << n) <= MOST {
            return qualifiers.proper_subsets().collect();
        }
        metrics::counter!("assetgate_push_subsets_limited_total").increment(1);
        tracing::debug!(
            qualifiers = n,
            "a push is found with all of its qualifiers, with none, and by configured projections"
        );
        let projected = self.projections.iter().map(|names| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let some = qualifiers.only(&names);
            (some.len() == names.len() && some.len() < n).then_some(some)
        });
        let room = MOST / uris.max(1);
        let mut seen = BTreeSet::new();
        std::iter::once(Some(Qualifiers::default()))
            .chain(projected)
            .flatten()
            .filter(|some| seen.insert(some.iter().map(|q| q.name.clone()).collect::<Vec<_>>()))
            .take(room)
            .collect()
    }

    /// Whether anything is written under a subset.
    pub(super) fn any(&self) -> bool {
        self.max > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qualifiers(n: usize) -> Qualifiers {
        let pairs = (0..n).map(|i| (format!("q{i}"), format!("v{i}")));
        Qualifiers::new(pairs).unwrap()
    }

    fn names(sets: &[Qualifiers]) -> Vec<String> {
        let name = |set: &Qualifiers| {
            let names: Vec<&str> = set.iter().map(|q| q.name.as_str()).collect();
            names.join("+")
        };
        sets.iter().map(name).collect()
    }

    #[test]
    fn small_pushes_have_all_subsets_and_large_ones_a_few() {
        let rules = SubsetRules::default();
        assert_eq!(rules.of_push(1, &qualifiers(0)).len(), 0);
        assert_eq!(rules.of_push(2, &qualifiers(4)).len(), 15);
        assert_eq!(names(&rules.of_push(1, &qualifiers(5))), [""]);
        assert_eq!(rules.of_push(16, &qualifiers(4)).len(), 15);
        assert_eq!(names(&rules.of_push(17, &qualifiers(4))), [""]);
        let none = SubsetRules { max: 0, ..rules };
        assert!(none.of_push(1, &qualifiers(3)).is_empty() && !none.any());
    }

    #[test]
    fn projections_count_where_the_push_has_all_their_names() {
        let projection = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let rules = SubsetRules {
            max: 1,
            projections: vec![
                projection(&["q0", "q1"]),
                projection(&["q1", "q0"]),
                projection(&["q0", "absent"]),
                projection(&["q0", "q1", "q2"]),
                projection(&["q2"]),
            ],
        };
        let got = rules.of_push(1, &qualifiers(3));
        assert_eq!(names(&got), ["", "q0+q1", "q2"]);
        assert_eq!(names(&rules.of_push(200, &qualifiers(3))), [""]);
    }
}
