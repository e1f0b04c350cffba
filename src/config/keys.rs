//! Every key there is: its flag, its default, its meaning.
//!
//! A key that would do nothing yet is not here, so setting it is an error.
//! Not for: how values are parsed (`sections`).
//! Called by: `config`, `file`, `environment`, `show`, `cli`.

use std::path::PathBuf;

use super::layers::{Layers, Raw};
use super::problem::Place;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted path in the file.
    pub name: &'static str,
    /// The flag for it, or empty.
    pub flag: &'static str,
    /// Whether it takes several values.
    pub list: bool,
    /// The default as one would write it; empty when there is none.
    pub default: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
}

const fn one(
    name: &'static str,
    flag: &'static str,
    default: &'static str,
    about: &'static str,
) -> Key {
    Key {
        name,
        flag,
        list: false,
        default,
        about,
    }
}

const fn list(
    name: &'static str,
    flag: &'static str,
    default: &'static str,
    about: &'static str,
) -> Key {
    Key {
        name,
        flag,
        list: true,
        default,
        about,
    }
}

/// Stands for the number of processors this process may use.
const ALL_PROCESSORS: &str = "<processors>";
/// Stands for the user's cache directory.
const CACHE_DIRECTORY: &str = "<cache>";

/// Stands for what may be received at a time where nobody says.
const RECEIVED_MEMORY: &str = "<received>";

