//! A cache of hash maps with switches for everything a cache can do wrong.
//!
//! Called by: unit tests of `upstream` and `store`, the model of `resolver`,
//! and nothing else.

mod checks;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tonic::{Request, Response, Status, Streaming};
use tower::Service as _;

use super::{Cache, Upstream};
use crate::digest::{Digest, DigestFunction, InstanceName, Scope};
use crate::proto::{bytestream, rev2};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// It fails and nothing happens.
    FailBefore,
    /// It happens, and the answer is lost.
    FailAfter,
}

/// Asked before each call, with its method and metadata; takes its time.
pub(crate) type Gate =
    Arc<dyn Fn(&str, &http::HeaderMap) -> BoxFuture<'static, Verdict> + Send + Sync>;

/// The state of the double, and its switches.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) blobs: BTreeMap<Digest, Bytes>,
    pub(crate) entries: HashMap<String, rev2::ActionResult>,
    /// Calls by method, in order.
    pub(crate) log: Vec<String>,
    /// Keys of Action Cache writes, in order.
    pub(crate) updates: Vec<String>,
    /// Keys of Action Cache reads, in order.
    pub(crate) gets: Vec<String>,
    pub(crate) max_batch: i64,
    pub(crate) largest_batch: usize,
    pub(crate) unreachable: bool,
    /// Calls of this method get no answer.
    pub(crate) hang: Option<&'static str>,
    /// The `authorization` of each call, in order.
    pub(crate) authorizations: Vec<Option<String>>,
    pub(crate) no_capabilities: bool,
    pub(crate) refuse_updates: bool,
    /// Refuses every Action Cache write with this.
    pub(crate) refuse_updates_with: Option<(tonic::Code, String)>,
    /// Refuses the second write of an entry with this.
    pub(crate) refuse_overwrites_with: Option<tonic::Code>,
    /// Acknowledges Action Cache writes and stores nothing.
    pub(crate) drop_updates: bool,
    /// Stores another entry than was sent.
    pub(crate) alter_updates: bool,
    /// Every second read of an entry gives the one before.
    pub(crate) stale_reads: bool,
    pub(crate) former: HashMap<String, rev2::ActionResult>,
    pub(crate) loses_payload: bool,
    /// What GetActionResult checks, and UpdateActionResult.
    pub(crate) checks: checks::Checks,
    /// Keeps entries apart by instance name.
    pub(crate) knows_instances: bool,
    /// Knows no other instance name than the empty one, and says this.
    pub(crate) refuse_instances_with: Option<tonic::Code>,
    pub(crate) ignores_sizes: bool,
    pub(crate) has_get_tree: bool,
    pub(crate) refuse_cas_writes: bool,
    pub(crate) first_writer_wins: bool,
    pub(crate) loses_root_digest: bool,
    pub(crate) empty_update_answer: bool,
    /// Fails the n-th Action Cache write from now on.
    pub(crate) fail_update: Option<usize>,
    pub(crate) functions: Vec<i32>,
    pub(crate) serve_corrupt: bool,
    pub(crate) early_success: bool,
    /// Announces zstd for ByteStream.
    pub(crate) zstd: bool,
    /// Announces it, and refuses it.
    pub(crate) refuse_zstd: bool,
    /// Answers a compressed write with this size.
    pub(crate) commit: Option<i64>,
    /// Names of writes, and the data sent for each.
    pub(crate) writes: Vec<(String, Vec<u8>)>,
    pub(crate) break_reads: bool,
    /// Bytes in one message of a read; 0 for 64 KiB.
    pub(crate) read_chunk: usize,
    /// Reads send one message and then nothing.
    pub(crate) hang_reads: bool,
    pub(crate) gate: Option<Gate>,
}

pub(crate) use checks::{Checks, LostTree};

/// Handle to a double.
#[derive(Clone, Default)]
pub(crate) struct Double(pub(crate) Arc<Mutex<State>>);

pub(crate) fn scope() -> Scope {
    Scope::new(InstanceName::default(), DigestFunction::Sha256)
}

pub(crate) fn sha256(data: &[u8]) -> Digest {
    Digest::of(DigestFunction::Sha256, data).unwrap()
}

