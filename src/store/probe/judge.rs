//! What the answers about complete entries mean.
//!
//! Not for: asking (`run.rs`).
//! Called by: `run.rs`.

use super::super::encoding::same_payload;
use super::report::{Finding, Overwrite, Report, Writes};
use super::run::{Found, READS, Run};
use super::sample::Entry;
use crate::proto::rev2;
use crate::upstream::Error;

impl Run<'_> {
    /// Whether the complete entry is there, with its payload.
    pub(super) fn judge_control(&self, report: &mut Report, reads: &[Found]) {
        let found: Vec<&rev2::ActionResult> = entries(reads).collect();
        let ours = |entry: &&&rev2::ActionResult| self.which(entry).is_some();
        let Some(entry) = found.iter().find(ours) else {
            let failed = reads.iter().find_map(|read| read.as_ref().err());
            report.writes = match (found.is_empty(), failed) {
                (false, _) => Finding::Known(Writes::Altered),
                (true, Some(error)) => self.failed(error),
                (true, None) => Finding::Known(Writes::Dropped),
            };
            return;
        };
        report.writes = Finding::Known(Writes::Kept);
        let function = self.sample.at.function;
        let sent = [&self.sample.first, &self.sample.second];
        let same = |sent: &&Entry| same_payload(function, &sent.result, entry) == Some(true);
        report.payload = Finding::Known(sent.iter().any(same));
    }

    /// Which of the two entries this is: by what it names, or by its time
    /// where it names nothing. Payloads may be lost.
    fn which(&self, entry: &rev2::ActionResult) -> Option<bool> {
        let marks = |e: &rev2::ActionResult| {
            let file = e.output_files.first().and_then(|f| f.digest.clone());
            let metadata = e.execution_metadata.as_ref();
            let time = metadata.and_then(|m| m.worker_completed_timestamp);
            (file.clone(), time.filter(|_| file.is_none()))
        };
        let found = marks(entry);
        let is = |sent: &Entry| marks(&sent.result) == found;
        match (is(&self.sample.first), is(&self.sample.second)) {
            (true, _) => Some(false),
            (_, true) => Some(true),
            _ => None,
        }
    }

    pub(super) fn judge_overwrite(
        &self,
        report: &mut Report,
        second: &Result<(), Error>,
        reads: &[Found],
    ) {
        if !report.writes.is(Writes::Kept) {
            return;
        }
        if let Err(error) = second {
            report.overwrite = self.failed(error);
            return;
        }
        if let Some(error) = reads.iter().find_map(|read| read.as_ref().err()) {
            report.overwrite = self.failed(error);
            return;
        }
        let seen: Vec<Option<bool>> = entries(reads).map(|entry| self.which(entry)).collect();
        let all = |which| seen.len() == READS && seen.iter().all(|s| *s == Some(which));
        report.overwrite = Finding::Known(match (all(true), all(false)) {
            (true, _) => Overwrite::LastWins,
            (_, true) => Overwrite::FirstWins,
            _ => Overwrite::Stale,
        });
    }

    /// Whether the complete directory is there.
    pub(super) fn judge_directory(&self, report: &mut Report, whole: &Found) -> bool {
        match whole {
            Ok(Some(entry)) => {
                let root = Some(self.sample.root.to_wire());
                let mut roots = entry.output_directories.iter();
                let kept = roots.any(|d| d.root_directory_digest == root);
                report.root_digest = Finding::Known(kept);
                true
            }
            Ok(None) => {
                let why = "a complete entry of a directory is not given back";
                report.root_digest = Finding::Unknown(why.to_owned());
                false
            }
            Err(error) => {
                report.root_digest = self.failed(error);
                false
            }
        }
    }
}

fn entries(reads: &[Found]) -> impl Iterator<Item = &rev2::ActionResult> {
    reads.iter().filter_map(|read| read.as_ref().ok()?.as_ref())
}
