//! Whether content has a checksum that a request names: the one model, which
//! every answer to such a request goes through.
//!
//! Proven is that by the digest itself, where the algorithm is its function's;
//! by an entry of ours that says so under a valid MAC and is of something we
//! fetched; or by this process having hashed the bytes. Whatever else an entry
//! says is a hint, as anybody may have written it: the content is read back
//! (`read_back.rs`), or it is a miss.
//! Under MD5 and SHA-1 as digest functions all of that is as strong as these.
//! Not for: which entries are asked (`candidates.rs`), nor what a download is
//! held to (`fetcher`).
//! Called by: `lookup.rs`, `origin.rs` (tells what was fetched).

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;

use super::candidates::Candidate;
use super::read_back::Readings;
use super::{Inner, Missed, Query, ResolveError};
use crate::asset::{AssetKey, AssetKind, AssetReference, Checksum, Integrity, KeySpace};
use crate::digest::{Digest, DigestFunction, Scope};
use crate::fetcher::Fetcher;
use crate::store::AssetStore;
use crate::telemetry::may_log;
use crate::upstream::{self, CallContext};

/// Contents whose hashes are remembered, some 300 bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16_383);

/// What reading content back may take; a request's own `timeout` counts too.
#[derive(Debug, Clone, Copy)]
pub struct ReadBackLimits {
    /// Bytes of content that is read back.
    pub max_size: u64,
    /// Time, where the request names none.
    pub timeout: Duration,
    /// The longest it may ask for.
    pub max_timeout: Duration,
}

impl Default for ReadBackLimits {
    fn default() -> Self {
        Self {
            max_size: 16 << 30,
            timeout: Duration::from_secs(600),
            max_timeout: Duration::from_secs(3600),
        }
    }
}

/// What is known of content and a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// It has one of the hashes.
    Proven,
    /// It has none of them.
    Disproven,
    /// The hash of some algorithm is not known.
    Unknown,
}

/// What this process has hashed, and what it is about to.
pub(super) struct Proofs {
    hashed: Mutex<LruCache<(DigestFunction, Digest), Vec<Checksum>>>,
    pub(super) readings: Readings,
}

impl Proofs {
    pub(super) fn new() -> Self {
        Self {
            hashed: Mutex::new(LruCache::new(REMEMBERED)),
            readings: Readings::new(),
        }
    }

    /// Remembers hashes of bytes that this process had and that have this
    /// digest. Nothing where it could not see that they do.
    pub(super) fn learn(&self, scope: &Scope, digest: &Digest, hashes: &[Checksum]) {
        let function = scope.function;
        let others = hashes
            .iter()
            .filter(|c| c.algorithm().function() != function);
        let mut others = others.peekable();
        if !function.is_computable() || others.peek().is_none() {
            return;
        }
        let mut hashed = self.hashed.lock();
        let known = hashed.get_or_insert_mut((function, digest.clone()), Vec::new);
        for hash in others {
            if !known.contains(hash) {
                known.push(hash.clone());
            }
        }
    }

    /// What is known of the content of an entry. Takes no lock and no memory
    /// where the digest itself is the answer.
    pub(super) fn weigh(
        &self,
        function: DigestFunction,
        entry: &AssetReference,
        integrity: &Integrity,
    ) -> Proof {
        let checksums = || integrity.checksums().iter();
        let of_digest = |c: &&Checksum| is_of_digest(function, entry.kind, c);
        if checksums()
            .filter(of_digest)
            .any(|c| entry.digest.has_hash(c.raw()))
        {
            return Proof::Proven;
        }
        if checksums().all(|c| of_digest(&c)) {
            return Proof::Disproven;
        }
        let others = || checksums().filter(|c| !of_digest(c));
        let mut open = false;
        for checksum in others() {
            match entry.vouches_for(checksum) {
                Some(true) => return Proof::Proven,
                Some(false) => {}
                None => open = true,
            }
        }
        match open {
            true => self.recall(function, entry, others()),
            false => Proof::Disproven,
        }
    }

    /// What this process has seen of it: of a directory nothing, as what a
    /// checksum pins is the archive it was unpacked from.
    fn recall<'a>(
        &self,
        function: DigestFunction,
        entry: &AssetReference,
        wanted: impl Iterator<Item = &'a Checksum>,
    ) -> Proof {
        if entry.kind == AssetKind::Directory {
            return Proof::Unknown;
        }
        let mut hashed = self.hashed.lock();
        let Some(known) = hashed.get(&(function, entry.digest.clone())) else {
            return Proof::Unknown;
        };
        let mut proof = Proof::Disproven;
        for checksum in wanted {
            let seen = known.iter().find(|k| k.algorithm() == checksum.algorithm());
            match seen.map(|seen| seen == checksum) {
                Some(true) => return Proof::Proven,
                Some(false) => {}
                None if entry.vouches_for(checksum) == Some(false) => {}
                None => proof = Proof::Unknown,
            }
        }
        proof
    }
}