/// The table. Keys without a section come first, as TOML wants them.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    one("allow_anonymous", "", "false", "serve anyone beyond loopback with this service's certificate or credentials"),
    one("core_dumps", "", "false", "let a crash leave a core dump, which holds all secrets of this process"),
    one("threads", "--threads", ALL_PROCESSORS, "listener threads"),
    list("route", "--route", "", "SERVICE=URL: calls of services whose full name begins so go to another server"),
    one("listen.address", "--listen", "127.0.0.1:8980", "gRPC: HOST:PORT or unix:PATH"),
    one("listen.socket_mode", "", "0600", "who may connect to a Unix socket: the mode of its file, octal"),
    one("listen.max_connections", "--max-connections", "10000", "client connections at a time"),
    one("listen.max_connections_per_client", "", "", "of these, of one address (IPv6: one /64) beyond this host; none is half of them"),
    list("listen.fronts", "", "", "networks of proxies and load balancers in front, which are not counted as one client"),
    one("listen.tls.cert", "--tls-cert", "", "PEM certificate chain of this server"),
    one("listen.tls.key", "--tls-key", "", "its private key"),
    one("listen.tls.client_ca", "--tls-client-ca", "", "demand client certificates issued by these"),
    one("admin.address", "--admin-listen", "127.0.0.1:9980", "admin HTTP: HOST:PORT or off"),
    list("admin.hosts", "", "", "names the admin port answers to besides its own and addresses; * for any"),
    list("upstream.url", "--upstream", "", "the cache: grpc://, grpcs:// or unix:; none is the embedded cache"),
    one("upstream.ca", "--upstream-ca", "", "PEM roots for grpcs://, instead of the system's"),
    one("upstream.client_cert", "--upstream-client-cert", "", "certificate to show to the cache"),
    one("upstream.client_key", "--upstream-client-key", "", "its private key"),
    one("upstream.server_name", "--upstream-server-name", "", "name expected in the cache's certificate"),
    one("upstream.authority", "--upstream-authority", "", "the :authority of calls to the cache"),
    one("upstream.credential", "--upstream-credential", "", "file of `name: value` lines that asset calls show to the cache in place of the caller's metadata"),
    one("upstream.credential_in_clear", "", "false", "show it to a cache beyond loopback without TLS"),
    one("upstream.max_connections", "--upstream-max-connections", "128", "connections to the cache that clients own one by one, over all threads; each thread has at least one"),
    one("upstream.zstd", "", "auto", "auto: large uploads to a cache that announces zstd are compressed if that makes them smaller; off: never"),
    one("embedded.dir", "--data-dir", CACHE_DIRECTORY, "where the embedded cache lives"),
    one("embedded.max_size", "--max-size", "10GiB", "what the embedded cache may occupy"),
    one("fetch.timeout", "--fetch-timeout", "10m", "for a fetch whose request names no time; all mirrors together"),
    one("fetch.max_timeout", "", "1h", "the longest time a request gets"),
    one("fetch.connect_timeout", "", "10s", "for one connection to an origin: name, TCP and TLS"),
    one("fetch.first_byte_timeout", "", "3m", "from a request to the head of the origin's response; some make what they serve meanwhile"),
    one("fetch.stall_timeout", "", "60s", "longest silence of an origin within its response"),
    one("fetch.attempts", "", "5", "requests for one URL that fail in passing before it is given up"),
    one("fetch.retry_delay", "", "500ms", "what is waited before the second of them; twice as long before each further one, up to 10s"),
    one("fetch.max_size", "--fetch-max-size", "16GiB", "largest download"),
    list("fetch.allow_cidr", "--origin-allow-cidr", "", "networks origins may be in although they are not public"),
    list("fetch.deny_cidr", "--origin-deny-cidr", "", "networks origins may never be in"),
    one("fetch.ca", "--origin-ca", "", "PEM roots for origins, besides the system's"),
    one("fetch.proxy", "--origin-proxy", "", "http:// or https:// URL of the proxy to reach origins through; variables such as HTTPS_PROXY are not read"),
    one("fetch.proxy_credential", "", "", "file with the proxy's user:password"),
    list("fetch.no_proxy", "", "", "origins reached without it: NAME and all below, .NAME only below, networks (of addresses in URLs), * for all"),
    one("fetch.rules", "--origin-rules", "", "file of rules in the syntax of Bazel's --downloader_config: which URLs are rewritten or blocked"),
    one("fetch.rules_report_only", "", "false", "only log and count what the rules would do"),
    one("fetch.netrc", "--origin-netrc", "", "netrc file with this service's logins at origins"),
    list("fetch.credentials", "--origin-credentials", "", "HOST=FILE: file of `Name: value` lines that this origin is shown over https; *.example.org is all below it, HOST:PORT another port, http://HOST plain http too"),
    one("fetch.max_concurrent", "", "64", "downloads at a time; more wait"),
    one("fetch.max_per_host", "", "16", "of these, from one host"),
    one("fetch.rate_per_host", "", "", "requests to one host in a second, minute or hour, as in 10/s; none is no limit"),
    one("fetch.max_connections", "", "256", "connections to origins, idle ones included"),
    one("fetch.memory", "", "16MiB", "memory all downloads together may hold"),
    one("fetch.spool_dir", "", "", "where large downloads wait for their digest; none is beside the embedded cache, else /var/tmp, if that is a disk"),
    one("fetch.spool_size", "", "64GiB", "what these may occupy there"),
    list("fetch.instances", "", "*", "instance names into which fetches may write: NAME, NAME/* with all below, \"\" for the empty one, * for all"),
    list("fetch.unpinned", "", "", "POLICY PATTERN: what is done about URLs of content without a checksum; revalidate, refetch, ttl=TIME or reject; the first that matches counts, none is revalidate"),
    list("fetch.key_headers", "", "", "request headers that select a representation, besides Accept, Accept-Language and Range, rather than being credentials"),
    list("fetch.secret_parameters", "", "", "parameters of URLs that hold secrets, besides those named so (token, signature, ...): NAME, or NAME* for all that begin so"),
    one("fetch.share_private", "", "true", "whether content fetched with credentials is shared with whoever knows its checksum"),
    one("errors.channel", "--errors", "auto", "how origin failures are told: auto, inline or grpc"),
    list("errors.grpc_clients", "", "please", "tools that get gRPC errors under auto"),
    one("push.enabled", "", "true", "whether clients may push references"),
    list("push.instances", "", "*", "instance names that may be pushed to, as in fetch.instances"),
    list("push.allow_uris", "", "", "what pushed URIs must begin with; none is all"),
    list("push.deny_uris", "", "", "what pushed URIs must not begin with, although they may"),
    one("references.namespace", "", "", "keeps references apart from those of other namespaces"),
    one("references.upstream", "--references-upstream", "", "where references are kept if not in the cache: a URL, or embedded"),
    one("references.mac_key", "", "", "file with keys that sign references, one a line, the first signs; unsigned references are misses then"),
    one("references.max_age", "", "", "signed references older than this no longer hold; those of fetched content are signed anew while they are used"),
    one("references.subset_max", "", "4", "a push with up to so many qualifiers is found with any of them; 0 is exact only"),
    list("references.subset_projections", "", "", "NAME+NAME: which qualifiers of a larger push suffice to find it"),
    one("compat.bb_remote_asset", "", "false", "take over references that bb-remote-asset wrote to this cache"),
    list("compat.bb_remote_asset_platform", "", "", "NAME=VALUE: its action_cache_platform, if it has one"),
    one("compat.trust_unsigned", "", "false", "take them over although references are signed: whoever may write the Action Cache can then make some"),
    one("probe.enabled", "", "true", "find out what the cache does with references, by writing a few small ones nobody can ask for"),
    list("probe.instances", "--probe-instance", "\"\"", "instance names to probe at start; `\"\"` is the empty one"),
    one("probe.interval", "--probe-interval", "10m", "how often; 0s is only once"),
    list("probe.require", "--require", "", "refuse to start unless the probe shows it: writable, complete, overwrite, instances or payload"),
    one("limits.received_memory", "", RECEIVED_MEMORY, "memory for what is received and not yet answered here; at least 24MiB"),
    one("drain.timeout", "--drain-timeout", "25s", "how long calls may go on after SIGTERM"),
    one("drain.delay", "--drain-delay", "0s", "how long after SIGTERM new connections are still taken"),
    one("log.format", "--log-format", "auto", "auto (text on a terminal, else JSON), text or json"),
    one("log.level", "--log-level", "info", "error, warn, info, debug or trace"),
];

