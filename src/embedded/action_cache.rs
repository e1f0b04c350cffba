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
use super::shares::Permit;
use super::status::{blocking, invalid, laborious};
use super::store::{Error, Store};
use super::uploads::Way;
use super::{Inner, action};
use crate::budget::{self, Share};
use crate::digest::DigestFunction;
use crate::proto::rev2;

/// What a check counts at least, of [`super::CHECKS`] for all.
const CHECK_BYTES: u64 = 8 << 20;
/// Results above this wait for room.
const LARGE: u64 = 64 << 10;
/// Trees up to this are read without more ado.
const SMALL_TREE: u64 = 256 << 10;

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
        let mut sent = None;
        // Whoever asks from within this process holds the answer anyway.
        let answer_bytes = share.as_ref().map_or(u64::MAX, |_| LARGE);
        let mut may = May {
            answer_bytes,
            tree_bytes: SMALL_TREE,
        };
        loop {
            // Entries and Trees are read into memory: not too many at once.
            let bytes = may.tree_bytes.max(CHECK_BYTES);
            let permit = self.0.checks.acquire(connection, bytes).await;
            let tree = room_of_tree(share.as_ref(), may.tree_bytes).await;
            match self.look(key, function, may, (permit, tree)).await? {
                Ok(result) => return Ok(answer(result.ok_or_else(missing)?, sent)),
                // Nothing is kept while there is no room for it.
                Err(more) => {
                    if more.answer_bytes > may.answer_bytes {
                        drop(sent.take());
                        sent = room(share.as_ref(), more.answer_bytes).await;
                    }
                    may = more;
                }
            }
        }
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
        let sent = room(share.as_ref(), takes(result.encoded_len())).await;
        Ok(answer(result, sent))
    }
}

impl ActionCache {
    /// Reads an entry and checks that it is complete, in one step: each is a
    /// switch to another thread and back.
    async fn look(
        &self,
        key: Key,
        function: DigestFunction,
        may: May,
        held: (Permit, Option<budget::Permit>),
    ) -> Result<Looked, Status> {
        let store = Arc::clone(&self.0.store);
        let look = move || {
            let look = look(&store, key, function, may);
            // Until it is over, even if its call is not waited for any more.
            drop(held);
            look
        };
        match may.tree_bytes > SMALL_TREE {
            true => laborious(look).await,
            false => blocking(look).await,
        }
    }
}

/// Room in the budget for a Tree, unless it is small. Not complete before it was
/// read: of those that take more than there is, one goes on.
async fn room_of_tree(share: Option<&Share>, bytes: u64) -> Option<budget::Permit> {
    let mut room = share.filter(|_| bytes > SMALL_TREE)?.claim();
    room.grow(bytes).await;
    Some(room)
}

/// What a look at an entry may hold in memory.
#[derive(Debug, Clone, Copy)]
struct May {
    /// For the answer.
    answer_bytes: u64,
    /// For its largest Tree.
    tree_bytes: u64,
}

/// The entry, if it is complete, or what a look at it takes that it may not.
type Looked = Result<Option<rev2::ActionResult>, May>;

fn look(store: &Store, key: Key, function: DigestFunction, may: May) -> Looked {
    let writes = store.recent.writes();
    let Some((result, length)) = action::read(store, &key) else {
        return Ok(None);
    };
    let needs = May {
        answer_bytes: takes(length).max(may.answer_bytes),
        tree_bytes: action::check_bytes(&result).max(may.tree_bytes),
    };
    if needs.answer_bytes > may.answer_bytes || needs.tree_bytes > may.tree_bytes {
        return Err(needs);
    }
    if !action::is_complete(store, function, &result) {
        return Ok(None);
    }
    store.recent.keep(key, function, &result, writes);
    Ok(Some(result))
}

/// What a result of so many bytes takes in memory, about.
fn takes(encoded: usize) -> u64 {
    3 * encoded as u64
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
