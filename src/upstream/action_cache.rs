//! Action Cache entries, as they are.
//!
//! Not for: what Assetgate keeps in them (`store::encoding`).
//! Called by: `store`.

use super::unary::{Method, method};
use super::{Cache, CallContext, Error};
use crate::digest::{Digest, Scope};
use crate::proto::rev2;

static GET: Method = method!("ActionCache", "GetActionResult");
static UPDATE: Method = method!("ActionCache", "UpdateActionResult");

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
        match self.channel.unary(&GET, context, &request).await {
            Ok(entry) => Ok(Some(entry)),
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
