//! Which URLs are asked in place of one: rules in the syntax and with the
//! meaning of Bazel's `--downloader_config`.
//!
//! First every `rewrite` whose pattern matches the whole URL without its
//! scheme gives one URL, in the order of the lines; without a match the URL
//! stays what it is. Then each of them goes unless its host, or one above it,
//! is in a `block`, or there is a `block *`; an `allow` beats both.
//!
//! Where this differs from Bazel it is to leave nothing open that a rule
//! closes, or because of the regular expressions:
//! - URLs are looked at as they are requested: host in lower case, no `..` in
//!   the path, no user info, no fragment. Bazel looks at what was written.
//! - The expressions are those of the `regex` crate, which has no look-around,
//!   back-references or possessive quantifiers: they take time linear in the
//!   URL's length, whoever wrote it. A pattern with these is an error.
//! - What Bazel takes and fails with later, or never acts upon, is an error: a
//!   reference to a group that is not there, a host with a port or `*.`.
//!
//! Not for: redirects, to which these rules do not apply, as in Bazel.
//! Called by: `rules_in_force`, `config` (validation).

mod parse;
mod rewrite;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::Path;

use url::Url;

pub use parse::RulesError;

use super::host;
use super::target::Target;
use crate::asset::Uri;
use rewrite::Rewrite;

/// Longest URL that is looked at, and that a rule may make. Origins take 8 KiB.
pub(super) const MAX_URL: usize = 16 << 10;
/// Most URLs that come of one: as many as a request may have.
const MAX_URLS: usize = 64;

/// What a file of rules says.
#[derive(Debug, Default)]
pub struct UrlRules {
    rewrites: Vec<Rewrite>,
    allow: HashSet<String>,
    block: HashSet<String>,
    block_all: bool,
    message: Option<String>,
}

/// What becomes of one URL.
pub(super) enum Decision {
    /// No rule is about it.
    Unchanged,
    /// These are asked, in this order; never none.
    Instead(Vec<Target>),
    /// Nothing may be asked. What the operator says about that.
    Blocked(Option<String>),
    /// Nothing can be asked: what the rule of this line makes is no URL.
    NoUrl(usize),
}

impl UrlRules {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, by line.
    pub fn read(path: &Path) -> Result<Self, RulesError> {
        parse::read(path)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, by line.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        parse::parse(text)
    }

    /// Whether URLs that rules make hold user info: then these are credentials
    /// of this service.
    #[must_use]
    pub fn hold_credentials(&self) -> bool {
        self.rewrites.iter().any(Rewrite::may_have_user_info)
    }

    /// What becomes of a URL of at most [`MAX_URL`] bytes.
    pub(super) fn decide(&self, target: &Target) -> Decision {
        let (made, broken) = self.rewritten(&target.url);
        if made.is_empty() {
            return match broken {
                Some(line) => Decision::NoUrl(line),
                None if self.is_blocked(&target.url) => Decision::Blocked(self.message.clone()),
                None => Decision::Unchanged,
            };
        }
        let mut asked = made;
        asked.retain(|made| !self.is_blocked(&made.url));
        match asked.is_empty() {
            true => Decision::Blocked(self.message.clone()),
            false => Decision::Instead(asked),
        }
    }

    /// What the rules make of a URL, each once, and the line of a rule that
    /// makes no URL of it.
    fn rewritten(&self, url: &Url) -> (Vec<Target>, Option<usize>) {
        let scheme = url.scheme();
        let whole = url.as_str().get(scheme.len() + 3..).unwrap_or("");
        // A URL without a path gets one when it is parsed; Bazel's does not.
        let bare = (url.path() == "/" && url.query().is_none())
            .then(|| whole.strip_suffix('/'))
            .flatten();
        let (mut made, mut seen, mut broken) = (Vec::new(), HashSet::new(), None);
        for rule in &self.rewrites {
            let found = rule.apply(whole);
            let Some(found) = found.or_else(|| rule.apply(bare?)) else {
                continue;
            };
            let target = found.and_then(|text| parsed(&text, scheme));
            match target {
                None => broken = broken.or(Some(rule.line)),
                Some((text, target)) if seen.len() < MAX_URLS => {
                    if seen.insert(text) {
                        made.push(target);
                    }
                }
                Some(_) => break,
            }
        }
        (made, broken)
    }

    fn is_blocked(&self, url: &Url) -> bool {
        let listed = |hosts: &HashSet<String>| {
            host::with_parents(host::of(url)).any(|host| hosts.contains(host))
        };
        !listed(&self.allow) && (self.block_all || listed(&self.block))
    }
}

/// A rule's result as a URL; it keeps the scheme unless it names one.
fn parsed(text: &str, scheme: &str) -> Option<(String, Target)> {
    let has_scheme = ["http://", "https://"].iter().any(|s| text.starts_with(s));
    let text = match has_scheme {
        true => text.to_owned(),
        false => format!("{scheme}://{text}"),
    };
    let target = Target::parse(&Uri::new(text.clone())).ok()?;
    (target.url.as_str().len() <= MAX_URL).then_some((text, target))
}
