//! Blobs too large for a batch: `ByteStream` whole reads and writes.
//!
//! Reads start at offset 0 and have no limit, and nothing asks for a write's
//! status, as some caches serve nothing else.
//! Called by: `cas.rs` beside it; `fetcher` (uploads as they arrive).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use tokio::sync::oneshot;

use super::channel::{Channel, MAX_MESSAGE};
use super::outgoing::{Names, Progress, Upload};
use super::{Cache, CallContext, Compressor, Error};
use crate::digest::{Digest, Scope};
use crate::proto::bytestream::ReadRequest;
use crate::proto::bytestream::byte_stream_client::ByteStreamClient;

const READ: &str = "ByteStream.Read";
const WRITE: &str = "ByteStream.Write";

/// How long nothing may move, so that a cache that hangs cannot hold a fetch
/// for ever. As long as a unary call may take: before it answers a write, a
/// cache may verify all of it.
const STALL: Duration = Duration::from_secs(120);

/// Memory set aside for a blob before any of it has arrived: sizes are claims.
const MAX_RESERVED: usize = 1 << 20;

impl Cache {
    /// Streams a blob into the CAS, compressed if the cache announces zstd and
    /// the beginning shows that it is worth it. A cache that has it already may
    /// say so before the content is read to its end. The last bytes are sent
    /// only after `content` has ended without an error, so that a source which
    /// verifies what it yields can still call the upload off.
    pub async fn write_stream<S>(
        &self,
        context: &CallContext,
        scope: &Scope,
        digest: &Digest,
        content: S,
    ) -> Result<(), Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        if digest.is_empty() {
            return Ok(());
        }
        let (failed, failure) = oneshot::channel();
        let progress = Arc::<Progress>::default();
        let names = self.names(context, scope, digest).await?;
        let upload = Upload::new(content, digest.size(), names, Arc::clone(&progress), failed);
        let messages = stream::unfold(Some(upload), Upload::step);
        let mut client = self.byte_stream();
        let call = client.write(context.request(messages));
        // A failed source leaves the call unfinished; dropping it resets the
        // stream, and the cache discards what it has.
        let answer = tokio::select! {
            biased;
            Ok(error) = failure => return Err(Error::Source(error)),
            answer = call => answer,
            () = progress.ends(STALL) => return Err(stalled(WRITE)),
        };
        let compressed = progress.compressed();
        let done = match answer {
            Ok(answer) => committed(digest, compressed, answer.into_inner().committed_size),
            Err(status) if status.code() == tonic::Code::AlreadyExists => Ok(()),
            Err(status) => Err(Error::from_status(WRITE, status)),
        };
        if let Err(error) = &done
            && compressed.is_some()
        {
            self.doubt_zstd(error);
        }
        done
    }

    /// What the blob can be written as.
    async fn names(
        &self,
        context: &CallContext,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Names, Error> {
        let mut names = Names {
            plain: write_name(scope, digest, "blobs"),
            zstd: None,
        };
        if self.compression.is_thinkable(digest.size()) {
            let limits = self.limits(context, &scope.instance).await?;
            if limits.compressors.contains(&Compressor::Zstd) {
                let zstd = || write_name(scope, digest, "compressed-blobs/zstd");
                names.zstd = self.compression.admit().map(|permit| (zstd(), permit));
            }
        }
        Ok(names)
    }

    /// A cache that refuses what it announces, or the server in front of it
    /// that knows no such name, gets no more of it: the source of the upload
    /// that failed is used up, but the next try succeeds.
    fn doubt_zstd(&self, error: &Error) {
        use tonic::Code::{InvalidArgument, NotFound, Unimplemented};
        let refused = matches!(error, Error::Malformed { .. })
            || matches!(
                error.code(),
                Some(InvalidArgument | NotFound | Unimplemented)
            );
        if refused {
            self.compression.rest();
            tracing::warn!(
                "the cache announces zstd and refused an upload in it: {error}; uploads are \
                 plain for ten minutes; see upstream.zstd"
            );
        }
    }

    /// Reads a blob part by part, without verifying its hash; false if it is
    /// absent. Never more than its size.
    pub async fn read_each(
        &self,
        context: &CallContext,
        scope: &Scope,
        digest: &Digest,
        mut each: impl FnMut(&[u8]) + Send,
    ) -> Result<bool, Error> {
        if digest.is_empty() {
            return Ok(true);
        }
        let request = context.request(read_request(scope, digest));
        let mut client = self.byte_stream();
        let mut answer = match moving(client.read(request)).await? {
            Ok(answer) => answer.into_inner(),
            Err(status) => return absent_or(status).map(|none: Option<()>| none.is_some()),
        };
        let mut left = digest.size();
        loop {
            match moving(answer.message()).await? {
                Ok(Some(part)) => {
                    let size = part.data.len() as u64;
                    let too_large = || Error::Corrupt(digest.clone());
                    left = left.checked_sub(size).ok_or_else(too_large)?;
                    each(&part.data);
                }
                Ok(None) => return Ok(true),
                Err(status) => return absent_or(status).map(|none: Option<()>| none.is_some()),
            }
        }
    }

    /// Reads a whole blob into memory, without verifying its hash; `None` if
    /// it is absent. The caller bounds the size.
    pub(super) async fn read_whole(
        &self,
        context: &CallContext,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Option<Bytes>, Error> {
        let request = context.request(read_request(scope, digest));
        let too_large = || Error::Corrupt(digest.clone());
        let size = usize::try_from(digest.size()).map_err(|_| too_large())?;
        let mut content = BytesMut::with_capacity(size.min(MAX_RESERVED));
        let mut client = self.byte_stream();
        let mut answer = match moving(client.read(request)).await? {
            Ok(answer) => answer.into_inner(),
            Err(status) => return absent_or(status),
        };
        loop {
            match moving(answer.message()).await? {
                Ok(Some(part)) if content.len() + part.data.len() > size => return Err(too_large()),
                Ok(Some(part)) => content.extend_from_slice(&part.data),
                Ok(None) => return Ok(Some(content.freeze())),
                Err(status) => return absent_or(status),
            }
        }
    }

    fn byte_stream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
}

fn read_request(scope: &Scope, digest: &Digest) -> ReadRequest {
    let blob = digest.resource_name(scope.function);
    ReadRequest {
        resource_name: format!("{}blobs/{blob}", scope.instance.prefix()),
        read_offset: 0,
        read_limit: 0,
    }
}

/// Waits for the next thing that a read does.
async fn moving<T>(next: impl Future<Output = T>) -> Result<T, Error> {
    let next = tokio::time::timeout(STALL, next).await;
    next.map_err(|_| stalled(READ))
}

fn stalled(method: &'static str) -> Error {
    Error::Unreachable {
        method,
        reason: format!("nothing moved for {} s", STALL.as_secs()),
        detail: None,
    }
}

fn absent_or<T>(status: tonic::Status) -> Result<Option<T>, Error> {
    match status.code() {
        tonic::Code::NotFound => Ok(None),
        _ => Err(Error::from_status(READ, status)),
    }
}

/// Checks what a write says it wrote: the blob's size, or if it was compressed
/// what was sent; then -1 says that the blob was there.
fn committed(digest: &Digest, compressed: Option<i64>, size: i64) -> Result<(), Error> {
    let right = match compressed {
        None => size == digest.size_i64(),
        Some(sent) => size == sent || size == -1,
    };
    if right {
        return Ok(());
    }
    let reason = match compressed {
        None => format!("it committed {size} bytes of {digest}"),
        Some(sent) => format!("it committed {size} of the {sent} bytes {digest} is compressed"),
    };
    let method = WRITE;
    Err(Error::Malformed { method, reason })
}

fn write_name(scope: &Scope, digest: &Digest, form: &str) -> String {
    format!(
        "{}uploads/{}/{form}/{}",
        scope.instance.prefix(),
        uuid::Uuid::new_v4(),
        digest.resource_name(scope.function),
    )
}

#[cfg(test)]
mod tests;
