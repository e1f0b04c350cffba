//! One probe of the configured cache, without serving.
//!
//! Not for: printing it, exit codes (`cli::doctor`).
//! Called by: `cli`.

use std::sync::Arc;

use anyhow::Context as _;

use super::assembly::probe_settings;
use super::backend::Backend;
use crate::config::Config;
use crate::store::{ProbeTarget, Report, probe};
use crate::upstream::Identity;

/// Probes the cache under every name of `probe.instances`.
///
/// # Errors
/// When the cache cannot even be tried, as with an embedded one that another
/// process uses.
pub fn examine(config: &Config) -> anyhow::Result<Vec<Report>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime for the probe")?;
    let reports = runtime.block_on(async {
        let backend = Backend::open(config)?;
        let target = ProbeTarget {
            content: backend.near().cache,
            elsewhere: backend.references().map(|near| near.cache),
        };
        let settings = probe_settings(
            config,
            Identity::new(backend.credential()),
            Arc::new(|_| {}),
        );
        let mut reports = Vec::new();
        for instance in &settings.instances {
            let context = (settings.own)();
            reports.push(probe(&target, &context, instance).await);
        }
        anyhow::Ok(reports)
    });
    runtime.shutdown_background();
    reports
}
