//! A gRPC client of everything behind the one address.

use std::time::Duration;

use assetgate::proto::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse,
    PushBlobRequest, PushBlobResponse, PushDirectoryRequest, PushDirectoryResponse,
    fetch_client::FetchClient, push_client::PushClient,
};
use assetgate::proto::bytestream::byte_stream_client::ByteStreamClient;
use assetgate::proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, WriteRequest, WriteResponse,
};
use assetgate::proto::rev2::action_cache_client::ActionCacheClient;
use assetgate::proto::rev2::capabilities_client::CapabilitiesClient;
use assetgate::proto::rev2::content_addressable_storage_client::ContentAddressableStorageClient;
use assetgate::proto::rev2::{
    ActionResult, BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest,
    BatchUpdateBlobsResponse, Digest, FindMissingBlobsRequest, FindMissingBlobsResponse,
    GetActionResultRequest, GetCapabilitiesRequest, GetTreeRequest, RequestMetadata,
    ServerCapabilities, ToolDetails, UpdateActionResultRequest, batch_update_blobs_request,
};
use bytes::Bytes;
use prost::Message as _;
use tonic::metadata::{AsciiMetadataKey, BinaryMetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::{bounded, digest_of};

/// One connection, and the metadata every call carries.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    metadata: MetadataMap,
}

macro_rules! unary {
    ($name:ident, $client:ident, $request:ty, $response:ty) => {
        pub async fn $name(&self, message: $request) -> Result<$response, Status> {
            let mut client = self.$client();
            let call = answered(client.$name(self.request(message)));
            call.await.map(Response::into_inner)
        }
    };
}

async fn answered<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    bounded("an answer", call).await
}