/// Sections that may be written as one text: `errors = "grpc"`.
pub(super) const SHORTHANDS: &[(&str, &str)] = &[("errors", "errors.channel")];

/// What a section written as one text stands for.
pub(super) fn shorthand(section: &str) -> Option<&'static Key> {
    let (_, key) = SHORTHANDS.iter().find(|(name, _)| *name == section)?;
    find(key)
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether some key lies below this path.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| {
        key.name
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// The flag of a key.
pub(super) fn flag_of(name: &str) -> &'static str {
    find(name).map_or("", |key| key.flag)
}

/// Lays the defaults down.
pub(super) fn defaults(environment: &[(String, String)], layers: &mut Layers) {
    for key in KEYS {
        let text = match key.default {
            "" => continue,
            ALL_PROCESSORS => std::thread::available_parallelism()
                .map_or(1, usize::from)
                .to_string(),
            CACHE_DIRECTORY => match cache_directory(environment) {
                Some(directory) => directory.display().to_string(),
                None => continue,
            },
            RECEIVED_MEMORY => format!("{}MiB", crate::budget::default_limit() >> 20),
            text => text.to_owned(),
        };
        let raw = if key.list {
            Raw::List(vec![text])
        } else {
            Raw::One(text)
        };
        layers.push(key.name, raw, Place::Default);
    }
}

/// As the XDG base directory specification has it: a relative path is void.
/// A user without a home has none: what all users may write, as the directory
/// of temporary files, is no place for a cache.
fn cache_directory(environment: &[(String, String)]) -> Option<PathBuf> {
    let absolute = |name: &str| {
        let (_, value) = environment.iter().find(|(n, _)| n == name)?;
        Some(PathBuf::from(value)).filter(|path| path.is_absolute())
    };
    let caches =
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("assetgate"))
}
