//! The services through real clients, in process.

mod action_cache;
mod at_hand;
mod byte_stream;
mod cas;
mod limits;
mod restart;
mod trees;

use super::*;
use crate::digest::{Digest, DigestFunction};
use crate::proto::{bytestream as bs, rev2};

use bs::byte_stream_client::ByteStreamClient;
use rev2::action_cache_client::ActionCacheClient;
use rev2::capabilities_client::CapabilitiesClient;
use rev2::content_addressable_storage_client::ContentAddressableStorageClient as CasClient;
use tonic::{Code, Status};

const F: DigestFunction = DigestFunction::Sha256;
const ID: &str = "0c5e9d3c-8b0c-4b5f-9a36-3b6f1c2c6c4e";

/// A cache in a directory that goes with it.
struct Cache {
    dir: tempfile::TempDir,
    embedded: Option<Embedded>,
    max_size: u64,
}

impl Cache {
    fn new() -> Self {
        Self::of_size(1 << 30)
    }

    fn of_size(max_size: u64) -> Self {
        let mut cache = Self {
            dir: tempfile::tempdir().unwrap(),
            embedded: None,
            max_size,
        };
        cache.open();
        cache
    }

    fn settings(&self) -> Settings {
        Settings {
            dir: self.dir.path().to_owned(),
            max_size: self.max_size,
        }
    }

    fn open(&mut self) {
        self.embedded = Some(Embedded::open(self.settings()).unwrap());
    }

    /// As after a `kill -9`: nothing is written at the end.
    fn reopen(&mut self) {
        self.embedded = None;
        self.open();
    }

    fn routes(&self) -> Routes {
        self.embedded.as_ref().unwrap().routes()
    }

    fn inner(&self) -> &Inner {
        &self.embedded.as_ref().unwrap().0
    }

    fn cas(&self) -> CasClient<Routes> {
        CasClient::new(self.routes()).max_decoding_message_size(64 << 20)
    }

    fn byte_stream(&self) -> ByteStreamClient<Routes> {
        ByteStreamClient::new(self.routes())
    }

    fn actions(&self) -> ActionCacheClient<Routes> {
        ActionCacheClient::new(self.routes())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.path().join(key::Key::blob(F, digest).path())
    }

    async fn put(&self, data: &[u8]) -> Digest {
        let digest = Digest::of(F, data).unwrap();
        let statuses = self.update(vec![identity(&digest, data)]).await.unwrap();
        assert_eq!(statuses, [Code::Ok]);
        digest
    }

    async fn put_message(&self, message: &impl prost::Message) -> Digest {
        self.put(&message.encode_to_vec()).await
    }

    async fn update(
        &self,
        requests: Vec<rev2::batch_update_blobs_request::Request>,
    ) -> Result<Vec<Code>, Status> {
        let request = rev2::BatchUpdateBlobsRequest {
            requests,
            ..Default::default()
        };
        let response = self.cas().batch_update_blobs(request).await?.into_inner();
        let responses = response.responses.into_iter();
        Ok(responses.map(|r| r.status.unwrap().code.into()).collect())
    }

    async fn missing(&self, digests: &[&Digest]) -> Vec<rev2::Digest> {
        let request = rev2::FindMissingBlobsRequest {
            blob_digests: digests.iter().map(|d| d.to_wire()).collect(),
            ..Default::default()
        };
        let response = self.cas().find_missing_blobs(request).await.unwrap();
        response.into_inner().missing_blob_digests
    }

    async fn is_missing(&self, digest: &Digest) -> bool {
        !self.missing(&[digest]).await.is_empty()
    }

    async fn read(&self, name: String, offset: i64, limit: i64) -> Result<Vec<u8>, Status> {
        let request = bs::ReadRequest {
            resource_name: name,
            read_offset: offset,
            read_limit: limit,
        };
        let mut messages = self.byte_stream().read(request).await?.into_inner();
        let mut data = Vec::new();
        while let Some(message) = messages.message().await? {
            assert!(!message.data.is_empty() && message.data.len() <= 256 << 10);
            data.extend_from_slice(&message.data);
        }
        Ok(data)
    }

