//! The API as clients see it, over doubles of store, fetcher and cache. Named
//! after the cases of conformance.md.

mod errors;
mod fetching;
mod freshness;
mod health;
mod large;
mod pushing;
mod qualifiers;
mod secrets;
mod validation;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;
use tower::ServiceExt as _;

use super::{ErrorSettings, reflection, services};
use crate::call::{Call, Report};
use crate::digest::{Digest, DigestFunction};
use crate::middleware::Native;
use crate::proto::asset::fetch_client::FetchClient;
use crate::proto::asset::push_client::PushClient;
use crate::proto::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse,
    PushBlobRequest, PushDirectoryRequest, Qualifier,
};
use crate::proto::rev2;
use crate::resolver::Settings;
use crate::resolver::testing::World;
use crate::upstream::{Identity, Upstream};

const HTTP: &str = "https://origin.example/a.tgz";
const MIRROR: &str = "https://mirror.example/a.tgz";
const URN: &str = "urn:example:asset";

/// A server in the process.
struct Server {
    world: World,
    settings: Settings,
    errors: ErrorSettings,
    upstream: Upstream,
    tool: Option<(&'static str, &'static str)>,
}

impl Server {
    fn new() -> Self {
        Self {
            world: World::default(),
            settings: Settings::default(),
            errors: ErrorSettings::default(),
            upstream: cache(Routes::default()),
            tool: None,
        }
    }

    /// The cache has these bytes to read: each call is one of a new process,
    /// which has hashed nothing.
    fn holds(&self, function: DigestFunction, content: &[u8]) {
        let digest = Digest::of(function, content).unwrap();
        let contents = &self.world.store.contents;
        contents.lock().insert(digest, content.to_vec());
    }

    /// Calls made from here on come from this tool.
    fn tool(mut self, name: &'static str, version: &'static str) -> Self {
        self.tool = Some((name, version));
        self
    }

    fn routes(&self) -> impl Native + Sync {
        let drain = self.world.drain.clone();
        let resolver = self.world.resolver(self.settings.clone());
        services(
            Routes::default(),
            resolver,
            Identity::default(),
            self.errors.clone(),
            drain,
            self.upstream.clone(),
        )
    }

    fn routes_with_reflection(&self) -> impl Native + Sync {
        let drain = self.world.drain.clone();
        let resolver = self.world.resolver(self.settings.clone());
        services(
            reflection().unwrap(),
            resolver,
            Identity::default(),
            self.errors.clone(),
            drain,
            self.upstream.clone(),
        )
    }

    fn request<T>(&self, message: T) -> (Request<T>, Call) {
        let mut request = Request::new(message);
        if let Some((name, version)) = self.tool {
            let metadata = rev2::RequestMetadata {
                tool_details: Some(rev2::ToolDetails {
                    tool_name: name.into(),
                    tool_version: version.into(),
                }),
                ..Default::default()
            };
            request.metadata_mut().insert_bin(
                "build.bazel.remote.execution.v2.requestmetadata-bin",
                tonic::metadata::MetadataValue::from_bytes(&metadata.encode_to_vec()),
            );
        }
        let call = Call::new();
        request.extensions_mut().insert(call.clone());
        (request, call)
    }

    async fn fetch(&self, message: FetchBlobRequest) -> Result<FetchBlobResponse, Status> {
        self.fetch_noting(message).await.0
    }

    async fn fetch_noting(
        &self,
        message: FetchBlobRequest,
    ) -> (Result<FetchBlobResponse, Status>, Report) {
        let (request, call) = self.request(message);
        let answer = FetchClient::new(self.routes()).fetch_blob(request).await;
        (answer.map(Response::into_inner), call.read(Clone::clone))
    }

    async fn fetch_directory(
        &self,
        message: FetchDirectoryRequest,
    ) -> Result<FetchDirectoryResponse, Status> {
        let mut client = FetchClient::new(self.routes());
        let answer = client.fetch_directory(self.request(message).0).await;
        answer.map(Response::into_inner)
    }

    async fn push(&self, message: PushBlobRequest) -> Result<(), Status> {
        let mut client = PushClient::new(self.routes());
        client.push_blob(self.request(message).0).await.map(|_| ())
    }

