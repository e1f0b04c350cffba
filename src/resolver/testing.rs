//! Doubles of the resolver's three seams, for its tests and those of `api`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::{Announce, Resolver, Settings};
use crate::asset::{
    Algorithm, AssetKey, AssetKind, AssetReference, BAZEL_CANONICAL_ID, CHECKSUM_SRI, Checksum,
    Uri, Validators,
};
use crate::digest::{Digest, DigestFunction, InstanceName, Scope};
use crate::drain::Drain;
use crate::fetcher::{Failure, FetchError, FetchRequest, Fetched, Fetcher};
use crate::store::{self, AssetStore, Explained, Lookup, Miss};
use crate::upstream::{self, CallContext};

/// References in memory.
#[derive(Default)]
pub(crate) struct FakeStore {
    pub(crate) entries: Mutex<HashMap<AssetKey, AssetReference>>,
    /// Content that can be read.
    pub(crate) contents: Mutex<HashMap<Digest, Vec<u8>>>,
    /// Times it was.
    pub(crate) reads: AtomicUsize,
    /// Ends the next time.
    pub(crate) read_error: Mutex<Option<store::Error>>,
    /// Content that is not in the CAS.
    pub(crate) gone: Mutex<HashSet<Digest>>,
    pub(crate) get_error: Mutex<Option<store::Error>>,
    pub(crate) put_error: Mutex<Option<store::Error>>,
    /// Keys in the order they were asked for.
    pub(crate) gets: Mutex<Vec<AssetKey>>,
    pub(crate) puts: Mutex<Vec<Vec<AssetKey>>>,
    /// Times the CAS was asked for content without its reference.
    pub(crate) checks: AtomicUsize,
    pub(crate) check_error: Mutex<Option<store::Error>>,
}

impl AssetStore for Arc<FakeStore> {
    async fn get(&self, _: &CallContext, key: &AssetKey) -> Result<Lookup, store::Error> {
        self.gets.lock().push(key.clone());
        // As over a network: whatever runs beside it gets its turn.
        tokio::task::yield_now().await;
        if let Some(error) = self.get_error.lock().clone() {
            return Err(error);
        }
        Ok(match self.entries.lock().get(key) {
            None => Lookup::Miss(Miss::Absent),
            Some(entry) if self.gone.lock().contains(&entry.digest) => {
                Lookup::Miss(Miss::Incomplete)
            }
            Some(entry) if entry.is_expired(SystemTime::now()) => Lookup::Miss(Miss::Expired),
            Some(entry) => Lookup::Hit(Box::new(entry.clone())),
        })
    }

    async fn explain(
        &self,
        context: &CallContext,
        key: &AssetKey,
    ) -> Result<Explained, store::Error> {
        let lookup = self.get(context, key).await?;
        let reference = self.entries.lock().get(key).cloned().map(Box::new);
        Ok(Explained {
            action: Digest::of(DigestFunction::Sha256, b"").unwrap(),
            reference,
            lookup,
            detail: "",
            detached: false,
            signed: false,
        })
    }

    async fn put(
        &self,
        _: &CallContext,
        keys: &[AssetKey],
        reference: &AssetReference,
    ) -> Result<(), store::Error> {
        if let Some(error) = self.put_error.lock().clone() {
            return Err(error);
        }
        if self.gone.lock().contains(&reference.digest) {
            return Err(store::Error::Missing(vec![reference.digest.clone()]));
        }
        self.puts.lock().push(keys.to_vec());
        let entries = keys.iter().map(|key| (key.clone(), reference.clone()));
        self.entries.lock().extend(entries);
        Ok(())
    }

    async fn hashes(
        &self,
        _: &CallContext,
        _: &Scope,
        digest: &Digest,
        algorithms: &[Algorithm],
    ) -> Result<Option<Vec<Checksum>>, store::Error> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        // As over a network: others come meanwhile.
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Some(error) = self.read_error.lock().take() {
            return Err(error);
        }
        let contents = self.contents.lock();
        let hashes = contents.get(digest).map(|content| {
            let of = |algorithm: &Algorithm| {
                let raw = Digest::of(algorithm.function(), content)?.raw();
                Checksum::new(*algorithm, &raw)
            };
            algorithms.iter().filter_map(of).collect()
        });
        Ok(hashes)
    }

    async fn is_present(
        &self,
        _: &CallContext,
        _: &Scope,
        kind: AssetKind,
        digest: &Digest,
    ) -> Result<bool, store::Error> {
        self.checks.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = self.check_error.lock().clone() {
            return Err(error);
        }
        Ok(kind == AssetKind::Blob && !self.gone.lock().contains(digest))
    }
}

type Script = Box<dyn Fn(&FetchRequest) -> Result<Fetched, FetchError> + Send + Sync>;

