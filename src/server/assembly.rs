//! Puts the parts together: the only place that knows all of them.
//!
//! Two runtimes use the cache: each listener thread over connections of its
//! own, for forwarded calls and for looking references up; and the asset
//! runtime over others, for downloads, uploads and pushes, so that these can
//! never stall forwarding.
//! Called by: `run`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::runtime::Handle;
use tonic::service::Routes;

use super::backend::{Backend, Near};
use super::{Dispatch, stack};
use crate::api::{self, ErrorMode, ErrorSettings};
use crate::asset::KeyHeaders;
use crate::budget::{Budget, Share};
use crate::config::{Config, ErrorChannel};
use crate::drain::Drain;
use crate::fetcher::{self, HttpFetcher, OriginFiles, Progress};
use crate::forward::{Forward, Observer};
use crate::intake::{Elsewhere, IntakeLayer};
use crate::resolver::{self, Permissions, ReadBackLimits, Resolver, SubsetRules};
use crate::store::{
    ActionCacheStore, MacKeys, OwnContext, ProbeTarget, Prober, ProberSettings, Probes,
    ReferenceSettings, Told,
};
use crate::upstream::{Cache, Identity, Upstream};

/// What looks references up and fetches.
pub(super) type OurResolver = Resolver<ActionCacheStore, HttpFetcher, Cache>;

type OurServices = api::Services<ActionCacheStore, HttpFetcher, Cache>;

/// What all listener threads share.
pub(super) struct Assembly {
    backend: Backend,
    /// For the asset runtime; threads derive their own from it.
    resolver: OurResolver,
    reflection: Routes,
    observer: Arc<Observer>,
    /// Who asset calls are to the cache.
    identity: Identity,
    errors: ErrorSettings,
    references: ReferenceSettings,
    origin_files: OriginFiles,
    probes: Probes,
    prober: Option<Prober>,
    progress: Progress,
    budget: Budget,
    /// The part of all trees that are being looked at.
    trees: Share,
    /// The services for large messages, on the asset runtime.
    far: Option<(OurServices, Elsewhere)>,
    /// Starts when health goes off, before the drain does.
    stopping: Drain,
}

impl Assembly {
    /// Must be called on the asset runtime.
    pub(super) fn new(
        config: &Config,
        backend: Backend,
        observer: Arc<Observer>,
        drain: Drain,
        stopping: Drain,
        told: Told,
    ) -> anyhow::Result<Self> {
        let Near {
            cache: far,
            own,
            target,
        } = backend.near();
        let budget = Budget::new(config.limits.received_memory);
        let trees = budget.share();
        let far = far.charging(trees.clone());
        if let Some(pool) = own {
            pool.keep_one();
        }
        let references = reference_settings(config)?;
        let probes = Probes::default();
        let store = ActionCacheStore::new(far.clone(), references.clone(), probes.clone());
        let store = with_references(store, backend.references());
        let identity = Identity::new(backend.credential());
        let prober = config.probe.enabled.then(|| {
            let settings = probe_settings(config, identity.clone(), told);
            let target = ProbeTarget {
                content: far.clone(),
                elsewhere: backend.references().map(|near| near.cache),
            };
            Prober::new(target, settings, stopping.clone(), Handle::current())
        });
        if let Some(prober) = &prober {
            probes.attach(prober.clone());
        }
        let fetcher = fetcher(config, &far)?;
        let (progress, origin_files) = (fetcher.progress(), fetcher.files());
        let resolver = resolver(config, store, fetcher, far, drain);
        let elsewhere = backend.elsewhere();
        let mut assembly = Self {
            identity,
            backend,
            resolver,
            reflection: api::reflection()?,
            observer,
            errors: error_settings(config),
            references,
            origin_files,
            probes,
            prober,
            progress,
            budget,
            trees,
            far: None,
            stopping,
        };
        assembly.far = elsewhere.map(|elsewhere| {
            let forward = Forward::new(target, Arc::clone(&assembly.observer));
            let others = forward.into_fallback().into_upstream();
            let services = assembly.services(assembly.resolver.clone(), others);
            (services.map_others(|others| others), elsewhere)
        });
        Ok(assembly)
    }

