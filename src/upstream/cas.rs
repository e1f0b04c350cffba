//! Content by digest: what is missing, reading, writing. Batches within the
//! cache's limits; larger blobs by `ByteStream`.
//!
//! Everything read is verified as far as Assetgate can compute the function.
//! The empty blob is present everywhere and never asked for.
//! Called by: `store`, `fetcher`, `resolver`.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tonic::Code;

use super::unary::{Method, method};
use super::{Cache, CallContext, Error};
use crate::digest::{Digest, DigestFunction, Scope};
use crate::proto::rev2;
use rev2::{batch_read_blobs_response as read, batch_update_blobs_request as update};

static FIND: Method = method!("ContentAddressableStorage", "FindMissingBlobs");
static READ: Method = method!("ContentAddressableStorage", "BatchReadBlobs");
static UPDATE: Method = method!("ContentAddressableStorage", "BatchUpdateBlobs");

/// Digests in one FindMissingBlobs: about 75 bytes each, within gRPC's default
/// message limit for every function.
const FIND_CHUNK: usize = 10_000;

/// Blobs in one batch: bazel-remote syncs each to disk before it answers.
const BATCH_BLOBS: usize = 1_000;

/// What a blob costs in a batch beside its data: digest, status, framing.
const ITEM_OVERHEAD: usize = 256;

/// Calls of one operation under way at once.
const CONCURRENCY: usize = 4;

impl Cache {
    /// Those of `digests` that are not in the CAS, sorted and unique.
    pub async fn find_missing(
        &self,
        context: &CallContext,
        scope: &Scope,
        digests: impl IntoIterator<Item = &Digest> + Send,
    ) -> Result<BTreeSet<Digest>, Error> {
        let mut asked: Vec<&Digest> = digests.into_iter().filter(|d| !d.is_empty()).collect();
        asked.sort_unstable();
        asked.dedup();
        let asked: Vec<Digest> = asked.into_iter().cloned().collect();
        let calls: Vec<_> = asked
            .chunks(FIND_CHUNK)
            .map(|chunk| self.find_chunk(context, scope, chunk))
            .collect();
        let answers: Vec<Vec<Digest>> = stream::iter(calls)
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(answers.into_iter().flatten().collect())
    }

    async fn find_chunk(
        &self,
        context: &CallContext,
        scope: &Scope,
        digests: &[Digest],
    ) -> Result<Vec<Digest>, Error> {
        let request = rev2::FindMissingBlobsRequest {
            instance_name: scope.instance.to_string(),
            blob_digests: digests.iter().map(Digest::to_wire).collect(),
            digest_function: scope.function.to_wire(),
        };
        let answer: rev2::FindMissingBlobsResponse =
            self.channel.unary(&FIND, context, &request).await?;
        let mut missing = Vec::with_capacity(answer.missing_blob_digests.len());
        for wire in &answer.missing_blob_digests {
            let digest = own_digest(&FIND, scope.function, Some(wire), digests)?;
            missing.push(digest);
        }
        Ok(missing)
    }

    /// The blobs of `digests` that are present, verified. All of them are in
    /// memory at once: the caller bounds their sizes.
    pub async fn read_blobs(
        &self,
        context: &CallContext,
        scope: &Scope,
        digests: impl IntoIterator<Item = &Digest> + Send,
    ) -> Result<HashMap<Digest, Bytes>, Error> {
        let wanted: BTreeSet<Digest> = digests.into_iter().cloned().collect();
        let mut found = HashMap::with_capacity(wanted.len());
        let (empty, wanted): (Vec<_>, Vec<_>) = wanted.into_iter().partition(Digest::is_empty);
        found.extend(empty.into_iter().map(|d| (d, Bytes::new())));
        if wanted.is_empty() {
            return Ok(found);
        }
        let limit = self.limits(context, &scope.instance).await?.max_batch_bytes;
        let (batches, large) = pack(wanted, limit, Digest::size);
        let batches: Vec<_> = batches
            .into_iter()
            .map(|batch| self.read_batch(context, scope, batch))
            .collect();
        let mut batches = stream::iter(batches).buffer_unordered(CONCURRENCY);
        while let Some(blobs) = batches.try_next().await? {
            found.extend(blobs);
        }
        let large: Vec<_> = large
            .into_iter()
            .map(|digest| self.read_large(context, scope, digest))
            .collect();
        let mut large = stream::iter(large).buffer_unordered(CONCURRENCY);
        while let Some(blob) = large.try_next().await? {
            found.extend(blob);
        }
        Ok(found)
    }

