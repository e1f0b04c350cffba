//! The `ByteStream` service.
//!
//! Not for: the work (`read.rs`, `write.rs`).
//! Called by: clients, through `Embedded::routes`.

use std::sync::Arc;

use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::request::{answer, connection};
use super::status::invalid;
use super::{Inner, read, write};
use crate::proto::bytestream as wire;

/// An optional copy of the resource name, for proxies to route by.
const NAME_HEADER: &str = "build.bazel.remote.execution.v2.resource-name";

/// The service.
#[derive(Debug, Clone)]
pub(super) struct ByteStream(pub(super) Arc<Inner>);

#[tonic::async_trait]
impl wire::byte_stream_server::ByteStream for ByteStream {
    type ReadStream = read::Chunks;

    async fn read(
        &self,
        request: Request<wire::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let name = &request.get_ref().resource_name;
        check_header(name_header(request.metadata())?, name)?;
        let share = request.extensions().get();
        let (chunks, room) = read::read(&self.0, request.get_ref(), share).await?;
        Ok(answer(chunks, room))
    }

    async fn write(
        &self,
        request: Request<Streaming<wire::WriteRequest>>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        let header = name_header(request.metadata())?.map(str::to_owned);
        let connection = connection(&request);
        let messages = request.into_inner();
        let response = write::write(&self.0, connection, messages, header.as_deref()).await?;
        Ok(Response::new(response))
    }

    async fn query_write_status(
        &self,
        request: Request<wire::QueryWriteStatusRequest>,
    ) -> Result<Response<wire::QueryWriteStatusResponse>, Status> {
        let name = &request.get_ref().resource_name;
        check_header(name_header(request.metadata())?, name)?;
        write::status(&self.0, name).map(Response::new)
    }
}

fn name_header(metadata: &MetadataMap) -> Result<Option<&str>, Status> {
    let value = metadata.get(NAME_HEADER);
    let value = value.map(|v| std::str::from_utf8(v.as_bytes()));
    value
        .transpose()
        .map_err(|_| invalid("resource_name", "its header is not UTF-8"))
}

/// The header, if sent, must say the same as the message.
pub(super) fn check_header(header: Option<&str>, name: &str) -> Result<(), Status> {
    match header {
        Some(header) if header != name => {
            let reason = format!("it differs from the header {NAME_HEADER}");
            Err(invalid("resource_name", reason))
        }
        _ => Ok(()),
    }
}