    /// What may be held of what is received.
    pub(super) fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// What is known of the cache, and what finds out; `None` is nothing.
    pub(super) fn prober(&self) -> (Probes, Option<Prober>) {
        (self.probes.clone(), self.prober.clone())
    }

    /// Rules and credentials for origins, which may change.
    pub(super) fn origin_files(&self) -> OriginFiles {
        self.origin_files.clone()
    }

    /// The keys that sign references, which may change.
    pub(super) fn mac_keys(&self) -> Option<MacKeys> {
        self.references.mac.clone()
    }

    /// The downloads under way.
    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// What one listener thread does with calls. Must be called on its runtime.
    pub(super) fn dispatch(&self) -> Dispatch {
        let Near {
            cache: near,
            target,
            ..
        } = self.backend.near();
        let near = near.charging(self.trees.clone());
        let (references, probes) = (self.references.clone(), self.probes.clone());
        let store = ActionCacheStore::new(near.clone(), references, probes);
        let store = with_references(store, self.backend.references());
        let resolver = self.resolver.on_thread(store, near);
        let mut forward = Forward::new(target, Arc::clone(&self.observer));
        for (service, target) in self.backend.routes() {
            forward = forward.with_route(service, target);
        }
        let fallback = forward.clone().into_fallback();
        let services = self.services(resolver, fallback.clone().into_upstream());
        let intake = match &self.far {
            Some((far, elsewhere)) => IntakeLayer::new(far.clone(), elsewhere.clone()),
            None => IntakeLayer::here(),
        };
        let services = services.map_others(|mut routes| {
            let router = routes.axum_router_mut();
            *router = std::mem::take(router).fallback_service(fallback);
            routes
        });
        Dispatch::new(forward, stack::stack(services, intake)).with_budget(self.budget())
    }

    /// Every native service over a resolver.
    fn services(&self, resolver: OurResolver, upstream: Upstream) -> OurServices {
        api::services(
            self.reflection.clone(),
            resolver,
            self.identity.clone(),
            self.errors.clone(),
            self.stopping.clone(),
            upstream,
        )
    }
}

/// A resolver as the server has it, for one that only explains: it knows no
/// probe's result, so it asks for the presence of everything. Must be called on
/// its runtime.
pub(super) fn explaining(config: &Config, backend: &Backend) -> anyhow::Result<OurResolver> {
    let cache = backend.near().cache;
    let (references, probes) = (reference_settings(config)?, Probes::default());
    let store = ActionCacheStore::new(cache.clone(), references, probes);
    let store = with_references(store, backend.references());
    let fetcher = fetcher(config, &cache)?;
    Ok(resolver(config, store, fetcher, cache, Drain::new()))
}

fn resolver(
    config: &Config,
    store: ActionCacheStore,
    fetcher: HttpFetcher,
    cache: Cache,
    drain: Drain,
) -> OurResolver {
    let (settings, runtime) = (resolver_settings(config), Handle::current());
    Resolver::new(store, fetcher, cache, settings, drain, runtime)
}

fn fetcher(config: &Config, cache: &Cache) -> anyhow::Result<HttpFetcher> {
    HttpFetcher::new(fetch_settings(config), cache.clone())
        .map_err(|errors| anyhow::anyhow!(join(&errors)))
        .context("fetching")
}

fn with_references(store: ActionCacheStore, elsewhere: Option<Near>) -> ActionCacheStore {
    match elsewhere {
        Some(near) => store.with_references(near.cache),
        None => store,
    }
}

