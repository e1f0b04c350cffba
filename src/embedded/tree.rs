//! `GetTree`: a Directory and all below it, breadth first, each once, in
//! pages that are read from disk only as the client takes them.
//!
//! Missing subtrees are left out, as REv2 wants. The token of a page is the
//! number of Directories before the next one; a call that resumes walks the
//! same way again and skips them.
//!
//! Not for: Trees of action results (`action.rs`).
//! Called by: `cas.rs`.

use std::collections::{HashSet, VecDeque};
use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::Inner;
use super::key::Key;
use super::request::{digest, function, instance, is_empty_blob};
use super::status::{blob_not_found, blocking, invalid};
use super::store::Store;
use crate::budget::{Permit, Share};
use crate::digest::{Digest, DigestFunction};
use crate::proto::estimate::{Limits, Shape};
use crate::proto::{self, rev2};

/// Largest Directory that is read.
const MAX_DIRECTORY: u64 = 32 << 20;
/// Most memory one may take once it is decoded.
const MAX_DECODED: u64 = 4 * MAX_DIRECTORY;
/// A page ends when it is this large.
const PAGE_BYTES: usize = 1 << 20;
/// What a walk has in memory for its client: a page, decoded. More is charged
/// before it is.
pub(super) const HELD: u64 = 3 << 20;
/// What it takes to remember a Directory that was met.
const MET: u64 = 256;
/// Largest number of Directories of one tree, which bounds memory.
const MAX_DIRECTORIES: usize = 1 << 20;

/// The pages of a tree.
pub(super) type Pages =
    Pin<Box<dyn Stream<Item = Result<rev2::GetTreeResponse, Status>> + Send + 'static>>;

/// Begins the walk.
pub(super) async fn get(
    inner: &Arc<Inner>,
    request: &rev2::GetTreeRequest,
    share: Option<Share>,
) -> Result<Pages, Status> {
    instance(&request.instance_name)?;
    let wire = request.root_digest.as_ref();
    let function = function(request.digest_function, wire)?;
    let root = digest(function, "root_digest", wire)?;
    let page_size = usize::try_from(request.page_size)
        .map_err(|_| invalid("page_size", "it cannot be negative"))?;
    let skip = match request.page_token.as_str() {
        "" => 0,
        token => token
            .parse()
            .map_err(|_| invalid("page_token", "it is none that this cache gave out"))?,
    };
    let walk = Walk {
        inner: Arc::clone(inner),
        function,
        seen: HashSet::from([Key::blob(function, &root)]),
        queue: VecDeque::from([root.clone()]),
        page_size: if page_size == 0 {
            usize::MAX
        } else {
            page_size
        },
        skip,
        walked: 0,
        share,
        held: None,
        look: None,
    };
    if !walk.is_stored(&root) {
        return Err(blob_not_found(&root));
    }
    let pages = stream::try_unfold(walk, async |mut walk| {
        // The page before has been taken.
        walk.look = None;
        while !walk.queue.is_empty() {
            let step;
            (walk, step) = blocking(move || walk.page()).await?;
            match step? {
                Step::Page(page) => {
                    walk.settle();
                    return Ok(Some((page, walk)));
                }
                Step::Room(bytes) => walk.room(bytes).await,
            }
        }
        Ok(None)
    });
    Ok(Box::pin(pages))
}

/// How far a walk came.
enum Step {
    Page(rev2::GetTreeResponse),
    /// It goes on once there is room for so many bytes.
    Room(u64),
}

/// What was found under a digest.
enum Found {
    Nothing,
    Directory(rev2::Directory, u64),
    /// It takes more than there is room for.
    Large(u64),
}

struct Walk {
    inner: Arc<Inner>,
    function: DigestFunction,
    queue: VecDeque<Digest>,
    seen: HashSet<Key>,
    page_size: usize,
    skip: usize,
    walked: usize,
    share: Option<Share>,
    /// Room for what is larger than [`HELD`].
    held: Option<Permit>,
    /// For as long as a page like that is not taken.
    look: Option<OwnedSemaphorePermit>,
}

impl Walk {
    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn is_stored(&self, digest: &Digest) -> bool {
        is_empty_blob(self.function, digest)
            || self.store().touch(&Key::blob(self.function, digest))
    }

