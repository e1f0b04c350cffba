//! What clients may have written on their behalf: instance names that may be
//! pushed to or fetched into, and URIs that may be pushed.
//!
//! Pure: what the settings say, applied to a request. Reading is not restricted
//! here: the cache decides who may read.
//! Not for: addresses of origins (`fetcher::policy`).
//! Called by: `resolver`; `config` parses the rules.

use std::fmt;
use std::str::FromStr;

use super::ResolveError;
use crate::asset::{Uri, scrub};
use crate::digest::InstanceName;

/// Which instance names a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceRule {
    /// `*`: every one.
    Any,
    /// This one.
    Only(InstanceName),
    /// `NAME/*`: this one and all below it.
    Below(InstanceName),
}

impl InstanceRule {
    fn covers(&self, name: &InstanceName) -> bool {
        match self {
            Self::Any => true,
            Self::Only(only) => only == name,
            Self::Below(top) => top == name || name.as_str().starts_with(&top.prefix()),
        }
    }
}

impl FromStr for InstanceRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, below) = match text {
            "*" => return Ok(Self::Any),
            // A variable cannot hold an empty item of a list.
            "" | "\"\"" => return Ok(Self::Only(InstanceName::default())),
            _ => text.strip_suffix("/*").map_or((text, false), |n| (n, true)),
        };
        if name.contains('*') || (name.is_empty() && below) {
            return Err(format!(
                "`{text}`: write NAME, NAME/* for it and all below it, \"\" for the empty \
                 instance, or * for all"
            ));
        }
        let name = InstanceName::new(name).map_err(|error| format!("`{text}`: {error}"))?;
        Ok(if below {
            Self::Below(name)
        } else {
            Self::Only(name)
        })
    }
}

/// What URIs of a rule begin with, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriPrefix(String);

/// What is compared with URIs cannot be what no URI looks like.
pub(super) fn check_plain(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let rule = "is not empty and has no spaces or control characters";
        return Err(format!("a {what} {rule}"));
    }
    if scrub(text) != text {
        // Not echoed: it holds one.
        return Err(format!(
            "a {what} cannot hold user info or signature parameters: it is compared with URIs \
             without them"
        ));
    }
    Ok(())
}

