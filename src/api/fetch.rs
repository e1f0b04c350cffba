//! FetchBlob and FetchDirectory: two names for one function.
//!
//! Not for: decisions. Those are in `resolver` and `status.rs`.

use std::time::Duration;

use bytes::Bytes;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::channel::ErrorSettings;
use super::convert::FetchMessage;
use super::status::Verdict;
use super::{aside_if, note_caller, note_failure};
use crate::asset::{AssetKind, Qualifiers, Uri};
use crate::call::{Call, TimeLimit};
use crate::digest::{Digest, DigestFunction};
use crate::fetcher::Fetcher;
use crate::proto::asset::fetch_server::Fetch;
use crate::proto::asset::{
    self, FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse,
};
use crate::resolver::{Announce, Answer, Missed, Query, Resolver};
use crate::store::AssetStore;
use crate::upstream::{CallContext, Identity};

/// Header of an OK answer: `fetched`, `hit_exact` and so on.
const OUTCOME: &str = "assetgate-outcome";

/// The Fetch service.
pub(super) struct FetchService<S, F, A> {
    resolver: Resolver<S, F, A>,
    errors: ErrorSettings,
    identity: Identity,
}

/// What both responses are made of.
#[derive(Default)]
struct Reply {
    status: tonic_types::Status,
    uri: Bytes,
    qualifiers: Vec<asset::Qualifier>,
    digest: Option<Digest>,
    digest_function: i32,
    /// How it was found; for people who look at headers.
    outcome: Option<&'static str>,
}

impl<S: AssetStore, F: Fetcher, A: Announce> FetchService<S, F, A> {
    pub(super) fn new(
        resolver: Resolver<S, F, A>,
        errors: ErrorSettings,
        identity: Identity,
    ) -> Self {
        Self {
            resolver,
            errors,
            identity,
        }
    }

    async fn answer<M>(&self, kind: AssetKind, request: Request<M>) -> Result<Reply, Status>
    where
        FetchMessage: From<M>,
    {
        let (metadata, extensions, message) = request.into_parts();
        let (call, limit) = (Call::of(&extensions), extensions.get().copied());
        let connection = extensions.get().cloned();
        drop(extensions);
        let caller = Caller::of(&metadata);
        let context = self.identity.context(metadata).of_connection(connection);
        let message = FetchMessage::from(message);
        let large = message.is_large();
        let read = aside_if(large, context.connection(), move || {
            (message.uris(), message.to_query(kind))
        });
        let (uris, query) = read.await?;
        note_caller(&call, &caller, kind, uris.first());
        let mut query = query.map_err(|invalid| super::refuse(&call, &invalid))?;
        query.comes_back = comes_back(query.request.timeout, limit);
        let function = query.request.scope.function;
        match self.fetch(&context, query).await {
            Ok(answer) => Ok(success(&call, &uris, function, answer)),
            Err(verdict) => {
                let inline = verdict.inline && self.errors.inline_for(&caller, &uris);
                let verdict = verdict.without_secrets(&context);
                let verdict = verdict.locate(&uris, call.id());
                note_failure(&call, &verdict, inline);
                if inline {
                    Ok(failure(&uris, function, &verdict))
                } else {
                    Err(verdict.to_status())
                }
            }
        }
    }

    async fn fetch(&self, context: &CallContext, query: Query) -> Result<Answer, Verdict> {
        let answer = self.resolver.fetch(context, query).await;
        answer.map_err(|error| Verdict::from(&error))
    }
}

/// A client whose call has all the time that it gives the fetch has no reason
/// to call again (T3); one that runs out of time before, or that names no time,
/// has (T2).
fn comes_back(fetch: Option<Duration>, call: Option<TimeLimit>) -> bool {
    match (fetch, call) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(fetch), Some(TimeLimit(call))) => fetch > call,
    }
}

fn success(call: &Call, uris: &[Uri], function: DigestFunction, answer: Answer) -> Reply {
    let uri = answer.uri_index.and_then(|index| uris.get(index));
    call.note(|report| {
        report.outcome = answer.outcome.name();
        report.bytes = answer.digest.size();
        report.origin_bytes = answer.stats.origin_bytes;
        report.attempts = answer.stats.attempts;
        report.missed = answer.stats.missed.map(Missed::name);
        // The first one is noted already.
        if let Some(uri) = uri.filter(|_| answer.uri_index != Some(0)) {
            report.uri = uri.redacted();
            report.origin_host = uri.host().unwrap_or_default();
        }
    });
    Reply {
        // Present with code 0 (S10).
        status: tonic_types::Status::default(),
        uri: uri.map(Uri::to_wire).unwrap_or_default(),
        qualifiers: wire_qualifiers(&answer.qualifiers),
        digest: Some(answer.digest),
        digest_function: function.to_wire(),
        outcome: Some(answer.outcome.name()),
    }
}

/// A failure carries a URI, for the client's events, and never a digest.
fn failure(uris: &[Uri], function: DigestFunction, verdict: &Verdict) -> Reply {
    let uri = uris.get(verdict.uri_index);
    Reply {
        status: verdict.to_message(),
        uri: uri.map(Uri::to_wire).unwrap_or_default(),
        digest_function: function.to_wire(),
        ..Reply::default()
    }
}

/// An answer, with the outcome in its head.
fn answered<M>(outcome: Option<&'static str>, message: M) -> Response<M> {
    let mut response = Response::new(message);
    if let Some(outcome) = outcome {
        let value = AsciiMetadataValue::from_static(outcome);
        response.metadata_mut().insert(OUTCOME, value);
    }
    response
}

fn wire_qualifiers(qualifiers: &Qualifiers) -> Vec<asset::Qualifier> {
    let wire = qualifiers.iter().map(|q| asset::Qualifier {
        name: q.name.clone(),
        value: q.value.clone(),
    });
    wire.collect()
}

#[tonic::async_trait]
impl<S: AssetStore, F: Fetcher, A: Announce> Fetch for FetchService<S, F, A> {
    async fn fetch_blob(
        &self,
        request: Request<FetchBlobRequest>,
    ) -> Result<Response<FetchBlobResponse>, Status> {
        let reply = self.answer(AssetKind::Blob, request).await?;
        Ok(answered(
            reply.outcome,
            FetchBlobResponse {
                status: Some(reply.status),
                uri: reply.uri,
                qualifiers: reply.qualifiers,
                // A minimum availability, which no cache promises (N10).
                expires_at: None,
                blob_digest: reply.digest.map(|digest| digest.to_wire()),
                digest_function: reply.digest_function,
            },
        ))
    }

    async fn fetch_directory(
        &self,
        request: Request<FetchDirectoryRequest>,
    ) -> Result<Response<FetchDirectoryResponse>, Status> {
        let reply = self.answer(AssetKind::Directory, request).await?;
        Ok(answered(
            reply.outcome,
            FetchDirectoryResponse {
                status: Some(reply.status),
                uri: reply.uri,
                qualifiers: reply.qualifiers,
                expires_at: None,
                root_directory_digest: reply.digest.map(|digest| digest.to_wire()),
                digest_function: reply.digest_function,
            },
        ))
    }
}
