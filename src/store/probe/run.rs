//! One probe of one instance name: about thirty small calls, most of them at
//! once, within a time limit. Never an error: what could not be seen is said.
//!
//! Not for: when it runs (`schedule.rs`), what follows (`report.rs`).
//! Called by: `schedule.rs`, and `server` for `doctor`.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::join;

use super::report::{Finding, Report, Writes, is_passing};
use super::sample::{Entry, Sample};
use crate::digest::{Digest, DigestFunction, InstanceName};
use crate::proto::rev2;
use crate::upstream::{Cache, CallContext, Error};

/// For all calls of one probe together.
const LIMIT: Duration = Duration::from_secs(10);

/// Reads of an entry that was written twice.
pub(super) const READS: usize = 8;

/// What a cache answers to a look-up.
pub(super) type Found = Result<Option<rev2::ActionResult>, Error>;

/// The cache to probe.
#[derive(Debug, Clone)]
pub struct ProbeTarget {
    /// Where content is.
    pub content: Cache,
    /// Where references are, if not there.
    pub elsewhere: Option<Cache>,
}

impl ProbeTarget {
    fn entries(&self) -> &Cache {
        self.elsewhere.as_ref().unwrap_or(&self.content)
    }
}

/// Finds out what a cache does under an instance name, for this caller.
pub async fn probe(target: &ProbeTarget, context: &CallContext, instance: &InstanceName) -> Report {
    let mut report = Report::new(instance);
    report.elsewhere = target.elsewhere.is_some();
    let run = async {
        match start(target, context, &mut report).await {
            Ok(sample) => {
                let run = Run {
                    target,
                    context,
                    sample: &sample,
                };
                run.all(&mut report).await;
            }
            Err(why) => report.explain(&why),
        }
    };
    if tokio::time::timeout(LIMIT, run).await.is_err() {
        report.unreachable = report.function.is_none();
        report.explain("the cache did not answer within the 10 s a probe may take");
    }
    report.explain("nothing was seen of it");
    report.at = SystemTime::now();
    report
}

/// Asks which digest function to use, and makes what is to be written.
async fn start(
    target: &ProbeTarget,
    context: &CallContext,
    report: &mut Report,
) -> Result<Sample, String> {
    let mut functions = Vec::new();
    for cache in [&target.content, target.entries()] {
        match cache.limits(context, &report.instance).await {
            Ok(limits) => functions.push(function(&limits.digest_functions)),
            Err(error) => {
                report.unreachable = error.code() == Some(tonic::Code::Unavailable);
                report.content = Finding::failed(context, &error);
                return Err("the cache does not answer GetCapabilities".to_owned());
            }
        }
    }
    let [Some(content), Some(at)] = functions[..] else {
        return Err("Assetgate computes no digest function of the cache".to_owned());
    };
    report.function = Some(content);
    Sample::new(&report.instance, content, at, report.elsewhere)
        .ok_or_else(|| "no sample could be made".to_owned())
}

/// The one to probe with.
fn function(announced: &[DigestFunction]) -> Option<DigestFunction> {
    Some(DigestFunction::Sha256)
        .filter(|sha256| announced.contains(sha256))
        .or_else(|| announced.iter().copied().find(|f| f.is_computable()))
}

pub(super) struct Run<'a> {
    target: &'a ProbeTarget,
    context: &'a CallContext,
    pub(super) sample: &'a Sample,
}

