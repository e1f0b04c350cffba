//! Takes in one response body: counts, hashes and keeps it.
//!
//! What is small stays in memory. For the rest, one block at a time is hashed
//! and written on the blocking pool while the next one is received: hashing
//! is off the I/O path, and a body costs two blocks of memory however long it
//! is. (Content whose digest is known could go straight to the cache from
//! here, with the last block held back; that is to come.)
//! Not for: response heads (`fetch`).
//! Called by: `fetch`.

use std::fs::File;
use std::io::{self, Write as _};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::task::JoinHandle;

use super::failed::Failed;
use super::hashes::Hashes;
use super::spool::{Content, Share, Spool};
use super::{Failure, FetchError};
use crate::asset::Checksum;
use crate::digest::Digest;

/// Bytes hashed and written at once.
const BLOCK: usize = 256 * 1024;

/// Why a body is not there: the origin's fault, or ours.
#[derive(Debug)]
pub(super) enum Stop {
    /// The next mirror may do better.
    Origin(Failed),
    /// No other mirror would help.
    Fatal(FetchError),
}

impl From<Failed> for Stop {
    fn from(failed: Failed) -> Self {
        Stop::Origin(failed)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as E;
        let full = [E::StorageFull, E::QuotaExceeded, E::FileTooLarge];
        Stop::Fatal(if full.contains(&error.kind()) {
            let text = "the disk where downloads wait is full: fetch.spool_dir needs more room";
            FetchError::NoRoom(text.to_owned())
        } else {
            FetchError::Internal(format!("cannot keep what is being fetched: {error}"))
        })
    }
}

/// What bounds one body.
pub(super) struct Bounds {
    /// `Content-Length`
    pub(super) announced: Option<u64>,
    /// Bytes accepted.
    pub(super) limit: u64,
    /// Bytes that may stay in memory.
    pub(super) small: u64,
    /// Longest silence.
    pub(super) stall: Duration,
}

impl Bounds {
    pub(super) fn too_large(&self) -> Failed {
        let size = self.announced.map(|n| format!("{n} bytes are "));
        let size = size.unwrap_or_default();
        let text = format!("{size}more than the limit of {} bytes", self.limit);
        Failed::new(Failure::TooLarge, text)
    }
}

/// A body that came whole and is what was asked for.
pub(super) struct Received {
    pub(super) digest: Digest,
    pub(super) verified: Vec<Checksum>,
    pub(super) content: Content,
}

/// Takes in `body`. Adds the bytes that arrive to `total`, on failure too.
pub(super) async fn receive(
    mut body: Incoming,
    hashes: Hashes,
    spool: &Spool,
    bounds: &Bounds,
    total: &mut u64,
) -> Result<Received, Stop> {
    let mut keeper = Keeper::new(hashes, spool, bounds).await?;
    let mut received: u64 = 0;
    loop {
        let frame = match tokio::time::timeout(bounds.stall, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Err(Failed::body(&error, received, bounds.announced).into());
            }
            Err(_) => {
                let text = format!("nothing more after {received} bytes for {:?}", bounds.stall);
                return Err(Failed::unavailable(text).into());
            }
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        received += data.len() as u64;
        *total += data.len() as u64;
        metrics::counter!("assetgate_origin_bytes_total").increment(data.len() as u64);
        if received > bounds.limit {
            return Err(bounds.too_large().into());
        }
        keeper.push(data).await?;
    }
    if let Some(announced) = bounds.announced.filter(|n| *n != received) {
        let text = format!("{received} bytes came, {announced} were announced");
        return Err(Failed::new(Failure::Truncated, text).into());
    }
    keeper.finish().await
}

/// Where the bytes of one body go.
struct Keeper<'a> {
    spool: &'a Spool,
    small: u64,
    share: Share,
    buffer: BytesMut,
    received: u64,
    place: Place,
}

enum Place {
    /// All of it is in the buffer.
    Memory(Box<Hashes>),
    /// Blocks are hashed and written as the buffer fills.
    Disk(Disk),
}

