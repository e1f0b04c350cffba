//! The cache's ByteStream: whole reads with offset and limit, writes plain or
//! in zstd.

use std::pin::Pin;

use assetgate::proto::bytestream::byte_stream_server::ByteStream;
use assetgate::proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest,
    WriteResponse,
};
use assetgate::proto::rev2::Digest;
use bytes::BytesMut;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::state::State;

const MESSAGE: usize = 256 << 10;

#[tonic::async_trait]
impl ByteStream for State {
    type ReadStream = Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send>>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let (instance, digest) = parse(&request.resource_name)?;
        self.check_instance(&instance)?;
        let found = self.blob(&instance, &digest);
        let content = found.ok_or_else(|| Status::not_found("no such blob"))?;
        let from = usize::try_from(request.read_offset)
            .ok()
            .filter(|from| *from <= content.len())
            .ok_or_else(|| Status::out_of_range("the offset is beyond the end"))?;
        let mut rest = content.slice(from..);
        if request.read_limit > 0 {
            rest.truncate(request.read_limit as usize);
        }
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let data = rest.split_to(rest.len().min(MESSAGE));
            messages.push(Ok(ReadResponse { data }));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        let mut stream = request.into_inner();
        let mut name = String::new();
        let mut content = BytesMut::new();
        let mut finished = false;
        while let Some(message) = stream.message().await? {
            if name.is_empty() {
                name = message.resource_name;
                let (instance, _) = parse(&name)?;
                self.check_instance(&instance)?;
            }
            if message.write_offset != content.len() as i64 {
                return Err(Status::invalid_argument("the offset is not where it was"));
            }
            content.extend_from_slice(&message.data);
            finished = message.finish_write;
            if finished {
                break;
            }
        }
        let (instance, digest) = parse(&name)?;
        if !finished {
            return Err(Status::invalid_argument("the write was not finished"));
        }
        let committed_size = content.len() as i64;
        let content = match name.contains("/compressed-blobs/zstd/") {
            false => content.freeze(),
            true if !self.switches.lock().zstd => {
                return Err(Status::invalid_argument("this cache has no zstd"));
            }
            true => zstd::decode_all(&content[..])?.into(),
        };
        self.store(&instance, &digest, content)?;
        self.writes.lock().push((name, committed_size as usize));
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented("this cache does not resume"))
    }
}

/// Instance and digest of `[instance/][uploads/UUID/]blobs/[function/]HASH/SIZE`,
/// or of the same with `compressed-blobs/zstd`.
fn parse(name: &str) -> Result<(String, Digest), Status> {
    let bad = || Status::invalid_argument(format!("not a resource name: {name}"));
    let plain = name.replacen("compressed-blobs/zstd/", "blobs/", 1);
    let segments: Vec<&str> = plain.split('/').collect();
    let blobs = segments
        .iter()
        .position(|s| *s == "blobs")
        .ok_or_else(bad)?;
    let head = match segments[..blobs] {
        [ref head @ .., "uploads", _] => head,
        ref head => head,
    };
    let (hash, size) = match segments[blobs + 1..] {
        ["blake3" | "sha256tree" | "gitsha1", hash, size, ..] => (hash, size),
        [hash, size, ..] => (hash, size),
        _ => return Err(bad()),
    };
    let digest = Digest {
        hash: hash.into(),
        size_bytes: size.parse().map_err(|_| bad())?,
    };
    Ok((head.join("/"), digest))
}
