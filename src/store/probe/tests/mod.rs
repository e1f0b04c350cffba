//! Probes of a double with every habit of a cache that is known.

mod caches;
mod schedule;

use super::{ProbeTarget, Prober, ProberSettings, Probes, Report, probe};
use crate::digest::InstanceName;
use crate::drain::Drain;
use crate::upstream::CallContext;
use crate::upstream::double::Double;

fn ctx() -> CallContext {
    CallContext::default()
}

fn target(double: &Double) -> ProbeTarget {
    ProbeTarget {
        content: double.cache(),
        elsewhere: None,
    }
}

async fn probed(double: &Double) -> Report {
    probe(&target(double), &ctx(), &InstanceName::default()).await
}

/// A finding's value and text.
fn line(report: &Report, check: &str) -> (&'static str, String) {
    let lines = report.lines();
    let line = lines.iter().find(|line| line.check == check).unwrap();
    (line.value, line.text.clone())
}

fn values(report: &Report) -> Vec<(&'static str, &'static str)> {
    let lines = report.lines();
    lines.iter().map(|line| (line.check, line.value)).collect()
}

fn prober(double: &Double, settings: ProberSettings) -> (Probes, Prober, Drain) {
    let drain = Drain::new();
    let runtime = tokio::runtime::Handle::current();
    let prober = Prober::new(target(double), settings, drain.clone(), runtime);
    let probes = Probes::default();
    probes.attach(prober.clone());
    (probes, prober, drain)
}
