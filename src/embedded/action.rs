//! Action Cache entries as files, and whether all that an entry names is
//! stored.
//!
//! An entry is written with a checksum over its key and its bytes, so that a
//! torn, damaged or misplaced file is a miss. It is complete if every output
//! file, every Tree with all files in it, stdout and stderr are stored and,
//! where `root_directory_digest` is set, every Directory too; all of them are
//! used by the check, so entry and content stay together.
//!
//! Not for: the service (`action_cache.rs`).
//! Called by: `action_cache.rs`.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::key::Key;
use super::store::{Error, Store, gone_or_broken};
use crate::digest::DigestFunction;
use crate::proto::{self, rev2};

const MAGIC: &[u8; 8] = b"AGAC0001";
const HEADER: usize = MAGIC.len() + 32;

/// Most bytes of Trees one check reads; an entry beyond is a miss.
pub(super) const MAX_TREES: u64 = 64 << 20;

fn checksum(key: &Key, payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key.bytes());
    *hasher.update(payload).finalize().as_bytes()
}

/// Writes an entry; the last write wins.
pub(super) fn write(store: &Arc<Store>, key: Key, payload: &[u8]) -> Result<(), Error> {
    let size = (HEADER + payload.len()) as u64;
    let reserved = store.reserve(size)?;
    let mut temp = store.disk.temp()?;
    let mut file = Vec::with_capacity(HEADER + payload.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&checksum(&key, payload));
    file.extend_from_slice(payload);
    store.disk.write(&mut temp, &file)?;
    store.publish(key, &temp, size, reserved)
}

/// Reads an entry, and says how many bytes it has. `None` if there is none that
/// can be trusted.
pub(super) fn read(store: &Store, key: &Key) -> Option<(rev2::ActionResult, usize)> {
    if !store.touch(key) {
        return None;
    }
    match load(key, &store.disk.path(key)) {
        Ok(None) => {
            store.forget(key, |path| matches!(load(key, path), Ok(None)));
            None
        }
        Ok(entry) => entry,
        Err(error) => {
            tracing::error!(%error, "a stored action result cannot be read");
            None
        }
    }
}

/// The entry in a file; `None` if the file is gone or damaged, an error if
/// that cannot be told just now.
fn load(key: &Key, path: &Path) -> io::Result<Option<(rev2::ActionResult, usize)>> {
    match fs::read(path) {
        Err(e) if gone_or_broken(&e) => Ok(None),
        file => Ok(parse(key, file?.into())),
    }
}

fn parse(key: &Key, file: Bytes) -> Option<(rev2::ActionResult, usize)> {
    let rest = file.strip_prefix(MAGIC)?;
    let (sum, payload) = rest.split_at_checked(HEADER - MAGIC.len())?;
    if *sum != checksum(key, payload) {
        return None;
    }
    let length = payload.len();
    let result = proto::decode(file.slice(HEADER..), proto::MAX_DECODED).ok()?;
    Some((result, length))
}

/// Calls `f` with the number and the bytes of each field of a message that
/// holds bytes. `None` if the message is malformed, or `f` says so.
///
/// Decoding takes dozens of bytes of memory for each two of a message made
/// for that; this takes none.
fn each_field<'a>(
    mut rest: &'a [u8],
    mut f: impl FnMut(u32, &'a [u8]) -> Option<()>,
) -> Option<()> {
    while !rest.is_empty() {
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        if wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let (field, after) = rest.split_at_checked(length)?;
            rest = after;
            f(number, field)?;
        } else {
            let context = DecodeContext::default();
            skip_field(wire_type, number, &mut rest, context).ok()?;
        }
    }
    Some(())
}

/// A Digest without a copy of its hash.
#[derive(Clone, PartialEq, Message)]
struct NodeDigest {
    #[prost(bytes = "bytes", tag = "1")]
    hash: Bytes,
    #[prost(int64, tag = "2")]
    size_bytes: i64,
}

/// Whether all that `result` names is stored; if so, all of it was used.
pub(super) fn is_complete(
    store: &Store,
    function: DigestFunction,
    result: &rev2::ActionResult,
) -> bool {
    Check {
        store,
        function,
        keys: Vec::new(),
        tree_bytes: 0,
    }
    .result(result)
    .is_some()
}

