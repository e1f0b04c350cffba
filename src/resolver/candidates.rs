//! Which keys may answer a query, in the order in which they are asked.
//!
//! In waves, each asked only when the one before had nothing (conformance
//! C3.4): checksums that Assetgate verified; each URI with exactly these
//! qualifiers; each URI for pushes with more qualifiers; what another server
//! left behind.
//! Not for: whether an entry found under one is an answer (`lookup.rs`).

use super::{Outcome, Query, Settings};
use crate::asset::{AssetKey, CHECKSUM_SRI, KeySpace, Qualifiers};

/// Prefix of what stands in a key for a header that selects a representation.
/// Not `http_header:`, as that is a name no entry may hold.
const SELECTED_BY: &str = "request_header:";

/// A key that may answer a query.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) key: AssetKey,
    pub(super) uri_index: Option<usize>,
    pub(super) outcome: Outcome,
    /// The request's checksum is no part of the key: the entry has to have it.
    pub(super) unpinned: bool,
}

/// What this fetch may be answered from beside pushes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent<'a> {
    pub(super) settings: &'a Settings,
    /// By URI: whether content an origin served before may answer.
    pub(super) fetched: &'a [bool],
    /// Whether a verified checksum may lead to it.
    pub(super) checksums: bool,
    /// Whether what another server left may be taken over, which writes.
    pub(super) migrate: bool,
}

/// All candidates, in waves.
pub(super) fn waves(query: &Query, extent: Extent<'_>) -> Vec<Vec<Candidate>> {
    let mut waves = vec![exact(query, extent.fetched)];
    if extent.checksums {
        waves.insert(0, checksums(query));
    }
    // A request with as many as a push may have can be no part of one.
    if extent.settings.push && extent.settings.subsets.any() {
        let space = |uri, qualifiers| KeySpace::Subset { uri, qualifiers };
        waves.push(by_uri(query, Outcome::HitSubset, space));
    }
    if extent.migrate {
        let space = |uri, qualifiers| KeySpace::Migrated { uri, qualifiers };
        waves.push(by_uri(query, Outcome::HitMigrated, space));
    }
    waves.retain(|wave| !wave.is_empty());
    waves
}

/// The keys of the verified hashes the query names, if a checksum alone says
/// which asset is meant.
fn checksums(query: &Query) -> Vec<Candidate> {
    let request = &query.request;
    let checksums = request.integrity.iter().flat_map(|i| i.checksums());
    let spaces = checksums.filter_map(|c| KeySpace::checksum(c, &request.qualifiers));
    let candidates = spaces.map(|space| Candidate {
        key: key(query, space),
        uri_index: (!request.uris.is_empty()).then_some(0),
        outcome: Outcome::HitChecksum,
        unpinned: false,
    });
    candidates.collect()
}

/// What was pushed for each URI, then what its origin served. A push is
/// matched whatever the headers (C3: their names are left out), and also
/// without the checksum, which can be compared with what it names (P2).
fn exact(query: &Query, fetched: &[bool]) -> Vec<Candidate> {
    let request = &query.request;
    let mut candidates = Vec::new();
    for (index, uri) in request.uris.iter().enumerate() {
        let mut add = |space, unpinned| {
            candidates.push(Candidate {
                key: key(query, space),
                uri_index: Some(index),
                outcome: Outcome::HitExact,
                unpinned,
            });
        };
        let (uri, qualifiers) = (uri.clone(), request.qualifiers.clone());
        let exact = |qualifiers| KeySpace::Exact {
            uri: uri.clone(),
            qualifiers,
        };
        add(exact(qualifiers.clone()), false);
        if request.integrity.is_some() && qualifiers.get(CHECKSUM_SRI).is_some() {
            add(exact(qualifiers.without(CHECKSUM_SRI)), true);
        }
        if fetched.get(index) == Some(&true) {
            let qualifiers = key_qualifiers(query, index);
            add(KeySpace::Fetched { uri, qualifiers }, false);
        }
    }
    candidates
}

fn by_uri(
    query: &Query,
    outcome: Outcome,
    space: impl Fn(crate::asset::Uri, Qualifiers) -> KeySpace,
) -> Vec<Candidate> {
    let request = &query.request;
    let candidate = |(index, uri): (usize, &crate::asset::Uri)| Candidate {
        key: key(query, space(uri.clone(), request.qualifiers.clone())),
        uri_index: Some(index),
        outcome,
        unpinned: false,
    };
    request.uris.iter().enumerate().map(candidate).collect()
}

/// What the origin of one URI served before, under this key: no answer by
/// itself.
pub(super) fn past(index: usize, key: AssetKey) -> Candidate {
    Candidate {
        key,
        uri_index: Some(index),
        outcome: Outcome::Revalidated,
        unpinned: false,
    }
}

/// The qualifiers under which content of one URI is kept: those of the request
/// and, unless a checksum pins it, the headers that select a representation.
pub(super) fn key_qualifiers(query: &Query, index: usize) -> Qualifiers {
    let request = &query.request;
    let uri = request.uris.get(index).and_then(|uri| uri.as_str());
    let mut qualifiers = request.qualifiers.clone();
    if request.integrity.is_none() {
        for (name, value) in request.headers.selecting(index, uri.unwrap_or_default()) {
            qualifiers = qualifiers.with(&format!("{SELECTED_BY}{name}"), &value);
        }
    }
    qualifiers
}

/// What of the stored qualifiers is one to clients.
pub(super) fn shown(stored: Qualifiers) -> Qualifiers {
    stored.without_prefix(SELECTED_BY)
}

pub(super) fn key(query: &Query, space: KeySpace) -> AssetKey {
    AssetKey {
        scope: query.request.scope.clone(),
        kind: query.request.kind,
        space,
    }
}
