//! Which requests are the same.
//!
//! Two are if every origin, and the cache, would be told the same by the same
//! caller. Secrets take part as hashes under a key of this process: they are
//! in memory only, shown nowhere, and of no use to another process.
//! Called by: `resolver` (`flight`, `negative` and what makes their keys).

use std::hash::Hash as _;
use std::time::SystemTime;

use crate::asset::{AssetKind, Uri};
pub(in crate::resolver) use crate::digest::Fingerprint;
use crate::digest::{Fingerprinter, InstanceName};
use crate::resolver::{Push, Query};
use crate::upstream::CallContext;

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

/// Makes the fingerprints of requests.
pub(in crate::resolver) struct Fingerprints(Fingerprinter);

impl Fingerprints {
    pub(in crate::resolver) fn new() -> Self {
        Self(Fingerprinter::default())
    }

    /// What makes a query the same as another.
    pub(in crate::resolver) fn of(&self, context: &CallContext, query: &Query) -> Same {
        let request = &query.request;
        Same {
            asset: self.0.make(|hasher| {
                request.kind.hash(hasher);
                request.scope.hash(hasher);
                request.uris.hash(hasher);
                request.qualifiers.hash(hasher);
                request.timeout.hash(hasher);
            }),
            headers: self.0.make(|hasher| request.headers.feed(hasher)),
            caller: self.caller(context),
        }
    }

    /// What the cache is shown.
    pub(in crate::resolver) fn caller(&self, context: &CallContext) -> Fingerprint {
        self.0.make(|hasher| context.feed(hasher))
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
            self.0.make(|hasher| {
                instance.hash(hasher);
                kind.hash(hasher);
                uri.key_bytes().hash(hasher);
            })
        };
        uris.iter().map(one).collect()
    }
}
