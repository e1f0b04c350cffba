//! What a probe found out, as values.
//!
//! Not for: the words it is told in (`words.rs`), how it is found out
//! (`run.rs`).
//! Called by: `server`, `cli`, `admin`, and the rest of this folder.

use std::time::SystemTime;

use tonic::Code;

use super::{Carrier, Modes};
use crate::digest::{DigestFunction, InstanceName};
use crate::upstream::{CallContext, Error};

/// Most characters of a cache's own words that are repeated.
const MAX_TEXT: usize = 200;

/// One thing a probe wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding<T> {
    /// It is so.
    Known(T),
    /// The cache refused what was needed to see it.
    Refused {
        /// The code of its answer.
        code: Code,
        /// Its words, without credentials.
        text: String,
    },
    /// It was not seen, and why.
    Unknown(String),
}

impl<T> Default for Finding<T> {
    /// Not seen yet: the reason is filled in when the probe ends.
    fn default() -> Self {
        Finding::Unknown(String::new())
    }
}

impl<T: PartialEq> Finding<T> {
    /// Whether this is known to be so.
    pub fn is(&self, value: T) -> bool {
        *self == Finding::Known(value)
    }
}

impl<T> Finding<T> {
    /// Whether asking again is of no use.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        !matches!(self, Finding::Unknown(_))
    }

    /// The refusal of the caller, as opposed to one of the request.
    fn is_for_credentials(&self) -> bool {
        let codes = [Code::PermissionDenied, Code::Unauthenticated];
        matches!(self, Finding::Refused { code, .. } if codes.contains(code))
    }

    /// What a failed call says of the thing asked about.
    pub(super) fn failed(context: &CallContext, error: &Error) -> Self {
        let said = match error {
            Error::Status { status, .. } if !is_passing(status.code()) => {
                Some((status.code(), status.message()))
            }
            _ => None,
        };
        match said {
            Some((code, text)) => Finding::Refused {
                code,
                text: plain(&context.redact(text)),
            },
            None => Finding::Unknown(plain(&context.redact(&error.for_operators()))),
        }
    }

    fn explain(&mut self, why: &str) {
        if let Finding::Unknown(reason) = self
            && reason.is_empty()
        {
            why.clone_into(reason);
        }
    }
}

/// Codes that say nothing of what the cache can do.
pub(super) fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Cancelled
            | Code::Aborted
    )
}

/// One line of bounded length, as it comes from elsewhere.
fn plain(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut out: String = text.chars().take(MAX_TEXT).map(clean).collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        out.push('…');
    }
    out
}

/// What becomes of an entry that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// It can be read afterwards.
    Kept,
    /// The cache said OK and has no entry.
    Dropped,
    /// The cache said OK and has another entry.
    Altered,
}

/// What becomes of an entry that is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Every read gives the new one.
    LastWins,
    /// Some reads give the old one, or none.
    Stale,
    /// The cache said OK and keeps the old one.
    FirstWins,
}

/// What a probe found out for one instance name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The instance name.
    pub instance: InstanceName,
    /// When the probe ended.
    pub at: SystemTime,
    /// The digest function it was done in, if the cache was reached.
    pub function: Option<DigestFunction>,
    /// Entries are in another cache than content.
    pub elsewhere: bool,
    /// The cache did not answer at all.
    pub unreachable: bool,
    /// Content can be written and read, and what is missing is told.
    pub content: Finding<bool>,
    /// A right hash with a wrong size is told to be missing.
    pub sizes: Finding<bool>,
    /// Action Cache entries.
    pub writes: Finding<Writes>,
    /// `auxiliary_metadata` comes back.
    pub payload: Finding<bool>,
    /// `root_directory_digest` comes back.
    pub root_digest: Finding<bool>,
    /// An entry without its output file is withheld. These four are refused
    /// where the cache does not take such an entry.
    pub files: Finding<bool>,
    /// The same for a file in the Tree of an output directory.
    pub trees: Finding<bool>,
    /// The same for a file in a Tree without a root digest.
    pub pins: Finding<bool>,
    /// The same for the Trees themselves.
    pub lost_trees: Finding<bool>,
    /// Writing twice.
    pub overwrite: Finding<Overwrite>,
    /// Instance names have entries of their own.
    pub instances: Finding<bool>,
    /// GetTree is there. Not used.
    pub get_tree: Finding<bool>,
}

