//! The cache's Capabilities.

use assetgate::proto::rev2::capabilities_server::Capabilities;
use assetgate::proto::rev2::{
    ActionCacheUpdateCapabilities, CacheCapabilities, GetCapabilitiesRequest, ServerCapabilities,
    compressor,
};
use tonic::{Request, Response, Status};

use super::state::State;

#[tonic::async_trait]
impl Capabilities for State {
    async fn get_capabilities(
        &self,
        request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        self.check_instance(&request.into_inner().instance_name)?;
        let switches = self.switches.lock();
        Ok(Response::new(ServerCapabilities {
            cache_capabilities: Some(CacheCapabilities {
                digest_functions: switches.functions.iter().map(|f| *f as i32).collect(),
                action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities {
                    update_enabled: true,
                }),
                max_batch_total_size_bytes: switches.batch_limit,
                supported_compressors: match switches.zstd {
                    true => vec![
                        compressor::Value::Identity as i32,
                        compressor::Value::Zstd as i32,
                    ],
                    false => Vec::new(),
                },
                ..Default::default()
            }),
            ..Default::default()
        }))
    }
}
