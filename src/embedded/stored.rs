//! Stored files opened, read and looked at, so that none that was changed is
//! taken for what it was.
//!
//! What is read as a whole is hashed each time, the hottest blob too: only so
//! is a byte found that changed under an unchanged file time, as on a failing
//! disk. That costs no more than as much again as the read
//! (docs/embedded-cache.md has the figures). Of what is read in part the
//! file is hashed before, unless it is the very one that was found right
//! before. A file found wrong is removed, and counted: the next write brings
//! it back.
//!
//! Not for: writing (`store.rs`), the hashing itself (`verify.rs`).
//! Called by: `read.rs`, `cas.rs`, `tree.rs`, `action.rs`.

use std::fs::File;
use std::io::Read as _;

use super::index;
use super::key::Key;
use super::store::{Store, gone_or_broken};
use super::verify::{self, Stamp};

impl Store {
    /// Uses the keys that are stored and says how many are, once their files
    /// were looked at where it is time to.
    pub(super) fn look_at_all(&self, keys: &[Key]) -> usize {
        let mut found = 0;
        let mut due = false;
        self.touch_each(keys, |_, age| {
            found += usize::from(age.is_some());
            due |= age.is_some_and(|age| age >= index::LOOK_EVERY);
        });
        match due {
            true => found.saturating_sub(self.look(keys)),
            false => found,
        }
    }

    /// Looks at those files for which it is time; says how many are not there,
    /// or not whole. They are stored no more.
    pub(super) fn look(&self, keys: &[Key]) -> usize {
        let now = index::now();
        let mut gone = 0;
        for key in keys {
            if !self.index.lock().claim_look(key, now) {
                continue;
            }
            let there = match self.disk.path(key).metadata() {
                Ok(file) => key.is_action() || file.len() == key.size(),
                Err(error) => !gone_or_broken(&error),
            };
            if !there {
                gone += 1;
                self.forget_broken(key);
            }
        }
        gone
    }

    /// Opens a blob. `None` if it is not stored, or not of its size. Its bytes
    /// are yet to be verified: whoever finds them wrong says so to
    /// [`Store::forget_file`].
    pub(super) fn open(&self, key: &Key) -> Option<(File, Stamp)> {
        if !self.touch(key) {
            return None;
        }
        let opened = File::open(self.disk.path(key)).and_then(|file| {
            let stamp = Stamp::of(&file.metadata()?);
            Ok((file, stamp))
        });
        match opened {
            Ok((file, stamp)) if stamp.size() == key.size() => return Some((file, stamp)),
            Err(e) if !gone_or_broken(&e) => {
                tracing::error!(error = %e, "a stored blob cannot be opened");
                return None;
            }
            _ => {}
        }
        self.forget_broken(key);
        None
    }

    /// Opens a blob of which a part is read. `None` as in [`Store::read`].
    pub(super) fn open_verified(&self, key: &Key) -> Option<File> {
        let (file, stamp) = self.open(key)?;
        if self.verified.knows(key, &stamp) {
            return Some(file);
        }
        match verify::is_right(key, &file) {
            Ok(true) => {
                self.verified.remember(*key, stamp);
                Some(file)
            }
            Ok(false) => {
                self.forget_file(key, &stamp);
                None
            }
            Err(error) => {
                tracing::error!(%error, "a stored blob cannot be read");
                None
            }
        }
    }

    /// Reads a whole blob. `None` if it is not stored, or damaged.
    pub(super) fn read(&self, key: &Key) -> Option<Vec<u8>> {
        self.read_all(key, false)
    }

    /// The same, but a file that is the one found right before is not hashed
    /// again.
    pub(super) fn read_known(&self, key: &Key) -> Option<Vec<u8>> {
        self.read_all(key, true)
    }

    fn read_all(&self, key: &Key, trust: bool) -> Option<Vec<u8>> {
        let (mut file, stamp) = self.open(key)?;
        let mut bytes = Vec::with_capacity(usize::try_from(key.size()).ok()?);
        if let Err(error) = file.read_to_end(&mut bytes) {
            tracing::error!(%error, "a stored blob cannot be read");
            return None;
        }
        if trust && self.verified.knows(key, &stamp) {
            return Some(bytes);
        }
        if !verify::are_right(key, &bytes) {
            self.forget_file(key, &stamp);
            return None;
        }
        if trust {
            self.verified.remember(*key, stamp);
        }
        Some(bytes)
    }

    /// A whole blob was read and was right.
    pub(super) fn found_right(&self, key: Key, stamp: Stamp) {
        self.verified.remember(key, stamp);
    }

    /// Removes the file that was opened as a blob and found wrong.
    pub(super) fn forget_file(&self, key: &Key, opened: &Stamp) {
        self.forget(key, |path| match path.metadata() {
            Ok(metadata) => Stamp::of(&metadata).same_file(opened),
            Err(error) => gone_or_broken(&error),
        });
    }
}