    async fn get(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        let name = format!("blobs/{}", digest.resource_name(F));
        self.read(name, 0, 0).await
    }

    async fn write(&self, messages: Vec<bs::WriteRequest>) -> Result<i64, Status> {
        let messages = futures_util::stream::iter(messages);
        let response = self.byte_stream().write(messages).await?;
        Ok(response.into_inner().committed_size)
    }
}

fn identity(digest: &Digest, data: &[u8]) -> rev2::batch_update_blobs_request::Request {
    rev2::batch_update_blobs_request::Request {
        digest: Some(digest.to_wire()),
        data: data.to_vec().into(),
        compressor: 0,
    }
}

/// Bytes that compress a little and differ by `seed`.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8 & 0x7f
    };
    (0..length).map(|_| next()).collect()
}

fn absent(seed: u32) -> Digest {
    Digest::of(F, &noise(seed, 77)).unwrap()
}

#[tokio::test]
async fn r10_capabilities() {
    let cache = Cache::new();
    let mut client = CapabilitiesClient::new(cache.routes());
    let request = rev2::GetCapabilitiesRequest {
        instance_name: "a/b".into(),
    };
    let all = client.get_capabilities(request).await.unwrap().into_inner();
    let low = all.low_api_version.unwrap();
    assert_eq!((low.major, low.minor), (2, 0), "Bazel 4 speaks 2.0 exactly");
    assert!(all.high_api_version.unwrap().minor >= 3);
    assert!(all.execution_capabilities.is_none_or(|e| !e.exec_enabled));
    let caps = all.cache_capabilities.unwrap();
    assert!(
        caps.action_cache_update_capabilities
            .unwrap()
            .update_enabled
    );
    assert_eq!(caps.digest_functions.len(), 6);
    assert_eq!(caps.max_batch_total_size_bytes, (4 << 20) - (256 << 10));
    assert_eq!(caps.max_cas_blob_size_bytes, 1 << 30);
    let zstd = [i32::from(rev2::compressor::Value::Zstd)];
    assert_eq!(caps.supported_compressors, zstd);
    assert_eq!(caps.supported_batch_update_compressors, zstd);
    assert_eq!(caps.symlink_absolute_path_strategy, 2);
    assert!(!caps.split_blob_support && !caps.splice_blob_support);

    let request = rev2::GetCapabilitiesRequest {
        instance_name: "a/blobs".into(),
    };
    let error = client.get_capabilities(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn every_digest_function_works() {
    let cache = Cache::new();
    for function in request::ANNOUNCED {
        let data = function.name().as_bytes();
        let digest = Digest::of(function, data).unwrap();
        // Only what may be omitted is, as clients do.
        let wire = if function.may_be_omitted() {
            0
        } else {
            function.to_wire()
        };
        let request = rev2::BatchUpdateBlobsRequest {
            requests: vec![identity(&digest, data)],
            digest_function: wire,
            ..Default::default()
        };
        let updated = cache.cas().batch_update_blobs(request).await.unwrap();
        let status = updated.into_inner().responses.remove(0).status.unwrap();
        assert_eq!(status.code, 0, "{function}: {}", status.message);
        let request = rev2::FindMissingBlobsRequest {
            blob_digests: vec![digest.to_wire()],
            digest_function: wire,
            ..Default::default()
        };
        let found = cache.cas().find_missing_blobs(request).await.unwrap();
        assert!(found.into_inner().missing_blob_digests.is_empty());
        let name = format!("blobs/{}", digest.resource_name(function));
        assert_eq!(cache.read(name, 0, 0).await.unwrap(), data, "{function}");
    }
    assert_eq!(cache.inner().store.usage().1, request::ANNOUNCED.len());
}