    /// One blob, if it is present; see [`Cache::read_blobs`].
    pub async fn read_blob(
        &self,
        context: &CallContext,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Option<Bytes>, Error> {
        let mut found = self.read_blobs(context, scope, [digest]).await?;
        Ok(found.remove(digest))
    }

    async fn read_batch(
        &self,
        context: &CallContext,
        scope: &Scope,
        digests: Vec<Digest>,
    ) -> Result<Vec<(Digest, Bytes)>, Error> {
        let request = rev2::BatchReadBlobsRequest {
            instance_name: scope.instance.to_string(),
            digests: digests.iter().map(Digest::to_wire).collect(),
            acceptable_compressors: Vec::new(),
            digest_function: scope.function.to_wire(),
        };
        let answer: rev2::BatchReadBlobsResponse =
            self.channel.unary(&READ, context, &request).await?;
        let mut blobs = Vec::with_capacity(answer.responses.len());
        for item in answer.responses {
            let digest = own_digest(&READ, scope.function, item.digest.as_ref(), &digests)?;
            if let Some(data) = read_item(item)? {
                if is_of_another_size(scope.function, &digest, &data) {
                    continue;
                }
                verify(scope.function, &digest, &data)?;
                blobs.push((digest, data));
            }
        }
        Ok(blobs)
    }

    async fn read_large(
        &self,
        context: &CallContext,
        scope: &Scope,
        digest: Digest,
    ) -> Result<Option<(Digest, Bytes)>, Error> {
        let Some(data) = self.read_whole(context, scope, &digest).await? else {
            return Ok(None);
        };
        verify(scope.function, &digest, &data)?;
        Ok(Some((digest, data)))
    }

    /// Uploads blobs that are in memory. On an error any of them may be stored.
    pub async fn write_blobs(
        &self,
        context: &CallContext,
        scope: &Scope,
        blobs: Vec<(Digest, Bytes)>,
    ) -> Result<(), Error> {
        let mut blobs: Vec<_> = blobs.into_iter().filter(|(d, _)| !d.is_empty()).collect();
        blobs.sort_by(|a, b| a.0.cmp(&b.0));
        blobs.dedup_by(|a, b| a.0 == b.0);
        if blobs.is_empty() {
            return Ok(());
        }
        let limits = self.limits(context, &scope.instance).await?;
        let largest = blobs.iter().map(|(d, _)| d.size()).max().unwrap_or(0);
        if let Some(limit) = limits.max_blob_size.filter(|limit| largest > *limit) {
            let size = largest;
            return Err(Error::TooLarge { size, limit });
        }
        let (batches, large) = pack(blobs, limits.max_batch_bytes, |(d, _)| d.size());
        let batches: Vec<_> = batches
            .into_iter()
            .map(|batch| self.write_batch(context, scope, batch))
            .collect();
        stream::iter(batches)
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await?;
        for (digest, data) in large {
            let content = stream::iter([Ok(data)]);
            self.write_stream(context, scope, &digest, content).await?;
        }
        Ok(())
    }

    async fn write_batch(
        &self,
        context: &CallContext,
        scope: &Scope,
        blobs: Vec<(Digest, Bytes)>,
    ) -> Result<(), Error> {
        let (digests, requests): (Vec<Digest>, Vec<update::Request>) = blobs
            .into_iter()
            .map(|(digest, data)| {
                let wire = Some(digest.to_wire());
                let request = update::Request {
                    digest: wire,
                    data,
                    ..Default::default()
                };
                (digest, request)
            })
            .unzip();
        let request = rev2::BatchUpdateBlobsRequest {
            instance_name: scope.instance.to_string(),
            requests,
            digest_function: scope.function.to_wire(),
        };
        let answer: rev2::BatchUpdateBlobsResponse =
            self.channel.unary(&UPDATE, context, &request).await?;
        let mut stored = BTreeSet::new();
        for item in answer.responses {
            let digest = own_digest(&UPDATE, scope.function, item.digest.as_ref(), &digests)?;
            if let Some(error) = item_error(&UPDATE, item.status) {
                return Err(error);
            }
            stored.insert(digest);
        }
        match digests.iter().find(|d| !stored.contains(d)) {
            Some(digest) => Err(malformed(&UPDATE, format!("it says nothing of {digest}"))),
            None => Ok(()),
        }
    }
}

/// Groups items into batches, in order; what fits no batch comes second.
fn pack<T>(items: Vec<T>, limit: usize, size: impl Fn(&T) -> u64) -> (Vec<Vec<T>>, Vec<T>) {
    let (mut batches, mut large) = (Vec::new(), Vec::new());
    let (mut batch, mut total) = (Vec::new(), 0usize);
    for item in items {
        let cost = usize::try_from(size(&item))
            .unwrap_or(usize::MAX)
            .saturating_add(ITEM_OVERHEAD);
        if cost > limit {
            large.push(item);
            continue;
        }
        if total + cost > limit || batch.len() == BATCH_BLOBS {
            batches.push(std::mem::take(&mut batch));
            total = 0;
        }
        total += cost;
        batch.push(item);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    (batches, large)
}

/// A digest of an answer, which has to be one of those asked about.
fn own_digest(
    method: &'static Method,
    function: DigestFunction,
    wire: Option<&rev2::Digest>,
    sorted: &[Digest],
) -> Result<Digest, Error> {
    let digest = Digest::from_wire(function, wire).map_err(|e| malformed(method, e.to_string()))?;
    match sorted.binary_search(&digest) {
        Ok(_) => Ok(digest),
        Err(_) => Err(malformed(method, format!("nobody asked about {digest}"))),
    }
}

fn read_item(item: read::Response) -> Result<Option<Bytes>, Error> {
    if item.status.as_ref().map(|s| s.code) == Some(Code::NotFound as i32) {
        return Ok(None);
    }
    if let Some(error) = item_error(&READ, item.status) {
        return Err(error);
    }
    if item.compressor != rev2::compressor::Value::Identity as i32 {
        return Err(malformed(&READ, "it compressed unasked".to_owned()));
    }
    Ok(Some(item.data))
}

fn item_error(method: &'static Method, status: Option<tonic_types::Status>) -> Option<Error> {
    let status = status.filter(|s| s.code != Code::Ok as i32)?;
    let status = tonic::Status::new(Code::from_i32(status.code), status.message);
    Some(Error::from_status(method.name, status))
}

fn malformed(method: &'static Method, reason: String) -> Error {
    let method = method.name;
    Error::Malformed { method, reason }
}

/// Whether this is content of the same hash: some caches look at nothing else,
/// but what has another size is not what was asked for, which is absent then.
fn is_of_another_size(function: DigestFunction, digest: &Digest, data: &[u8]) -> bool {
    data.len() as u64 != digest.size()
        && Digest::of(function, data).is_some_and(|d| d.hash() == digest.hash())
}

fn verify(function: DigestFunction, digest: &Digest, data: &[u8]) -> Result<(), Error> {
    let good = match Digest::of(function, data) {
        Some(computed) => computed == *digest,
        None => data.len() as u64 == digest.size(),
    };
    if good {
        Ok(())
    } else {
        Err(Error::Corrupt(digest.clone()))
    }
}

#[cfg(test)]
mod tests;
