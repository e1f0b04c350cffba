//! The fetcher over HTTP: mirrors in order, one of them into the cache.
//!
//! One pass over the mirrors per call. Retries with backoff, resuming with
//! Range and per-host limits belong into `attempt`; joining identical
//! requests belongs to `resolver`.
//! Called by: `resolver` through [`Fetcher`].

use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::client::{Answer, Client};
use super::connector::{Connector, Resolver};
use super::failed::{Failed, Failures};
use super::hashes::Hashes;
use super::policy::AddressPolicy;
use super::receive::{Bounds, Received, Stop, receive};
use super::rules::{
    Running, class, content_length, count, headers, is_file_type, usable, validators,
    with_credentials,
};
use super::spool::{Content, Spool};
use super::target::Target;
use super::{
    Failure, FetchError, FetchRequest, Fetched, Fetcher, Settings, SettingsError, deposit, tls,
};
use bytes::Bytes;

use crate::asset::{
    AssetKind, BAZEL_CANONICAL_ID, CHECKSUM_SRI, Checksum, RESOURCE_TYPE, Uri, Validators,
};
use crate::digest::Digest;
use crate::upstream::{self, Cache, CallContext};

/// What is written to learn whether the cache lets the caller write: one who
/// may not learns so before the origin is asked (S11). It is written each
/// time, as that it is there says nothing of this caller.
pub(super) const PROBE: &[u8] = b"assetgate: may this caller write?";

/// Fetches blobs from `http` and `https` origins into the CAS.
pub struct HttpFetcher {
    settings: Settings,
    client: Client,
    spool: Spool,
    slots: Semaphore,
    cache: Cache,
}

/// One mirror's good answer.
struct Got {
    digest: Digest,
    verified: Vec<Checksum>,
    validators: Validators,
    /// `None`: the cache has it already.
    content: Option<Content>,
}

