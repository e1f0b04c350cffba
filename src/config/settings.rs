//! The settings, in standard types only.
//!
//! Not for: defaults (`keys`) or rules (`checks`).
//! Called by: `server::assembly`, `cli`.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::admin::HostName;
use crate::asset::{KeyHeader, SecretParameter};
use crate::digest::InstanceName;
use crate::fetcher::OriginCredential;
use crate::fetcher::{NoProxy, ProxyAddress, Rate};
use crate::net::ListenAddr;
use crate::resolver::{InstanceRule, UnpinnedRule, UriPrefix};
use crate::store::Condition;
use crate::upstream::Endpoint;

/// Everything an operator can decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Accept that anyone who reaches the listener uses our upstream
    /// certificate or credential.
    pub allow_anonymous: bool,
    /// Whether a crash may leave a core dump.
    pub core_dumps: bool,
    /// Listener threads.
    pub threads: usize,
    /// Connections to one upstream server that downstream connections own one
    /// by one, over all listener threads; above it they share, and while all
    /// stand still up to twice as many are opened, at least 8 more a thread.
    /// Every thread gets the same part and at least one: with more threads
    /// than this, there are as many as threads.
    pub upstream_connections: usize,
    /// Whether uploads are compressed where a cache announces zstd.
    pub upstream_zstd: bool,
    /// The gRPC listener.
    pub listen: Listen,
    /// The admin listener; `None` is off.
    pub admin: Option<ListenAddr>,
    /// Names it answers to besides its own.
    pub admin_hosts: Vec<HostName>,
    /// The cache; `None` is the embedded one.
    pub upstream: Option<Upstream>,
    /// Servers that answer some services in the cache's place.
    pub routes: Vec<Route>,
    /// The embedded cache, used when there is no upstream.
    pub embedded: Embedded,
    /// Downloads.
    pub fetch: Fetch,
    /// How failures are told.
    pub errors: Errors,
    /// Pushes.
    pub push: Push,
    /// Keeps references apart from those of other namespaces; may be empty.
    pub namespace: String,
    /// References.
    pub references: References,
    /// What other servers left behind.
    pub compat: Compat,
    /// Finding out what the cache does with references.
    pub probe: Probe,
    /// What may be held.
    pub limits: Limits,
    /// The graceful stop.
    pub drain: Drain,
    /// Logs.
    pub log: Log,
}

impl Config {
    /// Whether anything is kept in the embedded cache.
    #[must_use]
    pub fn uses_embedded(&self) -> bool {
        let references = &self.references.upstream;
        self.upstream.is_none() || matches!(references, Some(ReferencesUpstream::Embedded))
    }
}

/// The gRPC listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub address: ListenAddr,
    /// Mode of the file of a Unix socket.
    pub socket_mode: u32,
    /// Client connections at a time.
    pub max_connections: usize,
    /// Of these, of one client address; `None` is half of them.
    pub max_connections_per_client: Option<usize>,
    /// Proxies, whose connections are many clients'.
    pub fronts: Vec<IpNet>,
    /// `None` is plain.
    pub tls: Option<ListenTls>,
}

impl Listen {
    /// What one client address has of the connections there are.
    #[must_use]
    pub fn of_one_client(&self) -> usize {
        let half = || half(self.max_connections);
        self.max_connections_per_client.unwrap_or_else(half)
    }
}

/// What one client address has of so many connections where nobody says.
pub(super) fn half(connections: usize) -> usize {
    connections.div_ceil(2)
}

/// TLS of the listener; PEM files, readable when they were checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenTls {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Demand client certificates issued by these.
    pub client_ca: Option<PathBuf>,
}

/// The cache in front of which this stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upstream {
    /// One address or several of the same cache; never empty.
    pub urls: Vec<Endpoint>,
    /// Roots for `grpcs://`; `None` is the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate, and with it the key.
    pub client_identity: Option<(PathBuf, PathBuf)>,
    /// Name expected in the certificate instead of the URL's host.
    pub server_name: Option<String>,
    /// The `:authority` of calls instead of the URL's.
    pub authority: Option<String>,
    /// File with the metadata of our own calls.
    pub credential: Option<PathBuf>,
    /// Whether it may go beyond loopback without TLS.
    pub credential_in_clear: bool,
}

/// Where calls of some services go instead of to the cache. TLS and authority
/// are as in [`Upstream`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What the full name of such a service begins with.
    pub service: String,
    /// The server.
    pub url: Endpoint,
}

/// The embedded cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedded {
    /// Where it lives.
    pub dir: PathBuf,
    /// Bytes it may occupy.
    pub max_size: u64,
}

