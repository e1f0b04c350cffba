//! When a cache is probed: at start and at intervals for the instance names
//! of the configuration, and for others when they are first asked for, under
//! the caller who asks. No caller's credentials outlive the probe they began.
//!
//! Not for: what is found out (`run.rs`), telling it (`tell.rs`).
//! Called by: `Probes`, `server`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::require::Condition;
use super::{Known, ProbeTarget, Probes, Report, probe, tell};
use crate::digest::InstanceName;
use crate::drain::Drain;
use crate::upstream::CallContext;

/// Probes of one instance name that ended without a complete report are this
/// far apart, whatever callers do.
const RETRY: Duration = Duration::from_secs(60);
/// Callers begin no more than one probe in this time, over all names.
const PACE: Duration = Duration::from_secs(1);
/// Probes at once.
const SLOTS: usize = 2;
/// Instance names remembered unless the settings say otherwise.
const REMEMBERED: usize = 1024;
/// A cache that cannot be reached is tried again after this, then after
/// longer, up to [`RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// How long a start waits for what it requires.
const PATIENCE: Duration = Duration::from_secs(30);

/// Under whose credentials names of the configuration are probed.
pub type OwnContext = Arc<dyn Fn() -> CallContext + Send + Sync>;
/// Told each report of such a name that says something new.
pub type Told = Arc<dyn Fn(&Report) + Send + Sync>;

/// Settings of a [`Prober`].
#[derive(Clone)]
pub struct ProberSettings {
    /// The names that are probed without being asked for.
    pub instances: Vec<InstanceName>,
    /// How often; zero is once.
    pub interval: Duration,
    /// Under whose credentials.
    pub own: OwnContext,
    /// Who is told.
    pub told: Told,
    /// Names come from requests: no more than this many are remembered.
    pub remembered: usize,
}

impl Default for ProberSettings {
    fn default() -> Self {
        Self {
            instances: vec![InstanceName::default()],
            interval: Duration::from_secs(600),
            own: Arc::new(CallContext::default),
            told: Arc::new(|_| {}),
            remembered: REMEMBERED,
        }
    }
}

/// Probes one cache when it is time. Cheap to clone.
#[derive(Clone)]
pub struct Prober(Arc<Inner>);

struct Inner {
    target: ProbeTarget,
    settings: ProberSettings,
    drain: Drain,
    runtime: Handle,
    slots: Arc<Semaphore>,
    under_way: Arc<Mutex<UnderWay>>,
}

#[derive(Default)]
struct UnderWay {
    instances: HashSet<InstanceName>,
    /// When a caller began one last.
    begun: Option<Instant>,
}

/// One probe of an instance name; ends it when dropped.
struct Turn {
    under_way: Arc<Mutex<UnderWay>>,
    instance: InstanceName,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.under_way.lock().instances.remove(&self.instance);
    }
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prober")
    }
}

impl Prober {
    /// A prober whose probes run on `runtime` and end with `drain`.
    #[must_use]
    pub fn new(
        target: ProbeTarget,
        settings: ProberSettings,
        drain: Drain,
        runtime: Handle,
    ) -> Self {
        Self(Arc::new(Inner {
            target,
            settings,
            drain,
            runtime,
            slots: Arc::new(Semaphore::new(SLOTS)),
            under_way: Arc::default(),
        }))
    }

    /// Begins one for a caller, unless there are enough. Never waits.
    pub(super) fn begin(&self, probes: &Probes, context: &CallContext, instance: &InstanceName) {
        let inner = &self.0;
        let now = Instant::now();
        let mut under_way = inner.under_way.lock();
        let hurried = under_way.begun.is_some_and(|begun| now < begun + PACE);
        if hurried || inner.drain.is_started() || under_way.instances.contains(instance) {
            return;
        }
        let Ok(slot) = Arc::clone(&inner.slots).try_acquire_owned() else {
            return;
        };
        under_way.begun = Some(now);
        under_way.instances.insert(instance.clone());
        drop(under_way);
        let turn = self.turn(instance, slot);
        probes.make_room(instance, &inner.settings);
        probes.change(instance, |known| known.due = Some(now + RETRY));
        let (prober, probes, context) = (self.clone(), probes.clone(), context.clone());
        let task = async move {
            tokio::select! {
                report = probe(&prober.0.target, &context, &turn.instance) => {
                    prober.note(&probes, report);
                }
                () = prober.0.drain.started() => {}
            }
        };
        inner.drain.spawn_on(task, &inner.runtime);
    }

    fn turn(&self, instance: &InstanceName, slot: OwnedSemaphorePermit) -> Turn {
        Turn {
            under_way: Arc::clone(&self.0.under_way),
            instance: instance.clone(),
            _slot: slot,
        }
    }

