//! One upload as the messages of `ByteStream.Write`.
//!
//! The last bytes leave only after the source has ended without an error, and
//! when they are compressed the last of them are not even looked at before
//! that: what was sent until then is never all of the blob.
//! Called by: `byte_stream.rs`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::compress::{self, BLOCK, Compressor, SAMPLE};
use crate::proto::bytestream::WriteRequest;

/// Most data in one message of a write.
const MAX_CHUNK: usize = 128 << 10;

/// How a write gets on.
#[derive(Default)]
pub(super) struct Progress {
    /// Messages asked for or made.
    steps: AtomicUsize,
    /// Whether it is the source that is waited for: that has limits of its own.
    at_source: AtomicBool,
    /// Whether what is sent is compressed.
    compressed: AtomicBool,
    /// Bytes put into messages.
    sent: AtomicI64,
}

impl Progress {
    fn step(&self, at_source: bool) {
        self.steps.fetch_add(1, Relaxed);
        self.at_source.store(at_source, Relaxed);
    }

    /// Waits until the cache neither asked for a message nor answered for so
    /// long.
    pub(super) async fn ends(&self, after: Duration) {
        const LOOKS: u32 = 4;
        let (mut before, mut idle) = (usize::MAX, 0);
        while idle < LOOKS {
            tokio::time::sleep(after / LOOKS).await;
            let steps = self.steps.load(Relaxed);
            let moved = steps != before || self.at_source.load(Relaxed);
            idle = if moved { 0 } else { idle + 1 };
            before = steps;
        }
    }

    /// Bytes sent, if they are compressed.
    pub(super) fn compressed(&self) -> Option<i64> {
        let compressed = self.compressed.load(Relaxed);
        compressed.then(|| self.sent.load(Relaxed))
    }
}

/// The names of a blob to be written.
pub(super) struct Names {
    pub(super) plain: String,
    /// With the leave to use it.
    pub(super) zstd: Option<(String, OwnedSemaphorePermit)>,
}

/// An upload under way.
pub(super) struct Upload {
    source: Source,
    /// Until the first message.
    names: Option<Names>,
    /// Of the first message; empty afterwards.
    name: String,
    compressor: Option<Compressor>,
    /// Ready to be sent.
    ready: Bytes,
    /// Whether nothing comes after that.
    last: bool,
    progress: Arc<Progress>,
    failed: oneshot::Sender<String>,
}

impl Upload {
    pub(super) fn new<S>(
        content: S,
        size: u64,
        names: Names,
        progress: Arc<Progress>,
        failed: oneshot::Sender<String>,
    ) -> Self
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        Self {
            source: Source {
                content: Box::pin(content),
                size,
                taken: 0,
                ahead: Vec::new(),
            },
            names: Some(names),
            name: String::new(),
            compressor: None,
            ready: Bytes::new(),
            last: false,
            progress,
            failed,
        }
    }

    /// The next message, and what remains to be done after it.
    pub(super) async fn step(this: Option<Self>) -> Option<(WriteRequest, Option<Self>)> {
        let mut this = this?;
        this.progress.step(true);
        if let Err(error) = this.refill().await {
            let _ = this.failed.send(error);
            // The call is about to be dropped: never end it in good order.
            return std::future::pending().await;
        }
        this.progress.step(false);
        let data = this.ready.split_to(this.ready.len().min(MAX_CHUNK));
        let length = i64::try_from(data.len()).unwrap_or(i64::MAX);
        let write_offset = this.progress.sent.fetch_add(length, Relaxed);
        let finish_write = this.last && this.ready.is_empty();
        let message = WriteRequest {
            resource_name: std::mem::take(&mut this.name),
            write_offset,
            finish_write,
            data,
        };
        Some((message, (!finish_write).then_some(this)))
    }

    /// Makes sure that something is ready.
    async fn refill(&mut self) -> Result<(), String> {
        if let Some(names) = self.names.take() {
            self.choose(names).await?;
        }
        while self.ready.is_empty() {
            match &mut self.compressor {
                None => (self.ready, self.last) = self.source.next().await?,
                // The block before is compressed while the next one comes.
                Some(compressor) => {
                    let next = async {
                        match self.source.at_end() {
                            true => Ok(None),
                            false => self.source.block(BLOCK).await.map(Some),
                        }
                    };
                    let (next, ready) = tokio::join!(next, compressor.finish());
                    self.ready = ready?;
                    match next? {
                        Some((block, last)) => compressor.start(block, last),
                        None => self.last = true,
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks at the beginning, and decides in which form all of it is sent.
    async fn choose(&mut self, names: Names) -> Result<(), String> {
        self.name = names.plain;
        let Some((name, permit)) = names.zstd else {
            return Ok(());
        };
        let sample = self.source.peek(SAMPLE).await?;
        if compress::is_worth_it(sample).await? {
            self.name = name;
            self.compressor = Some(Compressor::new(self.source.size, permit)?);
            self.progress.compressed.store(true, Relaxed);
        }
        Ok(())
    }
}

/// Content of known size.
struct Source {
    content: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    size: u64,
    taken: u64,
    /// Taken already, and to be given out again, the last first.
    ahead: Vec<(Bytes, bool)>,
}

impl Source {
    /// Whether everything was taken and given out.
    fn at_end(&self) -> bool {
        self.taken >= self.size && self.ahead.is_empty()
    }

    /// The next bytes, and whether they are the last ones; these come only
    /// once it is sure that they are. Never empty.
    async fn next(&mut self) -> Result<(Bytes, bool), String> {
        if let Some(ahead) = self.ahead.pop() {
            return Ok(ahead);
        }
        let bytes = self.some().await?;
        self.taken += bytes.len() as u64;
        if self.taken < self.size {
            return Ok((bytes, false));
        }
        let mut excess = self.taken > self.size;
        while !excess {
            match self.content.next().await {
                Some(Ok(bytes)) => excess = !bytes.is_empty(),
                Some(Err(error)) => return Err(error.to_string()),
                None => return Ok((bytes, true)),
            }
        }
        Err(format!("it is longer than {} bytes", self.size))
    }

    async fn some(&mut self) -> Result<Bytes, String> {
        loop {
            match self.content.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => (),
                Some(Ok(bytes)) => return Ok(bytes),
                Some(Err(error)) => return Err(error.to_string()),
                None => {
                    let (taken, size) = (self.taken, self.size);
                    return Err(format!("it ended after {taken} of {size} bytes"));
                }
            }
        }
    }

    /// At least so many bytes, unless fewer are left, and whether they are
    /// the last ones.
    async fn block(&mut self, least: usize) -> Result<(Vec<Bytes>, bool), String> {
        let (mut block, mut length) = (Vec::new(), 0);
        loop {
            let (bytes, last) = self.next().await?;
            length += bytes.len();
            block.push(bytes);
            if last || length >= least {
                return Ok((block, last));
            }
        }
    }

    /// The first so many bytes, or all, which are given out again.
    async fn peek(&mut self, most: usize) -> Result<Bytes, String> {
        let (mut block, last) = self.block(most).await?;
        let sample = match &block[..] {
            [only] => only.slice(..only.len().min(most)),
            pieces => {
                let bytes = pieces.iter().flatten().copied();
                bytes.take(most).collect()
            }
        };
        self.ahead.extend(block.pop().map(|end| (end, last)));
        let before = block.into_iter().rev();
        self.ahead.extend(before.map(|bytes| (bytes, false)));
        Ok(sample)
    }
}
