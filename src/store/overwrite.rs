//! Whether a refused write of an entry means that the cache overwrites none.
//!
//! Caches that take each entry once have no code of their own for it:
//! BuildGrid's write-once wrapper says INTERNAL, which nobody should have to
//! tell from a fault. So the entry that is there is looked at.
//! Called by: `record.rs`.

use tonic::Code;

use super::Error;
use super::encoding::same_payload;
use crate::digest::{Digest, Scope};
use crate::proto::rev2;
use crate::upstream::{self, Cache, CallContext};

/// What the failure of a write means, by what stands under the key now: it is
/// there all the same, or something else is and stays, or the write failed.
pub(super) async fn judge(
    cache: &Cache,
    context: &CallContext,
    (scope, action): (&Scope, &Digest),
    sent: &rev2::ActionResult,
    error: upstream::Error,
) -> Result<(), Error> {
    if !matches!(error.code(), Some(Code::Internal | Code::AlreadyExists)) {
        return Err(error.into());
    }
    match cache.get_action_result(context, scope, action).await {
        Ok(Some(there)) if same_payload(scope.function, sent, &there) == Some(true) => Ok(()),
        Ok(Some(_)) => Err(taken(&error)),
        // The first failure is the one to tell.
        Ok(None) | Err(_) => Err(error.into()),
    }
}

/// Not UNAVAILABLE or INTERNAL: the same push fails however often it is sent.
fn taken(error: &upstream::Error) -> Error {
    let text = format!(
        "the Action Cache holds this reference already and did not take another: {error}; \
         what is recorded stays. References can only be changed in a cache in which the last \
         write of an entry wins"
    );
    let status = tonic::Status::failed_precondition(text);
    upstream::Error::from_status("UpdateActionResult", status).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::double::{Double, scope, sha256};

    #[tokio::test]
    async fn a_fault_of_a_cache_that_holds_nothing_is_passed_on() {
        let (cache, context) = (Double::new().cache(), CallContext::default());
        let fault = tonic::Status::internal("broken");
        let error = upstream::Error::from_status("UpdateActionResult", fault);
        let (scope, key) = (scope(), sha256(b"key"));
        let sent = rev2::ActionResult::default();
        let judged = judge(&cache, &context, (&scope, &key), &sent, error).await;
        let Err(Error::Upstream(error)) = judged else {
            panic!("{judged:?}")
        };
        assert_eq!(error.code(), Some(Code::Internal));
    }
}