    async fn push_directory(&self, message: PushDirectoryRequest) -> Result<(), Status> {
        let mut client = PushClient::new(self.routes());
        let answer = client.push_directory(self.request(message).0).await;
        answer.map(|_| ())
    }
}

fn cache(routes: impl Native + Sync) -> Upstream {
    Upstream::new(tower::util::MapErr::new(
        routes,
        |never: std::convert::Infallible| -> tower::BoxError { match never {} },
    ))
}

fn uris(uris: &[&str]) -> Vec<Bytes> {
    uris.iter()
        .map(|u| Bytes::copy_from_slice(u.as_bytes()))
        .collect()
}

fn qualifiers(pairs: &[(&str, &str)]) -> Vec<Qualifier> {
    let all = pairs.iter().map(|(name, value)| Qualifier {
        name: (*name).into(),
        value: (*value).into(),
    });
    all.collect()
}

fn blob(of: &[&str], with: &[(&str, &str)]) -> FetchBlobRequest {
    FetchBlobRequest {
        uris: uris(of),
        qualifiers: qualifiers(with),
        ..Default::default()
    }
}

fn directory(of: &[&str], with: &[(&str, &str)]) -> FetchDirectoryRequest {
    FetchDirectoryRequest {
        uris: uris(of),
        qualifiers: qualifiers(with),
        ..Default::default()
    }
}

fn push(of: &[&str], with: &[(&str, &str)], content: &[u8]) -> PushBlobRequest {
    PushBlobRequest {
        uris: uris(of),
        qualifiers: qualifiers(with),
        blob_digest: Some(sha256(content)),
        ..Default::default()
    }
}

fn push_directory(of: &[&str], content: &[u8]) -> PushDirectoryRequest {
    PushDirectoryRequest {
        uris: uris(of),
        root_directory_digest: Some(sha256(content)),
        ..Default::default()
    }
}

fn domain(content: &[u8]) -> Digest {
    Digest::of(DigestFunction::Sha256, content).unwrap()
}

fn sha256(content: &[u8]) -> rev2::Digest {
    domain(content).to_wire()
}

fn sri(function: DigestFunction, content: &[u8]) -> String {
    use base64::Engine as _;
    let raw = Digest::of(function, content).unwrap().raw();
    let encoded = base64::engine::general_purpose::STANDARD.encode(raw);
    format!("{}-{encoded}", function.name().to_lowercase())
}

fn from_now(seconds: i64) -> Option<prost_types::Timestamp> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    Some(prost_types::Timestamp {
        seconds: now.as_secs() as i64 + seconds,
        nanos: now.subsec_nanos() as i32,
    })
}

/// The inline code; panics if the answer carries a digest with it.
#[track_caller]
fn inline(answer: Result<FetchBlobResponse, Status>) -> (Code, String) {
    let answer = answer.expect("an OK call");
    let status = answer.status.expect("a status in every answer");
    assert_ne!(
        status.code,
        0,
        "{answer_digest:?}",
        answer_digest = answer.blob_digest
    );
    assert_eq!(answer.blob_digest, None, "a failure never carries a digest");
    (Code::from(status.code), status.message)
}

/// The digest of a good answer.
#[track_caller]
fn digest(answer: Result<FetchBlobResponse, Status>) -> rev2::Digest {
    let answer = answer.expect("an OK call");
    let status = answer.status.expect("a status in every answer");
    assert_eq!(status.code, 0, "{}", status.message);
    answer.blob_digest.expect("a digest")
}

/// The field violations of an INVALID_ARGUMENT.
#[track_caller]
fn violations<T: std::fmt::Debug>(answer: Result<T, Status>) -> Vec<(String, String)> {
    let status = answer.expect_err("a refusal");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let details = status
        .get_details_bad_request()
        .expect("a BadRequest detail");
    assert!(!details.field_violations.is_empty());
    let all = details.field_violations.into_iter();
    all.map(|v| (v.field, v.description)).collect()
}

#[track_caller]
fn fields<T: std::fmt::Debug>(answer: Result<T, Status>) -> Vec<String> {
    violations(answer)
        .into_iter()
        .map(|(field, _)| field)
        .collect()
}

#[track_caller]
fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.expect_err("a failed call").code()
}

const SHORT: Duration = Duration::from_millis(50);
