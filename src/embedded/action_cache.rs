//! The `ActionCache` service: entries per instance name, complete when read,
//! the last write wins.
//!
//! Not for: how entries are stored and checked (`action.rs`).
//! Called by: clients, through `Embedded::routes`.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tonic::{Request, Response, Status};

use super::key::Key;
use super::request::{answer, connection, digest, function, instance, room};
use super::status::{blocking, invalid};
use super::store::Error;
use super::uploads::Way;
use super::{Inner, action};
use crate::budget::Share;
use crate::digest::DigestFunction;
use crate::proto::rev2;

/// What a check counts at least, of [`super::CHECKS`] for all.
const CHECK_BYTES: u64 = 8 << 20;
/// Results above this wait for room.
const LARGE: u64 = 64 << 10;

/// The service.
#[derive(Debug, Clone)]
pub(super) struct ActionCache(pub(super) Arc<Inner>);

#[tonic::async_trait]
impl rev2::action_cache_server::ActionCache for ActionCache {
    async fn get_action_result(
        &self,
        request: Request<rev2::GetActionResultRequest>,
    ) -> Result<Response<rev2::ActionResult>, Status> {
        let connection = connection(&request);
        let share = request.extensions().get::<Share>().cloned();
        let request = request.into_inner();
        let instance = instance(&request.instance_name)?;
        let wire = request.action_digest.as_ref();
        let function = function(request.digest_function, wire)?;
        let action = digest(function, "action_digest", wire)?;
        let key = Key::action(&instance, function, &action);
        let missing = || Status::not_found(format!("no action result for {action}"));
        if !self.0.store.contains(&key) {
            return Err(missing());
        }
        // Entries and Trees are read into memory: not too many at once.
        let mut permit = self.0.checks.acquire(connection, CHECK_BYTES).await;
        let (mut result, mut writes) = self.entry(key).await?.ok_or_else(missing)?;
        let takes = takes(&result);
        let mut sent = None;
        if takes > LARGE && share.is_some() {
            // Nothing is kept while there is no room for it.
            drop((permit, result));
            sent = room(share.as_ref(), takes).await;
            permit = self.0.checks.acquire(connection, CHECK_BYTES).await;
            (result, writes) = self.entry(key).await?.ok_or_else(missing)?;
        }
        let bytes = action::check_bytes(&result);
        if bytes > CHECK_BYTES {
            drop(permit);
            permit = self.0.checks.acquire(connection, bytes).await;
        }
        let store = Arc::clone(&self.0.store);
        let found = blocking(move || {
            let complete = action::is_complete(&store, function, &result);
            // Until it is over, even if its call is not waited for any more.
            drop(permit);
            complete.then(|| {
                store.recent.keep(key, function, &result, writes);
                result
            })
        });
        let result = found.await?.ok_or_else(missing)?;
        Ok(answer(result, sent))
    }

    async fn update_action_result(
        &self,
        request: Request<rev2::UpdateActionResultRequest>,
    ) -> Result<Response<rev2::ActionResult>, Status> {
        let share = request.extensions().get::<Share>().cloned();
        let request = request.into_inner();
        let instance = instance(&request.instance_name)?;
        let wire = request.action_digest.as_ref();
        let function = function(request.digest_function, wire)?;
        let action = digest(function, "action_digest", wire)?;
        let result = request
            .action_result
            .ok_or_else(|| invalid("action_result", "it is required"))?;
        check_digests(function, &result)?;
        let key = Key::action(&instance, function, &action);
        let payload = Bytes::from(result.encode_to_vec());
        let mut way = Way::new();
        loop {
            let (inner, payload) = (Arc::clone(&self.0), payload.clone());
            let write = move || {
                action::write(&inner.store, key, &payload)
                    .inspect_err(|error| inner.uploads.on_error(error))
            };
            match blocking(write).await? {
                Err(Error::NoRoom) => way.wait(&self.0.uploads, None).await?,
                written => {
                    written?;
                    break;
                }
            }
        }
        // What was received is charged until then.
        let sent = room(share.as_ref(), takes(&result)).await;
        Ok(answer(result, sent))
    }
}

impl ActionCache {
    /// An entry as it is on disk, and how many were written until then.
    async fn entry(&self, key: Key) -> Result<Option<(rev2::ActionResult, u64)>, Status> {
        let store = Arc::clone(&self.0.store);
        blocking(move || {
            let writes = store.recent.writes();
            Some((action::read(&store, &key)?, writes))
        })
        .await
    }
}

/// What a result takes in memory, about.
fn takes(result: &rev2::ActionResult) -> u64 {
    3 * result.encoded_len() as u64
}

/// Refuses a result that could never be complete because a digest in it is
/// malformed.
fn check_digests(function: DigestFunction, result: &rev2::ActionResult) -> Result<(), Status> {
    for file in &result.output_files {
        digest(
            function,
            "action_result.output_files.digest",
            file.digest.as_ref(),
        )?;
    }
    for directory in &result.output_directories {
        let field = "action_result.output_directories.tree_digest";
        digest(function, field, directory.tree_digest.as_ref())?;
        let field = "action_result.output_directories.root_directory_digest";
        if directory.root_directory_digest.is_some() {
            digest(function, field, directory.root_directory_digest.as_ref())?;
        }
    }
    let streams = [
        ("action_result.stdout_digest", &result.stdout_digest),
        ("action_result.stderr_digest", &result.stderr_digest),
    ];
    for (field, value) in streams {
        if value.is_some() {
            digest(function, field, value.as_ref())?;
        }
    }
    Ok(())
}