/// What a fetch knows from its beginning.
struct Job<'a> {
    context: &'a CallContext,
    request: &'a FetchRequest,
    hashes: Hashes,
    limit: u64,
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
        Ok(Self {
            client: Client::new(connector, head_timeout, settings.max_redirects),
            spool: Spool::new(
                settings.spool_dir.clone(),
                settings.memory,
                settings.spool_size,
            ),
            slots: Semaphore::new(settings.max_concurrent),
            settings,
            cache,
        })
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
        let limits = self.cache.limits(context, &scope.instance).await?;
        if !limits.supports(function) {
            return Err(unsupported());
        }
        let probe = vec![(probe, Bytes::from_static(PROBE))];
        self.cache.write_blobs(context, scope, probe).await?;
        let own_limit = self.settings.max_size;
        Ok(Job {
            context,
            request,
            hashes,
            limit: limits.max_blob_size.map_or(own_limit, |n| n.min(own_limit)),
        })
    }

    #[cfg(test)]
    pub(super) fn occupy_memory(&self) -> Option<super::spool::Share> {
        let memory = self.spool.memory();
        memory.try_share(memory.total())
    }

    fn time(&self, request: &FetchRequest) -> Duration {
        let wanted = request.timeout.filter(|t| !t.is_zero());
        wanted
            .unwrap_or(self.settings.timeout)
            .min(self.settings.max_timeout)
    }

    async fn slot(&self) -> Result<SemaphorePermit<'_>, FetchError> {
        let closed = |_| FetchError::Internal("fetching has stopped".to_owned());
        self.slots.acquire().await.map_err(closed)
    }

    /// Tries one mirror.
    async fn attempt(
        &self,
        job: &Job<'_>,
        index: usize,
        target: Target,
        total: &mut u64,
    ) -> Result<Got, Stop> {
        let request = job.request;
        let headers = headers(request, index);
        let pinned = request.integrity.is_some();
        let answer = self.client.get(target, &headers, pinned).await?;
        let Answer {
            response,
            redirected_to,
        } = answer;
        let at = |mut failed: Failed| {
            failed.redirected_to.clone_from(&redirected_to);
            Stop::Origin(failed)
        };
        let (head, body) = response.into_parts();
        if !usable(head.status, &headers) {
            return Err(at(Failed::status(head.status, &head.headers)));
        }
        let bounds = Bounds {
            announced: content_length(&head.headers),
            limit: job.limit,
            small: self.settings.small_body,
            stall: self.settings.stall_timeout,
        };
        if bounds.announced.is_some_and(|n| n > bounds.limit) {
            return Err(at(bounds.too_large()));
        }
        let validators = validators(&head.headers);
        if let Some((digest, checksum)) =
            deposit::present(&self.cache, job.context, request, bounds.announced).await?
        {
            return Ok(Got {
                digest,
                verified: vec![checksum],
                validators,
                content: None,
            });
        }
        let received = receive(body, job.hashes.clone(), &self.spool, &bounds, total).await;
        let Received {
            digest,
            verified,
            content,
        } = received.map_err(|stop| match stop {
            Stop::Origin(failed) => at(failed),
            fatal @ Stop::Fatal(_) => fatal,
        })?;
        Ok(Got {
            digest,
            verified,
            validators,
            content: Some(content),
        })
    }

    /// Tries the mirrors until one delivers or the time is over.
    async fn first_good(
        &self,
        job: &Job<'_>,
        deadline: Instant,
        counts: &mut Counts,
    ) -> Result<(usize, Got), FetchError> {
        let uris = &job.request.uris;
        let mut failures = Failures::new(uris);
        for (index, uri) in uris.iter().enumerate() {
            let target = match Target::parse(uri) {
                Ok(target) => target,
                Err(text) => {
                    failures.add(index, Failed::new(Failure::NotFound, text));
                    continue;
                }
            };
            counts.attempts += 1;
            let attempt = self.attempt(job, index, target, &mut counts.bytes);
            let outcome = tokio::time::timeout_at(deadline, attempt).await;
            let failed = match outcome {
                Ok(Ok(got)) => {
                    count(if got.content.is_some() {
                        "ok"
                    } else {
                        "present"
                    });
                    return Ok((index, got));
                }
                Ok(Err(Stop::Fatal(error))) => return Err(error),
                Ok(Err(Stop::Origin(failed))) => failed,
                Err(_) => self.timed_out(job.request),
            };
            count(class(&failed.failure));
            tracing::debug!(asset.uri = %uri, reason = %failed.text, "mirror failed");
            let over = failed.failure == Failure::TimedOut;
            failures.add(index, failed);
            if over {
                break;
            }
        }
        Err(failures.into_error(counts.attempts))
    }

    fn timed_out(&self, request: &FetchRequest) -> Failed {
        let time = humantime::format_duration(self.time(request));
        Failed::new(
            Failure::TimedOut,
            format!("no complete answer within {time}"),
        )
    }
}

#[derive(Default)]
struct Counts {
    attempts: u32,
    bytes: u64,
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
        let job = self.prepare(context, request).await?;
        let deadline = Instant::now() + self.time(request);
        let Ok(slot) = tokio::time::timeout_at(deadline, self.slot()).await else {
            let mut failures = Failures::new(&request.uris);
            let text = "the time was over before it was this fetch's turn";
            failures.add(0, Failed::new(Failure::TimedOut, text));
            return Err(failures.into_error(0));
        };
        let _slot = slot?;
        let started_at = SystemTime::now();
        let mut counts = Counts::default();
        let (uri_index, got) = self.first_good(&job, deadline, &mut counts).await?;
        if let Some(content) = got.content {
            deposit::upload(&self.cache, context, &request.scope, &got.digest, content).await?;
        }
        Ok(Fetched {
            digest: got.digest,
            uri_index,
            started_at,
            validators: got.validators,
            verified: got.verified,
            with_credentials: with_credentials(request, uri_index),
            origin_bytes: counts.bytes,
            attempts: counts.attempts,
        })
    }
}
