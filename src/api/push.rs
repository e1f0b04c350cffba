//! PushBlob and PushDirectory: two names for one function.
//!
//! Not for: decisions. Those are in `resolver` and `status.rs`.

use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::convert::PushMessage;
use super::status::Verdict;
use super::{aside_if, note_caller, note_failure, refuse};
use crate::asset::AssetKind;
use crate::call::Call;
use crate::fetcher::Fetcher;
use crate::proto::asset::push_server::Push;
use crate::proto::asset::{
    PushBlobRequest, PushBlobResponse, PushDirectoryRequest, PushDirectoryResponse,
};
use crate::resolver::{Announce, ResolveError, Resolver};
use crate::store::AssetStore;
use crate::upstream::Identity;

/// The Push service.
pub(super) struct PushService<S, F, A> {
    resolver: Resolver<S, F, A>,
    identity: Identity,
}

impl<S: AssetStore, F: Fetcher, A: Announce> PushService<S, F, A> {
    pub(super) fn new(resolver: Resolver<S, F, A>, identity: Identity) -> Self {
        Self { resolver, identity }
    }

    async fn record<M>(&self, kind: AssetKind, request: Request<M>) -> Result<(), Status>
    where
        PushMessage: From<M>,
    {
        let (metadata, extensions, message) = request.into_parts();
        let (call, connection) = (Call::of(&extensions), extensions.get().cloned());
        drop(extensions);
        let caller = Caller::of(&metadata);
        let context = self.identity.context(metadata).of_connection(connection);
        let message = PushMessage::from(message);
        let large = message.is_large();
        let read = aside_if(large, context.connection(), move || {
            let limits = message.check_limits();
            let push = message.to_push(kind);
            (message.uris(), message.instance(), limits, push)
        });
        let (uris, instance, limits, push) = read.await?;
        note_caller(&call, &caller, kind, uris.first());
        let fail = |error: ResolveError| {
            let verdict = Verdict::from(&error).without_secrets(&context);
            let verdict = verdict.locate(&uris, call.id());
            note_failure(&call, &verdict, false);
            verdict.to_status()
        };
        limits.map_err(|invalid| refuse(&call, &invalid))?;
        // Before the rest of what is wrong with the request is told: whoever
        // probes with an empty one learns at start-up that pushing will not
        // work.
        let allowed = self.resolver.check_pushing(instance.as_ref());
        allowed.map_err(fail)?;
        let push = push.map_err(|invalid| refuse(&call, &invalid))?;
        call.note(|report| report.bytes = push.digest.size());
        self.resolver.push(&context, push).await.map_err(fail)?;
        call.note(|report| report.outcome = "pushed");
        Ok(())
    }
}

#[tonic::async_trait]
impl<S: AssetStore, F: Fetcher, A: Announce> Push for PushService<S, F, A> {
    async fn push_blob(
        &self,
        request: Request<PushBlobRequest>,
    ) -> Result<Response<PushBlobResponse>, Status> {
        self.record(AssetKind::Blob, request).await?;
        Ok(Response::new(PushBlobResponse {}))
    }

    async fn push_directory(
        &self,
        request: Request<PushDirectoryRequest>,
    ) -> Result<Response<PushDirectoryResponse>, Status> {
        self.record(AssetKind::Directory, request).await?;
        Ok(Response::new(PushDirectoryResponse {}))
    }
}
