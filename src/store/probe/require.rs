//! Conditions without which the server refuses to start.
//!
//! Called by: `server`, `config` (parsing).

use super::report::{Finding, Overwrite, Report, Writes};

/// One of `probe.require`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The Action Cache takes and keeps entries.
    Writable,
    /// Entries whose content is gone are withheld, in every form.
    Complete,
    /// The last write of an entry wins.
    Overwrite,
    /// Instance names are told apart.
    Instances,
    /// The payload survives in `auxiliary_metadata`.
    Payload,
}

use Condition as C;

impl Condition {
    /// All there are.
    pub const ALL: [Condition; 5] = [
        C::Writable,
        C::Complete,
        C::Overwrite,
        C::Instances,
        C::Payload,
    ];

    /// As it is written in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            C::Writable => "writable",
            C::Complete => "complete",
            C::Overwrite => "overwrite",
            C::Instances => "instances",
            C::Payload => "payload",
        }
    }

    /// What it demands, in words.
    #[must_use]
    pub fn demand(self) -> &'static str {
        match self {
            C::Writable => "the Action Cache keeps what is written",
            C::Complete => "the cache withholds entries whose content is gone",
            C::Overwrite => "the last write of an entry wins",
            C::Instances => "instance names have entries of their own",
            C::Payload => "auxiliary_metadata comes back",
        }
    }

    /// Whether a report shows it.
    #[must_use]
    pub fn holds(self, report: &Report) -> bool {
        match self {
            C::Writable => report.content.is(true) && report.writes.is(Writes::Kept),
            C::Complete => report.files.is(true) && report.checks_trees(),
            C::Overwrite => report.overwrite.is(Overwrite::LastWins),
            C::Instances => report.instances.is(true),
            C::Payload => report.payload.is(true),
        }
    }

    /// Whether asking again may show it.
    #[must_use]
    pub fn is_open(self, report: &Report) -> bool {
        let open = |finding: &Finding<bool>| !finding.is_decided();
        match self {
            C::Writable => open(&report.content) || !report.writes.is_decided(),
            C::Complete if report.elsewhere => false,
            C::Complete => [
                &report.files,
                &report.trees,
                &report.pins,
                &report.lost_trees,
            ]
            .into_iter()
            .any(open),
            C::Overwrite => !report.overwrite.is_decided(),
            C::Instances => open(&report.instances),
            C::Payload => open(&report.payload),
        }
    }
}

impl Report {
    /// Those conditions that it does not show.
    #[must_use]
    pub fn unmet(&self, conditions: &[Condition]) -> Vec<Condition> {
        let conditions = conditions.iter().copied();
        conditions.filter(|c| !c.holds(self)).collect()
    }

    /// Why a server that needs `unmet` does not start.
    #[must_use]
    pub fn refusal(&self, unmet: &[Condition]) -> String {
        let demands: Vec<String> = unmet
            .iter()
            .map(|c| format!("`{}` ({})", c.name(), c.demand()))
            .collect();
        format!(
            "probe.require is not met: {}\n{}",
            demands.join(", "),
            self.text().trim_end()
        )
    }
}
