//! The cache's side of a fetch: what it has already, and what it gets.
//!
//! Called by: `download`, `mirrors`.

use super::FetchError;
use super::order::Order;
use super::receive::Stop;
use super::spool::{self, Content};
use crate::asset::{Checksum, Integrity};
use crate::digest::{Digest, Scope};
use crate::upstream::{self, Cache, CallContext};

/// The content, if checksum and announced length together are its digest and
/// the cache has it: then there is nothing to download. Some caches look at
/// the hash only, so a digest of a length that is certainly wrong is asked
/// for as well: a cache that claims to have this one is not believed.
pub(super) async fn present(
    cache: &Cache,
    context: &CallContext,
    scope: &Scope,
    integrity: Option<&Integrity>,
    announced: Option<u64>,
) -> Result<Option<(Digest, Checksum)>, Stop> {
    let (Some(integrity), Some(size)) = (integrity, announced) else {
        return Ok(None);
    };
    for checksum in integrity.checksums() {
        if checksum.algorithm().function() != scope.function || size == 0 {
            continue;
        }
        let of = |size| Digest::from_raw(scope.function, checksum.raw(), size);
        let (Ok(right), Ok(wrong)) = (of(size), of(size + 1)) else {
            continue;
        };
        let missing = cache.find_missing(context, scope, [&right, &wrong]).await;
        let missing = missing.map_err(|error| Stop::Fatal(error.into()))?;
        if !missing.contains(&right) && missing.contains(&wrong) {
            return Ok(Some((right, checksum.clone())));
        }
    }
    Ok(None)
}

/// Brings received content into the cache, unless it is there.
pub(super) async fn upload(
    cache: &Cache,
    context: &CallContext,
    scope: &Scope,
    digest: &Digest,
    content: Content,
) -> Result<(), FetchError> {
    if digest.is_empty() {
        return Ok(());
    }
    let missing = cache.find_missing(context, scope, [digest]).await?;
    if missing.is_empty() {
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
    kept(cache, context, scope, digest).await
}

/// Some caches acknowledge what a caller without the right to write sends,
/// and drop it: an answer that names it would be a lie (P2).
pub(super) async fn kept(
    cache: &Cache,
    context: &CallContext,
    scope: &Scope,
    digest: &Digest,
) -> Result<(), FetchError> {
    let missing = cache.find_missing(context, scope, [digest]).await?;
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
    let mut hashes = order.hashes.clone();
    let each = |part: &[u8]| hashes.update(part);
    let read = cache
        .read_each(&order.context, &order.scope, digest, each)
        .await;
    if !read.map_err(|error| Stop::Fatal(error.into()))? {
        return Ok(None);
    }
    let (seen, computed) = hashes.finish()?;
    if seen != *digest {
        let corrupt = upstream::Error::Corrupt(digest.clone());
        return Err(Stop::Fatal(corrupt.into()));
    }
    Ok(Some(computed))
}