impl<'a> Keeper<'a> {
    async fn new(hashes: Hashes, spool: &'a Spool, bounds: &Bounds) -> Result<Self, Stop> {
        let expected = bounds.announced.unwrap_or(0);
        let small = if expected <= bounds.small {
            spool.memory().try_share(expected)
        } else {
            None
        };
        let (share, place) = match small {
            Some(share) => (share, Place::Memory(Box::new(hashes))),
            None => {
                // All of it now: a fetch that waits holds no room others wait for.
                let share = spool.disk().share(expected).await;
                let share = share.ok_or_else(|| full(spool))?;
                (share, Place::Disk(Disk::new(spool, hashes).await?))
            }
        };
        Ok(Self {
            spool,
            small: bounds.small,
            share,
            buffer: BytesMut::new(),
            received: 0,
            place,
        })
    }

    async fn push(&mut self, data: Bytes) -> Result<(), Stop> {
        self.received += data.len() as u64;
        if let Place::Memory(hashes) = &self.place {
            let fits =
                self.received <= self.small && self.share.grow(self.spool.memory(), self.received);
            if !fits {
                let disk = Disk::new(self.spool, (**hashes).clone()).await?;
                let share = self.spool.disk().try_share(self.received);
                self.share = share.ok_or_else(|| full(self.spool))?;
                self.place = Place::Disk(disk);
            }
        }
        if let Place::Disk(disk) = &mut self.place {
            if !self.share.grow(self.spool.disk(), self.received) {
                return Err(full(self.spool));
            }
            if self.buffer.len() + data.len() > BLOCK {
                disk.write(&mut self.buffer).await?;
            }
        }
        self.buffer.extend_from_slice(&data);
        Ok(())
    }

    async fn finish(mut self) -> Result<Received, Stop> {
        match self.place {
            Place::Memory(mut hashes) => {
                hashes.update(&self.buffer);
                let (digest, verified) = hashes.finish()?;
                let content = Content::Memory(self.buffer.freeze(), self.share);
                Ok(Received {
                    digest,
                    verified,
                    content,
                })
            }
            Place::Disk(mut disk) => {
                disk.write(&mut self.buffer).await?;
                let writer = disk.settle().await?;
                let (digest, verified) = writer.hashes.finish()?;
                let content = Content::File(writer.file, self.share);
                Ok(Received {
                    digest,
                    verified,
                    content,
                })
            }
        }
    }
}

fn full(spool: &Spool) -> Stop {
    let total = spool.disk().total();
    let text = format!(
        "no room for a temporary file: all fetches together may use {total} bytes \
         (fetch.spool_size, which the operator can raise)"
    );
    Stop::Fatal(FetchError::NoRoom(text))
}

/// A file being written, one block behind what has been received.
struct Disk {
    state: State,
}

enum State {
    Idle(Box<Writer>),
    Busy(JoinHandle<io::Result<Box<Writer>>>),
    /// The writer is lost, and the body with it.
    Failed,
}

struct Writer {
    file: File,
    hashes: Hashes,
    block: BytesMut,
}

impl Disk {
    async fn new(spool: &Spool, hashes: Hashes) -> io::Result<Self> {
        let state = State::Idle(Box::new(Writer {
            file: spool.file().await?,
            hashes,
            block: BytesMut::new(),
        }));
        Ok(Self { state })
    }

    /// Waits for the block before.
    async fn settle(&mut self) -> io::Result<Box<Writer>> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Idle(writer) => Ok(writer),
            State::Busy(task) => task.await.map_err(io::Error::other)?,
            State::Failed => Err(io::Error::other("an earlier write failed")),
        }
    }

    /// Starts writing `buffer` and leaves it empty.
    async fn write(&mut self, buffer: &mut BytesMut) -> io::Result<()> {
        let mut writer = self.settle().await?;
        std::mem::swap(&mut writer.block, buffer);
        buffer.reserve(BLOCK);
        self.state = State::Busy(tokio::task::spawn_blocking(move || {
            writer.hashes.update(&writer.block);
            writer.file.write_all(&writer.block)?;
            writer.block.clear();
            Ok(writer)
        }));
        Ok(())
    }
}
