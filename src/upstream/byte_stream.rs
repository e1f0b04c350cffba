//! Blobs too large for a batch: `ByteStream` whole reads and writes.
//!
//! Reads start at offset 0 and have no limit, and nothing asks for a write's
//! status, as some caches serve nothing else.
//! Called by: `cas.rs` beside it; `fetcher` (uploads as they arrive).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::oneshot;

use super::channel::{Channel, MAX_MESSAGE};
use super::{Cache, CallContext, Error};
use crate::digest::{Digest, Scope};
use crate::proto::bytestream::byte_stream_client::ByteStreamClient;
use crate::proto::bytestream::{ReadRequest, WriteRequest};

const READ: &str = "ByteStream.Read";
const WRITE: &str = "ByteStream.Write";

/// How long nothing may move, so that a cache that hangs cannot hold a fetch
/// for ever. As long as a unary call may take: before it answers a write, a
/// cache may verify all of it.
const STALL: Duration = Duration::from_secs(120);

/// Most data in one message of a write.
const MAX_CHUNK: usize = 128 << 10;

/// Memory set aside for a blob before any of it has arrived: sizes are claims.
const MAX_RESERVED: usize = 1 << 20;

impl Cache {
    /// Streams a blob into the CAS. A cache that has it already may say so
    /// before the content is read to its end. The last bytes are sent only
    /// after `content` has ended without an error, so that a source which
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
        let upload = Upload {
            content: Box::pin(content),
            name: write_name(scope, digest),
            size: digest.size(),
            taken: 0,
            sent: 0,
            buffered: Bytes::new(),
            progress: Arc::clone(&progress),
            failed,
        };
        let messages = stream::unfold(Some(upload), Upload::step);
        let mut client = self.byte_stream();
        let call = client.write(context.request(messages));
        // A failed source leaves the call unfinished; dropping it resets the
        // stream, and the cache discards what it has.
        let answer = tokio::select! {
            biased;
            Ok(error) = failure => return Err(Error::Source(error)),
            answer = call => answer,
            () = progress.ends() => return Err(stalled(WRITE)),
        };
        match answer {
            Ok(answer) => committed(digest, answer.into_inner().committed_size),
            Err(status) if status.code() == tonic::Code::AlreadyExists => Ok(()),
            Err(status) => Err(Error::from_status(WRITE, status)),
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
    }
}

fn absent_or<T>(status: tonic::Status) -> Result<Option<T>, Error> {
    match status.code() {
        tonic::Code::NotFound => Ok(None),
        _ => Err(Error::from_status(READ, status)),
    }
}

fn committed(digest: &Digest, committed_size: i64) -> Result<(), Error> {
    if committed_size == digest.size_i64() {
        return Ok(());
    }
    Err(Error::Malformed {
        method: WRITE,
        reason: format!("it committed {committed_size} bytes of {digest}"),
    })
}

fn write_name(scope: &Scope, digest: &Digest) -> String {
    format!(
        "{}uploads/{}/blobs/{}",
        scope.instance.prefix(),
        uuid::Uuid::new_v4(),
        digest.resource_name(scope.function),
    )
}

/// How a write gets on.
#[derive(Default)]
struct Progress {
    /// Messages asked for or made.
    steps: AtomicUsize,
    /// Whether it is the source that is waited for: that has limits of its own.
    at_source: AtomicBool,
}

impl Progress {
    fn step(&self, at_source: bool) {
        self.steps.fetch_add(1, Relaxed);
        self.at_source.store(at_source, Relaxed);
    }

    /// Waits until the cache neither asked for a message nor answered for long.
    async fn ends(&self) {
        const LOOKS: u32 = 4;
        let (mut before, mut idle) = (usize::MAX, 0);
        while idle < LOOKS {
            tokio::time::sleep(STALL / LOOKS).await;
            let steps = self.steps.load(Relaxed);
            let moved = steps != before || self.at_source.load(Relaxed);
            idle = if moved { 0 } else { idle + 1 };
            before = steps;
        }
    }
}

struct Upload {
    content: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    name: String,
    size: u64,
    /// Bytes taken from the source.
    taken: u64,
    /// Bytes put into messages.
    sent: u64,
    buffered: Bytes,
    progress: Arc<Progress>,
    failed: oneshot::Sender<String>,
}

impl Upload {
    /// The next message, and what remains to be done after it.
    async fn step(this: Option<Self>) -> Option<(WriteRequest, Option<Self>)> {
        let mut this = this?;
        this.progress.step(true);
        if this.buffered.is_empty()
            && let Err(error) = this.refill().await
        {
            let _ = this.failed.send(error);
            // The call is about to be dropped: never end it in good order.
            return std::future::pending().await;
        }
        this.progress.step(false);
        let data = this.buffered.split_to(this.buffered.len().min(MAX_CHUNK));
        let write_offset = i64::try_from(this.sent).unwrap_or(i64::MAX);
        this.sent += data.len() as u64;
        let finish_write = this.sent == this.size;
        let message = WriteRequest {
            resource_name: std::mem::take(&mut this.name),
            write_offset,
            finish_write,
            data,
        };
        Some((message, (!finish_write).then_some(this)))
    }

    /// Takes the next bytes; with the last ones, makes sure that they are.
    async fn refill(&mut self) -> Result<(), String> {
        while self.buffered.is_empty() {
            match self.content.next().await {
                Some(Ok(bytes)) => self.buffered = bytes,
                Some(Err(error)) => return Err(error.to_string()),
                None => {
                    let (taken, size) = (self.taken, self.size);
                    return Err(format!("it ended after {taken} of {size} bytes"));
                }
            }
        }
        self.taken += self.buffered.len() as u64;
        if self.taken < self.size {
            return Ok(());
        }
        let mut excess = self.taken > self.size;
        while !excess {
            match self.content.next().await {
                Some(Ok(bytes)) => excess = !bytes.is_empty(),
                Some(Err(error)) => return Err(error.to_string()),
                None => return Ok(()),
            }
        }
        Err(format!("it is longer than {} bytes", self.size))
    }
}

#[cfg(test)]
mod tests;
