//! A cache of one map that knows every digest function, for the fetcher: the
//! typed client and its wire format are the real ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use tonic::{Request, Response, Status, Streaming};
use tower::Service as _;

use crate::digest::{Digest, DigestFunction};
use crate::fetcher::fetch::PROBE;
use crate::proto::{bytestream, rev2};
use crate::upstream::{Cache, Upstream};

/// The cache; clones are the same one.
#[derive(Clone, Default)]
pub(super) struct FakeCache {
    pub(super) blobs: Arc<Mutex<HashMap<Digest, Bytes>>>,
    /// Blobs written in a batch, and as a stream.
    pub(super) small: Arc<AtomicUsize>,
    pub(super) streamed: Arc<AtomicUsize>,
    /// Times it was asked what it lacks.
    pub(super) asked: Arc<AtomicUsize>,
    pub(super) refuses: bool,
    /// As casd does, presence is judged by the hash alone.
    pub(super) ignores_size: bool,
    pub(super) limit: i64,
    pub(super) refuses_writes: bool,
    /// Answers a stream that it has the content before it has come.
    pub(super) ends_early: bool,
    /// Acknowledges writes and keeps nothing.
    pub(super) forgets: bool,
}

impl FakeCache {
    pub(super) fn client(&self) -> Cache {
        use bytestream::byte_stream_server::ByteStreamServer;
        use rev2::capabilities_server::CapabilitiesServer;
        use rev2::content_addressable_storage_server::ContentAddressableStorageServer;
        let cas = ContentAddressableStorageServer::new(self.clone());
        let routes = tonic::service::Routes::new(cas)
            .add_service(CapabilitiesServer::new(self.clone()))
            .add_service(ByteStreamServer::new(self.clone()));
        let service = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
            let mut routes = routes.clone();
            async move { routes.call(request).await.map_err(|e| match e {}) }
        });
        Cache::new(Upstream::new(service))
    }

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

    fn store(&self, function: DigestFunction, digest: Digest, content: Bytes) {
        assert_eq!(Digest::of(function, &content).as_ref(), Some(&digest));
        if !self.forgets {
            self.blobs.lock().insert(digest, content);
        }
    }
}

fn digest(function: i32, wire: Option<&rev2::Digest>) -> (DigestFunction, Digest) {
    let hash = wire.map_or(0, |d| d.hash.len());
    let function = DigestFunction::from_wire(function).unwrap();
    let function = function.unwrap_or_else(|| DigestFunction::infer(hash, &[]).unwrap());
    (function, Digest::from_wire(function, wire).unwrap())
}

#[tonic::async_trait]
impl rev2::content_addressable_storage_server::ContentAddressableStorage for FakeCache {
    type GetTreeStream = BoxStream<'static, Result<rev2::GetTreeResponse, Status>>;

    async fn find_missing_blobs(
        &self,
        request: Request<rev2::FindMissingBlobsRequest>,
    ) -> Result<Response<rev2::FindMissingBlobsResponse>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        let mut missing_blob_digests = request.blob_digests;
        let function = request.digest_function;
        missing_blob_digests.retain(|wire| !self.has(&digest(function, Some(wire)).1));
        Ok(Response::new(rev2::FindMissingBlobsResponse {
            missing_blob_digests,
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<rev2::BatchUpdateBlobsRequest>,
    ) -> Result<Response<rev2::BatchUpdateBlobsResponse>, Status> {
        if self.refuses {
            return Err(Status::permission_denied("not you"));
        }
        let request = request.into_inner();
        let mut answer = rev2::BatchUpdateBlobsResponse::default();
        for item in request.requests {
            let (function, digest) = digest(request.digest_function, item.digest.as_ref());
            // That every fetch asks whether it may write is not what is counted.
            if item.data != PROBE {
                self.small.fetch_add(1, Ordering::SeqCst);
                self.store(function, digest, item.data);
            }
            let response = rev2::batch_update_blobs_response::Response {
                digest: item.digest,
                status: Some(tonic_types::Status::default()),
            };
            answer.responses.push(response);
        }
        Ok(Response::new(answer))
    }

    async fn batch_read_blobs(
        &self,
        _: Request<rev2::BatchReadBlobsRequest>,
    ) -> Result<Response<rev2::BatchReadBlobsResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn get_tree(
        &self,
        _: Request<rev2::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn split_blob(
        &self,
        _: Request<rev2::SplitBlobRequest>,
    ) -> Result<Response<rev2::SplitBlobResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn splice_blob(
        &self,
        _: Request<rev2::SpliceBlobRequest>,
    ) -> Result<Response<rev2::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

#[tonic::async_trait]
impl rev2::capabilities_server::Capabilities for FakeCache {
    async fn get_capabilities(
        &self,
        _: Request<rev2::GetCapabilitiesRequest>,
    ) -> Result<Response<rev2::ServerCapabilities>, Status> {
        let functions = DigestFunction::all().iter();
        // All but MD5, so that there is one that Assetgate knows and this cache does not.
        let functions = functions.filter(|f| **f != DigestFunction::Md5);
        Ok(Response::new(rev2::ServerCapabilities {
            cache_capabilities: Some(rev2::CacheCapabilities {
                digest_functions: functions.map(|f| f.to_wire()).collect(),
                max_cas_blob_size_bytes: self.limit,
                ..Default::default()
            }),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl bytestream::byte_stream_server::ByteStream for FakeCache {
    type ReadStream = BoxStream<'static, Result<bytestream::ReadResponse, Status>>;

    async fn read(
        &self,
        request: Request<bytestream::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let name = request.into_inner().resource_name;
        let mut parts = name.rsplit('/');
        let (size, hash) = (parts.next().unwrap(), parts.next().unwrap());
        let wire = rev2::Digest {
            hash: hash.to_owned(),
            size_bytes: size.parse().unwrap(),
        };
        let blob = self.get(&digest(0, Some(&wire)).1);
        let data = blob.ok_or_else(|| Status::not_found("no such blob"))?;
        let part = bytestream::ReadResponse { data };
        Ok(Response::new(Box::pin(futures_util::stream::iter([Ok(
            part,
        )]))))
    }

    async fn write(
        &self,
        request: Request<Streaming<bytestream::WriteRequest>>,
    ) -> Result<Response<bytestream::WriteResponse>, Status> {
        if self.refuses_writes {
            return Err(Status::resource_exhausted("full"));
        }
        let mut stream = request.into_inner();
        if self.ends_early {
            let first = stream.message().await?.unwrap_or_default().resource_name;
            let size = first.rsplit('/').next().unwrap();
            let committed_size = size.parse().unwrap();
            return Ok(Response::new(bytestream::WriteResponse { committed_size }));
        }
        let mut name = String::new();
        let mut content = BytesMut::new();
        while let Some(message) = stream.message().await? {
            if name.is_empty() {
                name = message.resource_name;
            }
            content.extend_from_slice(&message.data);
        }
        self.streamed.fetch_add(1, Ordering::SeqCst);
        let (_, hash) = name.split_once("/blobs/").unwrap();
        let (hash, size) = hash.rsplit_once('/').unwrap();
        let wire = rev2::Digest {
            hash: hash.to_owned(),
            size_bytes: size.parse().unwrap(),
        };
        let (function, digest) = digest(0, Some(&wire));
        self.store(function, digest, content.freeze());
        let committed_size = wire.size_bytes;
        Ok(Response::new(bytestream::WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<bytestream::QueryWriteStatusRequest>,
    ) -> Result<Response<bytestream::QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}
