//! The cache's ActionCache, with the completeness check most caches have.

use assetgate::proto::rev2::action_cache_server::ActionCache;
use assetgate::proto::rev2::{
    ActionResult, Digest, GetActionResultRequest, Tree, UpdateActionResultRequest,
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::state::{Key, State};

#[tonic::async_trait]
impl ActionCache for State {
    async fn get_action_result(
        &self,
        request: Request<GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let request = request.into_inner();
        self.check_instance(&request.instance_name)?;
        let digest = request.action_digest.unwrap_or_default();
        let key = Key::new(&request.instance_name, &digest);
        let found = self.action_results.lock().get(&key).cloned();
        let entry = found.ok_or_else(|| Status::not_found("no such action"))?;
        if self.switches.lock().completeness && !self.complete(&request.instance_name, &entry) {
            return Err(Status::not_found("an output is gone"));
        }
        Ok(Response::new(entry))
    }

    async fn update_action_result(
        &self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let request = request.into_inner();
        self.check_instance(&request.instance_name)?;
        let digest = request.action_digest.unwrap_or_default();
        let entry = request.action_result.unwrap_or_default();
        let key = Key::new(&request.instance_name, &digest);
        self.action_results.lock().insert(key, entry.clone());
        Ok(Response::new(entry))
    }
}

impl State {
    fn complete(&self, instance: &str, entry: &ActionResult) -> bool {
        let there =
            |d: &Option<Digest>| d.as_ref().is_none_or(|d| self.blob(instance, d).is_some());
        entry.output_files.iter().all(|f| there(&f.digest))
            && entry.output_directories.iter().all(|d| {
                there(&d.root_directory_digest)
                    && d.tree_digest
                        .as_ref()
                        .is_none_or(|t| self.tree_complete(instance, t))
            })
    }

    fn tree_complete(&self, instance: &str, tree: &Digest) -> bool {
        let blob = self.blob(instance, tree);
        let Some(tree) = blob.and_then(|b| Tree::decode(b).ok()) else {
            return false;
        };
        let mut directories = tree.root.iter().chain(&tree.children);
        directories.all(|d| {
            let mut files = d.files.iter();
            files.all(|f| {
                f.digest
                    .as_ref()
                    .is_none_or(|d| self.blob(instance, d).is_some())
            })
        })
    }
}
