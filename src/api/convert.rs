//! Messages to domain values. Everything that is wrong with a request is found
//! here and said at once, one field violation each.
//!
//! Not for: what only the cache or the fetcher knows (announced digest
//! functions, supported qualifiers).
//! Called by: `fetch.rs`, `push.rs`.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod qualifiers;
mod time;

use bytes::Bytes;
use tonic_types::FieldViolation;

use super::limits;
use crate::asset::{AssetKind, CHECKSUM_SRI, KeySpace, Uri};
use crate::digest::{Digest, DigestFunction, InstanceName, Scope};
use crate::fetcher::{FetchRequest, Waiters};
use crate::proto::{asset, rev2};
use crate::resolver::{Push, Query};

/// What is wrong with a request: at least one violation.
#[derive(Debug)]
pub(super) struct Invalid(Vec<FieldViolation>);

impl Invalid {
    pub(super) fn violations(&self) -> &[FieldViolation] {
        &self.0
    }
}

/// Collects violations.
#[derive(Debug, Default)]
struct Violations(Vec<FieldViolation>);

impl Violations {
    /// Beyond the limit nothing is noted: a message of 16 MiB has room for
    /// millions of mistakes, and an answer for a few.
    fn add(&mut self, field: impl Into<String>, description: impl ToString) {
        if self.0.len() >= limits::VIOLATIONS {
            return;
        }
        self.0
            .push(FieldViolation::new(field, description.to_string()));
    }

    /// Notes an error under `field` and goes on without the value.
    fn check<T, E: ToString>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }

    fn into_error(self) -> Invalid {
        Invalid(self.0)
    }

    /// The value, unless something was wrong.
    fn finish<T>(self, value: Option<T>) -> Result<T, Invalid> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.into_error()),
        }
    }
}

/// The fields of both fetch requests.
#[derive(Debug)]
pub(super) struct FetchMessage {
    instance_name: String,
    timeout: Option<prost_types::Duration>,
    oldest_content_accepted: Option<prost_types::Timestamp>,
    uris: Vec<Bytes>,
    qualifiers: Vec<asset::Qualifier>,
    digest_function: i32,
}

/// The fields of both push requests.
#[derive(Debug)]
pub(super) struct PushMessage {
    instance_name: String,
    uris: Vec<Bytes>,
    qualifiers: Vec<asset::Qualifier>,
    expire_at: Option<prost_types::Timestamp>,
    digest: Option<rev2::Digest>,
    references_blobs: Vec<rev2::Digest>,
    references_directories: Vec<rev2::Digest>,
    digest_function: i32,
}

macro_rules! fetch_message {
    ($($wire:ty),*) => {$(
        impl From<$wire> for FetchMessage {
            fn from(m: $wire) -> Self {
                Self {
                    instance_name: m.instance_name,
                    timeout: m.timeout,
                    oldest_content_accepted: m.oldest_content_accepted,
                    uris: m.uris,
                    qualifiers: m.qualifiers,
                    digest_function: m.digest_function,
                }
            }
        }
    )*};
}
fetch_message!(asset::FetchBlobRequest, asset::FetchDirectoryRequest);

macro_rules! push_message {
    ($($wire:ty, $digest:ident);*) => {$(
        impl From<$wire> for PushMessage {
            fn from(m: $wire) -> Self {
                Self {
                    instance_name: m.instance_name,
                    uris: m.uris,
                    qualifiers: m.qualifiers,
                    expire_at: m.expire_at,
                    digest: m.$digest,
                    references_blobs: m.references_blobs,
                    references_directories: m.references_directories,
                    digest_function: m.digest_function,
                }
            }
        }
    )*};
}
push_message!(asset::PushBlobRequest, blob_digest; asset::PushDirectoryRequest, root_directory_digest);

impl FetchMessage {
    /// What is said of a request is said of its first URIs, if it has too many
    /// or too long ones.
    pub(super) fn uris(&self) -> Vec<Uri> {
        some_uris(&self.uris)
    }

