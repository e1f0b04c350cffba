//! The `Capabilities` service: what this cache can do.
//!
//! Not for: enforcing it; `request.rs` and `cas.rs` do.
//! Called by: clients, through `Embedded::routes`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::request::{ANNOUNCED, instance};
use super::{Inner, MAX_BATCH};
use crate::proto::build::bazel::semver::SemVer;
use crate::proto::rev2;

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Capabilities(pub(super) Arc<Inner>);

#[tonic::async_trait]
impl rev2::capabilities_server::Capabilities for Capabilities {
    async fn get_capabilities(
        &self,
        request: Request<rev2::GetCapabilitiesRequest>,
    ) -> Result<Response<rev2::ServerCapabilities>, Status> {
        instance(&request.get_ref().instance_name)?;
        let version = |minor| SemVer {
            major: 2,
            minor,
            ..SemVer::default()
        };
        let max = self.0.store.max_size();
        Ok(Response::new(rev2::ServerCapabilities {
            cache_capabilities: Some(cache(max)),
            execution_capabilities: None,
            deprecated_api_version: None,
            // Bazel 4 speaks 2.0 and no other.
            low_api_version: Some(version(0)),
            high_api_version: Some(version(3)),
        }))
    }
}

fn cache(max_size: u64) -> rev2::CacheCapabilities {
    let zstd = vec![rev2::compressor::Value::Zstd.into()];
    let absolute = rev2::symlink_absolute_path_strategy::Value::Allowed;
    rev2::CacheCapabilities {
        digest_functions: ANNOUNCED.iter().map(|f| f.to_wire()).collect(),
        action_cache_update_capabilities: Some(rev2::ActionCacheUpdateCapabilities {
            update_enabled: true,
        }),
        max_batch_total_size_bytes: i64::try_from(MAX_BATCH).unwrap_or(i64::MAX),
        max_cas_blob_size_bytes: i64::try_from(max_size).unwrap_or(i64::MAX),
        symlink_absolute_path_strategy: absolute.into(),
        supported_compressors: zstd.clone(),
        supported_batch_update_compressors: zstd,
        ..rev2::CacheCapabilities::default()
    }
}
