//! The fetcher against a scripted origin and a fake cache.
#![allow(
    clippy::disallowed_methods,
    reason = "tests start servers of their own"
)]

mod content;
mod fake;
mod gates;
mod mirrors;
mod origin;
mod redirects;
mod resources;
mod resume;
mod retries;
mod secrets;
mod sharing;
mod streaming;
mod tls;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fake::FakeCache;

use super::connector::Resolver;
use super::{
    Failure, FetchError, FetchRequest, Fetched, Fetcher as _, HttpFetcher, Settings, Waiters,
};
use crate::asset::{AssetKind, Integrity, OriginHeaders, Qualifiers, Uri};
use crate::digest::{Digest, DigestFunction, InstanceName, Scope};
use crate::upstream::CallContext;

/// A fetcher with its cache and a directory of its own.
struct Rig {
    fetcher: Arc<HttpFetcher>,
    cache: FakeCache,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::with(|_| {}, FakeCache::default())
    }

    fn with(change: impl FnOnce(&mut Settings), cache: FakeCache) -> Self {
        Self::resolving(change, cache, Resolver::System)
    }

    fn resolving(change: impl FnOnce(&mut Settings), cache: FakeCache, by: Resolver) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            allow_cidr: vec!["127.0.0.0/8".parse().unwrap()],
            spool_dir: Some(dir.path().to_owned()),
            connect_timeout: Duration::from_secs(3),
            retry_delay: Duration::from_millis(2),
            ..Settings::default()
        };
        change(&mut settings);
        let fetcher = HttpFetcher::with_resolver(settings, cache.client(), by).unwrap();
        Self {
            fetcher: Arc::new(fetcher),
            cache,
            dir,
        }
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<Fetched, FetchError> {
        self.fetcher.fetch(&CallContext::default(), request).await
    }

    async fn get(&self, uris: &[&str]) -> Result<Fetched, FetchError> {
        self.fetch(&request(uris)).await
    }

    /// The class, reported index and message of a fetch that must fail.
    async fn failure(&self, request: &FetchRequest) -> (Failure, usize, String) {
        match self.fetch(request).await.unwrap_err() {
            FetchError::Origin {
                failure,
                uri_index,
                message,
                ..
            } => (failure, uri_index, message),
            other => panic!("{other}"),
        }
    }

    /// Open descriptors of temporary files of this rig.
    fn open_files(&self) -> usize {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap();
        fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
            .filter(|target| target.starts_with(self.dir.path()))
            .count()
    }
}

fn request(uris: &[&str]) -> FetchRequest {
    FetchRequest {
        kind: AssetKind::Blob,
        scope: Scope::new(InstanceName::default(), DigestFunction::Sha256),
        uris: uris.iter().map(|u| Uri::new((*u).to_owned())).collect(),
        qualifiers: Qualifiers::default(),
        integrity: None,
        headers: OriginHeaders::default(),
        timeout: Some(Duration::from_secs(20)),
        oldest: None,
        known: Vec::new(),
        waiters: Waiters::default(),
    }
}

fn with_headers(uris: &[&str], headers: &[(&str, &str)]) -> FetchRequest {
    let mut request = request(uris);
    for (name, value) in headers {
        request.headers.insert(name, value, uris.len()).unwrap();
    }
    request
}

fn pinned(uris: &[&str], content: &[u8]) -> FetchRequest {
    let mut request = request(uris);
    let digest = Digest::of(DigestFunction::Sha256, content).unwrap();
    let checksum = crate::asset::Checksum::new(crate::asset::Algorithm::Sha256, &digest.raw());
    request.integrity = Some(Integrity::parse(&checksum.unwrap().to_string()).unwrap());
    request
}

fn digest(content: &[u8]) -> Digest {
    Digest::of(DigestFunction::Sha256, content).unwrap()
}

/// A resolver whose answers, of one or several addresses, come in turn.
fn scripted(answers: &[&str]) -> Resolver {
    let addresses = |a: &&str| a.split(' ').map(|a| a.parse::<IpAddr>().unwrap()).collect();
    let answers = answers.iter().map(addresses);
    Resolver::Scripted(Arc::new(parking_lot::Mutex::new(answers.collect())))
}
