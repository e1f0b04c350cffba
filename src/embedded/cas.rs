//! The `ContentAddressableStorage` service, except for walking trees.
//!
//! Not for: large blobs (`read.rs`, `write.rs`), `GetTree` (`tree.rs`).
//! Called by: clients, through `Embedded::routes`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Response, Status};

use super::index::LOOK_EVERY;
use super::key::Key;
use super::request::{answer, digest, function, instance, is_empty_blob, key, room};
use super::status::{blob_not_found, blocking, inline, invalid, ok};
use super::store::Error;
use super::upload::store_blob;
use super::uploads::Way;
use super::{Inner, MAX_BATCH, compress, tree};
use crate::budget::Share;
use crate::digest::{Digest, DigestFunction};
use crate::proto::rev2;

use rev2::batch_read_blobs_response::Response as Read;
use rev2::batch_update_blobs_request::Request as Update;
use rev2::batch_update_blobs_response::Response as Updated;

/// Most blobs in one batch.
const MAX_BATCH_BLOBS: usize = 1 << 16;
/// What an entry of an answer takes beside its content.
const RESPONSE: u64 = 256;

/// Below this size compression gains nothing.
const MIN_COMPRESSED: usize = 256;

/// Whether it is the key of no bytes, which are always there.
fn is_of_nothing(function: DigestFunction, key: &Key) -> bool {
    let nothing = Digest::of(function, b"");
    nothing.is_some_and(|nothing| Key::blob(function, &nothing) == *key)
}

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Cas(pub(super) Arc<Inner>);