impl Client {
    pub async fn connect(url: &str) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
        Self::over(bounded("a connection", endpoint.connect()).await.unwrap())
    }

    pub async fn connect_tls(
        url: &str,
        tls: ClientTlsConfig,
    ) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(url.to_owned())?.tls_config(tls)?;
        bounded("a connection", endpoint.connect())
            .await
            .map(Self::over)
    }

    pub fn over(channel: Channel) -> Self {
        Self {
            channel,
            metadata: MetadataMap::new(),
        }
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The same with one more metadata entry; `-bin` ones take any bytes.
    pub fn with(&self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let mut more = self.clone();
        if name.ends_with("-bin") {
            let key = BinaryMetadataKey::from_bytes(name.as_bytes()).unwrap();
            more.metadata
                .append_bin(key, MetadataValue::from_bytes(value.as_ref()));
        } else {
            let key = AsciiMetadataKey::from_bytes(name.as_bytes()).unwrap();
            let value = MetadataValue::try_from(value.as_ref()).unwrap();
            more.metadata.append(key, value);
        }
        more
    }

    /// The same, calling itself this tool.
    pub fn tool(&self, name: &str, version: &str) -> Self {
        let metadata = RequestMetadata {
            tool_details: Some(ToolDetails {
                tool_name: name.into(),
                tool_version: version.into(),
            }),
            ..Default::default()
        };
        let key = "build.bazel.remote.execution.v2.requestmetadata-bin";
        self.with(key, metadata.encode_to_vec())
    }

    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        request
    }

    pub fn fetch(&self) -> FetchClient<Channel> {
        FetchClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    pub fn push(&self) -> PushClient<Channel> {
        PushClient::new(self.channel())
    }

    pub fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    pub fn ac(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel())
    }

    pub fn capabilities_client(&self) -> CapabilitiesClient<Channel> {
        CapabilitiesClient::new(self.channel())
    }

    pub fn bytestream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    unary!(fetch_blob, fetch, FetchBlobRequest, FetchBlobResponse);
    unary!(
        fetch_directory,
        fetch,
        FetchDirectoryRequest,
        FetchDirectoryResponse
    );
    unary!(push_blob, push, PushBlobRequest, PushBlobResponse);
    unary!(
        push_directory,
        push,
        PushDirectoryRequest,
        PushDirectoryResponse
    );
    unary!(
        find_missing_blobs,
        cas,
        FindMissingBlobsRequest,
        FindMissingBlobsResponse
    );
    unary!(
        batch_update_blobs,
        cas,
        BatchUpdateBlobsRequest,
        BatchUpdateBlobsResponse
    );
    unary!(
        batch_read_blobs,
        cas,
        BatchReadBlobsRequest,
        BatchReadBlobsResponse
    );
    unary!(get_action_result, ac, GetActionResultRequest, ActionResult);
    unary!(
        update_action_result,
        ac,
        UpdateActionResultRequest,
        ActionResult
    );
    unary!(
        get_capabilities,
        capabilities_client,
        GetCapabilitiesRequest,
        ServerCapabilities
    );
    unary!(
        query_write_status,
        bytestream,
        QueryWriteStatusRequest,
        QueryWriteStatusResponse
    );

    /// A FetchBlob with the metadata and trailers of its answer.
    pub async fn fetch_blob_in_full(
        &self,
        message: FetchBlobRequest,
    ) -> Result<Response<FetchBlobResponse>, Status> {
        answered(self.fetch().fetch_blob(self.request(message))).await
    }

    /// Asks with a deadline that passes before there is an answer.
    pub async fn fetch_blob_in_vain(&self, message: FetchBlobRequest, deadline: Duration) {
        let mut call = self.request(message);
        call.set_timeout(deadline);
        let code = self.fetch().fetch_blob(call).await.unwrap_err().code();
        // The second is what tonic's client says if it is the first to notice.
        let late = matches!(code, Code::DeadlineExceeded | Code::Cancelled);
        assert!(late, "{code:?}");
    }

    /// Stores a blob in the default instance, in one message.
    pub async fn upload(&self, blob: &[u8]) -> Digest {
        self.upload_all(&[blob.to_vec()]).await;
        digest_of(blob)
    }

    /// Stores blobs in the default instance, in one message.
    pub async fn upload_all(&self, blobs: &[Vec<u8>]) {
        let requests = blobs
            .iter()
            .map(|blob| batch_update_blobs_request::Request {
                digest: Some(digest_of(blob)),
                data: Bytes::copy_from_slice(blob),
                ..Default::default()
            });
        let request = BatchUpdateBlobsRequest {
            requests: requests.collect(),
            ..Default::default()
        };
        let answer = self.batch_update_blobs(request).await.unwrap();
        for response in answer.responses {
            assert_eq!(
                response.status.as_ref().map_or(0, |s| s.code),
                0,
                "{response:?}"
            );
        }
    }

    /// The digests of these that are not in the CAS of the default instance.
    pub async fn missing(&self, digests: &[Digest]) -> Vec<Digest> {
        let request = FindMissingBlobsRequest {
            blob_digests: digests.to_vec(),
            ..Default::default()
        };
        let answer = self.find_missing_blobs(request).await.unwrap();
        answer.missing_blob_digests
    }

    /// `ByteStream.Read` from the start to the end.
    pub async fn read(&self, resource_name: &str) -> Result<Vec<u8>, Status> {
        self.read_part(resource_name, 0, 0).await
    }

    pub async fn read_part(
        &self,
        resource_name: &str,
        read_offset: i64,
        read_limit: i64,
    ) -> Result<Vec<u8>, Status> {
        let request = self.request(ReadRequest {
            resource_name: resource_name.into(),
            read_offset,
            read_limit,
        });
        bounded("a read", async {
            let mut stream = self.bytestream().read(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(message) = stream.message().await? {
                all.extend_from_slice(&message.data);
            }
            Ok(all)
        })
        .await
    }

    /// Reads a SHA256 blob of the default instance.
    pub async fn blob(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        self.read(&format!("blobs/{}/{}", digest.hash, digest.size_bytes))
            .await
    }

    /// `ByteStream.Write` of these messages.
    pub async fn write(&self, messages: Vec<WriteRequest>) -> Result<WriteResponse, Status> {
        let stream = tokio_stream::iter(messages);
        let mut client = self.bytestream();
        let call = answered(client.write(self.request(stream)));
        call.await.map(Response::into_inner)
    }

    /// All directories of a tree, whatever the pages.
    pub async fn tree(
        &self,
        root: Digest,
    ) -> Result<Vec<assetgate::proto::rev2::Directory>, Status> {
        let request = self.request(GetTreeRequest {
            root_digest: Some(root),
            ..Default::default()
        });
        bounded("a tree", async {
            let mut stream = self.cas().get_tree(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(page) = stream.message().await? {
                all.extend(page.directories);
            }
            Ok(all)
        })
        .await
    }
}

/// A resource name to write a blob of the default instance under.
pub fn upload_name(digest: &Digest) -> String {
    let id = uuid::Uuid::new_v4();
    format!("uploads/{id}/blobs/{}/{}", digest.hash, digest.size_bytes)
}

/// The messages of a whole write, `piece` bytes each.
pub fn write_messages(resource_name: &str, content: &[u8], piece: usize) -> Vec<WriteRequest> {
    let mut messages: Vec<WriteRequest> = content
        .chunks(piece)
        .enumerate()
        .map(|(i, data)| WriteRequest {
            resource_name: if i == 0 {
                resource_name.into()
            } else {
                String::new()
            },
            write_offset: (i * piece) as i64,
            finish_write: (i + 1) * piece >= content.len(),
            data: Bytes::copy_from_slice(data),
        })
        .collect();
    if messages.is_empty() {
        messages.push(WriteRequest {
            resource_name: resource_name.into(),
            finish_write: true,
            ..Default::default()
        });
    }
    messages
}
