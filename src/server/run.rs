//! The life of the process: bind, serve, drain, end.
//!
//! Not for: flags and logs (`cli`), how parts fit (`assembly`).
//! Called by: `main` through `cli`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::assembly::Assembly;
use super::backend::Backend;
use super::{Listener, ListenerSettings, Serving, allocator, descriptors, readiness};
use crate::admin;
use crate::budget::Budget;
use crate::config::Config;
use crate::drain::Drain;
use crate::fetcher::Progress;
use crate::forward::Observer;
use crate::labour;
use crate::net::ListenAddr;
use crate::net::tls::{ServerFiles, ServerTls};
use crate::store::{Probes, Told};
use crate::telemetry::Metrics;

/// How often certificate files are looked at.
const CERTIFICATES: Duration = Duration::from_secs(10);

/// How often files with credentials are looked at, and rules: tokens live
/// shorter than certificates.
const CREDENTIAL: Duration = Duration::from_secs(2);

/// Threads of the asset runtime: downloads and uploads mostly wait.
const ASSET_THREADS: usize = 2;

/// By how much they give way to the threads that answer calls: large messages
/// are decoded there too.
const GIVES_WAY: i32 = 5;

/// Told the addresses once calls are served.
type Announce = Box<dyn FnOnce(&str, Option<&str>) -> io::Result<()> + Send>;

/// Serves until SIGTERM or SIGINT, then drains. A second signal ends at once.
/// `told` hears what probes of the cache find.
///
/// # Errors
/// When something that serving needs cannot be had.
pub fn run(mut config: Config, announce: Announce, told: Told) -> anyhow::Result<()> {
    allocator::set_up(config.threads);
    let metrics = Metrics::install()?;
    let admin_connections = descriptors::fit(&mut config, descriptors::raise());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASSET_THREADS)
        .thread_name("asset")
        .on_thread_start(|| labour::give_way(GIVES_WAY))
        .enable_all()
        .build()
        .context("the asset runtime")?;
    let ended = runtime.block_on(serve(config, admin_connections, metrics, announce, told));
    // Whatever still runs was given its time.
    runtime.shutdown_background();
    ended
}

/// What stops when the process does.
struct Process {
    /// Health and readiness go off.
    stopping: Drain,
    /// The listener closes, calls finish.
    drain: Drain,
    /// Everything that serves as long as the process lives.
    background: tokio::task::JoinSet<()>,
}

async fn serve(
    config: Config,
    admin_connections: usize,
    metrics: Metrics,
    announce: Announce,
    told: Told,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let mut process = Process {
        stopping: Drain::new(),
        drain: Drain::new(),
        background: tokio::task::JoinSet::new(),
    };
    let backend = Backend::open(&config)?;
    let observer = Arc::new(Observer::default());
    let assembly = Assembly::new(
        &config,
        backend.clone(),
        Arc::clone(&observer),
        process.drain.clone(),
        process.stopping.clone(),
        told,
    )?;
    let (probes, prober) = assembly.prober();
    watch_files(&assembly, &mut process);
    let (progress, budget) = (assembly.progress(), assembly.budget());
    let required = !config.probe.require.is_empty();
    if let Some(prober) = prober.as_ref().filter(|_| required) {
        tokio::select! {
            met = prober.require(&probes, &config.probe.require) => met.map_err(|why| anyhow!(why))?,
            () = signals.next() => return Ok(()),
        }
    }
    let (serving, grpc) = listen(&config, &backend, assembly, &mut process)?;
    let render = rendering(metrics.clone(), observer, budget.clone());
    let admin = match &config.admin {
        Some(address) => {
            let pages = Pages {
                connections: admin_connections,
                facts: facts(&config),
                probes: probes.clone(),
                progress,
            };
            Some(admin(address, &config, pages, &backend, render, &mut process).await?)
        }
        None => None,
    };
    process.background.spawn(metrics.upkeep());
    process.background.spawn(allocator::keep_small(budget));
    announce(&grpc.to_string(), admin.map(|a| a.to_string()).as_deref())?;
    if let Some(prober) = prober {
        process.background.spawn(prober.watch(probes, required));
    }
    signals.next().await;
    tracing::info!("stopping: running calls are finished first");
    process.stopping.start();
    tokio::select! {
        () = stop(&process.drain, &config) => {}
        () = signals.next() => tracing::warn!("a second signal: running calls are cut off"),
    }
    tokio::task::spawn_blocking(move || serving.join()).await?;
    Ok(())
}