    /// Whether reading it may take over a millisecond.
    pub(super) fn is_large(&self) -> bool {
        is_large(&self.uris, &self.qualifiers, 0)
    }

    /// The digest function that answers are in: SHA256 where unset (V8).
    pub(super) fn to_query(&self, kind: AssetKind) -> Result<Query, Invalid> {
        let mut bad = within_limits(&self.uris, &self.qualifiers)?;
        let checksum_only = kind == AssetKind::Blob
            && self.uris.is_empty()
            && self.qualifiers.iter().any(|q| q.name == CHECKSUM_SRI);
        if self.uris.is_empty() && !checksum_only {
            bad.add("uris", "at least one URI is required");
            return Err(bad.into_error());
        }
        let uris = uris(&self.uris, &mut bad);
        let (qualifiers, headers) = qualifiers::split(&self.qualifiers, uris.len(), &mut bad);
        let integrity = qualifiers::integrity(&qualifiers, &mut bad);
        if checksum_only {
            let pinned = integrity.iter().flat_map(|i| i.checksums()).next();
            if pinned.is_some_and(|c| KeySpace::checksum(c, &qualifiers).is_none()) {
                bad.add("uris", "at least one URI is required with these qualifiers");
            }
        }
        let timeout = bad.check("timeout", time::timeout(self.timeout.as_ref()));
        let oldest = time::instant(self.oldest_content_accepted.as_ref());
        let oldest = bad.check("oldest_content_accepted", oldest).flatten();
        let instance = bad.check("instance_name", InstanceName::new(&self.instance_name));
        let function = DigestFunction::from_wire(self.digest_function);
        let function = bad.check("digest_function", function).flatten();
        let scope = instance
            .map(|instance| Scope::new(instance, function.unwrap_or(DigestFunction::Sha256)));
        let query = scope.map(|scope| Query {
            request: FetchRequest {
                kind,
                scope,
                uris,
                qualifiers,
                integrity,
                headers,
                timeout: timeout.flatten(),
                oldest,
                known: Vec::new(),
                waiters: Waiters::default(),
            },
            comes_back: true,
        });
        bad.finish(query)
    }
}

impl PushMessage {
    /// As of a fetch.
    pub(super) fn uris(&self) -> Vec<Uri> {
        some_uris(&self.uris)
    }

    /// Whether reading it may take over a millisecond.
    pub(super) fn is_large(&self) -> bool {
        let references = self.references_blobs.len() + self.references_directories.len();
        is_large(&self.uris, &self.qualifiers, references)
    }

    /// What is checked before whether pushing is allowed at all.
    pub(super) fn check_limits(&self) -> Result<(), Invalid> {
        within_limits(&self.uris, &self.qualifiers).map(|_| ())
    }

    /// Where to, if it can be anywhere.
    pub(super) fn instance(&self) -> Option<InstanceName> {
        InstanceName::new(&self.instance_name).ok()
    }

    pub(super) fn to_push(&self, kind: AssetKind) -> Result<Push, Invalid> {
        let mut bad = within_limits(&self.uris, &self.qualifiers)?;
        if self.uris.is_empty() {
            // Before anything else, and alone: BuildStream's probe (V2).
            bad.add("uris", "at least one URI is required");
            return Err(bad.into_error());
        }
        let uris = uris(&self.uris, &mut bad);
        let (qualifiers, _) = qualifiers::split(&self.qualifiers, uris.len(), &mut bad);
        qualifiers::integrity(&qualifiers, &mut bad);
        let expire_at = bad.check("expire_at", time::instant(self.expire_at.as_ref()));
        let instance = bad.check("instance_name", InstanceName::new(&self.instance_name));
        let function = DigestFunction::from_wire(self.digest_function);
        let function = bad.check("digest_function", function).flatten();
        let digest = self.digest(kind, function, &mut bad);
        let push = instance
            .zip(digest)
            .map(|(instance, (digest, shape))| Push {
                kind,
                instance,
                function,
                uris,
                qualifiers,
                digest,
                expire_at: expire_at.flatten(),
                referenced_blobs: references(
                    "references_blobs",
                    &self.references_blobs,
                    shape,
                    &mut bad,
                ),
                referenced_directories: references(
                    "references_directories",
                    &self.references_directories,
                    shape,
                    &mut bad,
                ),
            });
        bad.finish(push)
    }

