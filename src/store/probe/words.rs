//! A report in words: what each finding means for users, and what to do.
//!
//! Not for: what is found out (`report.rs`).
//! Called by: `server` (log, metrics), `cli` (doctor, serve), `admin`.

use std::fmt::Write as _;

use super::report::{Finding, Overwrite, Report, Writes};
use crate::call::code_name;

/// One finding, for people and for machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its name in JSON, logs and metrics.
    pub check: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// `yes`, `no`, `partly`, `refused` or `unknown`.
    pub value: &'static str,
    /// What it means.
    pub text: String,
}

impl Line {
    /// The value as a number: 1 yes, 0 no, -1 unknown.
    #[must_use]
    pub fn number(&self) -> f64 {
        match self.value {
            "yes" => 1.0,
            "unknown" => -1.0,
            _ => 0.0,
        }
    }
}

/// The names of all checks.
pub const CHECKS: [&str; 12] = [
    "content",
    "sizes",
    "writable",
    "payload",
    "root_digest",
    "files_checked",
    "trees_checked",
    "pins_checked",
    "lost_trees_checked",
    "overwrite",
    "instances",
    "get_tree",
];

/// Yes or no, each with its sentence.
fn told(finding: &Finding<bool>, yes: &str, no: &str) -> (&'static str, String) {
    match finding {
        Finding::Known(true) => ("yes", yes.to_owned()),
        Finding::Known(false) => ("no", no.to_owned()),
        other => otherwise(other, "refused", ""),
    }
}

/// A finding that is not known.
fn otherwise<T>(finding: &Finding<T>, refused: &str, advice: &str) -> (&'static str, String) {
    match finding {
        Finding::Refused { code, text } => {
            let code = code_name(*code);
            ("refused", format!("{refused} ({code}: {text}){advice}"))
        }
        Finding::Unknown(why) => ("unknown", format!("not seen: {why}")),
        Finding::Known(_) => ("unknown", String::new()),
    }
}

fn content(report: &Report) -> (&'static str, String) {
    match &report.content {
        Finding::Refused { .. } => otherwise(
            &report.content,
            "content cannot be written or read",
            ": nothing can be fetched or pushed; give callers access to the CAS",
        ),
        finding => told(
            finding,
            "content can be written and read, and the cache tells what is missing",
            "what was just written is not there, or FindMissingBlobs does not tell what is missing: \
             nothing can be relied on",
        ),
    }
}

fn sizes(report: &Report) -> (&'static str, String) {
    told(
        &report.sizes,
        "a right hash with a wrong size counts as missing",
        "FindMissingBlobs ignores sizes: a pushed digest with a wrong size is noticed only when read",
    )
}

fn writable(report: &Report) -> (&'static str, String) {
    let poor = "fetching works, nothing is remembered, pushes are refused; give callers write \
                access, or set references.upstream";
    match &report.writes {
        Finding::Known(Writes::Kept) => ("yes", "entries are kept".to_owned()),
        Finding::Known(Writes::Dropped) => (
            "no",
            format!("writes are acknowledged and nothing is stored: {poor}"),
        ),
        Finding::Known(Writes::Altered) => (
            "no",
            format!("writes are acknowledged and something else is stored: {poor}"),
        ),
        other => otherwise(other, "writes refused", &format!(": {poor}")),
    }
}

fn overwrite(report: &Report) -> (&'static str, String) {
    match &report.overwrite {
        Finding::Known(Overwrite::LastWins) => {
            ("yes", "the last write of an entry wins at once".to_owned())
        }
        Finding::Known(Overwrite::Stale) => (
            "partly",
            "some reads still give the old entry: a push may be seen late, and an older one \
             for some time"
                .to_owned(),
        ),
        Finding::Known(Overwrite::FirstWins) => (
            "no",
            "the first write of an entry wins and later ones are dropped: no asset can be pushed \
             again with other content, expiry or withdrawal; set references.upstream"
                .to_owned(),
        ),
        other => otherwise(
            other,
            "an entry cannot be written twice",
            ": no asset can be pushed again with other content, expiry or withdrawal; allow \
             overwriting, or set references.upstream",
        ),
    }
}