impl Run<'_> {
    async fn all(&self, report: &mut Report) {
        let (context, sample) = (self.context, self.sample);
        let (content, scope) = (&self.target.content, &sample.scope);
        let mut blobs = sample.blobs.clone();
        if !report.elsewhere {
            blobs.extend(sample.messages.iter().cloned());
        }
        if let Err(error) = content.write_blobs(context, scope, blobs).await {
            report.unreachable = error.code() == Some(tonic::Code::Unavailable);
            report.content = self.failed(&error);
            report.writes = self.write_bare().await;
            report.explain("content cannot be written, and nothing was tried without");
            return;
        }
        self.content(report).await;
        let tree = content.has_get_tree(context, scope, &sample.root);
        let (tree, ()) = join!(tree, self.entries(report));
        report.get_tree = match tree {
            Ok(there) => Finding::Known(there),
            Err(error) => self.failed(&error),
        };
    }

    pub(super) fn failed<T>(&self, error: &Error) -> Finding<T> {
        Finding::failed(self.context, error)
    }

    async fn update(&self, entry: &Entry) -> Result<(), Error> {
        let (at, result) = (&self.sample.at, entry.result.clone());
        let cache = self.target.entries();
        let update = cache.update_action_result(self.context, at, &entry.action, result);
        // What it answers is not what it keeps: that is read.
        update.await.map(drop)
    }

    async fn get(&self, entry: &Entry) -> Found {
        let (cache, at) = (self.target.entries(), &self.sample.at);
        cache
            .get_action_result(self.context, at, &entry.action)
            .await
    }

    /// Whether the Action Cache alone can be written.
    async fn write_bare(&self) -> Finding<Writes> {
        let entry = &self.sample.bare;
        if let Err(error) = self.update(entry).await {
            return self.failed(&error);
        }
        match self.get(entry).await {
            Ok(Some(_)) => Finding::Known(Writes::Kept),
            Ok(None) => Finding::Known(Writes::Dropped),
            Err(error) => self.failed(&error),
        }
    }

    /// Reading, and what is told to be missing.
    async fn content(&self, report: &mut Report) {
        let sample = self.sample;
        let asked = [&sample.present, &sample.absent, &sample.resized];
        let (cache, context, scope) = (&self.target.content, self.context, &sample.scope);
        let missing = cache.find_missing(context, scope, asked);
        let read = cache.read_blob(context, scope, &sample.present);
        let (missing, read) = join!(missing, read);
        let missing = match missing {
            Ok(missing) => missing,
            Err(error) => {
                report.content = self.failed(&error);
                return;
            }
        };
        report.sizes = Finding::Known(missing.contains(&sample.resized));
        report.content = match read {
            Ok(read) => {
                let told = missing.contains(&sample.absent) && !missing.contains(&sample.present);
                Finding::Known(told && read.is_some())
            }
            Err(error) => self.failed(&error),
        };
    }

    /// Everything about the Action Cache.
    async fn entries(&self, report: &mut Report) {
        if report.elsewhere {
            let (cache, messages) = (self.target.entries(), self.sample.messages.clone());
            let at = &self.sample.at;
            if let Err(error) = cache.write_blobs(self.context, at, messages).await {
                report.writes = self.failed(&error);
                report.explain("keys of references cannot be written where references are kept");
                return;
            }
        }
        // The first alone: where it is refused, so are all.
        if let Err(error) = self.update(&self.sample.first).await {
            report.writes = self.failed(&error);
            report.explain("the Action Cache takes no entries");
            return;
        }
        if report.elsewhere {
            let second = self.update(&self.sample.second).await;
            self.control(report, &second).await;
            report.instances = self.other_instance(report.writes.is(Writes::Kept)).await;
            report.explain("references are kept apart from content, and have no outputs there");
            return;
        }
        self.with_outputs(report).await;
    }

    /// Entries that name content.
    async fn with_outputs(&self, report: &mut Report) {
        let sample = self.sample;
        let updates = [
            &sample.second,
            &sample.directory,
            &sample.no_file,
            &sample.no_tree_file,
            &sample.no_pin,
            &sample.no_tree,
            &sample.no_pin_tree,
        ];
        let written = join_all(updates.map(|entry| self.update(entry))).await;
        let [
            second,
            directory,
            no_file,
            no_tree_file,
            no_pin,
            no_tree,
            no_pin_tree,
        ] = &written[..]
        else {
            return;
        };
        let whole = self.get_if(directory, &sample.directory);
        let ((), whole) = join!(self.control(report, second), whole);
        let blob = report.writes.is(Writes::Kept);
        let directory = self.judge_directory(report, &whole) && blob;
        let (files, trees, pins, no_tree, no_pins, other) = join!(
            self.withheld(blob, no_file, &sample.no_file),
            self.withheld(directory, no_tree_file, &sample.no_tree_file),
            self.withheld(blob, no_pin, &sample.no_pin),
            self.withheld(directory, no_tree, &sample.no_tree),
            self.withheld(blob, no_pin_tree, &sample.no_pin_tree),
            self.other_instance(blob),
        );
        report.files = files;
        report.trees = trees;
        report.pins = pins;
        report.lost_trees = both(no_tree, no_pins);
        report.instances = other;
    }

    /// The complete entry that was written twice.
    async fn control(&self, report: &mut Report, second: &Result<(), Error>) {
        let reads = join_all((0..READS).map(|_| self.get(&self.sample.first))).await;
        self.judge_control(report, &reads);
        self.judge_overwrite(report, second, &reads);
    }

    async fn get_if(&self, written: &Result<(), Error>, entry: &Entry) -> Found {
        match written {
            Ok(()) => self.get(entry).await,
            Err(error) => Err(error.clone()),
        }
    }

    /// Whether an entry that names missing content is withheld, which says
    /// something only if a complete one like it is given out.
    async fn withheld(
        &self,
        control: bool,
        written: &Result<(), Error>,
        entry: &Entry,
    ) -> Finding<bool> {
        if !control {
            return Finding::Unknown("not even a complete entry is given back".to_owned());
        }
        if let Err(error) = written {
            return self.failed(error);
        }
        match self.get(entry).await {
            Ok(found) => Finding::Known(found.is_none()),
            Err(error) => Finding::Unknown(match self.failed::<bool>(&error) {
                Finding::Unknown(why) => why,
                _ => self.context.redact(&error.for_operators()),
            }),
        }
    }

    /// Whether another instance name has other entries. One that the cache
    /// does not know has.
    async fn other_instance(&self, control: bool) -> Finding<bool> {
        if !control {
            return Finding::default();
        }
        let mut scope = self.sample.at.clone();
        scope.instance = self.sample.other_instance.clone();
        let action: &Digest = &self.sample.first.action;
        let cache = self.target.entries();
        let found = cache.get_action_result(self.context, &scope, action).await;
        match found {
            Ok(found) => Finding::Known(found.is_none()),
            Err(Error::Status { status, .. }) if !is_passing(status.code()) => Finding::Known(true),
            Err(error) => self.failed(&error),
        }
    }
}

/// Known only if both are; one that is not so decides.
fn both(a: Finding<bool>, b: Finding<bool>) -> Finding<bool> {
    match (a, b) {
        (a, Finding::Known(true)) => a,
        (Finding::Known(true), b) => b,
        (Finding::Known(false), _) | (_, Finding::Known(false)) => Finding::Known(false),
        (a, _) => a,
    }
}
