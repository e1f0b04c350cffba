//! A cache of a few maps.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt as _};
use parking_lot::Mutex;

use crate::digest::{Digest, Scope};
use crate::fetcher::Sink;
use crate::upstream::{CallContext, Error};

/// The cache; clones are the same one.
#[derive(Clone, Default)]
pub(super) struct FakeCache {
    pub(super) blobs: Arc<Mutex<HashMap<Digest, Bytes>>>,
    pub(super) small: Arc<AtomicUsize>,
    pub(super) streamed: Arc<AtomicUsize>,
    pub(super) refuses: bool,
    /// As casd does, presence is judged by the hash alone.
    pub(super) ignores_size: bool,
    pub(super) limit: Option<u64>,
}

impl FakeCache {
    pub(super) fn insert(&self, digest: Digest, content: &'static [u8]) {
        self.blobs
            .lock()
            .insert(digest, Bytes::from_static(content));
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.blobs.lock().get(digest).cloned()
    }

    fn has(&self, digest: &Digest) -> bool {
        let blobs = self.blobs.lock();
        if self.ignores_size {
            blobs.keys().any(|k| k.hash() == digest.hash())
        } else {
            blobs.contains_key(digest)
        }
    }

    fn admit(&self) -> Result<(), Error> {
        if self.refuses {
            let status = tonic::Status::permission_denied("no");
            return Err(Error::from_status("FindMissingBlobs", status));
        }
        Ok(())
    }
}

impl Sink for FakeCache {
    async fn max_blob_size(&self, _: &CallContext, _: &Scope) -> Result<Option<u64>, Error> {
        self.admit()?;
        Ok(self.limit)
    }

    async fn missing(
        &self,
        _: &CallContext,
        _: &Scope,
        digests: &[Digest],
    ) -> Result<Vec<Digest>, Error> {
        self.admit()?;
        let missing = digests.iter().filter(|d| !self.has(d));
        Ok(missing.cloned().collect())
    }

    async fn put_small(
        &self,
        _: &CallContext,
        scope: &Scope,
        digest: &Digest,
        content: Bytes,
    ) -> Result<(), Error> {
        self.small.fetch_add(1, Ordering::SeqCst);
        assert_eq!(Digest::of(scope.function, &content).as_ref(), Some(digest));
        self.blobs.lock().insert(digest.clone(), content);
        Ok(())
    }

    async fn put_stream(
        &self,
        _: &CallContext,
        scope: &Scope,
        digest: &Digest,
        content: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), Error> {
        self.streamed.fetch_add(1, Ordering::SeqCst);
        let all = content.try_fold(BytesMut::new(), |mut all, chunk| async move {
            all.extend_from_slice(&chunk);
            Ok(all)
        });
        let all = all
            .await
            .map_err(|e| Error::Source(e.to_string()))?
            .freeze();
        assert_eq!(Digest::of(scope.function, &all).as_ref(), Some(digest));
        self.blobs.lock().insert(digest.clone(), all);
        Ok(())
    }
}
