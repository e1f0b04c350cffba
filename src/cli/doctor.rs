//! `assetgate doctor`: what a probe finds of the cache, for people or as JSON.
//!
//! Not for: probing (`server::examine`).
//! Called by: `cli`.

use std::process::ExitCode;

use super::{complain, say};
use crate::config::Config;
use crate::digest::InstanceName;
use crate::server::examine;
use crate::store::{Condition, Report};

/// The cache cannot be reached, as in `sysexits.h` (EX_UNAVAILABLE).
const UNREACHABLE: u8 = 69;

/// What references are worth where nobody signs them.
const UNSIGNED: &str = "References are not signed: whoever may write this Action Cache can make any \
                        content the answer to a fetch without a checksum; one with a checksum \
                        gets only what has it (references.mac_key).\n";

/// Probes, tells, and says by the exit code whether references work there.
pub(super) fn doctor(mut config: Config, instances: Vec<InstanceName>, json: bool) -> ExitCode {
    if !instances.is_empty() {
        config.probe.instances = instances;
    }
    let reports = match examine(&config) {
        Ok(reports) => reports,
        Err(error) => {
            complain(&format!("assetgate: {error:#}"));
            return ExitCode::FAILURE;
        }
    };
    let mut said = tell(&reports, json);
    if !json && config.references.mac_key.is_none() {
        said.push('\n');
        said.push_str(UNSIGNED);
    }
    let said = say(&said);
    let verdict = verdict(&reports, &config.probe.require);
    if said == ExitCode::SUCCESS {
        ExitCode::from(verdict)
    } else {
        said
    }
}

fn tell(reports: &[Report], json: bool) -> String {
    if json {
        let reports: Vec<_> = reports.iter().map(Report::json).collect();
        return format!("{:#}\n", serde_json::Value::Array(reports));
    }
    let texts: Vec<String> = reports.iter().map(Report::text).collect();
    texts.join("\n")
}

/// The exit code; on standard error, what is required and not so.
fn verdict(reports: &[Report], require: &[Condition]) -> u8 {
    if reports.iter().any(|report| report.unreachable) {
        return UNREACHABLE;
    }
    let mut code = 0;
    for report in reports {
        let unmet = report.unmet(require);
        for condition in &unmet {
            let (name, demand) = (condition.name(), condition.demand());
            complain(&format!("assetgate: `{name}` is not met: {demand}"));
        }
        if !unmet.is_empty() || !report.references_work() {
            code = 1;
        }
    }
    code
}
