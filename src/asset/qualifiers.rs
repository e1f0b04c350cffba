//! Qualifiers: unique, sorted, and free of credentials.
//!
//! A request's qualifiers fall into two classes. *Identity* qualifiers say
//! which asset is meant: they are matched, keyed and stored. *Credential*
//! qualifiers (headers for the origin) never get here; see `headers.rs`.
//! Not for: reading them off the wire (`api::convert`).

use super::scrub::scrub;

/// Media type of the asset (qualifiers.md).
pub const RESOURCE_TYPE: &str = "resource_type";
/// Subresource Integrity of the retrieved bytes (qualifiers.md).
pub const CHECKSUM_SRI: &str = "checksum.sri";
/// Subdirectory of the resource (qualifiers.md).
pub const DIRECTORY: &str = "directory";
/// Branch of a version control system (qualifiers.md).
pub const VCS_BRANCH: &str = "vcs.branch";
/// Commit of a version control system (qualifiers.md).
pub const VCS_COMMIT: &str = "vcs.commit";
/// Bazel: a new value must cause a new download.
pub const BAZEL_CANONICAL_ID: &str = "bazel.canonical_id";
/// Bazel up to 5: JSON of URL to header to value.
pub const BAZEL_AUTH_HEADERS: &str = "bazel.auth_headers";

/// What a qualifier is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Says which asset is meant.
    Identity,
    /// Holds headers or credentials for the origin; never keyed or stored.
    Credential,
}

impl Role {
    /// The role of a qualifier name. Names are compared exactly: one that
    /// differs in case is another, unknown qualifier.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let credential = name == BAZEL_AUTH_HEADERS
            || name.starts_with("http_header:")
            || name.starts_with("http_header_url:")
            || name.starts_with("auth.");
        if credential {
            Role::Credential
        } else {
            Role::Identity
        }
    }
}

/// Bytes of a value of an identity qualifier without the secrets in it.
#[must_use]
pub fn kept_len(value: &str) -> usize {
    scrub(value).len()
}

/// One identity qualifier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Qualifier {
    /// Its name.
    pub name: String,
    /// Its value, with the secrets of URLs taken out.
    pub value: String,
}

/// A set of identity qualifiers, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Qualifiers {
    sorted: Vec<Qualifier>,
    had_secret: bool,
}

impl Qualifiers {
    /// The set of these pairs, or the first name that occurs twice.
    /// Pairs of another role than identity are left out.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let mut had_secret = false;
        let mut sorted: Vec<Qualifier> = pairs
            .into_iter()
            .filter(|(name, _)| Role::of(name) == Role::Identity)
            .map(|(name, value)| {
                let clean = scrub(&value).into_owned();
                had_secret |= clean != value;
                Qualifier { name, value: clean }
            })
            .collect();
        sorted.sort();
        match sorted.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => Err(pair[0].name.clone()),
            None => Ok(Self { sorted, had_secret }),
        }
    }

    /// The value of a qualifier.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.sorted
            .iter()
            .find(|q| q.name == name)
            .map(|q| q.value.as_str())
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Qualifier> {
        self.sorted.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Whether a value lost a secret on the way in, so that a fetch with it
    /// counts as made with credentials.
    #[must_use]
    pub fn had_secret(&self) -> bool {
        self.had_secret
    }

    /// Those whose name is in `names`.
    #[must_use]
    pub fn only(&self, names: &[&str]) -> Self {
        let keep = |q: &&Qualifier| names.contains(&q.name.as_str());
        Self {
            sorted: self.sorted.iter().filter(keep).cloned().collect(),
            had_secret: false,
        }
    }

    /// Those whose name does not begin with `prefix`.
    #[must_use]
    pub fn without_prefix(mut self, prefix: &str) -> Self {
        self.sorted.retain(|q| !q.name.starts_with(prefix));
        self
    }

    /// Those whose name is another.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.sorted.retain(|q| q.name != name);
        self
    }

    /// Whether each of these, with its value, is also in `other`.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter()
            .all(|q| other.get(&q.name) == Some(q.value.as_str()))
    }

    /// All sets of some of these but not all. Their number doubles with each
    /// qualifier: the caller bounds it.
    pub fn proper_subsets(&self) -> impl Iterator<Item = Self> {
        let all = 1u64.checked_shl(u32::try_from(self.len()).unwrap_or(u32::MAX));
        let sets = 0..all.unwrap_or(0).saturating_sub(1);
        sets.map(|set| {
            let chosen = |(at, _): &(usize, &Qualifier)| set >> at & 1 == 1;
            let sorted = self.sorted.iter().enumerate().filter(chosen);
            Self {
                sorted: sorted.map(|(_, q)| q.clone()).collect(),
                had_secret: false,
            }
        })
    }

    /// These and one more; an equal name is replaced.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.sorted.retain(|q| q.name != name);
        self.sorted.push(Qualifier {
            name: name.to_owned(),
            value: value.to_owned(),
        });
        self.sorted.sort();
        self
    }

    /// Bytes of all names and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.sorted
            .iter()
            .map(|q| q.name.len() + q.value.len())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Result<Qualifiers, String> {
        Qualifiers::new(
            pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
        )
    }

    #[test]
    fn order_does_not_matter_and_names_are_unique() {
        assert_eq!(
            set(&[("b", "2"), ("a", "1")]),
            set(&[("a", "1"), ("b", "2")])
        );
        assert_eq!(set(&[("a", "1"), ("a", "1")]), Err("a".into()));
        assert_ne!(set(&[("a", "1")]), set(&[("A", "1")]));
    }

    #[test]
    fn subsets_are_all_but_the_whole() {
        let whole = set(&[("a", "1"), ("b", "2"), ("c", "3")]).unwrap();
        let subsets: Vec<Qualifiers> = whole.proper_subsets().collect();
        let unique: std::collections::HashSet<_> = subsets.iter().collect();
        assert_eq!((subsets.len(), unique.len()), (7, 7));
        assert!(subsets.iter().all(|s| s.is_subset(&whole) && *s != whole));
        assert!(!whole.is_subset(&subsets[3]) && whole.is_subset(&whole));
        assert!(!set(&[("a", "2")]).unwrap().is_subset(&whole));
        assert_eq!(Qualifiers::default().proper_subsets().count(), 0);
        assert_eq!(whole.without("b"), set(&[("a", "1"), ("c", "3")]).unwrap());
    }

    #[test]
    fn credentials_never_get_in() {
        let got = set(&[
            ("http_header:Authorization", "secret"),
            ("http_header_url:0:X", "secret"),
            ("bazel.auth_headers", "secret"),
            ("auth.basic.password", "secret"),
            (
                "bazel.canonical_id",
                "https://u:secret@h/a https://h/b?sig=secret",
            ),
        ]);
        let got = got.unwrap();
        assert!(!format!("{got:?}").contains("secret\""), "{got:?}");
        assert_eq!(got.get(BAZEL_CANONICAL_ID), Some("https://h/a https://h/b"));
        assert!(got.had_secret());
    }
}