fn reference_settings(config: &Config) -> anyhow::Result<ReferenceSettings> {
    let mac = config.references.mac_key.clone().map(MacKeys::open);
    let compat = &config.compat;
    Ok(ReferenceSettings {
        namespace: config.namespace.as_str().into(),
        mac: mac.transpose().context("references.mac_key")?,
        max_age: config.references.max_age,
        bb_remote_asset: compat
            .bb_remote_asset
            .then(|| compat.platform.as_slice().into()),
        ..ReferenceSettings::default()
    })
}

fn resolver_settings(config: &Config) -> resolver::Settings {
    let references = &config.references;
    resolver::Settings {
        push: config.push.enabled,
        permissions: Permissions {
            push_instances: config.push.instances.clone(),
            fetch_instances: config.fetch.instances.clone(),
            allow_uris: config.push.allow_uris.clone(),
            deny_uris: config.push.deny_uris.clone(),
        },
        subsets: SubsetRules {
            max: references.subset_max,
            projections: references.projections.clone(),
        },
        migrate: config.compat.bb_remote_asset,
        read_back: ReadBackLimits {
            max_size: config.fetch.max_size,
            timeout: config.fetch.timeout,
            max_timeout: config.fetch.max_timeout,
        },
        renew_after: references.max_age.map(|age| age / 2),
        unpinned: config.fetch.unpinned.clone(),
        key_headers: KeyHeaders::new(&config.fetch.key_headers),
        share_private: config.fetch.share_private,
        ..resolver::Settings::default()
    }
}

/// Where large downloads wait; without a place, what needs none is served.
fn spool_dir(config: &Config) -> Option<PathBuf> {
    let embedded = config.uses_embedded().then_some(&*config.embedded.dir);
    let named = config.fetch.spool_dir.clone();
    let found = named.or_else(|| fetcher::spool_place(embedded));
    if found.is_none() {
        tracing::warn!(
            "no directory on a disk takes temporary files: downloads that do not fit into \
             fetch.memory are refused; set fetch.spool_dir"
        );
    }
    found
}

fn fetch_settings(config: &Config) -> fetcher::Settings {
    let fetch = config.fetch.clone();
    fetcher::Settings {
        timeout: fetch.timeout,
        max_timeout: fetch.max_timeout,
        max_size: fetch.max_size,
        allow_cidr: fetch.allow_cidr,
        deny_cidr: fetch.deny_cidr,
        ca: fetch.ca,
        rules: fetch.rules,
        rules_report_only: fetch.rules_report_only,
        netrc: fetch.netrc,
        credentials: fetch.credentials,
        connect_timeout: fetch.connect_timeout,
        first_byte_timeout: fetch.first_byte_timeout,
        stall_timeout: fetch.stall_timeout,
        attempts: fetch.attempts,
        retry_delay: fetch.retry_delay,
        max_concurrent: fetch.max_concurrent,
        max_per_host: fetch.max_per_host,
        rate_per_host: fetch.rate_per_host,
        max_connections: fetch.max_connections,
        proxy: fetch.proxy,
        proxy_credential: fetch.proxy_credential,
        no_proxy: fetch.no_proxy,
        memory: fetch.memory,
        spool_dir: spool_dir(config),
        spool_size: fetch.spool_size,
        ..fetcher::Settings::default()
    }
}

/// Also of `doctor`.
pub(super) fn probe_settings(config: &Config, identity: Identity, told: Told) -> ProberSettings {
    let own: OwnContext = Arc::new(move || identity.service().unwrap_or_default());
    ProberSettings {
        instances: config.probe.instances.clone(),
        interval: config.probe.interval,
        own,
        told,
        ..ProberSettings::default()
    }
}

fn error_settings(config: &Config) -> ErrorSettings {
    ErrorSettings {
        mode: match config.errors.channel {
            ErrorChannel::Auto => ErrorMode::Auto,
            ErrorChannel::Inline => ErrorMode::Inline,
            ErrorChannel::Grpc => ErrorMode::Grpc,
        },
        grpc_clients: config.errors.grpc_clients.clone(),
    }
}

fn join(errors: &[fetcher::SettingsError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}