impl FromStr for UriPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        check_plain("prefix", text)?;
        let host = text.split_once("://").map_or("", |(_, rest)| rest);
        if !host.is_empty() && !host.contains(['/', '?', '#']) {
            return Err(format!(
                "`{text}` is also what `{text}.evil.example` begins with; write `{text}/`"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for UriPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// Instance names that may be pushed to.
    pub push_instances: Vec<InstanceRule>,
    /// Instance names into which a fetch may write content and references.
    pub fetch_instances: Vec<InstanceRule>,
    /// URIs that may be pushed; none is all.
    pub allow_uris: Vec<UriPrefix>,
    /// URIs that may not be pushed although they may.
    pub deny_uris: Vec<UriPrefix>,
}

impl Default for Permissions {
    fn default() -> Self {
        Self {
            push_instances: vec![InstanceRule::Any],
            fetch_instances: vec![InstanceRule::Any],
            allow_uris: Vec::new(),
            deny_uris: Vec::new(),
        }
    }
}

impl Permissions {
    /// Whether anybody may push anything.
    pub(super) fn some_push(&self) -> bool {
        !self.push_instances.is_empty()
    }

    /// Whether an instance may be pushed to.
    pub(super) fn check_push_instance(&self, name: &InstanceName) -> Result<(), ResolveError> {
        allowed(&self.push_instances, name).map_err(|()| ResolveError::InstanceNotAllowed {
            what: "pushing to",
            instance: name.clone(),
            setting: "push.instances",
        })
    }

    /// Whether a fetch may write into an instance.
    pub(super) fn check_fetch(&self, name: &InstanceName) -> Result<(), ResolveError> {
        allowed(&self.fetch_instances, name).map_err(|()| ResolveError::InstanceNotAllowed {
            what: "the asset is not in the cache, and fetching it from its origin into",
            instance: name.clone(),
            setting: "fetch.instances",
        })
    }

    /// Whether all of these URIs may be pushed. A reference is kept under the
    /// URI without user info and signatures: this is what has to be allowed,
    /// and neither form may be denied.
    pub(super) fn check_uris(&self, uris: &[Uri]) -> Result<(), ResolveError> {
        for (uri_index, uri) in uris.iter().enumerate() {
            let (kept, sent) = (uri.key_bytes(), uri.to_wire());
            let begins = |p: &UriPrefix| kept.starts_with(p.0.as_bytes());
            let denied = |p: &UriPrefix| begins(p) || sent.starts_with(p.0.as_bytes());
            let setting = if self.deny_uris.iter().any(denied) {
                "push.deny_uris"
            } else if !self.allow_uris.is_empty() && !self.allow_uris.iter().any(begins) {
                "push.allow_uris"
            } else {
                continue;
            };
            return Err(ResolveError::UriNotAllowed {
                uri: uri.redacted(),
                uri_index,
                setting,
            });
        }
        Ok(())
    }
}

fn allowed(rules: &[InstanceRule], name: &InstanceName) -> Result<(), ()> {
    match rules.iter().any(|rule| rule.covers(name)) {
        true => Ok(()),
        false => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(rule: &str, name: &str) -> bool {
        let name = InstanceName::new(name).unwrap();
        rule.parse::<InstanceRule>().unwrap().covers(&name)
    }

    #[test]
    fn instances_are_named_exactly_or_with_all_below() {
        for (rule, yes, no) in [
            ("*", &["", "a", "a/b"][..], &[][..]),
            ("", &[""], &["a"]),
            ("\"\"", &[""], &["a"]),
            ("a", &["a"], &["", "a/b", "ab", "b/a", "A"]),
            ("a/*", &["a", "a/b", "a/b/c"], &["", "ab", "ab/c", "b/a"]),
            ("a/b/*", &["a/b", "a/b/c"], &["a", "a/bc"]),
        ] {
            assert!(yes.iter().all(|name| covers(rule, name)), "{rule}");
            assert!(!no.iter().any(|name| covers(rule, name)), "{rule}");
        }
        for bad in [
            "/*", "**", "a*", "*/a", "a/*/b", "a/", "/a", "a//*", "blobs",
        ] {
            bad.parse::<InstanceRule>().unwrap_err();
        }
    }

    #[test]
    fn a_prefix_ends_behind_the_host_or_before_it() {
        for good in [
            "https://host/",
            "https://",
            "https://h:1/a",
            "urn:x",
            "https://h?x",
            "x",
        ] {
            good.parse::<UriPrefix>().unwrap();
        }
        let error = |text: &str| text.parse::<UriPrefix>().unwrap_err();
        assert!(error("https://host").contains("write `https://host/`"));
        assert!(error("https://host:443").contains("write `https://host:443/`"));
        for secret in ["https://u:hunter2@host/", "https://h/?token=hunter2"] {
            assert!(!error(secret).contains("hunter2"));
        }
        for bad in ["", "a b", "a\n"] {
            error(bad);
        }
    }

    fn refused(allow: &[&str], deny: &[&str], uris: &[&str]) -> Option<(usize, &'static str)> {
        let rules = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
        let permissions = Permissions {
            allow_uris: rules(allow),
            deny_uris: rules(deny),
            ..Permissions::default()
        };
        let uris: Vec<Uri> = uris.iter().map(|u| Uri::new(u.to_string())).collect();
        match permissions.check_uris(&uris) {
            Ok(()) => None,
            Err(ResolveError::UriNotAllowed {
                uri_index, setting, ..
            }) => Some((uri_index, setting)),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn all_uris_must_pass_and_deny_wins() {
        let (good, evil) = ("https://good/a", "https://good.evil/a");
        let (allow, deny) = (Some("push.allow_uris"), Some("push.deny_uris"));
        let why = |got: Option<(usize, &'static str)>| got.map(|(_, why)| why);
        assert_eq!(refused(&[], &[], &[good, evil, "urn:x"]), None);
        assert_eq!(refused(&["https://good/"], &[], &[good]), None);
        assert_eq!(
            refused(&["https://good/", "urn:"], &[], &[good, "urn:x"]),
            None
        );
        let mixed = refused(&["https://good/"], &[], &[good, evil]);
        assert_eq!(mixed, Some((1, "push.allow_uris")));
        assert_eq!(
            why(refused(&["https://good/"], &[], &["HTTPS://good/a"])),
            allow
        );
        assert_eq!(
            why(refused(&["https://"], &["https://good/"], &[good])),
            deny
        );
        assert_eq!(refused(&["https://"], &["https://good/"], &[evil]), None);
    }

    #[test]
    fn what_is_no_part_of_the_key_gets_nobody_past_a_rule() {
        let (allow, deny) = (Some((0, "push.allow_uris")), Some((0, "push.deny_uris")));
        let rule = &["https://host/"];
        for uri in [
            "https://u:p@host/a",
            "https://host/a?sig=s",
            "https://u:p/w@host/a",
        ] {
            assert_eq!(refused(&[], rule, &[uri]), deny, "{uri}");
            assert_eq!(refused(rule, &[], &[uri]), None, "{uri}");
        }
        // A password that looks like the allowed host.
        assert_eq!(refused(rule, &[], &["https://host/@evil/"]), None, "a path");
        assert_eq!(refused(rule, &[], &["https://host:x/@evil/a"]), allow);
        assert_eq!(
            refused(&[], &["https://host:x/"], &["https://host:x/@evil/a"]),
            deny
        );
    }
}
