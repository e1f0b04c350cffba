//! What a cache says it can do (GetCapabilities), kept for some minutes.
//!
//! Not for: what it does in practice, which a probe finds out.
//! Called by: the typed clients, `api`, `fetcher`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::unary::{Method, method};
use super::{Cache, CallContext, Error};
use crate::digest::{DigestFunction, InstanceName};
use crate::proto::rev2;

static METHOD: Method = method!("Capabilities", "GetCapabilities");

/// How long an answer holds.
const FRESH: Duration = Duration::from_secs(300);

/// Instance names come from requests: no more than this many are remembered.
const MAX_INSTANCES: usize = 1024;

/// gRPC's default message limit, less room for what surrounds the data. Holds
/// where a cache announces no limit of its own, and above it.
const MAX_BATCH: usize = (4 << 20) - (64 << 10);

/// A compressor of REv2 other than the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compressor {
    /// Zstandard.
    Zstd,
    /// Deflate.
    Deflate,
    /// Brotli.
    Brotli,
}

/// What a cache announces for one instance name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Digest functions, in the order announced; never empty.
    pub digest_functions: Arc<[DigestFunction]>,
    /// Most bytes of data in one batch call.
    pub max_batch_bytes: usize,
    /// Largest blob accepted, if there is a limit.
    pub max_blob_size: Option<u64>,
    /// Compressors of `ByteStream`.
    pub compressors: Vec<Compressor>,
    /// Compressors of BatchUpdateBlobs.
    pub batch_compressors: Vec<Compressor>,
    /// Whether absolute symbolic links may be stored.
    pub absolute_symlinks: bool,
    /// Whether Action Cache writes are announced as possible. A hint: several
    /// caches say so of nobody or of everybody.
    pub update_enabled: bool,
}

impl Default for Limits {
    /// What is assumed of a cache that has no GetCapabilities.
    fn default() -> Self {
        Self {
            digest_functions: Arc::new([DigestFunction::Sha256]),
            max_batch_bytes: MAX_BATCH,
            max_blob_size: None,
            compressors: Vec::new(),
            batch_compressors: Vec::new(),
            absolute_symlinks: false,
            update_enabled: true,
        }
    }
}

impl Limits {
    /// Whether the cache announces a digest function.
    #[must_use]
    pub fn supports(&self, function: DigestFunction) -> bool {
        self.digest_functions.contains(&function)
    }

    fn from_wire(wire: &rev2::CacheCapabilities) -> Self {
        let mut digest_functions: Vec<DigestFunction> = wire
            .digest_functions
            .iter()
            .filter_map(|f| DigestFunction::from_wire(*f).ok().flatten())
            .collect();
        if digest_functions.is_empty() {
            digest_functions.push(DigestFunction::Sha256);
        }
        let announced = usize::try_from(wire.max_batch_total_size_bytes).unwrap_or(0);
        let strategy = rev2::symlink_absolute_path_strategy::Value::Allowed as i32;
        Self {
            digest_functions: digest_functions.into(),
            max_batch_bytes: match announced {
                0 => MAX_BATCH,
                some => some.min(MAX_BATCH),
            },
            max_blob_size: u64::try_from(wire.max_cas_blob_size_bytes)
                .ok()
                .filter(|n| *n > 0),
            compressors: compressors(&wire.supported_compressors),
            batch_compressors: compressors(&wire.supported_batch_update_compressors),
            absolute_symlinks: wire.symlink_absolute_path_strategy == strategy,
            update_enabled: wire
                .action_cache_update_capabilities
                .is_some_and(|c| c.update_enabled),
        }
    }
}

fn compressors(wire: &[i32]) -> Vec<Compressor> {
    use rev2::compressor::Value;
    let known = |value: &i32| match Value::try_from(*value).ok()? {
        Value::Zstd => Some(Compressor::Zstd),
        Value::Deflate => Some(Compressor::Deflate),
        Value::Brotli => Some(Compressor::Brotli),
        Value::Identity => None,
    };
    wire.iter().filter_map(known).collect()
}

/// Answers by instance name, and when they were given.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<InstanceName, (Instant, Arc<Limits>)>>);

impl Known {
    fn get(&self, instance: &InstanceName) -> Option<(Instant, Arc<Limits>)> {
        self.0.lock().get(instance).cloned()
    }