/// The most that a check of `result` holds in memory besides it: its largest
/// Tree.
pub(super) fn check_bytes(result: &rev2::ActionResult) -> u64 {
    let trees = result.output_directories.iter();
    let sizes = trees.filter_map(|d| u64::try_from(d.tree_digest.as_ref()?.size_bytes).ok());
    sizes.max().unwrap_or_default().min(MAX_TREES)
}

/// What has to be stored for a result that names no directories to be
/// complete, as [`is_complete`] has it; `None` for any other result.
pub(super) fn files(function: DigestFunction, result: &rev2::ActionResult) -> Option<Vec<Key>> {
    if !result.output_directories.is_empty() {
        return None;
    }
    let files = result.output_files.iter().map(|file| file.digest.as_ref());
    let streams = [&result.stdout_digest, &result.stderr_digest];
    let streams = streams.into_iter().filter_map(Option::as_ref).map(Some);
    let keys = files.chain(streams).map(|digest| {
        let digest = digest?;
        let size = u64::try_from(digest.size_bytes).ok()?;
        Key::from_hex(function, digest.hash.as_bytes(), size)
    });
    let keys = keys.collect::<Option<Vec<Key>>>()?;
    Some(keys.into_iter().filter(|key| key.size() > 0).collect())
}

struct Check<'a> {
    store: &'a Store,
    function: DigestFunction,
    keys: Vec<Key>,
    tree_bytes: u64,
}

/// `None` means incomplete.
impl Check<'_> {
    fn result(mut self, result: &rev2::ActionResult) -> Option<()> {
        for file in &result.output_files {
            self.want_wire(Some(file.digest.as_ref()?))?;
        }
        self.want_wire(result.stdout_digest.as_ref())?;
        self.want_wire(result.stderr_digest.as_ref())?;
        for directory in &result.output_directories {
            self.directory(directory)?;
        }
        self.flush()
    }

    fn directory(&mut self, directory: &rev2::OutputDirectory) -> Option<()> {
        let with_directories = directory.root_directory_digest.is_some();
        self.want_wire(directory.root_directory_digest.as_ref())?;
        // Without a Tree there is nothing to walk but the Directories, which
        // REv2 permits only as an addition.
        let tree = directory.tree_digest.as_ref()?;
        let key = self.key(tree.hash.as_bytes(), tree.size_bytes)?;
        self.tree_bytes += key.size();
        if self.tree_bytes > MAX_TREES {
            tracing::info!("an action result names Trees too large to check; it is a miss");
            return None;
        }
        if key.size() == 0 {
            return Some(());
        }
        let tree = Bytes::from(self.store.read_known(&key)?);
        // Tree: root = 1, children = 2. Directory: files = 1, directories = 2.
        each_field(&tree, |number, directory| match number {
            1 | 2 => each_field(directory, |number, node| match number {
                1 => self.node(&tree, node),
                2 if with_directories => self.node(&tree, node),
                _ => Some(()),
            }),
            _ => Some(()),
        })
    }

    /// A `FileNode` or `DirectoryNode` within `tree`: digest = 2.
    fn node(&mut self, tree: &Bytes, node: &[u8]) -> Option<()> {
        let mut digests = 0;
        each_field(node, |number, digest| {
            if number != 2 {
                return Some(());
            }
            digests += 1;
            self.want(&NodeDigest::decode(tree.slice_ref(digest)).ok()?)
        })?;
        (digests > 0).then_some(())
    }

    fn want_wire(&mut self, digest: Option<&rev2::Digest>) -> Option<()> {
        match digest {
            None => Some(()),
            Some(digest) => self.want_key(digest.hash.as_bytes(), digest.size_bytes),
        }
    }

    fn want(&mut self, digest: &NodeDigest) -> Option<()> {
        self.want_key(&digest.hash, digest.size_bytes)
    }

    fn want_key(&mut self, hash: &[u8], size: i64) -> Option<()> {
        let key = self.key(hash, size)?;
        if key.size() > 0 {
            self.keys.push(key);
        }
        // Short locks, and an incomplete result is found early.
        if self.keys.len() < 1024 {
            return Some(());
        }
        self.flush()
    }

    fn key(&self, hash: &[u8], size: i64) -> Option<Key> {
        Key::from_hex(self.function, hash, u64::try_from(size).ok()?)
    }

    fn flush(&mut self) -> Option<()> {
        let found = self.store.look_at_all(&self.keys);
        let complete = found == self.keys.len();
        self.keys.clear();
        complete.then_some(())
    }
}
