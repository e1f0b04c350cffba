//! Rebuilds the index from the directory at start: names are digests, access
//! times are recency, and a file whose size is not in its name is removed.
//!
//! Not for: reading contents; files that may have been damaged by a power cut
//! come back as suspects, for `durability.rs` to verify.
//! Called by: `Embedded::open`.

use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use super::disk::Disk;
use super::index;
use super::key::Key;
use super::store::corrupt;
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
}

/// Scans the directory. Blobs written at `suspect_from` or later are suspects;
/// Action Cache entries never are, as each carries a checksum.
///
/// Nearly all the time goes into one `stat` per file, so a few threads share
/// the work.
pub(super) fn scan(disk: &Disk, suspect_from: Option<i64>) -> io::Result<Scan> {
    let shards = shards(disk.root())?;
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS));
    let share = shards.len().div_ceil(threads).max(1);
    let parts = thread::scope(|scope| {
        let begin = |shards| {
            let work = move || shards_scan(disk, shards, suspect_from);
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
    }
    scan.good.sort_unstable_by_key(|f| f.touched);
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

fn shards_scan(disk: &Disk, shards: &[Shard], suspect_from: Option<i64>) -> io::Result<Scan> {
    let mut scan = Scan::default();
    for (function, directory) in shards {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            match function {
                Some(function) => {
                    if let Some(key) = Key::of_blob_file(*function, name) {
                        scan.blob(disk, key, &entry, suspect_from);
                    }
                }
                None => {
                    if let Some(key) = Key::of_action_file(name) {
                        scan.action(key, &entry);
                    }
                }
            }
        }
    }
    Ok(scan)
}

impl Scan {
    fn blob(&mut self, disk: &Disk, key: Key, entry: &DirEntry, suspect_from: Option<i64>) {
        // A file that cannot be looked at is left alone and not served.
        let Ok(metadata) = entry.metadata() else {
            return;
        };
        if metadata.len() != key.size() || !metadata.is_file() {
            // Nobody else holds the directory yet: no lock is needed.
            let _ = disk.remove(&key);
            corrupt(&key);
            return;
        }
        let found = Found {
            key,
            blocks: index::blocks(metadata.len()),
            touched: seconds(metadata.atime().max(metadata.mtime())),
        };
        match suspect_from {
            Some(from) if metadata.mtime() >= from => self.suspects.push(found),
            _ => self.good.push(found),
        }
    }

    fn action(&mut self, key: Key, entry: &DirEntry) {
        let Ok(metadata) = entry.metadata() else {
            return;
        };
        self.good.push(Found {
            key,
            blocks: index::blocks(metadata.len()),
            touched: seconds(metadata.atime().max(metadata.mtime())),
        });
    }
}

fn seconds(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}
