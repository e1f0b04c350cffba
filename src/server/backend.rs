//! The cache behind this server: a remote one, or the embedded one.
//!
//! Not for: what is done with it.
//! Called by: `assembly`, `readiness`.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Layer as _, ServiceExt};

use crate::config::{Config, ReferencesUpstream};
use crate::embedded::Embedded;
use crate::forward::Target;
use crate::intake::{Elsewhere, Intake, IntakeLayer};
use crate::net::tls::{ClientFiles, ClientTls};
use crate::upstream::{self, Board, Endpoint, Pool, PoolSettings, ServiceCredential, Upstream};

/// How many connections a pool may open at least above its part of
/// `upstream.max_connections` while all it has stand still: each frees those
/// who share it.
const MORE: usize = 8;

/// Connections of a thread for our own calls, which share one; and how many
/// there may be when it stands still.
const OWN: (usize, usize) = (1, 2);

/// The cache, and the servers that answer some services in its place. Clones
/// share them.
#[derive(Clone)]
pub(super) struct Backend {
    cache: Cache,
    /// Where references are, if not there.
    references: Option<Cache>,
    routes: Vec<(String, PoolSettings)>,
    credential: Option<Arc<ServiceCredential>>,
    /// Where large messages to the embedded cache, or to us, are decoded.
    elsewhere: Option<Elsewhere>,
}

#[derive(Clone)]
enum Cache {
    /// One that others run, and whether uploads to it may be compressed.
    Remote(Box<PoolSettings>, bool),
    /// Ours.
    Embedded(Embedded),
}

/// A backend as one runtime uses it: its connections live there.
pub(super) struct Near {
    /// For our own calls.
    pub(super) cache: upstream::Cache,
    /// The connections these go over, if the cache is another server.
    pub(super) own: Option<Pool>,
    /// For forwarded calls, over other connections.
    pub(super) target: Target,
}

impl Backend {
    /// The configured one. Blocks while the embedded cache reads its files;
    /// a remote one need not be up.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let transport = config.upstream.clone().unwrap_or_default();
        let soft_cap = part(config.upstream_connections, config.threads);
        let zstd = config.upstream_zstd;
        let connect = |endpoints| pool_settings(&transport, endpoints, soft_cap);
        let routes = config.routes.iter().map(|route| {
            let settings = connect(vec![route.url.clone()])?;
            Ok((route.service.clone(), settings))
        });
        let routes = routes.collect::<anyhow::Result<_>>()?;
        let cache = match &config.upstream {
            Some(upstream) => Cache::Remote(Box::new(connect(upstream.urls.clone())?), zstd),
            None => Cache::Embedded(embedded(config)?),
        };
        let references = match &config.references.upstream {
            None => None,
            Some(ReferencesUpstream::Embedded) => Some(Cache::Embedded(embedded(config)?)),
            Some(ReferencesUpstream::Url(url)) => {
                Some(Cache::Remote(Box::new(connect(vec![url.clone()])?), zstd))
            }
        };
        let credential = transport.credential.map(ServiceCredential::from_file);
        let credential = credential.transpose().context("upstream.credential")?;
        Ok(Self {
            cache,
            references,
            routes,
            credential,
            elsewhere: Handle::try_current().ok().map(Elsewhere::new),
        })
    }

    /// For use on the current runtime.
    pub(super) fn near(&self) -> Near {
        self.cache.near(self.elsewhere.as_ref())
    }

    /// Where large messages are decoded: the runtime it was opened on.
    pub(super) fn elsewhere(&self) -> Option<Elsewhere> {
        self.elsewhere.clone()
    }

    /// Where references are if not in the cache, likewise.
    pub(super) fn references(&self) -> Option<Near> {
        let references = self.references.as_ref();
        references.map(|cache| cache.near(self.elsewhere.as_ref()))
    }
    /// Services that do not go to the cache, for use on the current runtime.
    pub(super) fn routes(&self) -> impl Iterator<Item = (&str, Target)> {
        self.routes.iter().map(|(service, settings)| {
            let target = Target::Pool(Pool::new(settings.clone()));
            (service.as_str(), target)
        })
    }

    /// How the connections to a remote cache are.
    pub(super) fn board(&self) -> Option<&Board> {
        match &self.cache {
            Cache::Remote(settings, _) => Some(&settings.board),
            Cache::Embedded(_) => None,
        }
    }

    /// What our own calls to the cache carry in place of what callers sent.
    pub(super) fn credential(&self) -> Option<Arc<ServiceCredential>> {
        self.credential.clone()
    }

    /// TLS files towards other servers, which may change.
    pub(super) fn tls(&self) -> impl Iterator<Item = Arc<ClientTls>> {
        let caches = [Some(&self.cache), self.references.as_ref()];
        let caches = caches
            .into_iter()
            .flatten()
            .filter_map(|cache| match cache {
                Cache::Remote(settings, _) => settings.tls.clone(),
                Cache::Embedded(_) => None,
            });
        let routes = self
            .routes
            .iter()
            .filter_map(|(_, settings)| settings.tls.clone());
        caches.chain(routes)
    }
}