/// Downloads from origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// For a fetch whose request names no time, mirrors and retries included.
    pub timeout: Duration,
    /// The longest time a request gets.
    pub max_timeout: Duration,
    /// For one connection to an origin.
    pub connect_timeout: Duration,
    /// From a request to the head of its response.
    pub first_byte_timeout: Duration,
    /// Longest silence of an origin within its response.
    pub stall_timeout: Duration,
    /// Requests for one URL that fail in passing before it is given up.
    pub attempts: u32,
    /// What is waited before the second of them.
    pub retry_delay: Duration,
    /// Bytes of the largest download.
    pub max_size: u64,
    /// Networks origins may be in although they are not public.
    pub allow_cidr: Vec<IpNet>,
    /// Networks origins may never be in.
    pub deny_cidr: Vec<IpNet>,
    /// Roots for origins, besides the system's.
    pub ca: Option<PathBuf>,
    /// The proxy to reach origins through.
    pub proxy: Option<ProxyAddress>,
    /// File with its `user:password`.
    pub proxy_credential: Option<PathBuf>,
    /// Origins reached without it.
    pub no_proxy: Vec<NoProxy>,
    /// Rules about which URLs are asked.
    pub rules: Option<PathBuf>,
    /// Only tell what the rules would do.
    pub rules_report_only: bool,
    /// This service's logins at origins.
    pub netrc: Option<PathBuf>,
    /// This service's headers for origins.
    pub credentials: Vec<OriginCredential>,
    /// Downloads at a time; more wait.
    pub max_concurrent: usize,
    /// Of these, from one host.
    pub max_per_host: usize,
    /// Requests to one host in a time; `None` is no limit.
    pub rate_per_host: Option<Rate>,
    /// Connections to origins, idle ones included.
    pub max_connections: usize,
    /// Bytes of memory all downloads together may hold; at least 1 MiB.
    pub memory: u64,
    /// Where large downloads wait for their digest, if a place was named.
    pub spool_dir: Option<PathBuf>,
    /// Bytes these may occupy there; at least 1 MiB.
    pub spool_size: u64,
    /// Instance names into which a fetch may write.
    pub instances: Vec<InstanceRule>,
    /// What is done about content without a checksum, by URL.
    pub unpinned: Vec<UnpinnedRule>,
    /// Further headers that select a representation.
    pub key_headers: Vec<KeyHeader>,
    /// Further parameters of URLs that hold secrets.
    pub secret_parameters: Vec<SecretParameter>,
    /// Whether content fetched with credentials is found by its checksum.
    pub share_private: bool,
}

/// Pushes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Push {
    /// Whether clients may push references at all.
    pub enabled: bool,
    /// Instance names they may push to.
    pub instances: Vec<InstanceRule>,
    /// Beginnings of URIs they may push; none is all.
    pub allow_uris: Vec<UriPrefix>,
    /// Beginnings of URIs they may not push.
    pub deny_uris: Vec<UriPrefix>,
}

/// References: where they are kept and how they are found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Where they are kept; `None` is the cache itself.
    pub upstream: Option<ReferencesUpstream>,
    /// A file with the keys that sign them.
    pub mac_key: Option<PathBuf>,
    /// Age from which on signed ones no longer hold.
    pub max_age: Option<Duration>,
    /// Qualifiers up to which a push is found with any subset of them.
    pub subset_max: usize,
    /// Sets of names that suffice to find a larger push.
    pub projections: Vec<Vec<String>>,
}

/// Where references are kept, if not in the cache that holds the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferencesUpstream {
    /// Another cache. TLS and authority are as in [`Upstream`].
    Url(Endpoint),
    /// The embedded one.
    Embedded,
}

/// References of other servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compat {
    /// Whether those of bb-remote-asset are taken over.
    pub bb_remote_asset: bool,
    /// Whether also where ours are signed.
    pub trust_unsigned: bool,
    /// The platform in its keys, as name and value.
    pub platform: Vec<(String, String)>,
}

/// How failures of origins are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    /// The channel.
    pub channel: ErrorChannel,
    /// Tools that get gRPC errors under [`ErrorChannel::Auto`].
    pub grpc_clients: Vec<String>,
}

/// Inline in the response, or as the status of the call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ErrorChannel {
    /// By what the client says it is.
    #[default]
    Auto,
    /// Always inline, as the API wants it.
    Inline,
    /// Always the status of the call.
    Grpc,
}

/// Finding out what the cache does with references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Whether to.
    pub enabled: bool,
    /// Instance names probed at start.
    pub instances: Vec<InstanceName>,
    /// How often; zero is once.
    pub interval: Duration,
    /// What it has to show.
    pub require: Vec<Condition>,
}

/// What may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of what was received and is not yet answered.
    pub received_memory: u64,
}

/// The graceful stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long calls may go on.
    pub timeout: Duration,
    /// How long new connections are still taken after the signal.
    pub delay: Duration,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

/// The form of logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}
