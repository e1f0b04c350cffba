//! Action Cache entries, as they are.
//!
//! Not for: what Assetgate keeps in them (`store::encoding`).
//! Called by: `store`.

use super::channel::{MAX_MESSAGE, unary};
use super::{Cache, CallContext, Error};
use crate::digest::{Digest, Scope};
use crate::proto::rev2;
use rev2::action_cache_client::ActionCacheClient;

impl Cache {
    /// The entry under an action digest, if there is one.
    pub async fn get_action_result(
        &self,
        context: &CallContext,
        scope: &Scope,
        action: &Digest,
    ) -> Result<Option<rev2::ActionResult>, Error> {
        let request = context.request(rev2::GetActionResultRequest {
            instance_name: scope.instance.to_string(),
            action_digest: Some(action.to_wire()),
            digest_function: scope.function.to_wire(),
            ..Default::default()
        });
        let mut client = self.action_cache();
        match unary("GetActionResult", client.get_action_result(request)).await {
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
        let request = context.request(rev2::UpdateActionResultRequest {
            instance_name: scope.instance.to_string(),
            action_digest: Some(action.to_wire()),
            action_result: Some(entry),
            results_cache_policy: None,
            digest_function: scope.function.to_wire(),
        });
        let mut client = self.action_cache();
        unary("UpdateActionResult", client.update_action_result(request)).await
    }

    fn action_cache(&self) -> ActionCacheClient<super::channel::Channel> {
        ActionCacheClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
}
