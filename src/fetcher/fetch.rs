//! The fetcher over HTTP: what one request begins with and ends with.
//!
//! Not for: its mirrors (`mirrors`), nor the same request asked again
//! (`resolver`).
//! Called by: `resolver` through [`Fetcher`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::client::Client;
use super::connections::Connections;
use super::connector::{Connector, Resolver, Way};
use super::downloads::Downloads;
use super::exchange::Exchange;
use super::failed::{Failed, Failures};
use super::hashes::Hashes;
use super::hosts::Hosts;
use super::measure::Running;
use super::mirrors::{Good, Mirrors};
use super::policy::AddressPolicy;
use super::proxy::{Proxy, read_proxy_credential};
use super::rules::is_file_type;
use super::spool::Spool;
use super::target::Target;
use super::watch::OriginFiles;
use super::{
    Failure, FetchError, FetchRequest, Fetched, Fetcher, Progress, Settings, SettingsError, tls,
};
use crate::asset::{AssetKind, BAZEL_CANONICAL_ID, CHECKSUM_SRI, RESOURCE_TYPE, Uri};
use crate::digest::Digest;
use crate::net::Reloading;
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
    pub(super) files: OriginFiles,
    pub(super) spool: Spool,
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
        let mut wrong = |key, problem| errors.push(SettingsError { key, problem });
        let proxy = proxy(&settings).map_err(|(key, problem)| wrong(key, problem));
        let tls = tls::connector(settings.ca.as_deref(), settings.http2);
        let tls = tls.map_err(|problem| wrong("ca", problem));
        let files = OriginFiles::open(&settings).map_err(|more| errors.extend(more));
        let (Ok(tls), Ok(proxy), Ok(files), true) = (tls, proxy, files, errors.is_empty()) else {
            return Err(errors);
        };
        let (deny, allow) = (settings.deny_cidr.clone(), settings.allow_cidr.clone());
        let connector = Connector::new(Way {
            policy: AddressPolicy::new(deny, allow),
            tls,
            resolver,
            timeout: settings.connect_timeout,
            connections: Connections::new(settings.max_connections),
            proxy: proxy.clone(),
        });
        let proxied = proxy.clone();
        let hosts = Hosts::new(
            settings.max_per_host,
            settings.rate_per_host,
            settings.max_concurrent,
        );
        let exchange = Exchange::new(connector, hosts, proxy, settings.first_byte_timeout);
        let spool_dir = settings.spool_dir.clone();
        let backoff = Backoff::new(settings.retry_delay);
        let inner = Inner {
            client: Client::new(
                exchange,
                Arc::clone(&files.credentials),
                settings.max_redirects,
            ),
            files: OriginFiles {
                proxy: proxied,
                ..files
            },
            spool: Spool::new(spool_dir, settings.memory, settings.spool_size),
            backoff,
            downloads: Downloads::new(backoff),
            progress: Progress::default(),
            settings,
            cache,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The files with rules and credentials, which may change.
    #[must_use]
    pub fn files(&self) -> OriginFiles {
        self.inner.files.clone()
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

/// The proxy, or what is wrong with which key.
fn proxy(settings: &Settings) -> Result<Option<Arc<Proxy>>, (&'static str, String)> {
    let Some(address) = settings.proxy.clone() else {
        return Ok(None);
    };
    let credential = settings.proxy_credential.clone().map(|path| {
        let paths = vec![path.clone()];
        Reloading::new("the proxy's credential", paths, move || {
            read_proxy_credential(&path)
        })
    });
    let credential = credential.transpose();
    Ok(Some(Arc::new(Proxy {
        address,
        credential: credential.map_err(|problem| ("proxy_credential", problem))?,
        direct: settings.no_proxy.clone(),
        tls: tls::connector(settings.ca.as_deref(), false).map_err(|problem| ("ca", problem))?,
    })))
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
            with_credentials: landed.lent || request.is_private(uri_index),
            origin_bytes: spent.bytes,
            attempts: spent.requests,
        })
    }
}
