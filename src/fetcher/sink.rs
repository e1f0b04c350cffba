//! What fetching needs of the cache, and no more.
//!
//! Not for: how blobs travel (`upstream::Cache`).
//! Called by: `fetch`; implemented for the typed client and for the fake of
//! the tests.

use std::future::Future;
use std::io;

use bytes::Bytes;
use futures_util::Stream;

use crate::digest::{Digest, Scope};
use crate::upstream::{CallContext, Error};

/// Where fetched content goes.
pub trait Sink: Send + Sync + 'static {
    /// The largest blob the cache takes; `None` if it names no limit.
    fn max_blob_size(
        &self,
        context: &CallContext,
        scope: &Scope,
    ) -> impl Future<Output = Result<Option<u64>, Error>> + Send;

    /// Those of `digests` that are not there.
    fn missing(
        &self,
        context: &CallContext,
        scope: &Scope,
        digests: &[Digest],
    ) -> impl Future<Output = Result<Vec<Digest>, Error>> + Send;

    /// Writes a blob that is in memory.
    fn put_small(
        &self,
        context: &CallContext,
        scope: &Scope,
        digest: &Digest,
        content: Bytes,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Writes a blob as it is read.
    fn put_stream(
        &self,
        context: &CallContext,
        scope: &Scope,
        digest: &Digest,
        content: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}
