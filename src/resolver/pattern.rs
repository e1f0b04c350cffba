//! Which URLs a rule is about: a beginning, or a text in which `*` stands for
//! anything.
//!
//! Not for: what the rule says (`freshness.rs`).

use std::str::FromStr;

use super::permission::check_plain;
use crate::asset::Uri;

/// A pattern of URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UrlPattern {
    /// What URLs begin with.
    Prefix(String),
    /// The texts between the `*`, at least two.
    Glob(Vec<String>),
}

impl FromStr for UrlPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        check_plain("pattern", text)?;
        if text.contains('*') {
            return Ok(Self::Glob(text.split('*').map(str::to_owned).collect()));
        }
        let Some((_, rest)) = text.split_once("://") else {
            return Err(format!(
                "`{text}`: write a beginning of URLs, as in `https://example.com/`, or a pattern \
                 with `*`"
            ));
        };
        if !rest.contains(['/', '?', '#']) {
            return Err(format!(
                "`{text}` is also what `{text}.evil.example` begins with; write `{text}/`"
            ));
        }
        Ok(Self::Prefix(text.to_owned()))
    }
}

impl UrlPattern {
    /// Whether it is about a URL in the form of [`subject`].
    pub(super) fn matches(&self, subject: &str) -> bool {
        let pieces = match self {
            Self::Prefix(prefix) => return subject.starts_with(prefix),
            Self::Glob(pieces) => pieces,
        };
        let [first, middle @ .., last] = pieces.as_slice() else {
            return false;
        };
        let Some(mut rest) = subject.strip_prefix(first.as_str()) else {
            return false;
        };
        for piece in middle {
            match rest.find(piece.as_str()) {
                Some(at) => rest = &rest[at + piece.len()..],
                None => return false,
            }
        }
        rest.ends_with(last.as_str())
    }
}

/// What patterns are applied to: the URL without its secrets, in the form in
/// which it is asked for, so that another spelling of a host, a port or a path
/// is no way around a rule. Whatever is no URL stays as it is.
///
/// It is parsed first, by the parser whose result is requested: to take secrets
/// out of a text and parse what is left could find another host.
pub(super) fn subject(uri: &Uri) -> String {
    let asked = uri.url().map(|mut url| {
        // These fail only for URLs without a host, which have none of it.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        Uri::new(String::from(url))
    });
    let kept = asked.as_ref().unwrap_or(uri).key_bytes();
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, uri: &str) -> bool {
        let pattern: UrlPattern = pattern.parse().unwrap();
        pattern.matches(&subject(&Uri::new(uri.to_owned())))
    }

    #[test]
    fn patterns_are_beginnings_or_globs() {
        for (pattern, yes, no) in [
            (
                "https://h.example/",
                &["https://h.example/", "https://h.example/a?b=c"][..],
                &["http://h.example/", "https://h.example.evil/", "urn:x"][..],
            ),
            ("*", &["https://h.example/", "urn:x", ""], &[]),
            (
                "https://h.example/*.tgz",
                &["https://h.example/.tgz", "https://h.example/a/b.tgz"],
                &["https://h.example/a.tgz.sig", "https://other.example/a.tgz"],
            ),
            (
                "https://*.example/*/latest/*",
                &[
                    "https://h.example/a/latest/",
                    "https://a.b.example/x/latest/y",
                ],
                &["https://h.example/latest/", "https://h.example/a/latest"],
            ),
            ("*ab*ab", &["x:ab-ab", "x:ab-ab-ab"], &["x:ab", "x:aab"]),
        ] {
            for uri in yes {
                assert!(matches(pattern, uri), "{pattern} and {uri}");
            }
            for uri in no {
                assert!(!matches(pattern, uri), "{pattern} and {uri}");
            }
        }
    }

    #[test]
    fn another_spelling_is_no_way_around() {
        for uri in [
            "HTTPS://H.Example:443/a",
            "https://user:pass@h.example/a",
            "https://h.example/b/../a",
            "https://h.example/%2e/a#part",
            "https://h.example/a?sig=s3cret",
            "https://h%2eexample/a",
        ] {
            assert!(matches("https://h.example/a", uri), "{uri}");
        }
        let seen = subject(&Uri::new("https://u:s3cret@h.example/a?token=s3cret&v=1"));
        assert_eq!(seen, "https://h.example/a?v=1");
    }

    #[test]
    fn mistakes_are_told_without_secrets() {
        for bad in [
            "",
            "a b",
            "h.example",
            "https://h.example",
            "https://u:s3cret@h.example/",
            "https://h.example/?token=s3cret",
        ] {
            let error = bad.parse::<UrlPattern>().unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
