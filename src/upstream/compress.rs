//! zstd of what is uploaded: whether it is worth it, and the stream.
//!
//! Not for: the embedded cache's own zstd (`embedded::compress`), decompressing
//! (we read whole blobs plainly).
//! Called by: `outgoing.rs`; `byte_stream.rs` decides whether it may be.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::Instant;

/// Fast: it has to keep up with a download.
const LEVEL: i32 = 1;

/// A window of 128 KiB. What an encoder takes grows with its window, and
/// larger ones gain a few percent at this level.
const WINDOW_LOG: u32 = 17;

/// Content that is compressed at a time, on a thread for work that blocks.
pub(super) const BLOCK: usize = 128 << 10;

/// How much of the beginning decides whether the rest is worth it.
pub(super) const SAMPLE: usize = 128 << 10;

/// Blobs below this are sent as they are: a message has room for them.
const SMALLEST: u64 = 4 << 10;

/// Uploads compressed at a time, at about 700 KiB each; others go plain.
const MOST: usize = 16;

/// How long a cache that refused what it announces gets none of it.
const REST: Duration = Duration::from_secs(600);

/// Whether uploads to one cache are compressed. Clones of the cache share it.
#[derive(Debug)]
pub(super) struct Compression {
    wanted: bool,
    refused: Mutex<Option<Instant>>,
    room: Arc<Semaphore>,
}

impl Compression {
    pub(super) fn new(wanted: bool) -> Self {
        Self {
            wanted,
            refused: Mutex::new(None),
            room: Arc::new(Semaphore::new(MOST)),
        }
    }

    /// Whether it could be worth it to ask if the cache announces zstd.
    pub(super) fn is_thinkable(&self, size: u64) -> bool {
        let rests = || self.refused.lock().is_some_and(|t| t.elapsed() < REST);
        self.wanted && size >= SMALLEST && !rests()
    }

    /// Leave to compress one upload, unless there are many already.
    pub(super) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// Uploads go plain for a while.
    pub(super) fn rest(&self) {
        *self.refused.lock() = Some(Instant::now());
    }
}

/// Whether the beginning of some content shrinks by a tenth.
pub(super) async fn is_worth_it(sample: Bytes) -> Result<bool, String> {
    let tried = spawn_blocking(move || {
        let compressed = zstd::bulk::compress(&sample, LEVEL)?;
        Ok::<_, io::Error>(compressed.len() <= sample.len() / 10 * 9)
    });
    told(tried.await)
}

type Encoder = zstd::stream::write::Encoder<'static, Vec<u8>>;

/// The encoder, unless that was all, and what came out.
type Compressed = (Option<Encoder>, Bytes);

/// One upload as a zstd stream: a single frame, as not every cache may know
/// that there can be several.
pub(super) struct Compressor {
    /// `None` while it works, and after the last block.
    idle: Option<Encoder>,
    working: Option<JoinHandle<io::Result<Compressed>>>,
    _permit: OwnedSemaphorePermit,
}

impl Compressor {
    pub(super) fn new(size: u64, permit: OwnedSemaphorePermit) -> Result<Self, String> {
        let encoder = || -> io::Result<Encoder> {
            let mut encoder = Encoder::new(Vec::new(), LEVEL)?;
            encoder.window_log(WINDOW_LOG)?;
            encoder.set_pledged_src_size(Some(size))?;
            Ok(encoder)
        };
        Ok(Self {
            idle: Some(encoder().map_err(|e| failed(&e))?),
            working: None,
            _permit: permit,
        })
    }

    /// Begins with the next block. Nothing happens while another is at work.
    pub(super) fn start(&mut self, block: Vec<Bytes>, last: bool) {
        let Some(mut encoder) = self.idle.take() else {
            return;
        };
        self.working = Some(spawn_blocking(move || {
            for piece in block {
                encoder.write_all(&piece)?;
            }
            if last {
                return Ok((None, encoder.finish()?.into()));
            }
            let out = std::mem::take(encoder.get_mut());
            Ok((Some(encoder), out.into()))
        }));
    }

    /// What the block begun before has become; empty if there was none.
    pub(super) async fn finish(&mut self) -> Result<Bytes, String> {
        let Some(working) = &mut self.working else {
            return Ok(Bytes::new());
        };
        let done = working.await;
        self.working = None;
        let (encoder, out) = told(done)?;
        self.idle = encoder;
        Ok(out)
    }
}

fn told<T>(done: Result<io::Result<T>, JoinError>) -> Result<T, String> {
    match done {
        Ok(done) => done.map_err(|e| failed(&e)),
        Err(error) => Err(failed(&io::Error::other(error))),
    }
}

fn failed(error: &io::Error) -> String {
    format!("compressing it for the cache: {error}")
}