/// Whether digest and checksum are hashes of the same bytes by the same
/// function.
fn is_of_digest(function: DigestFunction, kind: AssetKind, checksum: &Checksum) -> bool {
    kind == AssetKind::Blob && checksum.algorithm().function() == function
}

impl<S: AssetStore, F: Fetcher, A> Inner<S, F, A> {
    /// Whether an entry that answers otherwise has the checksum of the query.
    pub(super) async fn prove(
        &self,
        context: &CallContext,
        query: &Query,
        candidate: &Candidate,
        entry: &AssetReference,
    ) -> Result<Result<(), Missed>, ResolveError> {
        let Some(integrity) = &query.request.integrity else {
            return Ok(Ok(()));
        };
        let function = query.request.scope.function;
        match self.shared.proofs.weigh(function, entry, integrity) {
            Proof::Proven => Ok(Ok(())),
            // It claims nothing that there would be to check.
            _ if candidate.unpinned => Ok(Err(Missed::Contradicted)),
            Proof::Disproven => {
                false_claim(&candidate.key, entry, integrity);
                Ok(Err(Missed::Contradicted))
            }
            Proof::Unknown => {
                Box::pin(self.check_claim(context, query, &candidate.key, entry, integrity)).await
            }
        }
    }

    /// Reads the content of an entry back to see whether it has the checksum
    /// that the entry claims it has.
    async fn check_claim(
        &self,
        context: &CallContext,
        query: &Query,
        key: &AssetKey,
        entry: &AssetReference,
        integrity: &Integrity,
    ) -> Result<Result<(), Missed>, ResolveError> {
        let (shared, request) = (&self.shared, &query.request);
        let limits = &shared.settings.read_back;
        if entry.kind == AssetKind::Directory || entry.digest.size() > limits.max_size {
            count("unproven");
            return Ok(Err(Missed::Unproven));
        }
        let wanted = request.timeout.filter(|t| !t.is_zero());
        let time = wanted.unwrap_or(limits.timeout).min(limits.max_timeout);
        let algorithms = integrity.algorithms().into_iter();
        let algorithms = algorithms.filter(|a| a.function() != request.scope.function);
        let algorithms = algorithms.collect();
        let hashes = shared.hashes(context, &request.scope, &entry.digest, algorithms);
        let hashes = match tokio::time::timeout(time, hashes).await {
            Err(_) => {
                count("unproven");
                return Ok(Err(Missed::Unproven));
            }
            Ok(hashes) => hashes,
        };
        match hashes {
            Ok(Some(hashes)) if integrity.holds_any(&hashes) => {
                count("right");
                Ok(Ok(()))
            }
            Ok(Some(_)) => {
                false_claim(key, entry, integrity);
                Ok(Err(Missed::Contradicted))
            }
            Ok(None) => Ok(Err(Missed::Gone)),
            Err(ResolveError::Upstream(error @ upstream::Error::Corrupt(_))) => {
                count("unproven");
                tracing::warn!(%error, "content that was read back is not what its digest says");
                Ok(Err(Missed::Unproven))
            }
            Err(error) => Err(error),
        }
    }
}

/// Notes that an entry claims what is not so. Who may push, or write the
/// Action Cache, may cause any number of these.
fn false_claim(key: &AssetKey, entry: &AssetReference, integrity: &Integrity) {
    count("wrong");
    let Some(left_out) = may_log("a reference claims a checksum that its content does not have")
    else {
        return;
    };
    let uri = key.space.uri().map(|uri| uri.redacted());
    let checksum = match &key.space {
        KeySpace::Checksum { checksum, .. } => checksum.to_string(),
        _ => integrity.to_string(),
    };
    tracing::warn!(
        space = key.space.name(),
        instance = %key.scope.instance,
        asset.uri = uri.unwrap_or_default(),
        checksum,
        digest = %entry.digest,
        left_out,
        "a reference claims a checksum that its content does not have; it is not used"
    );
}

fn count(result: &'static str) {
    metrics::counter!("assetgate_checksum_claims_total", "result" => result).increment(1);
}
