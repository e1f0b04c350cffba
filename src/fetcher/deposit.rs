//! The cache's side of a fetch: what it has already, and what it gets.
//!
//! Called by: `download`, `mirrors`.

use super::FetchError;
use super::hashes::mismatch;
use super::order::Order;
use super::receive::Stop;
use super::spool::{self, Content};
use crate::asset::Checksum;
use crate::digest::Digest;
use crate::upstream::{self, Cache};

/// What the cache has of content that is to be downloaded.
pub(super) enum Presence {
    There(Digest, Checksum),
    /// It lacks these, as far as it could be asked.
    Absent(Vec<Digest>),
}

/// Whether there is nothing to download: if checksum and announced length
/// together are the digest of the content, and the cache has it. Some caches
/// look at the hash only, so a digest of a length that is certainly wrong is
/// asked for as well: a cache that claims to have this one is not believed.
pub(super) async fn present(
    cache: &Cache,
    order: &Order,
    announced: Option<u64>,
) -> Result<Presence, Stop> {
    let mut absent = Vec::new();
    let (Some(integrity), Some(size)) = (&order.integrity, announced) else {
        return Ok(Presence::Absent(absent));
    };
    let function = order.scope.function;
    for checksum in integrity.checksums() {
        if checksum.algorithm().function() != function || size == 0 {
            continue;
        }
        let of = |size| Digest::from_raw(function, checksum.raw(), size);
        let (Ok(right), Ok(wrong)) = (of(size), of(size + 1)) else {
            continue;
        };
        let missing = cache.find_missing(&order.context, &order.scope, [&right, &wrong]);
        let missing = missing.await.map_err(|error| Stop::Fatal(error.into()))?;
        match (missing.contains(&right), missing.contains(&wrong)) {
            (true, _) => absent.push(right),
            (false, true) => return Ok(Presence::There(right, checksum.clone())),
            (false, false) => {}
        }
    }
    Ok(Presence::Absent(absent))
}

/// Brings received content into the cache, unless it is there. `is_absent`:
/// the cache has just said that it is not.
pub(super) async fn upload(
    cache: &Cache,
    order: &Order,
    digest: &Digest,
    content: Content,
    is_absent: bool,
) -> Result<(), FetchError> {
    let (context, scope) = (&order.context, &order.scope);
    if digest.is_empty() {
        return Ok(());
    }
    if !is_absent
        && cache
            .find_missing(context, scope, [digest])
            .await?
            .is_empty()
    {
        return Ok(());
    }
    match content {
        Content::Memory(bytes, _share) => {
            let blobs = vec![(digest.clone(), bytes)];
            cache.write_blobs(context, scope, blobs).await?;
        }
        Content::File(file, _share) => {
            let stream = spool::read(&file);
            let stream = stream.map_err(|error| FetchError::Internal(error.to_string()))?;
            cache.write_stream(context, scope, digest, stream).await?;
        }
    }
    kept(cache, order, digest).await
}

/// Some caches acknowledge what a caller without the right to write sends,
/// and drop it: an answer that names it would be a lie (P2).
pub(super) async fn kept(cache: &Cache, order: &Order, digest: &Digest) -> Result<(), FetchError> {
    let missing = cache.find_missing(&order.context, &order.scope, [digest]);
    let missing = missing.await?;
    if missing.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "it acknowledged {digest} and does not have it, as caches do whose callers may not write"
    );
    let method = "an upload";
    Err(upstream::Error::Malformed { method, reason }.into())
}

/// The hashes that a request's checksum names, of content that is in the cache
/// and was hashed otherwise; `None` if it is gone.
pub(super) async fn read_back(
    cache: &Cache,
    order: &Order,
    digest: &Digest,
) -> Result<Option<Vec<Checksum>>, Stop> {
    let Some(integrity) = &order.integrity else {
        return Ok(Some(Vec::new()));
    };
    let (context, scope) = (&order.context, &order.scope);
    let algorithms = integrity.algorithms();
    let computed = cache.hashes(context, scope, digest, &algorithms);
    let computed = computed.await.map_err(|error| Stop::Fatal(error.into()))?;
    match computed {
        Some(computed) if !integrity.holds_any(&computed) => {
            Err(mismatch(integrity.checksums(), &computed).into())
        }
        computed => Ok(computed),
    }
}