#[tonic::async_trait]
impl rev2::content_addressable_storage_server::ContentAddressableStorage for Cas {
    async fn find_missing_blobs(
        &self,
        request: Request<rev2::FindMissingBlobsRequest>,
    ) -> Result<Response<rev2::FindMissingBlobsResponse>, Status> {
        let request = request.into_inner();
        instance(&request.instance_name)?;
        let function = function(request.digest_function, request.blob_digests.first())?;
        let mut missing_blob_digests = Vec::new();
        // Answered from memory where files were looked at a moment ago, in
        // pieces that hold nobody up for long.
        for wires in request.blob_digests.chunks(1024) {
            let mut keys = Vec::with_capacity(wires.len());
            let mut empty = Vec::with_capacity(wires.len());
            for wire in wires {
                let key = key(function, "blob_digests", wire)?;
                keys.push(key);
                empty.push(key.size() == 0 && is_of_nothing(function, &key));
            }
            let told = missing_blob_digests.len();
            let missing = |n: usize| wires.get(n).filter(|_| empty.get(n) == Some(&false));
            let mut due = false;
            (self.0.store).touch_each(&keys, |n, age| match age {
                Some(age) => due |= age >= LOOK_EVERY,
                None => missing_blob_digests.extend(missing(n).cloned()),
            });
            if due {
                let store = Arc::clone(&self.0.store);
                let look = blocking(move || match store.look(&keys) {
                    0 => None,
                    _ => Some(store.absent(&keys)),
                });
                if let Some(absent) = look.await? {
                    missing_blob_digests.truncate(told);
                    let absent = absent.into_iter().filter_map(missing);
                    missing_blob_digests.extend(absent.cloned());
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(Response::new(rev2::FindMissingBlobsResponse {
            missing_blob_digests,
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<rev2::BatchUpdateBlobsRequest>,
    ) -> Result<Response<rev2::BatchUpdateBlobsResponse>, Status> {
        let request = request.into_inner();
        instance(&request.instance_name)?;
        let sample = request.requests.first().and_then(|r| r.digest.as_ref());
        let function = function(request.digest_function, sample)?;
        let mut blobs = Vec::with_capacity(request.requests.len());
        for update in request.requests {
            let blob = digest(function, "requests.digest", update.digest.as_ref())?;
            blobs.push((blob, update));
        }
        let bytes = blobs.iter().map(|(blob, u)| plain_size(blob, u)).sum();
        check_batch("requests", blobs.len(), bytes)?;
        let responses = update_all(&self.0, function, blobs.into()).await?;
        Ok(Response::new(rev2::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<rev2::BatchReadBlobsRequest>,
    ) -> Result<Response<rev2::BatchReadBlobsResponse>, Status> {
        let share = request.extensions().get().cloned();
        let request = request.into_inner();
        instance(&request.instance_name)?;
        let function = function(request.digest_function, request.digests.first())?;
        let blobs: Result<Vec<_>, _> = request
            .digests
            .iter()
            .map(|wire| digest(function, "digests", Some(wire)))
            .collect();
        let blobs = blobs?;
        let bytes = blobs.iter().fold(0, |n: u64, b| n.saturating_add(b.size()));
        check_batch("digests", blobs.len(), bytes)?;
        let takes = bytes + blobs.len() as u64 * RESPONSE;
        let room = room(share.as_ref(), takes).await;
        let zstd = rev2::compressor::Value::Zstd.into();
        let zstd = request.acceptable_compressors.contains(&zstd);
        let inner = Arc::clone(&self.0);
        let responses = blocking(move || {
            let read = |blob: &Digest| read_one(&inner, function, blob, zstd);
            blobs.iter().map(read).collect()
        })
        .await?;
        Ok(answer(rev2::BatchReadBlobsResponse { responses }, room))
    }

    type GetTreeStream = tree::Pages;

    async fn get_tree(
        &self,
        request: Request<rev2::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        let share: Option<Share> = request.extensions().get().cloned();
        let pages = tree::get(&self.0, request.get_ref(), share.clone()).await?;
        let room = room(share.as_ref(), tree::HELD).await;
        Ok(answer(pages, room))
    }

    async fn split_blob(
        &self,
        _: Request<rev2::SplitBlobRequest>,
    ) -> Result<Response<rev2::SplitBlobResponse>, Status> {
        Err(Status::unimplemented(
            "the embedded cache does not split blobs",
        ))
    }

    async fn splice_blob(
        &self,
        _: Request<rev2::SpliceBlobRequest>,
    ) -> Result<Response<rev2::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented(
            "the embedded cache does not splice blobs",
        ))
    }
}

fn check_batch(field: &str, blobs: usize, bytes: u64) -> Result<(), Status> {
    if bytes > MAX_BATCH {
        let reason = format!(
            "{bytes} bytes in one call are more than max_batch_total_size_bytes \
             ({MAX_BATCH}); use ByteStream or several calls"
        );
        return Err(invalid(field, reason));
    }
    if blobs > MAX_BATCH_BLOBS {
        let reason = format!("{blobs} blobs in one call are more than {MAX_BATCH_BLOBS}");
        return Err(invalid(field, reason));
    }
    Ok(())
}

/// Stores the blobs of a batch, off this thread but for the time that one
/// waits for space.
async fn update_all(
    inner: &Arc<Inner>,
    function: DigestFunction,
    mut left: VecDeque<(Digest, Update)>,
) -> Result<Vec<Updated>, Status> {
    let mut all = Vec::with_capacity(left.len());
    let mut way = Way::new();
    loop {
        let visited = Arc::clone(inner);
        let (rest, done) = blocking(move || update_some(&visited, function, left)).await?;
        left = rest;
        if left.is_empty() {
            all.extend(done);
            return Ok(all);
        }
        if !done.is_empty() {
            way = Way::new();
        }
        all.extend(done);
        if let Err(status) = way.wait(&inner.uploads, None).await {
            // The others may be smaller.
            all.extend(left.pop_front().map(|(_, update)| Updated {
                digest: update.digest,
                status: Some(inline(&status)),
            }));
        }
    }
}

/// Stores blobs as long as there is space; returns those that are left, and
/// what became of the others.
fn update_some(
    inner: &Inner,
    function: DigestFunction,
    mut left: VecDeque<(Digest, Update)>,
) -> (VecDeque<(Digest, Update)>, Vec<Updated>) {
    let mut done = Vec::new();
    while let Some((blob, update)) = left.pop_front() {
        let Some(status) = update_one(inner, function, &blob, &update) else {
            left.push_front((blob, update));
            break;
        };
        done.push(Updated {
            digest: update.digest,
            status: Some(status),
        });
    }
    (left, done)
}

/// `None` if there is no space just now.
fn update_one(
    inner: &Inner,
    function: DigestFunction,
    blob: &Digest,
    update: &Update,
) -> Option<tonic_types::Status> {
    let data = match plain_data(blob, update.compressor, update.data.clone()) {
        Ok(data) => data,
        Err(status) => return Some(inline(&status)),
    };
    match store_blob(&inner.store, function, blob, &data) {
        Ok(()) => Some(ok()),
        Err(Error::NoRoom) => None,
        Err(error) => {
            inner.uploads.on_error(&error);
            Some(inline(&error.into()))
        }
    }
}

/// What a blob adds to a batch: its own size, however small it travels. One
/// that is too large by itself is refused by itself.
fn plain_size(blob: &Digest, update: &Update) -> u64 {
    let sent = update.data.len() as u64;
    match blob.size() {
        size if update.compressor != 0 && size <= MAX_BATCH => size.max(sent),
        _ => sent,
    }
}

fn plain_data(blob: &Digest, compressor: i32, data: Bytes) -> Result<Bytes, Status> {
    match rev2::compressor::Value::try_from(compressor) {
        Ok(rev2::compressor::Value::Identity) => Ok(data),
        Ok(rev2::compressor::Value::Zstd) => {
            if blob.size() > MAX_BATCH {
                let reason = "the blob is larger than max_batch_total_size_bytes; use ByteStream";
                return Err(invalid("requests.digest", reason));
            }
            let size = usize::try_from(blob.size()).unwrap_or(usize::MAX);
            let data =
                compress::decompress(&data, size).map_err(|e| invalid("requests.data", e))?;
            Ok(data.into())
        }
        _ => Err(invalid(
            "requests.compressor",
            "it is not supported; IDENTITY and ZSTD are",
        )),
    }
}

fn read_one(inner: &Inner, function: DigestFunction, blob: &Digest, zstd: bool) -> Read {
    let found = if is_empty_blob(function, blob) {
        Some(Vec::new())
    } else {
        inner.store.read(&Key::blob(function, blob))
    };
    let digest = Some(blob.to_wire());
    let Some(data) = found else {
        return Read {
            digest,
            status: Some(inline(&blob_not_found(blob))),
            ..Read::default()
        };
    };
    let smaller = (zstd && data.len() >= MIN_COMPRESSED)
        .then(|| compress::compress(&data).ok())
        .flatten()
        .filter(|c| c.len() < data.len());
    let (data, compressor) = match smaller {
        Some(data) => (data, rev2::compressor::Value::Zstd),
        None => (data, rev2::compressor::Value::Identity),
    };
    Read {
        digest,
        data: data.into(),
        compressor: compressor.into(),
        status: Some(ok()),
    }
}