impl Double {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn set<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock())
    }

    pub(crate) fn put(&self, data: impl Into<Bytes>) -> Digest {
        let data = data.into();
        let digest = sha256(&data);
        self.set(|s| s.blobs.insert(digest.clone(), data));
        digest
    }

    pub(crate) fn evict(&self, digest: &Digest) {
        assert!(self.set(|s| s.blobs.remove(digest)).is_some(), "{digest}");
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.set(|s| s.blobs.contains_key(digest))
    }

    pub(crate) fn calls(&self, method: &str) -> usize {
        self.set(|s| s.log.iter().filter(|m| *m == method).count())
    }

    pub(crate) fn take_log(&self) -> Vec<String> {
        self.set(|s| std::mem::take(&mut s.log))
    }

    pub(crate) fn cache(&self) -> Cache {
        Cache::new(self.upstream())
    }

    pub(crate) fn routes(&self) -> tonic::service::Routes {
        use bytestream::byte_stream_server::ByteStreamServer;
        use rev2::action_cache_server::ActionCacheServer;
        use rev2::capabilities_server::CapabilitiesServer;
        use rev2::content_addressable_storage_server::ContentAddressableStorageServer;
        const MAX: usize = 64 << 20;
        tonic::service::Routes::new(
            ContentAddressableStorageServer::new(self.clone()).max_decoding_message_size(4 << 20),
        )
        .add_service(ActionCacheServer::new(self.clone()).max_decoding_message_size(MAX))
        .add_service(CapabilitiesServer::new(self.clone()))
        .add_service(ByteStreamServer::new(self.clone()))
    }

    pub(crate) fn upstream(&self) -> Upstream {
        let routes = self.routes();
        let double = self.clone();
        let service = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
            let method = request
                .uri()
                .path()
                .rsplit('/')
                .next()
                .unwrap_or("")
                .to_owned();
            let authorization = request.headers().get("authorization");
            let authorization = authorization.map(|v| v.to_str().unwrap_or("").to_owned());
            let (unreachable, hangs, gate) = double.set(|s| {
                let hangs = s.hang == Some(&method);
                s.log.push(method.clone());
                s.authorizations.push(authorization);
                (s.unreachable, hangs, s.gate.clone())
            });
            let mut routes = routes.clone();
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                let verdict = match gate {
                    Some(gate) => gate(&method, request.headers()).await,
                    None => Verdict::Pass,
                };
                let failure = || Status::unavailable("the model says so").into_http();
                if verdict == Verdict::FailBefore {
                    return Ok(failure());
                }
                if unreachable {
                    return Err("connecting to 127.0.0.1:1: refused".into());
                }
                let answer = routes.call(request).await.unwrap_or_else(|e| match e {});
                match verdict {
                    Verdict::FailAfter => Ok(failure()),
                    _ => Ok(answer),
                }
            }
            .boxed()
        });
        Upstream::new(service)
    }

    fn digest(wire: Option<&rev2::Digest>) -> Result<Digest, Status> {
        Digest::from_wire(DigestFunction::Sha256, wire)
            .map_err(|e| Status::invalid_argument(e.to_string()))
    }
}

fn rpc_status(code: tonic::Code) -> Option<tonic_types::Status> {
    Some(tonic_types::Status {
        code: code as i32,
        ..Default::default()
    })
}

#[tonic::async_trait]
impl rev2::content_addressable_storage_server::ContentAddressableStorage for Double {
    type GetTreeStream = BoxStream<'static, Result<rev2::GetTreeResponse, Status>>;

