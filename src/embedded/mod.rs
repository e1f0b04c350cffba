//! The embedded cache: CAS, `ByteStream`, Action Cache and Capabilities over
//! one size-bounded directory, for use without an upstream and as the double
//! of one in tests.
//!
//! CAS content is shared by all instance names (a digest says all there is to
//! know of a blob); Action Cache entries belong to one. Lowest first:
//! [`key`](self) and `index` say what is stored, `disk` where; `store` keeps
//! both consistent; `scan` and `durability` bring a directory back after a
//! crash; `upload`, `action` and the services stand on that.
//!
//! Not for: replication, sharding, access control. Who outgrows one machine
//! points Assetgate at a cluster.
//! Called by: `server`, which serves [`Embedded::routes`] or calls them in
//! process, and tests.

mod action;
mod action_cache;
mod ancestors;
mod byte_stream;
mod capabilities;
mod cas;
mod compress;
mod disk;
mod durability;
mod index;
mod key;
mod looks;
mod private;
mod read;
mod recent;
mod request;
mod resource;
mod room;
mod scan;
mod shares;
mod slot;
mod status;
mod store;
mod stored;
mod tree;
mod turns;
mod upload;
mod uploads;
mod verify;
mod write;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tonic::service::Routes;

use crate::digest::{Digest, Scope};
use crate::proto::{MAX_NATIVE_MESSAGE, bytestream, rev2};

use durability::{Maintenance, State};
use looks::Looker;
use shares::Shares;
use store::Store;

/// Bytes of blobs in one batch call. Messages that carry them must stay under
/// 4 MiB, the default limit of gRPC, with the digests of a few thousand blobs.
const MAX_BATCH: u64 = (4 << 20) - (256 << 10);

/// Smallest cache that is of any use.
const MIN_SIZE: u64 = 64 << 10;

/// Bytes that the checks of action results may take: each counts 8 MiB or its
/// largest Tree.
const CHECKS: u64 = 128 << 20;

/// What an embedded cache needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory of its files; created if need be.
    pub dir: PathBuf,
    /// Most bytes it may take on disk, unfinished uploads included. Counted
    /// in blocks of 4 KiB.
    pub max_size: u64,
}

/// Why an embedded cache cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be used.
    #[error("the cache directory {0}")]
    Directory(String),
    /// Another process uses the directory.
    #[error("the cache directory {0}")]
    InUse(String),
    /// The directory cannot be read.
    #[error("the cache directory {} cannot be read: {cause}", dir.display())]
    Scan {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The bound is too low.
    #[error("a cache of {0} bytes is too small; it needs at least {MIN_SIZE}")]
    TooSmall(u64),
}

/// An open cache; clones share it. The directory is released when the last
/// clone, and the last of its routes, is dropped.
#[derive(Debug, Clone)]
pub struct Embedded(Arc<Inner>);

/// What the services share.
#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    uploads: Arc<uploads::Uploads>,
    checks: Shares,
    _looker: Looker,
    _maintenance: Maintenance,
}

impl Embedded {
    /// Opens the cache in a directory: locks it and reads its listing. Blocks
    /// (100,000 blobs take a fraction of a second).
    pub fn open(settings: Settings) -> Result<Self, Error> {
        if settings.max_size < MIN_SIZE {
            return Err(Error::TooSmall(settings.max_size));
        }
        Self::open_in_boot(settings, durability::boot_id())
    }

    fn open_in_boot(settings: Settings, boot: Option<String>) -> Result<Self, Error> {
        let disk = disk::Disk::open(&settings.dir).map_err(|e| match e {
            disk::LockError::InUse { .. } => Error::InUse(e.to_string()),
            disk::LockError::Io { .. } => Error::Directory(e.to_string()),
        })?;
        let failed = |cause| Error::Scan {
            dir: settings.dir.clone(),
            cause,
        };
        let state = State::read(disk.root());
        let suspect_from = State::suspect_from(state.as_ref(), boot.as_deref());
        let by_name = suspect_from.is_none();
        let scan = match by_name {
            true => scan::names(&disk),
            false => scan::files(&disk, suspect_from),
        };
        let scan = scan.map_err(failed)?;
        let store = Arc::new(Store::new(disk, settings.max_size));
        store.fill(&scan.good);
        scan.broken.iter().for_each(|key| store.discard(key));
        let looker = Looker::start(&store).map_err(failed)?;
        let uploads = Arc::new(uploads::Uploads::new(settings.max_size));
        let pruned = Arc::clone(&uploads);
        let maintenance = Maintenance::start(
            Arc::clone(&store),
            durability::Restart {
                state,
                boot,
                suspects: scan.suspects,
                by_name,
            },
            move || pruned.prune(),
        );
        Ok(Self(Arc::new(Inner {
            store,
            uploads,
            checks: Shares::with_whole(CHECKS),
            _looker: looker,
            _maintenance: maintenance.map_err(failed)?,
        })))
    }

    /// The Action Cache entry under a digest, if it can be had from memory and
    /// is complete. `None` says nothing: ask the service.
    #[must_use]
    pub fn entry_at_hand(&self, scope: &Scope, action: &Digest) -> Option<rev2::ActionResult> {
        let key = key::Key::action(&scope.instance, scope.function, action);
        let store = &self.0.store;
        store.recent.complete(store, &key)
    }

    /// The four services. They may be called on any tokio runtime; what
    /// blocks runs on its blocking threads.
    #[must_use]
    pub fn routes(&self) -> Routes {
        use bytestream::byte_stream_server::ByteStreamServer;
        use rev2::action_cache_server::ActionCacheServer;
        use rev2::capabilities_server::CapabilitiesServer;
        use rev2::content_addressable_storage_server::ContentAddressableStorageServer;

        let inner = || Arc::clone(&self.0);
        let max = MAX_NATIVE_MESSAGE;
        let cas = ContentAddressableStorageServer::new(cas::Cas(inner()));
        let byte_stream = ByteStreamServer::new(byte_stream::ByteStream(inner()));
        let actions = ActionCacheServer::new(action_cache::ActionCache(inner()));
        let capabilities = CapabilitiesServer::new(capabilities::Capabilities(inner()));
        Routes::new(cas.max_decoding_message_size(max))
            .add_service(byte_stream.max_decoding_message_size(max))
            .add_service(actions.max_decoding_message_size(max))
            .add_service(capabilities.max_decoding_message_size(max))
    }
}

#[cfg(test)]
mod tests;
