//! `ByteStream.Read`: a blob in messages of 128 KiB, the next one read from
//! disk while the client takes the last.
//!
//! A read of a whole blob is hashed on its way, and its last message sent only
//! if all was right. Of a read of a part the file is hashed before, unless it
//! is the one that was found right.
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
use super::request::{is_empty_blob, room};
use super::resource::Blob;
use super::status::{blob_not_found, blocking, invalid};
use super::store::Store;
use super::verify::{Stamp, Verifier};
use crate::budget::{Share, Unsent};
use crate::digest::Digest;
use crate::proto::bytestream::{ReadRequest, ReadResponse};

/// Bytes of a blob in one message.
const CHUNK: u64 = 128 << 10;
/// What a read has in memory: a message that was sent and nobody read, one to
/// be sent, the next.
const HELD: u64 = 3 * CHUNK;

/// The messages of a blob.
pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send + 'static>>;

/// Begins to read.
pub(super) async fn read(
    inner: &Arc<Inner>,
    request: &ReadRequest,
    share: Option<&Share>,
) -> Result<(Chunks, Option<Unsent>), Status> {
    let blob = Blob::parse_read(&request.resource_name)?;
    let size = blob.digest.size();
    let limit = u64::try_from(request.read_limit)
        .map_err(|_| invalid("read_limit", "it cannot be negative"))?;
    if limit != 0 && blob.zstd {
        let reason = "it must be 0 for compressed-blobs";
        return Err(invalid("read_limit", reason));
    }
    let offset = u64::try_from(request.read_offset).ok();
    let room = room(share, size.min(HELD)).await;
    let store = Arc::clone(&inner.store);
    let (first, rest) = blocking(move || {
        let empty = is_empty_blob(blob.function, &blob.digest);
        let key = Key::blob(blob.function, &blob.digest);
        if !empty && !store.touch(&key) {
            return Err(blob_not_found(&blob.digest));
        }
        let offset = offset.filter(|o| *o <= size).ok_or_else(|| {
            let message = format!("read_offset: it is not within the {size} bytes of the blob");
            Status::out_of_range(message)
        })?;
        let end = match limit {
            0 => size,
            limit => size.min(offset.saturating_add(limit)),
        };
        let (file, check) = match (empty, offset == 0 && end == size) {
            (true, _) => (None, None),
            (false, true) => Check::open(store, key, blob.digest)?,
            (false, false) => {
                let file = store.open_verified(&key);
                (
                    Some(file.ok_or_else(|| blob_not_found(&blob.digest))?),
                    None,
                )
            }
        };
        let source = Source {
            file,
            check,
            offset,
            end,
            encoder: blob.zstd.then(Encoder::new).transpose().map_err(failed)?,
            done: false,
        };
        source.next()
    })
    .await??;
    Ok((chunks(first, rest), room))
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

/// The check of a whole blob while it is read.
struct Check {
    store: Arc<Store>,
    key: Key,
    digest: Digest,
    stamp: Stamp,
    verifier: Verifier,
}

impl Check {
    fn open(
        store: Arc<Store>,
        key: Key,
        digest: Digest,
    ) -> Result<(Option<File>, Option<Box<Self>>), Status> {
        let opened = store.open(&key).zip(Verifier::new(&key));
        let Some(((file, stamp), verifier)) = opened else {
            return Err(blob_not_found(&digest));
        };
        let check = Self {
            store,
            key,
            digest,
            stamp,
            verifier,
        };
        Ok((Some(file), Some(Box::new(check))))
    }

    /// All was read.
    fn finish(self) -> Result<(), Status> {
        if self.verifier.finish() {
            self.store.found_right(self.key, self.stamp);
            return Ok(());
        }
        Err(Self::damaged(
            &self.store,
            &self.key,
            &self.digest,
            &self.stamp,
        ))
    }

    /// The file became shorter meanwhile.
    fn cut_off(self) -> Status {
        Self::damaged(&self.store, &self.key, &self.digest, &self.stamp)
    }

    /// NOT_FOUND even if some was sent: what the client has to do is to get
    /// the blob anew, and this is what makes it.
    fn damaged(store: &Store, key: &Key, digest: &Digest, stamp: &Stamp) -> Status {
        store.forget_file(key, stamp);
        Status::not_found(format!(
            "the blob {digest} was damaged on disk and is no longer in this cache"
        ))
    }
}

/// What is left to send.
struct Source {
    /// None for the empty blob.
    file: Option<File>,
    check: Option<Box<Check>>,
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
        let read = match &self.file {
            Some(file) => file.read_exact_at(&mut plain, self.offset),
            None => Ok(()),
        };
        match (read, self.check.take()) {
            (Err(e), Some(check)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(check.cut_off());
            }
            (read, check) => {
                read.map_err(failed)?;
                self.check = check;
            }
        }
        self.offset += length;
        self.done = self.offset >= self.end;
        if let Some(mut check) = self.check.take() {
            check.verifier.update(&plain);
            match self.done {
                true => check.finish()?,
                false => self.check = Some(check),
            }
        }
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
