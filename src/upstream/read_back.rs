//! Content read back to be hashed: as a stream, part by part, and held against
//! the digest it was asked for by.
//!
//! Not for: whether a hash is one that somebody wants (`store`, `fetcher`).
//! Called by: `store`, `fetcher`.

use super::{Cache, CallContext, Error};
use crate::asset::{Algorithm, Checksum};
use crate::digest::{Digest, Hasher, Scope};

impl Cache {
    /// The hashes of a blob; `None` if it is absent.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if what came does not have the digest, as far as its
    /// function can be computed; and when the cache fails.
    pub async fn hashes(
        &self,
        context: &CallContext,
        scope: &Scope,
        digest: &Digest,
        algorithms: &[Algorithm],
    ) -> Result<Option<Vec<Checksum>>, Error> {
        let mut own = Hasher::new(scope.function);
        let others = algorithms.iter().filter_map(|algorithm| {
            let hasher = Hasher::new(algorithm.function())?;
            Some((*algorithm, hasher))
        });
        let mut others: Vec<(Algorithm, Hasher)> = others.collect();
        let mut size = 0;
        let each = |part: &[u8]| {
            size += part.len() as u64;
            let hashers = others.iter_mut().map(|(_, hasher)| hasher);
            hashers
                .chain(&mut own)
                .for_each(|hasher| hasher.update(part));
        };
        if !self.read_each(context, scope, digest, each).await? {
            return Ok(None);
        }
        let differs = |own: Hasher| own.finish() != *digest;
        if size != digest.size() || own.is_some_and(differs) {
            return Err(Error::Corrupt(digest.clone()));
        }
        let hashes = others.into_iter();
        let hashes = hashes.filter_map(|(a, hasher)| Checksum::new(a, &hasher.finish_raw()));
        Ok(Some(hashes.collect()))
    }
}
