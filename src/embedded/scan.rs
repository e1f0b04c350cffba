//! Rebuilds the index from the directory at start: names are digests, access
//! times are recency, and a file whose size is not in its name is removed.
//!
//! Not for: reading contents; files that may have been damaged by a power cut
//! come back as suspects, for `durability.rs` to verify.
//! Called by: `Embedded::open`.

use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::disk::Disk;
use super::index;
use super::key::Key;
use super::store::corrupt;
use crate::digest::DigestFunction;

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
pub(super) fn scan(disk: &Disk, suspect_from: Option<i64>) -> io::Result<Scan> {
    let mut scan = Scan::default();
    for function in DigestFunction::all().iter().copied() {
        let name = function.name().to_lowercase();
        let directory = disk.root().join("cas").join(name);
        each_file(&directory, |entry| {
            let name = entry.file_name();
            let key = name.to_str().and_then(|n| Key::of_blob_file(function, n));
            if let Some(key) = key {
                scan.blob(disk, key, entry, suspect_from);
            }
        })?;
    }
    each_file(&disk.root().join("ac"), |entry| {
        let name = entry.file_name();
        if let Some(key) = name.to_str().and_then(Key::of_action_file) {
            scan.action(key, entry);
        }
    })?;
    scan.good.sort_unstable_by_key(|f| f.touched);
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

/// Calls `f` for the files in the subdirectories of `directory`.
fn each_file(directory: &Path, mut f: impl FnMut(&DirEntry)) -> io::Result<()> {
    let shards = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        shards => shards?,
    };
    for shard in shards {
        let shard = shard?;
        if !shard.file_type()?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(shard.path())? {
            f(&entry?);
        }
    }
    Ok(())
}
