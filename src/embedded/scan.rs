//! Rebuilds the index from the directory at start: names are digests, access
//! times are recency, and a file whose size is not in its name is broken.
//!
//! Listing names is five times cheaper than looking at each file. Within one
//! boot of the machine no file can have been damaged, so there [`names`] is
//! enough to serve, and [`files`] fills in recency (and the sizes of Action
//! Cache entries) a moment later. In another boot `files` comes first.
//!
//! Not for: reading contents; files that may have been damaged by a power cut
//! come back as suspects, for `durability.rs` to verify.
//! Called by: `Embedded::open`, `durability.rs`.

use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use super::disk::Disk;
use super::index;
use super::key::Key;
use crate::digest::DigestFunction;

const MAX_THREADS: usize = 4;

/// A file found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// What it holds by its name.
    pub(super) key: Key,
    /// Space it takes.
    pub(super) blocks: u64,
    /// When it was last used.
    pub(super) touched: u32,
}

/// All files found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Files to trust, least recently used first.
    pub(super) good: Vec<Found>,
    /// Files whose content must be verified before they are served.
    pub(super) suspects: Vec<Found>,
    /// Files that are not of the size their names say.
    pub(super) broken: Vec<Key>,
}

/// Lists the directory. Files have no recency, and Action Cache entries no
/// size.
pub(super) fn names(disk: &Disk) -> io::Result<Scan> {
    let mut scan = Scan::default();
    for shard in shards(disk.root())? {
        each_file(&shard, |key, _| {
            scan.good.push(Found {
                key,
                blocks: index::blocks(key.size()),
                touched: 0,
            });
        })?;
    }
    Ok(scan)
}

/// Looks at every file. Blobs written at `suspect_from` or later are suspects;
/// Action Cache entries never are, as each carries a checksum.
///
/// Nearly all the time goes into one `stat` per file, so a few threads share
/// the work.
pub(super) fn files(disk: &Disk, suspect_from: Option<i64>) -> io::Result<Scan> {
    let shards = shards(disk.root())?;
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS));
    let share = shards.len().div_ceil(threads).max(1);
    let parts = thread::scope(|scope| {
        let begin = |shards| {
            let work = move || files_in(shards, suspect_from);
            thread::Builder::new().spawn_scoped(scope, work)
        };
        let begun: Vec<_> = shards.chunks(share).map(begin).collect();
        let end = |thread: io::Result<thread::ScopedJoinHandle<'_, _>>| {
            let joined = thread?.join();
            joined.map_err(|_| io::Error::other("a thread of the scan failed"))?
        };
        begun.into_iter().map(end).collect::<io::Result<Vec<_>>>()
    })?;
    let mut scan = Scan::default();
    for part in parts {
        scan.good.extend(part.good);
        scan.suspects.extend(part.suspects);
        scan.broken.extend(part.broken);
    }
    scan.good.sort_unstable_by_key(|f| f.touched);
    Ok(scan)
}

fn files_in(shards: &[Shard], suspect_from: Option<i64>) -> io::Result<Scan> {
    let mut scan = Scan::default();
    for shard in shards {
        each_file(shard, |key, entry| scan.look(key, entry, suspect_from))?;
    }
    Ok(scan)
}

/// A directory of files, and whether they are blobs of a function or Action
/// Cache entries.
type Shard = (Option<DigestFunction>, PathBuf);

fn shards(root: &Path) -> io::Result<Vec<Shard>> {
    let mut shards = Vec::new();
    let functions = DigestFunction::all().iter().copied();
    let blobs = functions.map(|f| (Some(f), root.join("cas").join(f.name().to_lowercase())));
    for (function, directory) in blobs.chain([(None, root.join("ac"))]) {
        let entries = match fs::read_dir(directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                shards.push((function, entry.path()));
            }
        }
    }
    Ok(shards)
}

/// Calls `f` for the files of a shard that are ours, by their names.
fn each_file((function, directory): &Shard, mut f: impl FnMut(Key, &DirEntry)) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let key = match function {
            Some(function) => Key::of_blob_file(*function, name),
            None => Key::of_action_file(name),
        };
        if let Some(key) = key {
            f(key, &entry);
        }
    }
    Ok(())
}

impl Scan {
    fn look(&mut self, key: Key, entry: &DirEntry, suspect_from: Option<i64>) {
        // A file that cannot be looked at is left alone and not served.
        let Ok(metadata) = entry.metadata() else {
            return;
        };
        if !key.is_action() && metadata.len() != key.size() {
            self.broken.push(key);
            return;
        }
        let found = Found {
            key,
            blocks: index::blocks(metadata.len()),
            touched: seconds(metadata.atime().max(metadata.mtime())),
        };
        match suspect_from {
            Some(from) if !key.is_action() && metadata.mtime() >= from => {
                self.suspects.push(found);
            }
            _ => self.good.push(found),
        }
    }
}

fn seconds(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}