impl Cache {
    fn near(&self, elsewhere: Option<&Elsewhere>) -> Near {
        match self {
            Cache::Remote(settings, zstd) => {
                let own = Pool::new(for_own_calls(settings));
                let upstream = own.clone().into_upstream();
                let cache = upstream::Cache::new(upstream);
                Near {
                    cache: if *zstd { cache } else { cache.without_zstd() },
                    own: Some(own),
                    target: Target::Pool(Pool::new((**settings).clone())),
                }
            }
            Cache::Embedded(embedded) => {
                let routes = embedded.routes().prepare();
                let calls = ServiceExt::<http::Request<Body>>::map_err(
                    routes.clone(),
                    |never: Infallible| match never {},
                );
                let upstream = Upstream::new(calls);
                let entries = embedded.clone();
                // There is no network that it would be worth it for.
                let cache = upstream::Cache::new(upstream)
                    .without_zstd()
                    .with_entries_at_hand(move |scope, key| entries.entry_at_hand(scope, key));
                Near {
                    cache,
                    own: None,
                    target: Target::Routes(taken_in(routes, elsewhere)),
                }
            }
        }
    }
}

/// These routes behind the intake.
fn taken_in(routes: Routes, elsewhere: Option<&Elsewhere>) -> Intake<Routes> {
    let layer = match elsewhere {
        Some(elsewhere) => IntakeLayer::new(routes.clone(), elsewhere.clone()),
        None => IntakeLayer::here(),
    };
    layer.layer(routes)
}

fn embedded(config: &Config) -> anyhow::Result<Embedded> {
    Ok(Embedded::open(crate::embedded::Settings {
        dir: config.embedded.dir.clone(),
        max_size: config.embedded.max_size,
    })?)
}

/// One thread's part of the connections to a server; never none.
pub(super) fn part(connections: usize, threads: usize) -> usize {
    (connections / threads.max(1)).max(1)
}

/// So many connections there can be to one server, with `connections`
/// configured: those of every listener thread for forwarded calls, and those
/// for our own calls, of these threads and of the asset runtime.
pub(super) fn worst_case(connections: usize, threads: usize) -> usize {
    let part = part(connections, threads);
    threads * (part + part.max(MORE)) + (threads + 1) * OWN.1
}

/// Settings for our own calls: forwarded ones that last (an Execute, a Watch)
/// take no streams of the connection that look-ups use.
fn for_own_calls(settings: &PoolSettings) -> PoolSettings {
    PoolSettings {
        soft_cap: OWN.0,
        hard_cap: OWN.1,
        ..settings.clone()
    }
}

fn pool_settings(
    upstream: &crate::config::Upstream,
    endpoints: Vec<Endpoint>,
    soft_cap: usize,
) -> anyhow::Result<PoolSettings> {
    let tls = endpoints.iter().any(Endpoint::tls);
    let mut settings = PoolSettings::new(endpoints);
    settings.soft_cap = soft_cap;
    settings.hard_cap = soft_cap + soft_cap.max(MORE);
    if tls {
        let files = ClientFiles {
            ca: upstream.ca.clone(),
            identity: upstream.client_identity.clone(),
        };
        settings.tls = Some(ClientTls::client(files).context("TLS to the cache")?);
    }
    if let Some(name) = &upstream.server_name {
        settings = settings.with_server_name(name)?;
    }
    if let Some(authority) = &upstream.authority {
        settings.authority = Some(authority.parse().context("upstream.authority")?);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_has_its_part_of_the_connections_and_at_least_one() {
        assert_eq!(part(128, 1), 128);
        assert_eq!(part(128, 3), 42);
        assert_eq!(part(1, 1), 1);
        assert_eq!(part(1, 8), 1);
    }

    #[test]
    fn the_configured_number_is_the_cap_and_there_is_room_above_it() {
        let mut config = crate::config::Config {
            threads: 2,
            upstream_connections: 10,
            ..crate::config::load(&crate::config::Sources {
                environment: vec![("HOME".to_owned(), "/home/u".to_owned())],
                ..crate::config::Sources::default()
            })
            .unwrap()
            .config
        };
        config.upstream = Some(crate::config::Upstream {
            urls: vec!["grpc://cache.example:1".parse().unwrap()],
            ..Default::default()
        });
        let backend = Backend::open(&config).unwrap();
        let Cache::Remote(settings, true) = &backend.cache else {
            panic!()
        };
        assert_eq!((settings.soft_cap, settings.hard_cap), (5, 13));
    }
}
