//! Whether a cache has GetTree. Only asked: our own walks do without it, as
//! some caches have none and others leave out what is missing.
//!
//! Called by: `store::probe`.

use tonic::Code;

use super::channel::{MAX_MESSAGE, timed};
use super::{Cache, CallContext, Error};
use crate::digest::{Digest, Scope};
use crate::proto::rev2;
use rev2::content_addressable_storage_client::ContentAddressableStorageClient;

const METHOD: &str = "GetTree";

impl Cache {
    /// Whether GetTree answers for a directory that is there.
    pub async fn has_get_tree(
        &self,
        context: &CallContext,
        scope: &Scope,
        root: &Digest,
    ) -> Result<bool, Error> {
        let request = context.request(rev2::GetTreeRequest {
            instance_name: scope.instance.to_string(),
            root_digest: Some(root.to_wire()),
            digest_function: scope.function.to_wire(),
            ..Default::default()
        });
        let mut client = ContentAddressableStorageClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE);
        let first = async {
            let mut pages = client.get_tree(request).await?.into_inner();
            pages.message().await
        };
        match timed(METHOD, first).await {
            Ok(page) => Ok(page.is_some_and(|page| !page.directories.is_empty())),
            Err(error) if error.code() == Some(Code::Unimplemented) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