    /// Waits for room for so many bytes. The permit is not complete before the
    /// page is there: of those that take more than there is, one goes on.
    async fn room(&mut self, bytes: u64) {
        // Not to be waited for with what is held already.
        (self.held, self.look) = (None, None);
        if let Some(share) = &self.share {
            let next = self.queue.front().map_or(0, Digest::size);
            if next > HELD {
                self.look = Some(share.look(next).await);
            }
            let mut held = share.claim();
            held.grow(bytes).await;
            self.held = Some(held);
        }
    }

    /// Gives back what a page took, which is encoded at once.
    fn settle(&mut self) {
        let met = self.met();
        if let Some(held) = &mut self.held {
            held.shrink_to(met);
            held.complete();
        }
    }

    /// What the walk itself takes.
    fn met(&self) -> u64 {
        self.seen.len() as u64 * MET
    }

    /// Bytes that a page may take; calls of this process have no bound.
    fn has_room(&self) -> u64 {
        let held = |share: &Permit| share.bytes().max(HELD);
        match &self.share {
            Some(_) => self.held.as_ref().map_or(HELD, held),
            None => u64::MAX,
        }
    }

    /// The next page, or the room that it takes.
    fn page(mut self) -> (Self, Result<Step, Status>) {
        let step = self.step();
        (self, step)
    }

    fn step(&mut self) -> Result<Step, Status> {
        let mut page = rev2::GetTreeResponse::default();
        let mut bytes = 0;
        let mut takes = self.met();
        while let Some(next) = self.queue.front().cloned() {
            let full = page.directories.len() >= self.page_size;
            let size = usize::try_from(next.size()).unwrap_or(usize::MAX);
            if full || (bytes > 0 && bytes + size > PAGE_BYTES) {
                break;
            }
            let (directory, more) = match self.read(&next, takes)? {
                Found::Large(_) if bytes > 0 => break,
                Found::Large(takes) => return Ok(Step::Room(takes)),
                Found::Nothing => {
                    self.queue.pop_front();
                    continue;
                }
                Found::Directory(directory, more) => (directory, more),
            };
            self.queue.pop_front();
            self.enqueue(&directory)?;
            self.walked += 1;
            if self.walked > self.skip {
                bytes += size;
                takes = takes.saturating_add(more);
                page.directories.push(directory);
            }
        }
        if !self.queue.is_empty() {
            page.next_page_token = self.walked.to_string();
        }
        Ok(Step::Page(page))
    }

    /// Reads and decodes a Directory, if there is room for it beside what the
    /// page takes already.
    fn read(&self, digest: &Digest, beside: u64) -> Result<Found, Status> {
        if is_empty_blob(self.function, digest) {
            return Ok(Found::Directory(rev2::Directory::default(), 0));
        }
        let not_one = |why: String| invalid("root_digest", format!("{digest} below it {why}"));
        if digest.size() > MAX_DIRECTORY {
            return Err(not_one("is too large for a Directory".into()));
        }
        let least = beside.saturating_add(digest.size());
        if least > self.has_room() {
            return Ok(Found::Large(least));
        }
        let Some(bytes) = self.store().read(&Key::blob(self.function, digest)) else {
            return Ok(Found::Nothing);
        };
        let not_a_directory = |why: &dyn Display| not_one(format!("is not a Directory: {why}"));
        let shape = Shape::of::<rev2::Directory>();
        let estimate = shape.estimate(&bytes[..], Limits::bytes(MAX_DECODED));
        let more = digest.size() + estimate.map_err(|e| not_a_directory(&e))?.bytes;
        if beside.saturating_add(more) > self.has_room() {
            return Ok(Found::Large(beside.saturating_add(more)));
        }
        let directory = proto::decode(&bytes[..], MAX_DECODED);
        let directory = directory.map_err(|e| not_a_directory(&e))?;
        Ok(Found::Directory(directory, more))
    }

    fn enqueue(&mut self, directory: &rev2::Directory) -> Result<(), Status> {
        for child in &directory.directories {
            let child = digest(self.function, "root_digest", child.digest.as_ref())?;
            if self.seen.insert(Key::blob(self.function, &child)) {
                self.queue.push_back(child);
            }
        }
        if self.seen.len() > MAX_DIRECTORIES {
            let message = format!("the tree has more than {MAX_DIRECTORIES} directories");
            return Err(Status::resource_exhausted(message));
        }
        Ok(())
    }
}
