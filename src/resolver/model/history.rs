//! What happened in a case, step by step: the oracle knows nothing else.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::case::{Case, Fetch, Push};
use crate::asset::AssetKind;
use crate::digest::Digest;
use crate::resolver::{Answer, ResolveError};

/// A set of contents.
pub(super) type Mask = u8;

/// What was asked.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Push(Push),
    Fetch(Fetch),
}

/// How it ended.
#[derive(Debug, Clone)]
pub(super) enum Ended {
    Pushed(Result<(), ResolveError>),
    Answered(Result<Answer, ResolveError>),
    /// Its replica was killed.
    Killed,
    /// A panic outside of what the resolver catches.
    Panicked,
}

/// One push or fetch.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) asked: Asked,
    /// Steps.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Times, in milliseconds.
    pub(super) began: u64,
    pub(super) ended_at: u64,
    pub(super) ended: Option<Ended>,
    /// Upstream calls.
    pub(super) calls: usize,
    /// Of these, how many were made to fail.
    pub(super) failed: usize,
}

/// A write of an entry that reached the cache.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) step: usize,
    pub(super) record: usize,
    pub(super) action: String,
}

/// Content an origin served.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) step: usize,
    pub(super) at: u64,
    pub(super) record: usize,
    pub(super) content: usize,
}

#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) records: Vec<Record>,
    /// By step: which contents are in the CAS.
    pub(super) present: Vec<Mask>,
    pub(super) writes: Vec<Write>,
    /// Evicted entries, by action.
    pub(super) evicted: Vec<(usize, String)>,
    /// Evictions of blobs that are no content.
    pub(super) others: Vec<usize>,
    pub(super) served: Vec<Served>,
    /// One line for each step.
    pub(super) trace: Vec<String>,
    /// The records made after all was quiet start here.
    pub(super) quiet: usize,
    /// It did not come to an end.
    pub(super) stuck: bool,
}

impl History {
    /// Pushes, with their numbers.
    pub(super) fn pushes(&self) -> impl Iterator<Item = (usize, &Record, &Push)> {
        let all = self.records.iter().enumerate();
        all.filter_map(|(n, record)| match &record.asked {
            Asked::Push(push) => Some((n, record, push)),
            Asked::Fetch(_) => None,
        })
    }

    pub(super) fn is_evicted(&self, action: &str, from: usize, to: usize) -> bool {
        let mut evicted = self.evicted.iter();
        evicted.any(|(step, a)| (from..=to).contains(step) && a == action)
    }

    pub(super) fn lost_others(&self, from: usize, to: usize) -> bool {
        self.others.iter().any(|step| (from..=to).contains(step))
    }

    /// Whether all of these were in the CAS at one moment.
    pub(super) fn once(&self, mask: Mask, from: usize, to: usize) -> bool {
        self.present[from..=to].iter().any(|p| p & mask == mask)
    }

    /// Whether all of these were there all the time.
    pub(super) fn throughout(&self, mask: Mask, from: usize, to: usize) -> bool {
        self.present[from..=to].iter().all(|p| p & mask == mask)
    }

    /// Whether nothing changed about any of these.
    pub(super) fn unchanged(&self, mask: Mask, from: usize, to: usize) -> bool {
        let first = self.present[from] & mask;
        self.present[from..=to].iter().all(|p| p & mask == first)
    }
}

impl Record {
    pub(super) fn is_acknowledged(&self) -> bool {
        matches!(self.ended, Some(Ended::Pushed(Ok(()))))
    }
}

/// A time as the replicas see it.
pub(super) fn time(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_millis(ms)
}

/// What every case knows of its contents.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) data: Vec<bytes::Bytes>,
    pub(super) digests: Vec<Digest>,
    pub(super) index: HashMap<Digest, usize>,
    /// What each of them needs as a directory.
    pub(super) closures: Vec<Mask>,
}

impl Contents {
    /// What an asset needs.
    pub(super) fn needs(&self, kind: AssetKind, content: usize) -> Mask {
        match kind {
            AssetKind::Blob => 1 << content,
            AssetKind::Directory => self.closures[content],
        }
    }

    /// What a push references beside its asset.
    pub(super) fn references(&self, push: &Push) -> Mask {
        let blobs = push.blobs.map_or(0, |b| 1 << b);
        blobs | push.directories.map_or(0, |d| self.closures[d])
    }
}

/// A failure as it is shown.
pub(super) fn story(case: &Case, history: &History, why: &str) -> String {
    let mut text = format!(
        "{why}\n\n{:?}, subset_max {}\n",
        case.layout, case.subset_max
    );
    for (n, record) in history.records.iter().enumerate() {
        let Record { start, end, .. } = record;
        text += &format!(
            "#{n} [{start}..{end}] {:?}\n    {:?}\n",
            record.asked, record.ended
        );
    }
    text + "\n" + &history.trace.join("\n")
}