    async fn find_missing_blobs(
        &self,
        request: Request<rev2::FindMissingBlobsRequest>,
    ) -> Result<Response<rev2::FindMissingBlobsResponse>, Status> {
        let mut missing = rev2::FindMissingBlobsResponse::default();
        for wire in request.into_inner().blob_digests {
            let digest = Self::digest(Some(&wire))?;
            let ignored =
                self.set(|s| s.ignores_sizes && s.blobs.keys().any(|d| d.hash() == digest.hash()));
            if !ignored && !self.has(&digest) {
                missing.missing_blob_digests.push(wire);
            }
        }
        Ok(Response::new(missing))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<rev2::BatchUpdateBlobsRequest>,
    ) -> Result<Response<rev2::BatchUpdateBlobsResponse>, Status> {
        let requests = request.into_inner().requests;
        let total: usize = requests.iter().map(|r| r.data.len()).sum();
        let mut answer = rev2::BatchUpdateBlobsResponse::default();
        let mut state = self.0.lock();
        state.largest_batch = state.largest_batch.max(total);
        for item in requests {
            let digest = Self::digest(item.digest.as_ref())?;
            let code = if state.refuse_cas_writes {
                tonic::Code::PermissionDenied
            } else if sha256(&item.data) == digest {
                state.blobs.insert(digest, item.data);
                tonic::Code::Ok
            } else {
                tonic::Code::InvalidArgument
            };
            answer
                .responses
                .push(rev2::batch_update_blobs_response::Response {
                    digest: item.digest,
                    status: rpc_status(code),
                });
        }
        Ok(Response::new(answer))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<rev2::BatchReadBlobsRequest>,
    ) -> Result<Response<rev2::BatchReadBlobsResponse>, Status> {
        let mut answer = rev2::BatchReadBlobsResponse::default();
        let state = self.0.lock();
        for wire in request.into_inner().digests {
            let mut data = state.blobs.get(&Self::digest(Some(&wire))?).cloned();
            if state.serve_corrupt {
                data = data.map(|d| vec![b'x'; d.len()].into());
            }
            answer
                .responses
                .push(rev2::batch_read_blobs_response::Response {
                    digest: Some(wire),
                    status: rpc_status(match data {
                        Some(_) => tonic::Code::Ok,
                        None => tonic::Code::NotFound,
                    }),
                    data: data.unwrap_or_default(),
                    compressor: 0,
                });
        }
        Ok(Response::new(answer))
    }

    async fn get_tree(
        &self,
        _: Request<rev2::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        if self.set(|s| s.has_get_tree) {
            let page = rev2::GetTreeResponse {
                directories: vec![rev2::Directory::default()],
                ..Default::default()
            };
            return Ok(Response::new(stream::iter([Ok(page)]).boxed()));
        }
        Err(Status::unimplemented("no GetTree"))
    }

    async fn split_blob(
        &self,
        _: Request<rev2::SplitBlobRequest>,
    ) -> Result<Response<rev2::SplitBlobResponse>, Status> {
        Err(Status::unimplemented("no SplitBlob"))
    }

    async fn splice_blob(
        &self,
        _: Request<rev2::SpliceBlobRequest>,
    ) -> Result<Response<rev2::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("no SpliceBlob"))
    }
}

#[tonic::async_trait]
impl rev2::action_cache_server::ActionCache for Double {
    async fn get_action_result(
        &self,
        request: Request<rev2::GetActionResultRequest>,
    ) -> Result<Response<rev2::ActionResult>, Status> {
        let request = request.into_inner();
        let digest = request.action_digest.unwrap_or_default();
        let mut state = self.0.lock();
        let key = state.key(&request.instance_name, &digest)?;
        state.gets.push(key.clone());
        let reads = state.log.iter().filter(|m| *m == "GetActionResult").count();
        let former = state.former.get(&key).cloned();
        let entry = match former.filter(|_| state.stale_reads && reads % 2 == 0) {
            Some(former) => former,
            None => state
                .entries
                .get(&key)
                .cloned()
                .ok_or_else(|| Status::not_found("no entry"))?,
        };
        if !state.is_complete(&entry) {
            return Err(Status::not_found("an output is gone"));
        }
        Ok(Response::new(state.with_losses(entry)))
    }

    async fn update_action_result(
        &self,
        request: Request<rev2::UpdateActionResultRequest>,
    ) -> Result<Response<rev2::ActionResult>, Status> {
        let request = request.into_inner();
        let digest = request.action_digest.unwrap_or_default();
        let mut entry = request.action_result.unwrap_or_default();
        let mut state = self.0.lock();
        let key = state.key(&request.instance_name, &digest)?;
        state.updates.push(key.clone());
        state.check_update(&key, &entry)?;
        if state.drop_updates {
            let silent = state.empty_update_answer;
            return Ok(Response::new(if silent {
                Default::default()
            } else {
                entry
            }));
        }
        if state.alter_updates {
            entry.output_files.clear();
            entry.output_directories.clear();
        }
        if let Some(former) = state.entries.get(&key).cloned() {
            state.former.insert(key.clone(), former);
        }
        let stored = if state.first_writer_wins {
            state.entries.entry(key).or_insert(entry).clone()
        } else {
            state.entries.insert(key, entry.clone());
            entry
        };
        if state.empty_update_answer {
            return Ok(Response::new(rev2::ActionResult::default()));
        }
        Ok(Response::new(stored))
    }
}

