//! Which requests are the same.
//!
//! Two are if every origin, and the cache, would be told the same by the same
//! caller. Secrets take part as hashes under a key of this process: they are
//! in memory only, shown nowhere, and of no use to another process.
//! Called by: `resolver` (`flight`, `negative` and what makes their keys).

use std::hash::{Hash, Hasher};
use std::time::SystemTime;

use crate::asset::{AssetKind, Uri};
use crate::digest::InstanceName;
use crate::resolver::{Push, Query};
use crate::upstream::CallContext;

/// A hash of something that may be secret. Has no `Debug`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::resolver) struct Fingerprint([u8; 32]);

/// Who asks for what. The parts are apart so that callers can share a part
/// of a request without sharing all of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::resolver) struct Same {
    /// Kind, scope, URIs, identity qualifiers (the checksum is one), timeout.
    asset: Fingerprint,
    /// What the origins are shown.
    headers: Fingerprint,
    /// What the cache is shown.
    caller: Fingerprint,
}

/// What a flight is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FlightKey {
    same: Same,
    /// `oldest_content_accepted` as sent, if that was in the future.
    pub(super) not_from_cache: Option<SystemTime>,
}

/// What somebody would board a flight for.
#[derive(Clone, Copy)]
pub(in crate::resolver) struct Wanted {
    pub(in crate::resolver) same: Same,
    /// `oldest_content_accepted` as sent.
    pub(in crate::resolver) oldest: Option<SystemTime>,
}

impl Wanted {
    /// The key of a flight begun for exactly this time, if there is one. It
    /// may have been in the future then and no longer be.
    pub(super) fn exact(self) -> Option<FlightKey> {
        self.oldest.map(|_| FlightKey {
            same: self.same,
            not_from_cache: self.oldest,
        })
    }

    /// The key of flights that serve any time before their start.
    pub(super) fn plain(self) -> FlightKey {
        FlightKey {
            same: self.same,
            not_from_cache: None,
        }
    }

    /// The key of a flight begun now.
    pub(super) fn key(self, now: SystemTime) -> FlightKey {
        match self.exact() {
            Some(exact) if exact.not_from_cache > Some(now) => exact,
            _ => self.plain(),
        }
    }
}

/// Makes fingerprints that only this process can make.
pub(in crate::resolver) struct Fingerprints {
    key: [u8; 32],
}

impl Fingerprints {
    pub(in crate::resolver) fn new() -> Self {
        let mut key = [0; 32];
        // 122 random bits each.
        key[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        key[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        Self { key }
    }

    /// What makes a query the same as another.
    pub(in crate::resolver) fn of(&self, context: &CallContext, query: &Query) -> Same {
        let request = &query.request;
        Same {
            asset: self.make(|hasher| {
                request.kind.hash(hasher);
                request.scope.hash(hasher);
                request.uris.hash(hasher);
                request.qualifiers.hash(hasher);
                request.timeout.hash(hasher);
            }),
            headers: self.make(|hasher| request.headers.feed(hasher)),
            caller: self.make(|hasher| context.feed(hasher)),
        }
    }

    /// What a fetch is about, as far as a push may change it.
    pub(in crate::resolver) fn asked_for(&self, query: &Query) -> Box<[Fingerprint]> {
        let request = &query.request;
        self.names(&request.scope.instance, request.kind, &request.uris)
    }

    /// What a push is about.
    pub(in crate::resolver) fn pushed(&self, push: &Push) -> Box<[Fingerprint]> {
        self.names(&push.instance, push.kind, &push.uris)
    }

    /// Whatever the digest function: that of a push may not be known yet.
    fn names(&self, instance: &InstanceName, kind: AssetKind, uris: &[Uri]) -> Box<[Fingerprint]> {
        let one = |uri: &Uri| {
            self.make(|hasher| {
                instance.hash(hasher);
                kind.hash(hasher);
                uri.key_bytes().hash(hasher);
            })
        };
        uris.iter().map(one).collect()
    }

    fn make(&self, feed: impl FnOnce(&mut Keyed)) -> Fingerprint {
        let mut hasher = Keyed(blake3::Hasher::new_keyed(&self.key));
        feed(&mut hasher);
        Fingerprint(*hasher.0.finalize().as_bytes())
    }
}

/// A cryptographic hash behind the interface that values can be fed to.
struct Keyed(blake3::Hasher);

impl Hasher for Keyed {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Required, and used by nobody here: the whole hash is taken.
    fn finish(&self) -> u64 {
        let mut first = [0; 8];
        self.0.finalize_xof().fill(&mut first);
        u64::from_le_bytes(first)
    }
}
