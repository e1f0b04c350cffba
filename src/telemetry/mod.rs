//! Logs and metrics of the process: where they go and what they are called.
//!
//! Both are process-wide by nature, so setting up twice is harmless: the first
//! call decides, later ones get the same [`Metrics`]. Several servers in one
//! test process share counters; assert differences.
//! Not for: what is logged or counted (each module does), nor for serving
//! `/metrics` (`admin`).
//! Called by: `cli`, `server`.

mod json;
mod limit;
mod log;
mod names;
mod queue;

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use limit::may_log;
pub use log::{LogSettings, init_log, printer};
pub use queue::Flush;

/// How often histograms are folded; without it they grow with every sample.
pub const UPKEEP: Duration = Duration::from_secs(5);

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// Metrics could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be recorded: {0}")]
pub struct MetricsError(String);

static METRICS: OnceLock<Result<Metrics, String>> = OnceLock::new();

impl Metrics {
    /// Starts recording, or gives what already records.
    ///
    /// # Errors
    /// When another library recorded first.
    pub fn install() -> Result<Self, MetricsError> {
        METRICS.get_or_init(install).clone().map_err(MetricsError)
    }

    /// Whether something records, so that a series that is looked up now is
    /// one for ever.
    #[must_use]
    pub fn are_installed() -> bool {
        matches!(METRICS.get(), Some(Ok(_)))
    }

    /// The text Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds histograms every [`UPKEEP`], for ever; whoever spawns it ends it.
    pub async fn upkeep(self) {
        let mut tick = tokio::time::interval(UPKEEP);
        loop {
            tick.tick().await;
            self.0.run_upkeep();
        }
    }
}

fn install() -> Result<Metrics, String> {
    let mut builder = PrometheusBuilder::new();
    for (metric, buckets) in names::BUCKETS {
        builder = builder
            .set_buckets_for_metric(Matcher::Full((*metric).to_owned()), buckets)
            .map_err(|error| error.to_string())?;
    }
    let handle = builder
        .install_recorder()
        .map_err(|error| error.to_string())?;
    names::describe();
    names::begin();
    metrics::gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(Metrics(handle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_gives_the_same_metrics() {
        let first = Metrics::install().unwrap();
        metrics::counter!("assetgate_test_total").increment(1);
        let second = Metrics::install().unwrap();
        for rendered in [first.render(), second.render()] {
            assert!(rendered.contains("assetgate_test_total 1"), "{rendered}");
            assert!(
                rendered.contains("assetgate_build_info{version=\""),
                "{rendered}"
            );
        }
    }

    #[test]
    fn known_metrics_have_help_and_durations_are_histograms() {
        let metrics = Metrics::install().unwrap();
        metrics::histogram!("grpc_server_handling_seconds", "grpc_method" => "x").record(0.02);
        let rendered = metrics.render();
        assert!(
            rendered.contains("# HELP grpc_server_handling_seconds "),
            "{rendered}"
        );
        assert!(
            rendered.contains("# TYPE grpc_server_handling_seconds histogram"),
            "{rendered}"
        );
        assert!(rendered.contains("le=\"0.025\""), "{rendered}");
    }
}
