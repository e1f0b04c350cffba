//! `ByteStream.Read`: a blob in messages of 128 KiB, the next one read from
//! disk while the client takes the last.
//!
//! Not for: choosing between services (`byte_stream.rs`).
//! Called by: `byte_stream.rs`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::task::JoinHandle;
use tonic::Status;

use super::Inner;
use super::compress::Encoder;
use super::key::Key;
use super::request::is_empty_blob;
use super::resource::Blob;
use super::status::{blob_not_found, blocking, invalid};
use crate::proto::bytestream::{ReadRequest, ReadResponse};

/// Bytes of a blob in one message.
const CHUNK: u64 = 128 << 10;

/// The messages of a blob.
pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send + 'static>>;

/// Begins to read.
pub(super) async fn read(inner: &Arc<Inner>, request: &ReadRequest) -> Result<Chunks, Status> {
    let blob = Blob::parse_read(&request.resource_name)?;
    let size = blob.digest.size();
    let limit = u64::try_from(request.read_limit)
        .map_err(|_| invalid("read_limit", "it cannot be negative"))?;
    if limit != 0 && blob.zstd {
        let reason = "it must be 0 for compressed-blobs";
        return Err(invalid("read_limit", reason));
    }
    let offset = u64::try_from(request.read_offset).ok();
    let store = Arc::clone(&inner.store);
    let (first, rest) = blocking(move || {
        let file = if is_empty_blob(blob.function, &blob.digest) {
            None
        } else {
            let key = Key::blob(blob.function, &blob.digest);
            let file = store.open(&key);
            Some(file.ok_or_else(|| blob_not_found(&blob.digest))?)
        };
        let offset = offset.filter(|o| *o <= size).ok_or_else(|| {
            let message = format!("read_offset: it is not within the {size} bytes of the blob");
            Status::out_of_range(message)
        })?;
        let end = match limit {
            0 => size,
            limit => size.min(offset.saturating_add(limit)),
        };
        let source = Source {
            file,
            offset,
            end,
            encoder: blob.zstd.then(Encoder::new).transpose().map_err(failed)?,
            done: false,
        };
        source.next()
    })
    .await??;
    Ok(chunks(first, rest))
}

fn chunks(first: Bytes, rest: Source) -> Chunks {
    let message = |data| ReadResponse { data };
    let first_message = (!first.is_empty()).then_some(Ok(message(first)));
    let first = stream::iter(first_message);
    if rest.done {
        return Box::pin(first);
    }
    let ahead = Some(rest.ahead());
    let rest = stream::try_unfold(ahead, async |ahead: Option<Ahead>| {
        let Some(ahead) = ahead else { return Ok(None) };
        let joined = ahead.await.map_err(|e| Status::internal(e.to_string()))?;
        let (data, source) = joined?;
        let next = (!source.done).then(|| source.ahead());
        Ok::<_, Status>(Some((data, next)))
    });
    let not_empty = |data: &Result<Bytes, Status>| {
        let keep = !data.as_ref().is_ok_and(Bytes::is_empty);
        std::future::ready(keep)
    };
    let rest = rest.filter(not_empty).map(move |data| data.map(message));
    Box::pin(first.chain(rest))
}

type Ahead = JoinHandle<Result<(Bytes, Source), Status>>;

/// What is left to send.
struct Source {
    /// None for the empty blob.
    file: Option<File>,
    offset: u64,
    end: u64,
    encoder: Option<Encoder>,
    done: bool,
}

impl Source {
    /// Reads the next message on another thread.
    fn ahead(self) -> Ahead {
        tokio::task::spawn_blocking(move || self.next())
    }

    /// The next bytes to send, perhaps none.
    fn next(mut self) -> Result<(Bytes, Self), Status> {
        let length = (self.end - self.offset).min(CHUNK);
        let mut plain = vec![0; usize::try_from(length).unwrap_or_default()];
        if let Some(file) = &self.file {
            file.read_exact_at(&mut plain, self.offset)
                .map_err(failed)?;
        }
        self.offset += length;
        self.done = self.offset >= self.end;
        let data = match self.encoder.take() {
            None => plain,
            Some(mut encoder) => {
                let mut data = encoder.push(&plain).map_err(failed)?;
                if self.done {
                    data.extend(encoder.finish().map_err(failed)?);
                } else {
                    self.encoder = Some(encoder);
                }
                data
            }
        };
        Ok((data.into(), self))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: io::Error) -> Status {
    tracing::error!(%error, "a stored blob cannot be read");
    Status::internal(format!("the stored blob cannot be read: {error}"))
}
