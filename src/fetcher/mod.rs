//! Content from origins into the CAS. Unaware of references.
//!
//! In reading order: `fetch` (one request), `mirrors` (its URIs in rounds, with
//! `backoff` between), `downloads` (one download per URL, which requests
//! share), `rules_in_force` and `url_rules` (which URLs), `download` (one URL
//! into the cache, with `resume` after a cut), `client` (one origin, its
//! redirects), `credentials` (what this service shows it), `exchange` (one
//! request), `hosts` (whose turn it is), `connector`, `policy`, `proxy` and
//! `tunnel` (what is dialled), `connections` (how many), `receive`, `hashes`,
//! `sink` and `spool` (one body), `deposit` (into the cache), `failed` (what is
//! said if none delivers), `progress` and `measure` (what can be seen of all
//! that).
//! Not for: which RPC a failure becomes (`api::status`), nor for the same
//! request asked again (`resolver`).
//! Called by: `resolver`.

mod backoff;
mod client;
mod connections;
mod connector;
mod credentials;
mod deposit;
mod download;
mod downloads;
mod error;
mod exchange;
mod failed;
mod fetch;
mod hashes;
mod host;
mod hosts;
mod measure;
mod mirrors;
mod order;
mod place;
mod policy;
mod progress;
mod proxy;
mod rate;
mod receive;
mod resume;
mod rules;
mod rules_in_force;
mod settings;
mod sink;
mod spool;
mod stream;
mod target;
mod tls;
mod tunnel;
mod url_rules;
mod watch;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::{Duration, SystemTime};

pub use credentials::{HeaderFile, HostPattern, Netrc, OriginCredential};
pub use error::{Failure, FetchError};
pub use fetch::HttpFetcher;
pub use place::spool_place;
pub use progress::{Entry, Phase, Progress, Tracker, Waiters, Wanting};
pub use proxy::{NoProxy, ProxyAddress, read_proxy_credential};
pub use rate::Rate;
pub use settings::{Settings, SettingsError};
pub use url_rules::{RulesError, UrlRules};
pub use watch::OriginFiles;

use crate::asset::{AssetKind, Checksum, Integrity, OriginHeaders, Qualifiers, Uri, Validators};
use crate::digest::{Digest, Scope};
use crate::upstream::CallContext;

/// Brings content from an origin into the CAS.
pub trait Fetcher: Send + Sync + 'static {
    /// Whether any origin could be asked for this URI.
    fn is_fetchable(&self, kind: AssetKind, uri: &Uri) -> bool;

    /// The names of identity qualifiers that a fetch could not honour.
    fn unsupported(&self, request: &FetchRequest) -> Vec<String>;

    /// Tries the URIs in order until one yields content that satisfies the
    /// request, and uploads it. On return the content is in the CAS.
    fn fetch(
        &self,
        context: &CallContext,
        request: &FetchRequest,
    ) -> impl Future<Output = Result<Fetched, FetchError>> + Send;
}

/// What to fetch.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// Blob or directory.
    pub kind: AssetKind,
    /// Where the content goes, and the digest function it gets.
    pub scope: Scope,
    /// Mirrors, in order of preference; at least one.
    pub uris: Vec<Uri>,
    /// The identity qualifiers of the request.
    pub qualifiers: Qualifiers,
    /// The parsed `checksum.sri`, if the request has one.
    pub integrity: Option<Integrity>,
    /// Headers for the origins.
    pub headers: OriginHeaders,
    /// The request's `timeout`; the fetcher has its own default and bounds.
    pub timeout: Option<Duration>,
    /// `oldest_content_accepted` as sent. In the future it means: not from
    /// cache. A download that began before it is joined only if it was begun
    /// for exactly this time.
    pub oldest: Option<SystemTime>,
    /// By URI: content the cache has of it, which will do if the origin says
    /// that it is still current. Not for pinned requests.
    pub known: Vec<Option<Known>>,
    /// The callers who wait for it; to be shown, nothing depends on them.
    pub waiters: Waiters,
}

impl FetchRequest {
    /// Whether a fetch of this URI shows the origin a secret of the caller's,
    /// or the request holds one: then what it leads to is this caller's only.
    #[must_use]
    pub fn is_private(&self, index: usize) -> bool {
        let secret = |uri: &Uri| {
            let text = uri.as_str().unwrap_or_default();
            uri.has_secret() || self.headers.has_credentials(index, text)
        };
        self.qualifiers.had_secret() || self.uris.get(index).is_some_and(secret)
    }
}

/// Content an origin served before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its digest.
    pub digest: Digest,
    /// What the origin called it.
    pub validators: Validators,
}

/// Content that is now in the CAS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Digest in the function of the request.
    pub digest: Digest,
    /// Which URI of the request it came from.
    pub uri_index: usize,
    /// The origin confirmed that known content is still current, and sent
    /// nothing. Whether the cache has it still is to be asked.
    pub not_modified: bool,
    /// Another request brought it at the same time.
    pub joined: bool,
    /// When the retrieval started: the age of the content counts from here.
    pub started_at: SystemTime,
    /// The origin's validators.
    pub validators: Validators,
    /// Hashes computed over the served bytes because the request named them.
    pub verified: Vec<Checksum>,
    /// Whether credentials went to the origin.
    pub with_credentials: bool,
    /// Bytes received from origins, failed mirrors included.
    pub origin_bytes: u64,
    /// Requests sent to origins, redirects not counted.
    pub attempts: u32,
}