/// An origin with a script.
pub(crate) struct FakeFetcher {
    script: Mutex<Script>,
    pub(crate) requests: Mutex<Vec<FetchRequest>>,
    /// While set, fetches never end.
    pub(crate) hangs: AtomicBool,
    /// How long each fetch takes.
    pub(crate) takes: Mutex<Duration>,
    /// Fetches that were dropped before their end.
    pub(crate) dropped: AtomicUsize,
    pub(crate) panics: AtomicBool,
}

impl Default for FakeFetcher {
    fn default() -> Self {
        Self {
            script: Mutex::new(Box::new(|request| Ok(content(request, b"from the origin")))),
            requests: Mutex::default(),
            hangs: AtomicBool::new(false),
            takes: Mutex::default(),
            dropped: AtomicUsize::new(0),
            panics: AtomicBool::new(false),
        }
    }
}

impl FakeFetcher {
    pub(crate) fn script(
        &self,
        script: impl Fn(&FetchRequest) -> Result<Fetched, FetchError> + Send + Sync + 'static,
    ) {
        *self.script.lock() = Box::new(script);
    }

    pub(crate) fn fails(&self, failure: Failure) {
        self.script(move |_| {
            Err(FetchError::Origin {
                failure: failure.clone(),
                uri_index: 0,
                message: "the origin said no".into(),
                detail: None,
                attempts: 1,
            })
        });
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.lock().len()
    }
}

/// What a fetch of `bytes` from the first URI gives.
pub(crate) fn content(request: &FetchRequest, bytes: &[u8]) -> Fetched {
    let checksums = request.integrity.iter().flat_map(|i| i.checksums());
    let uri = request.uris[0].as_str().unwrap_or_default();
    Fetched {
        digest: Digest::of(request.scope.function, bytes).unwrap(),
        uri_index: 0,
        not_modified: false,
        joined: false,
        started_at: SystemTime::now(),
        validators: Validators::default(),
        verified: checksums
            .filter(|c| {
                let own = Digest::of(c.algorithm().function(), bytes).unwrap();
                own.raw() == c.raw()
            })
            .cloned()
            .collect(),
        with_credentials: request.headers.has_credentials(0, uri),
        origin_bytes: bytes.len() as u64,
        attempts: 1,
    }
}

struct CountDrop<'a>(&'a AtomicUsize, bool);

impl Drop for CountDrop<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Fetcher for Arc<FakeFetcher> {
    fn is_fetchable(&self, kind: AssetKind, uri: &Uri) -> bool {
        kind == AssetKind::Blob && uri.is_http()
    }

    fn unsupported(&self, request: &FetchRequest) -> Vec<String> {
        let known = [CHECKSUM_SRI, BAZEL_CANONICAL_ID];
        let names = request.qualifiers.iter().map(|q| q.name.clone());
        names.filter(|n| !known.contains(&n.as_str())).collect()
    }

    async fn fetch(&self, _: &CallContext, request: &FetchRequest) -> Result<Fetched, FetchError> {
        self.requests.lock().push(request.clone());
        let mut guard = CountDrop(&self.dropped, true);
        assert!(!self.panics.load(Ordering::SeqCst), "the script says so");
        if self.hangs.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        let takes = *self.takes.lock();
        if takes.is_zero() {
            guard.1 = false;
            return (self.script.lock())(request);
        }
        let started_at = SystemTime::now();
        tokio::time::sleep(takes).await;
        guard.1 = false;
        let fetched = (self.script.lock())(request);
        fetched.map(|fetched| Fetched {
            started_at,
            ..fetched
        })
    }
}

/// Digest functions of the cache.
pub(crate) struct FakeAnnounce(pub(crate) Mutex<Result<Arc<[DigestFunction]>, upstream::Error>>);

impl Default for FakeAnnounce {
    fn default() -> Self {
        use DigestFunction as F;
        Self(Mutex::new(Ok(
            [F::Sha256, F::Sha512, F::Blake3, F::Md5].into()
        )))
    }
}

impl Announce for Arc<FakeAnnounce> {
    async fn digest_functions(
        &self,
        _: &CallContext,
        _: &InstanceName,
    ) -> Result<Arc<[DigestFunction]>, upstream::Error> {
        self.0.lock().clone()
    }
}

pub(crate) type TestResolver = Resolver<Arc<FakeStore>, Arc<FakeFetcher>, Arc<FakeAnnounce>>;

/// A resolver and its surroundings.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) store: Arc<FakeStore>,
    pub(crate) fetcher: Arc<FakeFetcher>,
    pub(crate) announce: Arc<FakeAnnounce>,
    pub(crate) drain: Drain,
}

impl World {
    pub(crate) fn resolver(&self, settings: Settings) -> TestResolver {
        Resolver::new(
            Arc::clone(&self.store),
            Arc::clone(&self.fetcher),
            Arc::clone(&self.announce),
            settings,
            self.drain.clone(),
            tokio::runtime::Handle::current(),
        )
    }
}

/// A status as the cache would send it.
pub(crate) fn refused(code: tonic::Code) -> upstream::Error {
    upstream::Error::from_status(
        "GetActionResult",
        tonic::Status::new(code, "says the cache"),
    )
}
