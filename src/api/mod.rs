//! The Remote Asset API on the wire: Fetch and Push, health and reflection.
//!
//! Messages stop here: `convert.rs` makes domain values of them, `status.rs`
//! makes answers of errors, and the two services are thin.
//! Not for: deadlines, panics, logs and metrics of a call (`middleware`).
//! Called by: `server`.

mod caller;
mod channel;
mod convert;
mod fetch;
mod health;
mod limits;
mod push;
mod services;
mod status;
#[cfg(test)]
mod tests;

use tokio::task::JoinError;
use tonic::Status;
use tonic::service::Routes;

use caller::Caller;
#[cfg(any(test, fuzzing))]
pub use convert::fuzz;
use convert::{FetchMessage, Invalid};
use status::Verdict;

pub use channel::{ErrorMode, ErrorSettings};
pub use services::Services;

use crate::asset::{AssetKind, Uri};
use crate::budget::Share;
use crate::call::Call;
use crate::drain::Drain;
use crate::fetcher::Fetcher;
use crate::labour;
use crate::proto::asset::FetchBlobRequest;
use crate::proto::asset::fetch_server::FetchServer;
use crate::proto::asset::push_server::PushServer;
use crate::proto::{FILE_DESCRIPTOR_SET, MAX_NATIVE_MESSAGE};
use crate::resolver::{Announce, Query, ResolveError, Resolver};
use crate::store::AssetStore;
use crate::upstream::{Identity, Upstream};

/// Path prefix of the two asset services.
pub const ASSET_PREFIX: &str = "/build.bazel.remote.asset.v1.";

/// Reflection, v1 and v1alpha, to add the other services to. Decoding the
/// descriptors costs memory: made once, shared by all threads.
pub fn reflection() -> Result<Routes, tonic_reflection::server::Error> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::default()
        .add_service(builder().build_v1()?)
        .add_service(builder().build_v1alpha()?);
    Ok(routes)
}

/// A request as the services read it, for who is not a client: the same
/// checks, and the same rules on what is a secret.
///
/// # Errors
/// Everything that is wrong with it: field and description.
pub fn read_fetch(
    kind: AssetKind,
    request: FetchBlobRequest,
) -> Result<Query, Vec<(String, String)>> {
    let query = FetchMessage::from(request).to_query(kind);
    query.map_err(|invalid| {
        let violations = invalid.violations().iter();
        let said = violations.map(|v| (v.field.clone(), v.description.clone()));
        said.collect()
    })
}

/// Every native service: those in `reflection`, Fetch, Push and health. The
/// asset services call the cache as `identity`.
pub fn services<S: AssetStore, F: Fetcher, A: Announce>(
    reflection: Routes,
    resolver: Resolver<S, F, A>,
    identity: Identity,
    errors: ErrorSettings,
    drain: Drain,
    upstream: Upstream,
) -> Services<S, F, A> {
    let health = health::HealthService::new(drain, upstream, resolver.accepts_pushes());
    let fetch = fetch::FetchService::new(resolver.clone(), errors, identity.clone());
    let push = push::PushService::new(resolver, identity);
    Services {
        fetch: FetchServer::new(fetch).max_decoding_message_size(MAX_NATIVE_MESSAGE),
        push: PushServer::new(push).max_decoding_message_size(MAX_NATIVE_MESSAGE),
        others: reflection.add_service(health.into_server()),
    }
}

/// Does what may take over a millisecond on another thread than the
/// listener's. There are few of these: of one connection one at a time waits
/// there, so that others have their turn and nobody leaves work behind.
async fn aside_if<T, F>(large: bool, connection: Option<&Share>, work: F) -> Result<T, Status>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    if !large {
        return Ok(work());
    }
    let turn = match connection {
        Some(share) => Some(share.aside().await),
        None => None,
    };
    let work = move || {
        let done = work();
        drop(turn);
        done
    };
    match labour::spawn(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => Ok(done),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => Err(Verdict::from(&ResolveError::Stopped).to_status()),
    }
}

/// Notes who asks for what, before anything can go wrong.
fn note_caller(call: &Call, caller: &Caller, kind: AssetKind, uri: Option<&Uri>) {
    call.note(|report| {
        report.kind = kind.name();
        report.tool = caller.label();
        report.invocation_id.clone_from(&caller.invocation_id);
        report.uri = uri.map(|uri| uri.redacted()).unwrap_or_default();
        report.origin_host = uri.and_then(Uri::host).unwrap_or_default();
    });
}

fn note_failure(call: &Call, verdict: &Verdict, inline: bool) {
    call.note(|report| {
        report.outcome = verdict.outcome();
        report.inline_code = inline.then(|| verdict.code_name());
        report.attempts = verdict.attempts;
        report.missed = verdict.missed;
        report.message = verdict.logged();
    });
}

/// The answer to a malformed request, which has no URI to blame.
fn refuse(call: &Call, invalid: &Invalid) -> Status {
    let verdict = Verdict::from(invalid).locate(&[], call.id());
    note_failure(call, &verdict, false);
    verdict.to_status()
}