impl Report {
    /// Nothing known yet.
    pub(super) fn new(instance: &InstanceName) -> Self {
        Self {
            instance: instance.clone(),
            at: SystemTime::now(),
            function: None,
            elsewhere: false,
            unreachable: false,
            content: Finding::default(),
            sizes: Finding::default(),
            writes: Finding::default(),
            payload: Finding::default(),
            root_digest: Finding::default(),
            files: Finding::default(),
            trees: Finding::default(),
            pins: Finding::default(),
            lost_trees: Finding::default(),
            overwrite: Finding::default(),
            instances: Finding::default(),
            get_tree: Finding::default(),
        }
    }

    /// Gives everything that was not seen this reason.
    pub(super) fn explain(&mut self, why: &str) {
        for finding in [
            &mut self.content,
            &mut self.sizes,
            &mut self.payload,
            &mut self.root_digest,
            &mut self.files,
            &mut self.trees,
            &mut self.pins,
            &mut self.lost_trees,
            &mut self.instances,
            &mut self.get_tree,
        ] {
            finding.explain(why);
        }
        self.writes.explain(why);
        self.overwrite.explain(why);
    }

    /// Whether modes can be chosen from it: an entry was kept, and whether
    /// such entries are checked was seen.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.content.is(true)
            && self.writes.is(Writes::Kept)
            && self.payload.is_decided()
            && (self.elsewhere
                || [&self.files, &self.trees, &self.pins, &self.lost_trees]
                    .iter()
                    .all(|finding| finding.is_decided()))
    }

    /// Whether the caller was refused, so that another may see more.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.content.is_for_credentials() || self.writes.is_for_credentials()
    }

    /// Whether references can be kept in this cache.
    #[must_use]
    pub fn references_work(&self) -> bool {
        let overwrites = [Overwrite::LastWins, Overwrite::Stale];
        self.content.is(true)
            && self.writes.is(Writes::Kept)
            && overwrites.into_iter().any(|o| self.overwrite.is(o))
    }

    /// Whether Trees are checked in every form in which references have them.
    #[must_use]
    pub fn checks_trees(&self) -> bool {
        [&self.trees, &self.pins, &self.lost_trees]
            .iter()
            .all(|finding| finding.is(true))
    }

    /// How to write and read by what was seen. `before` are the modes that
    /// held: a report that is not complete makes them more careful at most, as
    /// one caller's refusal is not the truth for others.
    #[must_use]
    pub fn modes(&self, before: Modes) -> Modes {
        let seen = Modes {
            checks_files: self.files.is(true),
            checks_trees: self.checks_trees(),
            carrier: match self.payload.is(false) {
                true => Carrier::Blob,
                false => Carrier::Metadata,
            },
        };
        if self.is_complete() {
            return seen;
        }
        let trees = [&self.trees, &self.pins, &self.lost_trees];
        Modes {
            checks_files: before.checks_files && !self.files.is(false),
            checks_trees: before.checks_trees && !trees.iter().any(|f| f.is(false)),
            carrier: match seen.carrier {
                Carrier::Blob => Carrier::Blob,
                Carrier::Metadata => before.carrier,
            },
        }
    }

    /// How the run ended, as a metric label.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        if self.is_complete() {
            "complete"
        } else if self.unreachable {
            "unreachable"
        } else if self.is_refused() {
            "refused"
        } else {
            "incomplete"
        }
    }
}