#[tonic::async_trait]
impl rev2::capabilities_server::Capabilities for Double {
    async fn get_capabilities(
        &self,
        _: Request<rev2::GetCapabilitiesRequest>,
    ) -> Result<Response<rev2::ServerCapabilities>, Status> {
        let state = self.0.lock();
        if state.no_capabilities {
            return Err(Status::unimplemented("no GetCapabilities"));
        }
        Ok(Response::new(rev2::ServerCapabilities {
            cache_capabilities: Some(rev2::CacheCapabilities {
                digest_functions: state.functions.clone(),
                max_batch_total_size_bytes: state.max_batch,
                supported_compressors: if state.zstd { vec![0, 1] } else { vec![0] },
                ..Default::default()
            }),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl bytestream::byte_stream_server::ByteStream for Double {
    type ReadStream = BoxStream<'static, Result<bytestream::ReadResponse, Status>>;

    async fn read(
        &self,
        request: Request<bytestream::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let name = request.into_inner().resource_name;
        let state = self.0.lock();
        let found = state
            .blobs
            .iter()
            .find(|(d, _)| name.ends_with(&format!("blobs/{d}")));
        let (_, data) = found.ok_or_else(|| Status::not_found("no blob"))?;
        let mut parts: Vec<Result<bytestream::ReadResponse, Status>> = data
            .chunks(match state.read_chunk {
                0 => 64 << 10,
                n => n,
            })
            .map(|c| {
                Ok(bytestream::ReadResponse {
                    data: Bytes::copy_from_slice(c),
                })
            })
            .collect();
        if state.break_reads {
            parts.pop();
        }
        if state.hang_reads {
            parts.truncate(1);
            let parts = stream::iter(parts).chain(stream::pending());
            return Ok(Response::new(parts.boxed()));
        }
        Ok(Response::new(stream::iter(parts).boxed()))
    }

    async fn write(
        &self,
        request: Request<Streaming<bytestream::WriteRequest>>,
    ) -> Result<Response<bytestream::WriteResponse>, Status> {
        let mut messages = request.into_inner();
        let mut name = String::new();
        let mut data = Vec::new();
        let mut finished = false;
        while let Some(message) = messages.message().await? {
            if !message.resource_name.is_empty() {
                name = message.resource_name;
                self.set(|s| s.writes.push((name.clone(), Vec::new())));
            }
            let zstd = name.contains("/compressed-blobs/zstd/");
            if self.set(|s| s.early_success) {
                let size = name.rsplit('/').next().and_then(|s| s.parse().ok());
                let committed_size = if zstd { -1 } else { size.unwrap_or(-2) };
                return Ok(Response::new(bytestream::WriteResponse { committed_size }));
            }
            if zstd && self.set(|s| s.refuse_zstd) {
                return Err(Status::unimplemented("no such resource"));
            }
            assert!(!finished);
            assert_eq!(message.write_offset, i64::try_from(data.len()).unwrap());
            data.extend_from_slice(&message.data);
            self.set(|s| s.writes.last_mut().unwrap().1.clone_from(&data));
            finished = message.finish_write;
        }
        let committed_size = i64::try_from(data.len()).unwrap();
        let (form, data) = match name.contains("/compressed-blobs/zstd/") {
            true => (
                "compressed-blobs/zstd",
                zstd::decode_all(&data[..]).unwrap(),
            ),
            false => ("blobs", data),
        };
        let digest = sha256(&data);
        if !finished
            || !name.starts_with("uploads/")
            || !name.ends_with(&format!("/{form}/{digest}"))
        {
            return Err(Status::invalid_argument(format!(
                "{name}, finished: {finished}"
            )));
        }
        self.put(data);
        let committed_size = self.set(|s| s.commit).unwrap_or(committed_size);
        Ok(Response::new(bytestream::WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<bytestream::QueryWriteStatusRequest>,
    ) -> Result<Response<bytestream::QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented("no QueryWriteStatus"))
    }
}
