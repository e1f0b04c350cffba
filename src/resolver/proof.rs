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
use tokio::time::Instant;

use super::candidates::Candidate;
use super::lookup::Judged;
use super::read_back::Readings;
use super::{Inner, Missed, Query, ResolveError};
use crate::asset::{Algorithm, AssetKey, AssetKind, AssetReference, Checksum, Integrity, KeySpace};
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

    #[cfg(test)]
    pub(super) fn while_held<T>(&self, then: impl FnOnce(&Self) -> T) -> T {
        let _held = self.hashed.lock();
        then(self)
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

    /// The hashes by all of these algorithms, if they are remembered: somebody
    /// else has read the content meanwhile.
    pub(super) fn known(
        &self,
        scope: &Scope,
        digest: &Digest,
        algorithms: &[Algorithm],
    ) -> Option<Vec<Checksum>> {
        let mut hashed = self.hashed.lock();
        let known = hashed.get(&(scope.function, digest.clone()))?;
        let of = |a: &Algorithm| known.iter().find(|c| c.algorithm() == *a).cloned();
        algorithms.iter().map(of).collect()
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
        judged: &mut Judged,
    ) -> Result<Result<(), Missed>, ResolveError> {
        let Some(integrity) = &query.request.integrity else {
            return Ok(Ok(()));
        };
        let function = query.request.scope.function;
        let claim = Claim {
            key: &candidate.key,
            entry,
            integrity,
        };
        match self.shared.proofs.weigh(function, entry, integrity) {
            Proof::Proven => Ok(Ok(())),
            // It claims nothing that there would be to check.
            _ if candidate.unpinned => Ok(Err(Missed::Contradicted)),
            Proof::Disproven => Ok(Err(claim.is_false())),
            Proof::Unknown => {
                let until = judged.deadline.get_or_insert_with(|| self.until(query));
                Box::pin(self.check_content(context, query, claim, *until)).await
            }
        }
    }

    /// When reading back for a query ends.
    fn until(&self, query: &Query) -> Instant {
        let limits = &self.shared.settings.read_back;
        let wanted = query.request.timeout.filter(|t| !t.is_zero());
        Instant::now() + wanted.unwrap_or(limits.timeout).min(limits.max_timeout)
    }

    /// Reads content back to see whether it is what an entry claims it is.
    async fn check_content(
        &self,
        context: &CallContext,
        query: &Query,
        claim: Claim<'_>,
        until: Instant,
    ) -> Result<Result<(), Missed>, ResolveError> {
        let (shared, scope) = (&self.shared, &query.request.scope);
        let Claim {
            entry, integrity, ..
        } = claim;
        let max_size = shared.settings.read_back.max_size;
        if entry.kind == AssetKind::Directory || entry.digest.size() > max_size {
            return Ok(Err(claim.is_open()));
        }
        let algorithms = integrity.algorithms().into_iter();
        let algorithms = algorithms.filter(|a| a.function() != scope.function);
        let hashes = shared.hashes(context, scope, &entry.digest, algorithms.collect());
        let Ok(hashes) = tokio::time::timeout_at(until, hashes).await else {
            return Ok(Err(claim.is_open()));
        };
        match hashes {
            Ok(Some(hashes)) if integrity.holds_any(&hashes) => {
                count("right");
                Ok(Ok(()))
            }
            Ok(Some(_)) => Ok(Err(claim.is_false())),
            Ok(None) => Ok(Err(Missed::Gone)),
            // Nothing of this digest and size can be read, whatever is there.
            Err(ResolveError::Upstream(upstream::Error::Corrupt(_))) => Ok(Err(claim.is_open())),
            Err(error) => Err(error),
        }
    }
}

/// What an entry says of its content, and nothing proves.
#[derive(Clone, Copy)]
struct Claim<'a> {
    key: &'a AssetKey,
    entry: &'a AssetReference,
    integrity: &'a Integrity,
}

impl Claim<'_> {
    /// Notes that it could not be found out.
    fn is_open(self) -> Missed {
        count("unproven");
        let (space, digest) = (self.key.space.name(), &self.entry.digest);
        tracing::debug!(space, %digest, "whether content has a checksum is not known");
        Missed::Unproven
    }

    /// Notes that it is not so. Who may push, or write the Action Cache, may
    /// cause any number of these.
    fn is_false(self) -> Missed {
        const TEXT: &str = "a reference claims a checksum that its content does not have";
        count("wrong");
        if let Some(left_out) = may_log(TEXT) {
            let checksum = match &self.key.space {
                KeySpace::Checksum { checksum, .. } => checksum.to_string(),
                _ => self.integrity.to_string(),
            };
            let uri = self.key.space.uri().map(|uri| uri.redacted());
            tracing::warn!(
                space = self.key.space.name(),
                instance = %self.key.scope.instance,
                asset.uri = uri.unwrap_or_default(),
                checksum,
                digest = %self.entry.digest,
                left_out,
                "{TEXT}; it is not used"
            );
        }
        Missed::Contradicted
    }
}

fn count(result: &'static str) {
    metrics::counter!("assetgate_checksum_claims_total", "result" => result).increment(1);
}