    fn set(&self, instance: &InstanceName, limits: Arc<Limits>) {
        let mut known = self.0.lock();
        if known.len() >= MAX_INSTANCES && !known.contains_key(instance) {
            known.clear();
        }
        known.insert(instance.clone(), (Instant::now(), limits));
    }
}

impl Cache {
    /// The limits of an instance name. An older answer stands in while the
    /// cache cannot be asked, and defaults for a cache that knows no
    /// GetCapabilities.
    pub async fn limits(
        &self,
        context: &CallContext,
        instance: &InstanceName,
    ) -> Result<Arc<Limits>, Error> {
        let known = self.known.get(instance);
        if let Some((since, limits)) = &known
            && since.elapsed() < FRESH
        {
            return Ok(limits.clone());
        }
        // Boxed, as it is rarely needed.
        match Box::pin(self.ask_limits(context, instance)).await {
            Ok(limits) => {
                let limits = Arc::new(limits);
                self.known.set(instance, limits.clone());
                Ok(limits)
            }
            Err(error) => known.map(|(_, limits)| limits).ok_or(error),
        }
    }

    async fn ask_limits(
        &self,
        context: &CallContext,
        instance: &InstanceName,
    ) -> Result<Limits, Error> {
        let request = rev2::GetCapabilitiesRequest {
            instance_name: instance.to_string(),
        };
        let answer = self.channel.unary(&METHOD, context, &request).await;
        match answer {
            Ok(rev2::ServerCapabilities {
                cache_capabilities: answer,
                ..
            }) => Ok(answer.as_ref().map(Limits::from_wire).unwrap_or_default()),
            Err(error) if error.code() == Some(tonic::Code::Unimplemented) => Ok(Limits::default()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::double::Double;

    #[test]
    fn what_is_announced_is_read_with_care() {
        let wire = rev2::CacheCapabilities {
            max_batch_total_size_bytes: 0,
            ..Default::default()
        };
        let limits = Limits::from_wire(&wire);
        assert_eq!(&*limits.digest_functions, [DigestFunction::Sha256]);
        assert_eq!(limits.max_batch_bytes, MAX_BATCH);
        assert_eq!(limits.max_blob_size, None);

        let wire = rev2::CacheCapabilities {
            digest_functions: vec![9, 999, 1],
            max_batch_total_size_bytes: 1 << 40,
            max_cas_blob_size_bytes: 7,
            symlink_absolute_path_strategy: 2,
            supported_compressors: vec![0, 1, 77],
            ..Default::default()
        };
        let limits = Limits::from_wire(&wire);
        assert_eq!(
            &*limits.digest_functions,
            [DigestFunction::Blake3, DigestFunction::Sha256]
        );
        assert_eq!(limits.max_batch_bytes, MAX_BATCH);
        assert_eq!(limits.max_blob_size, Some(7));
        assert!(limits.absolute_symlinks);
        assert_eq!(limits.compressors, [Compressor::Zstd]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_and_outlives_a_failing_cache() {
        let double = Double::new();
        double.set(|s| s.max_batch = 65_536);
        let cache = double.cache();
        let ctx = CallContext::default();
        let instance = InstanceName::default();
        for _ in 0..3 {
            let limits = cache.limits(&ctx, &instance).await.unwrap();
            assert_eq!(limits.max_batch_bytes, 65_536);
        }
        assert_eq!(double.calls(METHOD.name), 1);
        tokio::time::advance(FRESH).await;
        double.set(|s| s.unreachable = true);
        let limits = cache.limits(&ctx, &instance).await.unwrap();
        assert_eq!(limits.max_batch_bytes, 65_536);

        let other = InstanceName::new("other").unwrap();
        let error = cache.limits(&ctx, &other).await.unwrap_err();
        assert_eq!(error.code(), Some(tonic::Code::Unavailable));
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
        // It did not say a word.
        assert!(!error.to_string().contains("answered"), "{error}");
    }

    #[tokio::test]
    async fn a_cache_without_capabilities_gets_defaults() {
        let double = Double::new();
        double.set(|s| s.no_capabilities = true);
        let limits = double
            .cache()
            .limits(&CallContext::default(), &InstanceName::default())
            .await
            .unwrap();
        assert_eq!(*limits, Limits::default());
    }
}