/// The completeness checks differ in what is missing.
fn withheld(finding: &Finding<bool>, what: &str) -> (&'static str, String) {
    match finding {
        Finding::Known(true) => ("yes", format!("entries without {what} are withheld")),
        Finding::Known(false) => (
            "no",
            format!(
                "entries without {what} are given out: Assetgate asks the CAS itself, at each hit"
            ),
        ),
        other => otherwise(
            other,
            &format!("an entry without {what} is not taken"),
            ", which says nothing of content evicted later: Assetgate asks the CAS itself, at each hit",
        ),
    }
}

impl Report {
    /// Every finding, in the order of [`CHECKS`].
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let payload = told(
            &self.payload,
            "auxiliary_metadata comes back as it was sent",
            "auxiliary_metadata is lost: payloads are kept in blobs of their own",
        );
        let root = told(
            &self.root_digest,
            "root_directory_digest comes back",
            "root_directory_digest is lost; nothing depends on it",
        );
        let instances = told(
            &self.instances,
            "instance names have entries of their own",
            "an entry is seen under other instance names too; keys keep references apart",
        );
        let get_tree = told(&self.get_tree, "there; not used", "not there; not used");
        let findings = [
            ("CAS", content(self)),
            ("sizes", sizes(self)),
            ("Action Cache", writable(self)),
            ("payload", payload),
            ("root digest", root),
            ("files checked", withheld(&self.files, "their output file")),
            (
                "trees checked",
                withheld(&self.trees, "a file of their tree"),
            ),
            (
                "pins checked",
                withheld(&self.pins, "a file of a tree without root digest"),
            ),
            (
                "lost trees checked",
                withheld(&self.lost_trees, "their Tree"),
            ),
            ("overwriting", overwrite(self)),
            ("instances", instances),
            ("GetTree", get_tree),
        ];
        let named = CHECKS.into_iter().zip(findings);
        named
            .map(|(check, (title, (value, text)))| Line {
                check,
                title,
                value,
                text,
            })
            .collect()
    }

    /// The upshot in a sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.unreachable {
            let why = match &self.content {
                Finding::Unknown(why) => why.as_str(),
                _ => "no answer",
            };
            return format!("the cache did not answer: {why}");
        }
        if self.references_work() {
            if self.elsewhere {
                return "references work; they are kept apart from content, so Assetgate asks the \
                        CAS at each hit"
                    .to_owned();
            }
            let cost = match (self.files.is(true), self.checks_trees()) {
                (true, true) => "the cache checks that content is complete, so a hit is one call",
                (true, false) => {
                    "the cache checks blobs and not all trees, so a hit on a blob is one call and \
                     on a directory three"
                }
                (false, _) => {
                    "the cache does not check that content is complete, so Assetgate does: a hit on \
                     a blob is two calls, on a directory three"
                }
            };
            return format!("references work; {cost}");
        }
        if self.is_refused() {
            return "references do not work for this caller: the cache refuses it; until a caller \
                    with more rights comes, presence is checked at each hit"
                .to_owned();
        }
        let all_known = self.content.is_decided() && self.writes.is_decided();
        match all_known && (!self.writes.is(Writes::Kept) || self.overwrite.is_decided()) {
            true => "references do not work in this cache".to_owned(),
            false => "whether references work could not be seen".to_owned(),
        }
    }

    /// A report for people: the upshot, then a line for each finding.
    #[must_use]
    pub fn text(&self) -> String {
        let instance = match self.instance.as_str() {
            "" => "the default instance".to_owned(),
            name => format!("instance {name}"),
        };
        let function = self.function.map_or("no digest function", |f| f.name());
        let mut out = format!("Probe of {instance} ({function}): {}\n", self.summary());
        for line in self.lines().iter().filter(|_| !self.unreachable) {
            let _ = writeln!(out, "  {:<19}{:<9}{}", line.title, line.value, line.text);
        }
        out
    }

    /// The same for machines.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let lines = self.lines().into_iter();
        let findings: serde_json::Map<_, _> = lines
            .map(|line| {
                let finding = serde_json::json!({"value": line.value, "text": line.text});
                (line.check.to_owned(), finding)
            })
            .collect();
        serde_json::json!({
            "instance": self.instance.as_str(),
            "at": humantime::format_rfc3339_seconds(self.at).to_string(),
            "digest_function": self.function.map(|f| f.name()),
            "outcome": self.outcome(),
            "references_work": self.references_work(),
            "summary": self.summary(),
            "findings": findings,
        })
    }
}
