//! What may answer for content that no checksum pins: what its origin served
//! before, or only what the origin says now.
//!
//! Decides; asks nobody. Not for: asking the origin (`current.rs`), whether an
//! entry is there at all (`lookup.rs`).

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::pattern::{UrlPattern, subject};
use super::{Query, ResolveError, Shared};
use crate::asset::{AssetReference, Uri};
use crate::fetcher::Fetcher;

/// What is done about unpinned content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum UnpinnedPolicy {
    /// What is known answers once the origin has confirmed it.
    #[default]
    Revalidate,
    /// The origin is asked for all of it each time.
    Refetch,
    /// What is younger than this answers.
    Ttl(Duration),
    /// It is not fetched.
    Reject,
}

/// A policy and the URLs it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpinnedRule {
    policy: UnpinnedPolicy,
    pattern: UrlPattern,
}

const FORM: &str = "write POLICY PATTERN, as in `ttl=1h https://proxy.example.com/*`; policies are \
                    revalidate, refetch, ttl=TIME and reject";

impl FromStr for UnpinnedRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (policy, pattern) = text.trim().split_once(char::is_whitespace).ok_or(FORM)?;
        let policy = match (policy, policy.strip_prefix("ttl=")) {
            ("revalidate", _) => UnpinnedPolicy::Revalidate,
            ("refetch", _) => UnpinnedPolicy::Refetch,
            ("reject", _) => UnpinnedPolicy::Reject,
            (_, Some(time)) => UnpinnedPolicy::Ttl(ttl(time)?),
            _ => return Err(FORM.to_owned()),
        };
        let pattern = pattern.trim().parse()?;
        Ok(Self { policy, pattern })
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.is_zero() => Err("`ttl=0s` holds for nothing; write `revalidate`".into()),
        Ok(time) => Ok(time),
        Err(_) => Err(format!(
            "`{text}` is not a duration; write it as in `ttl=90s` or `ttl=1h`"
        )),
    }
}

/// The policy for a URI: that of the first rule that is about it.
pub(super) fn policy(rules: &[UnpinnedRule], uri: &Uri) -> UnpinnedPolicy {
    if rules.is_empty() {
        return UnpinnedPolicy::default();
    }
    let subject = subject(uri);
    let rule = rules.iter().find(|rule| rule.pattern.matches(&subject));
    rule.map_or(UnpinnedPolicy::default(), |rule| rule.policy)
}

impl<S, F: Fetcher> Shared<S, F> {
    /// Whether content the origin of a URI served before has a say: as an
    /// answer, or as what the origin is asked about. Nothing is kept of
    /// private content, and nothing of others may answer for it.
    pub(super) fn has_past(&self, query: &Query, index: usize) -> bool {
        let request = &query.request;
        let fetchable = |uri| self.fetcher.is_fetchable(request.kind, uri);
        request.integrity.is_none()
            && request.uris.get(index).is_some_and(fetchable)
            && !request.is_private(index)
            && !matches!(
                policy(&self.settings.unpinned, &request.uris[index]),
                UnpinnedPolicy::Reject
            )
    }

    /// Whether it may answer without a word of the origin.
    pub(super) fn may_be_fetched(&self, query: &Query, index: usize) -> bool {
        let Some(uri) = query.request.uris.get(index) else {
            return false;
        };
        let now = self.settings.clock.now();
        let timed = match policy(&self.settings.unpinned, uri) {
            UnpinnedPolicy::Revalidate => query.request.oldest.is_some_and(|t| t <= now),
            UnpinnedPolicy::Ttl(_) => query.request.oldest.is_none_or(|t| t <= now),
            UnpinnedPolicy::Refetch | UnpinnedPolicy::Reject => false,
        };
        timed && self.has_past(query, index)
    }

    /// Whether this entry of an unpinned URI is young enough to answer without
    /// a word of the origin. A caller who states a limit takes any entry
    /// within it (the caller of this has looked at that); without one, content
    /// may have changed since (N6).
    pub(super) fn holds(&self, query: &Query, uri: &Uri, reference: &AssetReference) -> bool {
        match policy(&self.settings.unpinned, uri) {
            UnpinnedPolicy::Revalidate => query.request.oldest.is_some(),
            UnpinnedPolicy::Ttl(ttl) => {
                let now = self.settings.clock.now();
                query.request.oldest.is_some() || distance(now, reference.content_time) < ttl
            }
            UnpinnedPolicy::Refetch | UnpinnedPolicy::Reject => false,
        }
    }

    /// Refuses what may not be fetched without a checksum. One such mirror is
    /// enough: which of them answers would be chance.
    pub(super) fn check_pinned(&self, query: &Query) -> Result<(), ResolveError> {
        let request = &query.request;
        if request.integrity.is_some() {
            return Ok(());
        }
        let rules = &self.settings.unpinned;
        let refused = |uri: &Uri| {
            self.fetcher.is_fetchable(request.kind, uri)
                && policy(rules, uri) == UnpinnedPolicy::Reject
        };
        match request.uris.iter().position(refused) {
            Some(uri_index) => Err(ResolveError::NotPinned {
                uri: request.uris[uri_index].redacted(),
                uri_index,
            }),
            None => Ok(()),
        }
    }
}

/// Clocks of replicas differ: an entry from the near future is as good as one
/// of the recent past, and one from the far future is nobody's.
fn distance(now: SystemTime, then: SystemTime) -> Duration {
    let age = now.duration_since(then);
    age.unwrap_or_else(|error| error.duration())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy_of(rules: &[&str], uri: &str) -> UnpinnedPolicy {
        let rules: Vec<UnpinnedRule> = rules.iter().map(|r| r.parse().unwrap()).collect();
        policy(&rules, &Uri::new(uri.to_owned()))
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rules = [
            "ttl=1h https://proxy.example/*",
            "refetch  https://proxy.example/ ",
            "revalidate https://h.example/",
            "reject *",
        ];
        let hour = UnpinnedPolicy::Ttl(Duration::from_secs(3600));
        assert_eq!(policy_of(&rules, "https://proxy.example/a"), hour);
        let of = |uri| policy_of(&rules, uri);
        assert_eq!(of("https://h.example/a"), UnpinnedPolicy::Revalidate);
        assert_eq!(of("https://other.example/a"), UnpinnedPolicy::Reject);
        assert_eq!(
            policy_of(&rules[..2], "https://other.example/a"),
            UnpinnedPolicy::Revalidate
        );
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (text, said) in [
            ("", "write POLICY PATTERN"),
            ("reject", "write POLICY PATTERN"),
            ("forget *", "write POLICY PATTERN"),
            ("ttl *", "write POLICY PATTERN"),
            ("ttl=soon *", "`soon` is not a duration"),
            ("ttl=0s *", "write `revalidate`"),
            ("reject https://h.example", "write `https://h.example/`"),
            ("reject https://a.example/ x", "no spaces"),
        ] {
            let error = text.parse::<UnpinnedRule>().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
