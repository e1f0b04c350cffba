//! The cache's ContentAddressableStorage.

use std::pin::Pin;

use assetgate::proto::rev2::content_addressable_storage_server::ContentAddressableStorage;
use assetgate::proto::rev2::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest,
    BatchUpdateBlobsResponse, Directory, FindMissingBlobsRequest, FindMissingBlobsResponse,
    GetTreeRequest, GetTreeResponse, SpliceBlobRequest, SpliceBlobResponse, SplitBlobRequest,
    SplitBlobResponse, batch_read_blobs_response, batch_update_blobs_response,
};
use prost::Message as _;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

use super::state::State;

type Answer<T> = Result<Response<T>, Status>;

fn rpc_status(code: Code, message: &str) -> Option<tonic_types::Status> {
    Some(tonic_types::Status {
        code: code as i32,
        message: message.into(),
        details: Vec::new(),
    })
}

#[tonic::async_trait]
impl ContentAddressableStorage for State {
    type GetTreeStream = Pin<Box<dyn Stream<Item = Result<GetTreeResponse, Status>> + Send>>;

    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Answer<FindMissingBlobsResponse> {
        let request = request.into_inner();
        self.check_instance(&request.instance_name)?;
        let mut missing = request.blob_digests;
        missing.retain(|d| self.blob(&request.instance_name, d).is_none());
        Ok(Response::new(FindMissingBlobsResponse {
            missing_blob_digests: missing,
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Answer<BatchUpdateBlobsResponse> {
        let request = request.into_inner();
        self.check_instance(&request.instance_name)?;
        let limit = self.switches.lock().batch_limit;
        let total: usize = request.requests.iter().map(|r| r.data.len()).sum();
        if limit > 0 && total as i64 > limit {
            return Err(Status::invalid_argument("the batch is over the limit"));
        }
        let responses = request.requests.into_iter().map(|r| {
            let digest = r.digest.clone().unwrap_or_default();
            let stored = self.store(&request.instance_name, &digest, r.data);
            batch_update_blobs_response::Response {
                digest: r.digest,
                status: match stored {
                    Ok(()) => rpc_status(Code::Ok, ""),
                    Err(status) => rpc_status(status.code(), status.message()),
                },
            }
        });
        Ok(Response::new(BatchUpdateBlobsResponse {
            responses: responses.collect(),
        }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Answer<BatchReadBlobsResponse> {
        let request = request.into_inner();
        self.check_instance(&request.instance_name)?;
        let limit = self.switches.lock().batch_limit;
        let total: i64 = request.digests.iter().map(|d| d.size_bytes).sum();
        if limit > 0 && total > limit {
            return Err(Status::invalid_argument("the batch is over the limit"));
        }
        let responses = request.digests.into_iter().map(|digest| {
            let found = self.blob(&request.instance_name, &digest);
            batch_read_blobs_response::Response {
                status: match found {
                    Some(_) => rpc_status(Code::Ok, ""),
                    None => rpc_status(Code::NotFound, "no such blob"),
                },
                digest: Some(digest),
                data: found.unwrap_or_default(),
                ..Default::default()
            }
        });
        Ok(Response::new(BatchReadBlobsResponse {
            responses: responses.collect(),
        }))
    }

    async fn get_tree(&self, request: Request<GetTreeRequest>) -> Answer<Self::GetTreeStream> {
        let request = request.into_inner();
        self.check_instance(&request.instance_name)?;
        let root = request.root_digest.unwrap_or_default();
        if self.blob(&request.instance_name, &root).is_none() {
            return Err(Status::not_found("no such directory"));
        }
        let mut pages = Vec::new();
        let mut open = vec![root];
        while let Some(digest) = open.pop() {
            let Some(blob) = self.blob(&request.instance_name, &digest) else {
                continue;
            };
            let directory =
                Directory::decode(blob).map_err(|e| Status::failed_precondition(e.to_string()))?;
            open.extend(
                directory
                    .directories
                    .iter()
                    .filter_map(|d| d.digest.clone()),
            );
            pages.push(Ok(GetTreeResponse {
                directories: vec![directory],
                ..Default::default()
            }));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(pages))))
    }

    async fn split_blob(&self, _: Request<SplitBlobRequest>) -> Answer<SplitBlobResponse> {
        Err(Status::unimplemented("this cache does not split"))
    }

    async fn splice_blob(&self, _: Request<SpliceBlobRequest>) -> Answer<SpliceBlobResponse> {
        Err(Status::unimplemented("this cache does not splice"))
    }
}