    /// One under our own credentials; none while a caller's is under way.
    async fn own(&self, probes: &Probes, instance: &InstanceName) -> Option<Report> {
        let slot = Arc::clone(&self.0.slots).acquire_owned().await.ok()?;
        if !self.0.under_way.lock().instances.insert(instance.clone()) {
            return None;
        }
        let _turn = self.turn(instance, slot);
        let context = (self.0.settings.own)();
        let report = probe(&self.0.target, &context, instance).await;
        self.note(probes, report.clone());
        Some(report)
    }

    /// Probes the names of the configuration, now and at intervals, for ever
    /// or until `drain` starts. `skip_first` after [`Prober::require`].
    pub async fn watch(self, probes: Probes, skip_first: bool) {
        let drain = self.0.drain.clone();
        tokio::select! {
            () = self.repeat(&probes, skip_first) => {}
            () = drain.started() => {}
        }
    }

    async fn repeat(&self, probes: &Probes, mut skip: bool) {
        let settings = &self.0.settings;
        let mut retry = FIRST_RETRY;
        loop {
            let mut reached = true;
            for instance in settings.instances.iter().filter(|_| !skip) {
                let report = self.own(probes, instance).await;
                reached &= !report.is_some_and(|report| report.unreachable);
            }
            skip = false;
            let wait = if reached {
                retry = FIRST_RETRY;
                settings.interval
            } else {
                retry = RETRY.min(retry * 2);
                retry
            };
            if wait.is_zero() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Probes until these conditions are seen to hold.
    ///
    /// # Errors
    /// When one does not hold, or that could not be seen within 30 s: the
    /// report and the condition in words.
    pub async fn require(&self, probes: &Probes, conditions: &[Condition]) -> Result<(), String> {
        let begun = Instant::now();
        for instance in &self.0.settings.instances {
            loop {
                let Some(report) = self.own(probes, instance).await else {
                    tokio::time::sleep(FIRST_RETRY).await;
                    continue;
                };
                let unmet = report.unmet(conditions);
                if unmet.is_empty() {
                    break;
                }
                let open = unmet.iter().all(|condition| condition.is_open(&report));
                if !open || begun.elapsed() >= PATIENCE {
                    return Err(report.refusal(&unmet));
                }
                tokio::time::sleep(FIRST_RETRY).await;
            }
        }
        Ok(())
    }

    /// Takes a report in: modes, when the next may come, and telling it.
    fn note(&self, probes: &Probes, report: Report) {
        let settings = &self.0.settings;
        let named = settings.instances.contains(&report.instance);
        let report = Arc::new(report);
        let before = probes.report(&report.instance);
        let now = Instant::now();
        probes.change(&report.instance, |known| {
            take_in(known, &report, now, settings.interval, named);
        });
        let after = probes.report(&report.instance);
        tell::count(&report, named);
        let (Some(after), changed) = (after.as_ref(), before != after) else {
            return;
        };
        tell::gauges(after, named);
        let same = before.is_some_and(|before| before.lines() == after.lines());
        if changed && !same {
            tell::log(after);
            if named {
                (settings.told)(after);
            }
        }
    }
}

/// A report that is not complete replaces none that is, unless it showed that
/// the cache no longer checks.
fn take_in(known: &mut Known, report: &Arc<Report>, now: Instant, every: Duration, named: bool) {
    let modes = report.modes(known.modes);
    let had = known.report.as_ref().is_some_and(|had| had.is_complete());
    if report.is_complete() {
        // Ours comes first where a name is ours; a caller's replaces it when
        // ours is refused.
        let every = if named { every * 2 } else { every };
        known.due = (!every.is_zero()).then(|| now + every);
    } else if !(had && every.is_zero()) {
        known.due = Some(now + RETRY);
    }
    if report.is_complete() || !had || modes != known.modes {
        known.report = Some(Arc::clone(report));
    }
    known.modes = modes;
}

impl Probes {
    /// Lets `prober` be asked by callers. The first one stays.
    pub fn attach(&self, prober: Prober) {
        // A second one would be a second server in this handle.
        let _ = self.prober.set(prober);
    }

    fn report(&self, instance: &InstanceName) -> Option<Arc<Report>> {
        self.known.load().get(instance)?.report.clone()
    }

    /// Forgets a name if there is no room for another: one that nothing is
    /// known of, else the one due first; none of the configuration.
    fn make_room(&self, instance: &InstanceName, settings: &ProberSettings) {
        let known = self.known.load();
        if known.len() < settings.remembered || known.contains_key(instance) {
            return;
        }
        let others = known
            .iter()
            .filter(|(name, _)| !settings.instances.contains(name));
        let complete = |k: &Known| k.report.as_ref().is_some_and(|r| r.is_complete());
        let victim = others.min_by_key(|(_, k)| (complete(k), k.due));
        let Some(victim) = victim.map(|(name, _)| name.clone()) else {
            return;
        };
        self.known.rcu(|known| {
            let mut known = std::collections::HashMap::clone(known);
            known.remove(&victim);
            known
        });
    }
}