    /// The pushed digest, and a function of its hash length: the one given, or
    /// one inferred. Which of two with that length is meant, the resolver
    /// finds out from the cache.
    fn digest(
        &self,
        kind: AssetKind,
        function: Option<DigestFunction>,
        bad: &mut Violations,
    ) -> Option<(Digest, DigestFunction)> {
        let field = match kind {
            AssetKind::Blob => "blob_digest",
            AssetKind::Directory => "root_directory_digest",
        };
        let length = self.digest.as_ref().map_or(0, |d| d.hash.len());
        let shape = match (function, &self.digest) {
            (Some(function), _) => function,
            (None, None) => DigestFunction::Sha256,
            (None, Some(_)) => bad.check(field, DigestFunction::infer(length, &[]))?,
        };
        let digest = Digest::of_content(shape, self.digest.as_ref());
        Some((bad.check(field, digest)?, shape))
    }
}

fn is_large(uris: &[Bytes], qualifiers: &[asset::Qualifier], more: usize) -> bool {
    let bytes = || {
        let uris: usize = uris.iter().map(Bytes::len).sum();
        let qualifiers = qualifiers.iter().map(|q| q.name.len() + q.value.len());
        uris + qualifiers.sum::<usize>()
    };
    uris.len() + qualifiers.len() + more > limits::AT_ONCE_PARTS || bytes() > limits::AT_ONCE_BYTES
}

/// The one place where the limits of all four methods are checked, before all
/// else: what is refused for its size is not looked at any closer.
fn within_limits(uris: &[Bytes], qualifiers: &[asset::Qualifier]) -> Result<Violations, Invalid> {
    let mut bad = Violations::default();
    let got = uris.len();
    if got > limits::URIS {
        let most = limits::URIS;
        bad.add("uris", format!("{got} URIs; at most {most} are accepted"));
    }
    for (index, uri) in uris.iter().enumerate().take(limits::URIS) {
        let (got, most) = (uri.len(), limits::URI_BYTES);
        if got > most {
            let said = format!("a URI of {got} bytes; at most {most} are accepted");
            bad.add(format!("uris[{index}]"), said);
        }
    }
    qualifiers::within_limits(qualifiers, &mut bad);
    if bad.0.is_empty() {
        Ok(bad)
    } else {
        Err(bad.into_error())
    }
}

fn some_uris(wire: &[Bytes]) -> Vec<Uri> {
    let some = wire.iter().take(limits::URIS);
    let some = some.take_while(|uri| uri.len() <= limits::URI_BYTES);
    some.cloned().map(Uri::new).collect()
}

fn uris(wire: &[Bytes], bad: &mut Violations) -> Vec<Uri> {
    let uris = some_uris(wire);
    for (index, uri) in uris.iter().enumerate() {
        if wire[index].is_empty() {
            bad.add(format!("uris[{index}]"), "a URI cannot be empty");
        }
        bad.check(&format!("uris[{index}]"), uri.check());
    }
    uris
}

/// Further digests of a push. The digest of no bytes needs no keeping.
fn references(
    field: &str,
    wire: &[rev2::Digest],
    function: DigestFunction,
    bad: &mut Violations,
) -> Vec<Digest> {
    let digests = wire.iter().enumerate().filter_map(|(index, digest)| {
        let digest = Digest::of_content(function, Some(digest));
        bad.check(&format!("{field}[{index}]"), digest)
    });
    digests.filter(|digest| !digest.is_empty()).collect()
}
