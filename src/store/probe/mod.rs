//! What a probe has seen of a cache, by instance name, and the modes chosen
//! from it. Until something is known, the careful ones hold: presence is
//! always asked, payloads stand where every known cache keeps them.
//!
//! `run.rs` does one probe with what `sample.rs` makes, `judge.rs` reads the
//! answers, `report.rs` is what it found, `words.rs` says it, `require.rs`
//! turns it into a refusal to start, `schedule.rs` decides when.
//! Not for: asset references themselves.
//! Called by: `action_cache.rs` (reading), `server` (everything else).

mod judge;
mod report;
mod require;
mod run;
mod sample;
mod schedule;
mod tell;
#[cfg(test)]
mod tests;
mod words;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::time::Instant;

pub use report::{Finding, Overwrite, Report, Writes};
pub use require::Condition;
pub use run::{ProbeTarget, probe};
pub use schedule::{OwnContext, Prober, ProberSettings, Told};
pub use words::{CHECKS, Line};

use crate::digest::InstanceName;
use crate::upstream::CallContext;

/// Where the payload of an entry stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Carrier {
    /// In `auxiliary_metadata`, which every known cache keeps.
    #[default]
    Metadata,
    /// In a blob of the CAS that the entry lists as an output file, for caches
    /// that drop what they do not know.
    Blob,
}

/// How references are written and read, by what a probe has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modes {
    /// The cache withholds an entry whose output files are not all present.
    pub checks_files: bool,
    /// The same for Trees that stand in output directories, and the files in
    /// them, with and without a root digest.
    pub checks_trees: bool,
    /// Where to write payloads. Both are read.
    pub carrier: Carrier,
}

/// What is known of one instance name.
#[derive(Debug, Clone, Default)]
struct Known {
    modes: Modes,
    /// The latest complete report, or the latest while there is none.
    report: Option<Arc<Report>>,
    /// When a caller may have it probed again; `None` is never.
    due: Option<Instant>,
}

/// What is known, by instance name. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Probes {
    known: Arc<ArcSwap<HashMap<InstanceName, Known>>>,
    prober: Arc<OnceLock<Prober>>,
}

impl Probes {
    /// The modes of an instance name; the careful ones while nothing is known.
    /// Takes no lock: asked on every look-up.
    #[must_use]
    pub fn modes(&self, instance: &InstanceName) -> Modes {
        let known = self.known.load();
        known.get(instance).map(|k| k.modes).unwrap_or_default()
    }

    /// Notes what was seen.
    pub fn set(&self, instance: &InstanceName, modes: Modes) {
        self.change(instance, |known| known.modes = modes);
    }

    /// An asset call was made: where nothing is known of its instance name,
    /// or no more, a probe is begun in the background for this caller.
    pub fn on_call(&self, context: &CallContext, instance: &InstanceName) {
        let Some(prober) = self.prober.get() else {
            return;
        };
        let quiet = |known: &Known| known.due.is_none_or(|due| Instant::now() < due);
        if !self.known.load().get(instance).is_some_and(quiet) {
            prober.begin(self, context, instance);
        }
    }

    /// What was found out last, by instance name.
    #[must_use]
    pub fn reports(&self) -> Vec<Arc<Report>> {
        let known = self.known.load();
        let mut reports: Vec<_> = known.values().filter_map(|k| k.report.clone()).collect();
        reports.sort_by(|a, b| a.instance.cmp(&b.instance));
        reports
    }

    fn change(&self, instance: &InstanceName, change: impl Fn(&mut Known)) {
        self.known.rcu(|known| {
            let mut known = HashMap::clone(known);
            change(known.entry(instance.clone()).or_default());
            known
        });
    }
}
