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
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use tonic::Status;

use super::Inner;
use super::key::Key;
use super::request::{digest, function, instance, is_empty_blob};
use super::status::{blob_not_found, blocking, invalid};
use super::store::Store;
use crate::digest::{Digest, DigestFunction};
use crate::proto::{self, rev2};

/// Largest Directory that is read.
const MAX_DIRECTORY: u64 = 32 << 20;
/// Most memory one may take once it is decoded.
const MAX_DECODED: u64 = 4 * MAX_DIRECTORY;
/// A page ends when it is this large.
const PAGE_BYTES: usize = 1 << 20;
/// What a walk has in memory for its client: a page, decoded.
pub(super) const HELD: u64 = 3 << 20;
/// Largest number of Directories of one tree, which bounds memory.
const MAX_DIRECTORIES: usize = 1 << 20;

/// The pages of a tree.
pub(super) type Pages =
    Pin<Box<dyn Stream<Item = Result<rev2::GetTreeResponse, Status>> + Send + 'static>>;

/// Begins the walk.
pub(super) async fn get(
    inner: &Arc<Inner>,
    request: &rev2::GetTreeRequest,
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
    };
    if !walk.is_stored(&root) {
        return Err(blob_not_found(&root));
    }
    let pages = stream::try_unfold(walk, async |walk| match walk.queue.is_empty() {
        true => Ok(None),
        false => blocking(move || walk.page()).await?.map(Some),
    });
    Ok(Box::pin(pages))
}

struct Walk {
    inner: Arc<Inner>,
    function: DigestFunction,
    queue: VecDeque<Digest>,
    seen: HashSet<Key>,
    page_size: usize,
    skip: usize,
    walked: usize,
}

impl Walk {
    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn is_stored(&self, digest: &Digest) -> bool {
        is_empty_blob(self.function, digest)
            || self.store().touch(&Key::blob(self.function, digest))
    }

    fn page(mut self) -> Result<(rev2::GetTreeResponse, Self), Status> {
        let mut page = rev2::GetTreeResponse::default();
        let mut bytes = 0;
        while let Some(next) = self.queue.front() {
            let full = page.directories.len() >= self.page_size;
            let size = usize::try_from(next.size()).unwrap_or(usize::MAX);
            if full || (bytes > 0 && bytes + size > PAGE_BYTES) {
                break;
            }
            let Some(next) = self.queue.pop_front() else {
                break;
            };
            let Some(directory) = self.read(&next)? else {
                continue;
            };
            self.enqueue(&directory)?;
            self.walked += 1;
            if self.walked > self.skip {
                bytes += size;
                page.directories.push(directory);
            }
        }
        if !self.queue.is_empty() {
            page.next_page_token = self.walked.to_string();
        }
        Ok((page, self))
    }

    fn read(&self, digest: &Digest) -> Result<Option<rev2::Directory>, Status> {
        if is_empty_blob(self.function, digest) {
            return Ok(Some(rev2::Directory::default()));
        }
        let not_one = |why: String| invalid("root_digest", format!("{digest} below it {why}"));
        if digest.size() > MAX_DIRECTORY {
            return Err(not_one("is too large for a Directory".into()));
        }
        let Some(bytes) = self.store().read(&Key::blob(self.function, digest)) else {
            return Ok(None);
        };
        let directory = proto::decode(bytes.into(), MAX_DECODED);
        directory
            .map(Some)
            .map_err(|e| not_one(format!("is not a Directory: {e}")))
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