/// Follows the files that the parts read again when they change.
fn watch_files(assembly: &Assembly, process: &mut Process) {
    let origin_files = assembly.origin_files();
    process.background.spawn(origin_files.watch(CREDENTIAL));
    if let Some(keys) = assembly.mac_keys() {
        process.background.spawn(keys.watch(CREDENTIAL));
    }
}

/// Binds the gRPC listener and serves it.
fn listen(
    config: &Config,
    backend: &Backend,
    assembly: Assembly,
    process: &mut Process,
) -> anyhow::Result<(Serving, ListenAddr)> {
    let mut settings = ListenerSettings::new(config.listen.address.clone());
    settings.max_connections = config.listen.max_connections;
    settings.socket_mode = config.listen.socket_mode;
    settings.client_limit.connections = config.listen.of_one_client();
    settings
        .client_limit
        .fronts
        .clone_from(&config.listen.fronts);
    if let Some(tls) = &config.listen.tls {
        let files = ServerFiles {
            cert: tls.cert.clone(),
            key: tls.key.clone(),
            client_ca: tls.client_ca.clone(),
        };
        let tls = ServerTls::server(files).context("TLS of the listener")?;
        process
            .background
            .spawn(Arc::clone(&tls).watch(CERTIFICATES));
        settings.tls = Some(tls);
    }
    for tls in backend.tls() {
        process.background.spawn(tls.watch(CERTIFICATES));
    }
    if let Some(credential) = backend.credential() {
        process.background.spawn(credential.watch(CREDENTIAL));
    }
    let bound = Listener::bind(settings).context("gRPC (--listen takes another address)")?;
    let address = bound.local_addr.clone();
    let make = move |_| assembly.dispatch();
    let serving = bound
        .serve(config.threads, make, process.drain.clone())
        .context("listener threads")?;
    Ok((serving, address))
}

/// The metrics page, with what is counted elsewhere.
fn rendering(
    metrics: Metrics,
    observer: Arc<Observer>,
    budget: Budget,
) -> impl Fn() -> String + Send + Sync + 'static {
    move || {
        observer.fold();
        show(&budget);
        metrics.render()
    }
}

#[allow(clippy::cast_precision_loss, reason = "a metric")]
fn show(budget: &Budget) {
    metrics::gauge!("assetgate_received_bytes").set(budget.used() as f64);
    metrics::gauge!("assetgate_received_waiting").set(budget.waiting() as f64);
}

/// What the admin pages show beside readiness and metrics.
struct Pages {
    /// How many may look at a time.
    connections: usize,
    facts: Vec<admin::Fact>,
    probes: Probes,
    progress: Progress,
}

async fn admin(
    address: &ListenAddr,
    config: &Config,
    pages: Pages,
    backend: &Backend,
    metrics: impl Fn() -> String + Send + Sync + 'static,
    process: &mut Process,
) -> anyhow::Result<SocketAddr> {
    let text = address.to_string();
    let listener = TcpListener::bind(&text).await.with_context(|| {
        format!("admin pages: cannot listen on {text} (--admin-listen takes another, or `off`)")
    })?;
    let bound = listener.local_addr()?;
    let (state, keep) = readiness::watch(backend, process.stopping.clone());
    process.background.spawn(keep);
    let Pages {
        connections,
        facts,
        probes,
        progress,
    } = pages;
    let state = admin::State::new(state, metrics, move || facts.clone());
    let state = state
        .with_reports(move || probes.reports())
        .with_fetches(move || progress.list());
    let hosts = admin::AllowedHosts::of(bound, &config.admin_hosts);
    process.background.spawn(admin::serve(
        listener,
        admin::router(state, hosts),
        connections,
    ));
    Ok(bound)
}

/// What the status page says of the configuration.
fn facts(config: &Config) -> Vec<admin::Fact> {
    let cache = match &config.upstream {
        Some(upstream) => {
            let urls: Vec<String> = upstream.urls.iter().map(ToString::to_string).collect();
            urls.join(", ")
        }
        None => format!("embedded, in {}", config.embedded.dir.display()),
    };
    vec![("cache", cache), ("threads", config.threads.to_string())]
}

async fn stop(drain: &Drain, config: &Config) {
    tokio::time::sleep(config.drain.delay).await;
    if !drain.finish(config.drain.timeout).await {
        tracing::warn!("calls still run after drain.timeout: they are cut off");
    }
}

/// What tells the process to stop.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
