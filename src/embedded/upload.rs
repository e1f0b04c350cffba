//! One blob on its way into the store: hashed as it is written, published
//! only if hash and size are those of its digest.
//!
//! Space is reserved as bytes arrive, not when an upload is announced, so
//! that an announcement alone evicts nothing.
//!
//! Not for: the protocol around it (`write.rs`, `cas.rs`).
//! Called by: `write.rs`, `cas.rs`.

use std::sync::Arc;

use super::disk::Temp;
use super::key::Key;
use super::room::Room;
use super::store::{Error, Reservation, Store};
use crate::digest::{Digest, DigestFunction, Hasher};

/// An unfinished blob. Its methods block on the disk.
#[derive(Debug)]
pub(super) struct Upload {
    store: Arc<Store>,
    digest: Digest,
    key: Key,
    hasher: Hasher,
    temp: Option<Temp>,
    reserved: Reservation,
    /// What it may take while it is unfinished.
    pub(super) room: Room,
}

impl Upload {
    /// Begins an upload. Touches no disk yet.
    pub(super) fn new(
        store: &Arc<Store>,
        function: DigestFunction,
        digest: &Digest,
        room: Room,
    ) -> Result<Self, Error> {
        let (size, max) = (digest.size(), store.max_size());
        if size > max {
            return Err(Error::TooLarge { size, max });
        }
        Ok(Self {
            key: Key::blob(function, digest),
            digest: digest.clone(),
            hasher: Hasher::new(function).ok_or(Error::Function(function))?,
            temp: None,
            reserved: store.reserve(0)?,
            room,
            store: Arc::clone(store),
        })
    }

    /// How far it is after `more` bytes, if they are of the blob.
    pub(super) fn after(&self, more: u64) -> u64 {
        self.written().saturating_add(more).min(self.digest.size())
    }

    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.hasher.size()
    }

    /// Sets space aside for the upload to be so far. After a `NoRoom` the call
    /// may be repeated.
    pub(super) fn reserve(&mut self, end: u64) -> Result<(), Error> {
        self.reserved.grow_to(end)
    }

    /// Appends. After an error the upload is of no use.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = self.written() + bytes.len() as u64;
        if end > self.digest.size() {
            return Err(Error::TooLong(self.digest.size()));
        }
        self.reserved.grow_to(end)?;
        let disk = &self.store.disk;
        let temp = match &mut self.temp {
            Some(temp) => temp,
            none => none.insert(disk.temp()?),
        };
        disk.write(temp, bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Checks and publishes what was written.
    pub(super) fn finish(self) -> Result<(), Error> {
        let got = self.hasher.finish();
        if got != self.digest {
            let want = self.digest;
            return Err(Error::Mismatch { want, got });
        }
        // The empty blob has no file: it is there without being stored.
        let Some(temp) = self.temp else { return Ok(()) };
        self.store
            .publish(self.key, &temp, got.size(), self.reserved)
    }
}

/// Stores a blob that is in memory.
pub(super) fn store_blob(
    store: &Arc<Store>,
    function: DigestFunction,
    digest: &Digest,
    bytes: &[u8],
) -> Result<(), Error> {
    let got = Digest::of(function, bytes).ok_or(Error::Function(function))?;
    if got != *digest {
        let want = digest.clone();
        return Err(Error::Mismatch { want, got });
    }
    let key = Key::blob(function, digest);
    if bytes.is_empty() || store.touch(&key) {
        return Ok(());
    }
    let reserved = store.reserve(got.size())?;
    let mut temp = store.disk.temp()?;
    store.disk.write(&mut temp, bytes)?;
    store.publish(key, &temp, got.size(), reserved)
}
