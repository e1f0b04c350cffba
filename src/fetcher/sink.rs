//! Where the bytes of one body go, hashed on the way.
//!
//! Content whose digest is known before it comes goes straight into the cache
//! as it arrives; its last bytes are held back until the hash is verified. Of
//! the rest, what is small stays in memory, and what is large is written to an
//! unlinked file: one block is hashed and written on the blocking pool while
//! the next one is received, so that a body costs two blocks of memory however
//! long it is.
//! Called by: `receive` (in), `download` (its end).

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use super::FetchError;
use super::hashes::Hashes;
use super::order::Order;
use super::receive::Stop;
use super::spool::{Content, Share, Spool};
use crate::asset::Checksum;
use crate::digest::Digest;
use crate::upstream::{self, Cache};

/// Bytes hashed and written at once.
const BLOCK: usize = 256 * 1024;

/// Pieces of a body on their way to the upload: enough that neither end waits
/// for each single one of the other.
const PIECES: usize = 2;

/// A body that came whole and is what was asked for.
pub(super) struct Received {
    pub(super) digest: Digest,
    pub(super) verified: Vec<Checksum>,
    /// `None`: it is in the cache.
    pub(super) content: Option<Content>,
}

/// Takes the bytes of one body.
pub(super) struct Sink<'a> {
    received: u64,
    place: Place<'a>,
}

enum Place<'a> {
    Spool(Keeper<'a>),
    Cache(Box<Upload>),
}

impl<'a> Sink<'a> {
    /// Into memory or a file, until the digest is known.
    pub(super) async fn spool(
        hashes: Hashes,
        spool: &'a Spool,
        announced: Option<u64>,
        small: u64,
    ) -> Result<Self, Stop> {
        let keeper = Keeper::new(hashes, spool, announced, small).await?;
        Ok(Self {
            received: 0,
            place: Place::Spool(keeper),
        })
    }

    /// Straight into the cache.
    pub(super) fn cache(cache: &Cache, order: &Order, digest: Digest) -> Self {
        Self {
            received: 0,
            place: Place::Cache(Box::new(Upload::start(cache, order, digest))),
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) async fn push(&mut self, data: Bytes) -> Result<(), Stop> {
        self.received += data.len() as u64;
        match &mut self.place {
            Place::Spool(keeper) => keeper.push(data, self.received).await,
            Place::Cache(upload) => upload.push(data).await,
        }
    }

    pub(super) async fn finish(self) -> Result<Received, Stop> {
        match self.place {
            Place::Spool(keeper) => keeper.finish().await,
            Place::Cache(upload) => upload.finish().await,
        }
    }
}

/// A body on its way into the cache. Dropped, the upload is called off.
struct Upload {
    hashes: Hashes,
    digest: Digest,
    pieces: mpsc::Sender<io::Result<Bytes>>,
    /// Set once the hash is verified. Without it the end of the pieces is an
    /// error to the upload, whichever of the two sees the other go first.
    verified: Arc<AtomicBool>,
    /// The cache answered before the end.
    ended: bool,
    task: JoinSet<Result<(), upstream::Error>>,
}

impl Upload {
    fn start(cache: &Cache, order: &Order, digest: Digest) -> Self {
        let (pieces, content) = mpsc::channel(PIECES);
        let verified = Arc::<AtomicBool>::default();
        let mut task = JoinSet::new();
        let (whole, is_verified) = (digest.clone(), Arc::clone(&verified));
        let (cache, hashes) = (cache.clone(), order.hashes.clone());
        let (context, scope) = (order.context.clone(), order.scope.clone());
        task.spawn(async move {
            let end = stream::once(async move {
                let called_off = || Err(io::Error::other("the download was called off"));
                (!is_verified.load(Ordering::Acquire)).then(called_off)
            });
            let end = end.filter_map(std::future::ready);
            let content = ReceiverStream::new(content).chain(end);
            cache.write_stream(&context, &scope, &whole, content).await
        });
        Self {
            hashes,
            digest,
            pieces,
            verified,
            ended: false,
            task,
        }
    }

    async fn push(&mut self, data: Bytes) -> Result<(), Stop> {
        self.hashes.update(&data);
        if !self.ended && self.pieces.send(Ok(data)).await.is_err() {
            // It will not take it, or has it already. That it has it may be
            // said of the hash alone, so the rest is hashed all the same.
            self.answer().await?;
            self.ended = true;
        }
        Ok(())
    }

    async fn answer(&mut self) -> Result<(), Stop> {
        let fatal = |error: FetchError| Stop::Fatal(error);
        match self.task.join_next().await {
            Some(Ok(answer)) => answer.map_err(|error| fatal(error.into())),
            Some(Err(error)) => Err(fatal(FetchError::Internal(error.to_string()))),
            None => Ok(()),
        }
    }

    async fn finish(mut self) -> Result<Received, Stop> {
        let (digest, verified) = self.hashes.clone().finish()?;
        if digest != self.digest {
            let text = format!("{} was to come and {digest} came", self.digest);
            return Err(Stop::Fatal(FetchError::Internal(text)));
        }
        self.verified.store(true, Ordering::Release);
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.pieces, closed));
        self.answer().await?;
        Ok(Received {
            digest,
            verified,
            content: None,
        })
    }
}

/// Keeps a body until its digest is known.
struct Keeper<'a> {
    spool: &'a Spool,
    small: u64,
    share: Share,
    buffer: BytesMut,
    place: Kept,
}

enum Kept {
    /// All of it is in the buffer.
    Memory(Box<Hashes>),
    /// Blocks are hashed and written as the buffer fills.
    Disk(Disk),
}

impl<'a> Keeper<'a> {
    async fn new(
        hashes: Hashes,
        spool: &'a Spool,
        announced: Option<u64>,
        small: u64,
    ) -> Result<Self, Stop> {
        let expected = announced.unwrap_or(0);
        let fits = if expected <= small {
            spool.memory().try_share(expected)
        } else {
            None
        };
        let (share, place) = match fits {
            Some(share) => (share, Kept::Memory(Box::new(hashes))),
            None => {
                // All of it now: a fetch that waits holds no room others wait for.
                let share = spool.disk().share(expected).await;
                let share = share.ok_or_else(|| full(spool))?;
                (share, Kept::Disk(Disk::new(spool, hashes).await?))
            }
        };
        Ok(Self {
            spool,
            small,
            share,
            buffer: BytesMut::new(),
            place,
        })
    }

    async fn push(&mut self, data: Bytes, received: u64) -> Result<(), Stop> {
        if let Kept::Memory(hashes) = &self.place {
            let fits = received <= self.small && self.share.grow(self.spool.memory(), received);
            if !fits {
                let disk = Disk::new(self.spool, (**hashes).clone()).await?;
                let share = self.spool.disk().try_share(received);
                self.share = share.ok_or_else(|| full(self.spool))?;
                self.place = Kept::Disk(disk);
            }
        }
        if let Kept::Disk(disk) = &mut self.place {
            if !self.share.grow(self.spool.disk(), received) {
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
        let (hashes, content) = match self.place {
            Kept::Memory(mut hashes) => {
                hashes.update(&self.buffer);
                let content = Content::Memory(self.buffer.freeze(), self.share);
                (*hashes, content)
            }
            Kept::Disk(mut disk) => {
                disk.write(&mut self.buffer).await?;
                let writer = disk.settle().await?;
                (writer.hashes, Content::File(writer.file, self.share))
            }
        };
        let (digest, verified) = hashes.finish()?;
        Ok(Received {
            digest,
            verified,
            content: Some(content),
        })
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
