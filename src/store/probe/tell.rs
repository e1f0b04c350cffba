//! Tells operators what a probe found: log and metrics.
//!
//! Labels are bounded: names of the configuration stand as they are, all
//! others are `other`.
//! Called by: `schedule.rs`.

use std::time::UNIX_EPOCH;

use super::Report;

fn label(report: &Report, named: bool) -> String {
    match named {
        true => report.instance.to_string(),
        false => "other".to_owned(),
    }
}

/// Counts a run.
pub(super) fn count(report: &Report, named: bool) {
    metrics::counter!("assetgate_probe_runs_total", "outcome" => report.outcome()).increment(1);
    if report.is_complete()
        && let Ok(since) = report.at.duration_since(UNIX_EPOCH)
    {
        let instance = label(report, named);
        metrics::gauge!("assetgate_probe_last_success", "instance" => instance)
            .set(since.as_secs_f64());
    }
}

/// Sets what is known.
pub(super) fn gauges(report: &Report, named: bool) {
    let instance = label(report, named);
    for line in report.lines() {
        let labels = [
            ("check", line.check.to_owned()),
            ("instance", instance.clone()),
        ];
        metrics::gauge!("assetgate_probe_result", &labels).set(line.number());
    }
}

/// One event with all of it.
pub(super) fn log(report: &Report) {
    let lines = report.lines();
    let value = |check: &str| {
        let line = lines.iter().find(|line| line.check == check);
        line.map_or("unknown", |line| line.value)
    };
    let notable = lines.iter().filter(|line| line.value != "yes");
    let notable: Vec<String> = notable
        .map(|line| format!("{}: {}: {}", line.title, line.value, line.text))
        .collect();
    tracing::info!(
        probe.instance = %report.instance,
        probe.outcome = report.outcome(),
        probe.references_work = report.references_work(),
        probe.content = value("content"),
        probe.sizes = value("sizes"),
        probe.writable = value("writable"),
        probe.payload = value("payload"),
        probe.root_digest = value("root_digest"),
        probe.files_checked = value("files_checked"),
        probe.trees_checked = value("trees_checked"),
        probe.pins_checked = value("pins_checked"),
        probe.lost_trees_checked = value("lost_trees_checked"),
        probe.overwrite = value("overwrite"),
        probe.instances = value("instances"),
        probe.get_tree = value("get_tree"),
        probe.findings = notable.join("; "),
        "probe of the cache: {}",
        report.summary()
    );
}
