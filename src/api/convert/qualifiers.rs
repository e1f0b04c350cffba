//! Qualifiers off the wire: identity ones to be matched and kept, headers for
//! the origin to be sent and forgotten. No text made here holds a value.

use std::collections::BTreeSet;

use super::{Violations, limits};
use crate::asset::{CHECKSUM_SRI, DIRECTORY, Integrity, OriginHeaders, Qualifiers, Role, kept_len};
use crate::proto::asset::Qualifier;

const NAME: &str = "qualifiers.name";
const VALUE: &str = "qualifiers.value";

/// The one kind of name that may occur twice: Bazel sends it once per value of
/// a header (V4).
const REPEATABLE: &str = "http_header_url:";

/// Longest part of a name that is shown.
const SHOWN: usize = 120;

/// Both classes of qualifiers of a request with `uris` URIs. They are
/// [`within_limits`].
pub(super) fn split(
    wire: &[Qualifier],
    uris: usize,
    bad: &mut Violations,
) -> (Qualifiers, OriginHeaders) {
    let mut seen = BTreeSet::new();
    let mut doubled = BTreeSet::new();
    let mut identity = Vec::new();
    let mut headers = OriginHeaders::default();
    for Qualifier { name, value } in wire {
        if name.is_empty() {
            bad.add(NAME, "a qualifier needs a name");
        } else if !name.starts_with(REPEATABLE) && !seen.insert(name) {
            if doubled.insert(name) {
                bad.add(NAME, format!("{:?} occurs more than once", shown(name)));
            }
        } else if Role::of(name) == Role::Credential {
            bad.check(NAME, headers.insert(name, value, uris));
        } else if name == DIRECTORY {
            let path = bad.check(VALUE, directory(value)).unwrap_or_default();
            identity.push((name.clone(), path.to_owned()));
        } else {
            identity.push((name.clone(), value.clone()));
        }
    }
    let identity = bad.check(NAME, Qualifiers::new(identity));
    (identity.unwrap_or_default(), headers)
}

fn check_bytes(bytes: usize, what: &str, most: usize, bad: &mut Violations) {
    if bytes > most {
        let said = format!("{bytes} bytes of {what}; at most {most} are accepted");
        bad.add("qualifiers", said);
    }
}

/// The parsed `checksum.sri`, if there is one.
pub(super) fn integrity(qualifiers: &Qualifiers, bad: &mut Violations) -> Option<Integrity> {
    let value = qualifiers.get(CHECKSUM_SRI)?;
    bad.check(VALUE, Integrity::parse(value))
}

/// Notes which limits they are not within, before they are looked into; what is
/// kept of identity qualifiers has a lower bound, which counts without their
/// secrets.
pub(super) fn within_limits(wire: &[Qualifier], bad: &mut Violations) {
    for (role, what, most, most_bytes) in [
        (
            Role::Identity,
            "qualifiers",
            limits::IDENTITY,
            limits::IDENTITY_BYTES_SENT,
        ),
        (
            Role::Credential,
            "header qualifiers",
            limits::HEADERS,
            limits::HEADER_BYTES,
        ),
    ] {
        let of_role = || wire.iter().filter(|q| Role::of(&q.name) == role);
        let (count, bytes) = of_role().fold((0, 0), |(count, bytes), q| {
            (count + 1, bytes + q.name.len() + q.value.len())
        });
        if count > most {
            bad.add(
                "qualifiers",
                format!("{count} {what}; at most {most} are accepted"),
            );
        }
        check_bytes(bytes, what, most_bytes, bad);
        if role == Role::Identity && (limits::IDENTITY_BYTES..=most_bytes).contains(&bytes) {
            let kept = of_role().map(|q| q.name.len() + kept_len(&q.value)).sum();
            check_bytes(kept, what, limits::IDENTITY_BYTES, bad);
        }
    }
}

/// A relative path without a trailing slash; one such slash is passed over,
/// as some clients write it (L4).
fn directory(value: &str) -> Result<&str, &'static str> {
    let path = value.strip_suffix('/').unwrap_or(value);
    if value.starts_with('/') {
        return Err("directory is a path relative to the root of the asset, not an absolute one");
    }
    if path
        .split('/')
        .any(|segment| matches!(segment, "" | "." | ".."))
    {
        return Err("directory cannot have empty, \".\" or \"..\" segments");
    }
    Ok(path)
}

fn shown(name: &str) -> String {
    name.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l4_directory_paths() {
        assert_eq!(directory("a/b"), Ok("a/b"));
        assert_eq!(directory("a/b/"), Ok("a/b"));
        for bad in ["", "/", "/a", "a//", "a//b", ".", "a/./b", "../a", "a/.."] {
            assert!(directory(bad).is_err(), "{bad:?}");
        }
    }
}
