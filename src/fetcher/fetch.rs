//! The fetcher over HTTP: what one request begins with and ends with.
//!
//! Not for: its mirrors (`mirrors`), nor the same request asked again
//! (`resolver`).
//! Called by: `resolver` through [`Fetcher`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::client::Client;
use super::connector::{Connector, Resolver};
use super::downloads::Downloads;
use super::failed::{Failed, Failures};
use super::hashes::Hashes;
use super::measure::Running;
use super::mirrors::{Good, Mirrors};
use super::policy::AddressPolicy;
use super::rules::{is_file_type, with_credentials};
use super::spool::Spool;
use super::target::Target;
use super::{
    Failure, FetchError, FetchRequest, Fetched, Fetcher, Progress, Settings, SettingsError, tls,
};
use crate::asset::{AssetKind, BAZEL_CANONICAL_ID, CHECKSUM_SRI, RESOURCE_TYPE, Uri};
use crate::digest::Digest;
use crate::upstream::{self, Cache, CallContext};

/// What is written to learn whether the cache lets the caller write: one who
/// may not learns so before the origin is asked (S11). It is written each
/// time, as that it is there says nothing of this caller.
pub(super) const PROBE: &[u8] = b"assetgate: may this caller write?";

/// Fetches blobs from `http` and `https` origins into the CAS.
pub struct HttpFetcher {
    inner: Arc<Inner>,
}

/// What fetches and downloads share.
pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) client: Client,
    pub(super) spool: Spool,
    /// Downloads that run at once.
    pub(super) slots: Semaphore,
    pub(super) cache: Cache,
    pub(super) backoff: Backoff,
    pub(super) downloads: Downloads,
    pub(super) progress: Progress,
}

/// What a fetch knows from its beginning.
pub(super) struct Job<'a> {
    pub(super) context: &'a CallContext,
    pub(super) request: &'a FetchRequest,
    pub(super) hashes: Hashes,
    pub(super) limit: u64,
}

impl HttpFetcher {
    /// A fetcher, or everything that is wrong with its settings.
    pub fn new(settings: Settings, cache: Cache) -> Result<Self, Vec<SettingsError>> {
        Self::with_resolver(settings, cache, Resolver::System)
    }

    pub(super) fn with_resolver(
        settings: Settings,
        cache: Cache,
        resolver: Resolver,
    ) -> Result<Self, Vec<SettingsError>> {
        let mut errors = settings.check().err().unwrap_or_default();
        let tls = tls::client_config(settings.ca.as_deref(), settings.http2);
        let tls = match tls {
            Ok(tls) if errors.is_empty() => tls,
            Ok(_) => return Err(errors),
            Err(problem) => {
                errors.push(SettingsError { key: "ca", problem });
                return Err(errors);
            }
        };
        let (deny, allow) = (settings.deny_cidr.clone(), settings.allow_cidr.clone());
        let policy = AddressPolicy::new(deny, allow);
        let connector = Connector::new(policy, tls, resolver, settings.connect_timeout);
        let head_timeout = settings.connect_timeout + settings.stall_timeout;
        let spool_dir = settings.spool_dir.clone();
        let inner = Inner {
            client: Client::new(connector, head_timeout, settings.max_redirects),
            spool: Spool::new(spool_dir, settings.memory, settings.spool_size),
            slots: Semaphore::new(settings.max_concurrent),
            backoff: Backoff::new(settings.retry_delay),
            downloads: Downloads::new(),
            progress: Progress::default(),
            settings,
            cache,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The downloads under way.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.inner.progress.clone()
    }

    /// Learns from the cache what it takes, and whether it lets the caller ask
    /// at all: a caller it refuses must not make us download (S11).
    async fn prepare<'a>(
        &self,
        context: &'a CallContext,
        request: &'a FetchRequest,
    ) -> Result<Job<'a>, FetchError> {
        let function = request.scope.function;
        let unsupported = || FetchError::Upstream(upstream::Error::UnsupportedFunction(function));
        let hashes = Hashes::new(function, request.integrity.as_ref()).ok_or_else(unsupported)?;
        let probe = Digest::of(function, PROBE).ok_or_else(unsupported)?;
        let scope = &request.scope;
        let limits = self.inner.cache.limits(context, &scope.instance).await?;
        if !limits.supports(function) {
            return Err(unsupported());
        }
        let probe = vec![(probe, Bytes::from_static(PROBE))];
        self.inner.cache.write_blobs(context, scope, probe).await?;
        let own_limit = self.inner.settings.max_size;
        Ok(Job {
            context,
            request,
            hashes,
            limit: limits.max_blob_size.map_or(own_limit, |n| n.min(own_limit)),
        })
    }

    #[cfg(test)]
    pub(super) fn occupy_memory(&self) -> Option<super::spool::Share> {
        let memory = self.inner.spool.memory();
        memory.try_share(memory.total())
    }
}

impl Inner {
    /// The time a request gets.
    pub(super) fn time(&self, request: &FetchRequest) -> Duration {
        let wanted = request.timeout.filter(|t| !t.is_zero());
        wanted
            .unwrap_or(self.settings.timeout)
            .min(self.settings.max_timeout)
    }
}

impl Fetcher for HttpFetcher {
    fn is_fetchable(&self, kind: AssetKind, uri: &Uri) -> bool {
        match kind {
            AssetKind::Blob => Target::parse(uri).is_ok(),
            AssetKind::Directory => false,
        }
    }

    fn unsupported(&self, request: &FetchRequest) -> Vec<String> {
        let supported = |name: &str, value: &str| match name {
            CHECKSUM_SRI => request.integrity.is_some(),
            BAZEL_CANONICAL_ID => true,
            RESOURCE_TYPE => is_file_type(value),
            _ => false,
        };
        let all = request.qualifiers.iter();
        all.filter(|q| !supported(&q.name, &q.value))
            .map(|q| q.name.clone())
            .collect()
    }

    async fn fetch(
        &self,
        context: &CallContext,
        request: &FetchRequest,
    ) -> Result<Fetched, FetchError> {
        let _running = Running::new();
        if request.kind == AssetKind::Directory || request.uris.is_empty() {
            let mut failures = Failures::new(&request.uris);
            for index in 0..request.uris.len() {
                let text = "fetching directories is not built in; it can only be pushed";
                failures.add(index, Failed::new(Failure::NotFound, text));
            }
            return Err(failures.into_error(0));
        }
        let deadline = Instant::now() + self.inner.time(request);
        let job = self.prepare(context, request).await?;
        let mirrors = Mirrors::new(&self.inner, job, deadline);
        let (good, spent) = mirrors.first_good().await?;
        let Good {
            uri_index,
            landed,
            joined,
        } = good;
        Ok(Fetched {
            digest: landed.digest,
            uri_index,
            not_modified: landed.not_modified,
            joined,
            started_at: landed.started_at,
            validators: landed.validators,
            verified: landed.computed,
            with_credentials: with_credentials(request, uri_index),
            origin_bytes: spent.bytes,
            attempts: spent.attempts,
        })
    }
}
