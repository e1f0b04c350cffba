//! Action Cache entries, as they are.
//!
//! Not for: what Assetgate keeps in them (`store::encoding`).
//! Called by: `store`.

use bytes::Bytes;

use super::unary::{Method, method};
use super::{Cache, CallContext, Error};
use crate::digest::{Digest, Scope};
use crate::proto::{self, rev2};

static GET: Method = method!("ActionCache", "GetActionResult");
static UPDATE: Method = method!("ActionCache", "UpdateActionResult");

/// Largest entry that is looked at, and most memory it may take once it is
/// decoded: none of ours comes near, and a foreign one may be made to cost a
/// hundred times its size.
const MAX_ENTRY: usize = 2 << 20;
const MAX_DECODED_ENTRY: u64 = 8 << 20;

fn read_entry(bytes: Bytes) -> Result<rev2::ActionResult, Error> {
    let malformed = |reason: String| Error::Malformed {
        method: GET.name,
        reason,
    };
    if bytes.len() > MAX_ENTRY {
        return Err(malformed("it is larger than any reference".to_owned()));
    }
    proto::decode(bytes, MAX_DECODED_ENTRY).map_err(|error| malformed(error.to_string()))
}

impl Cache {
    /// The entry under an action digest, if there is one.
    pub async fn get_action_result(
        &self,
        context: &CallContext,
        scope: &Scope,
        action: &Digest,
    ) -> Result<Option<rev2::ActionResult>, Error> {
        let at_hand = self.at_hand.as_ref();
        if let Some(entry) = at_hand.and_then(|look| look(scope, action)) {
            return Ok(Some(entry));
        }
        let request = rev2::GetActionResultRequest {
            instance_name: scope.instance.to_string(),
            action_digest: Some(action.to_wire()),
            digest_function: scope.function.to_wire(),
            ..Default::default()
        };
        let answer = self.channel.unary_read_by(&GET, context, &request, Ok);
        match answer.await {
            Ok(entry) => read_entry(entry).map(Some),
            Err(error) if error.code() == Some(tonic::Code::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes an entry; returns what the cache says that it now holds, which
    /// need not be what was sent.
    pub async fn update_action_result(
        &self,
        context: &CallContext,
        scope: &Scope,
        action: &Digest,
        entry: rev2::ActionResult,
    ) -> Result<rev2::ActionResult, Error> {
        let request = rev2::UpdateActionResultRequest {
            instance_name: scope.instance.to_string(),
            action_digest: Some(action.to_wire()),
            action_result: Some(entry),
            results_cache_policy: None,
            digest_function: scope.function.to_wire(),
        };
        self.channel.unary(&UPDATE, context, &request).await
    }
}
