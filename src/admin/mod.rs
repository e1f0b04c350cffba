//! The admin port: health for machines, a page for people, numbers for
//! Prometheus. Reads only; there is nothing here to change.
//!
//! `/livez` (also `/healthz`, `/-/healthy`), `/readyz`, `/metrics`, `/status`
//! (JSON), `/fetches` (HTML or JSON), `/` (HTML).
//! Not for: gRPC health (`server`), nor for finding out whether the cache can
//! be reached: [`State`] is told.
//! Called by: `server`.

mod fetches;
mod host;
mod pages;
mod places;
mod serve;

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::fetcher::Entry;
use crate::store::Report;

pub use host::{AllowedHosts, HostName};
pub use pages::router;
pub use serve::serve;

/// Whether calls can be served, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether a load balancer should send calls here.
    pub ready: bool,
    /// A sentence; shown also when ready.
    pub reason: String,
}

impl Readiness {
    /// Ready.
    #[must_use]
    pub fn ready() -> Self {
        Self {
            ready: true,
            reason: "ready".to_owned(),
        }
    }

    /// Not ready, and why.
    #[must_use]
    pub fn unready(reason: impl Into<String>) -> Self {
        Self {
            ready: false,
            reason: reason.into(),
        }
    }
}

/// A fact for the status page: a name and what is so.
pub type Fact = (&'static str, String);

/// What the pages show.
#[derive(Clone)]
pub struct State {
    readiness: watch::Receiver<Readiness>,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    facts: Arc<dyn Fn() -> Vec<Fact> + Send + Sync>,
    reports: Arc<dyn Fn() -> Vec<Arc<Report>> + Send + Sync>,
    fetches: Arc<dyn Fn() -> Vec<Entry> + Send + Sync>,
}

impl State {
    /// `metrics` renders Prometheus text; `facts` are asked for at each request.
    /// No secrets belong into either.
    pub fn new(
        readiness: watch::Receiver<Readiness>,
        metrics: impl Fn() -> String + Send + Sync + 'static,
        facts: impl Fn() -> Vec<Fact> + Send + Sync + 'static,
    ) -> Self {
        Self {
            readiness,
            metrics: Arc::new(metrics),
            facts: Arc::new(facts),
            reports: Arc::new(Vec::new),
            fetches: Arc::new(Vec::new),
        }
    }

    /// With the downloads under way, asked for at each request.
    #[must_use]
    pub fn with_fetches(
        mut self,
        fetches: impl Fn() -> Vec<Entry> + Send + Sync + 'static,
    ) -> Self {
        self.fetches = Arc::new(fetches);
        self
    }

    /// With what probes of the cache found, asked for at each request.
    #[must_use]
    pub fn with_reports(
        mut self,
        reports: impl Fn() -> Vec<Arc<Report>> + Send + Sync + 'static,
    ) -> Self {
        self.reports = Arc::new(reports);
        self
    }

    fn readiness(&self) -> Readiness {
        self.readiness.borrow().clone()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("readiness", &self.readiness())
            .finish_non_exhaustive()
    }
}
