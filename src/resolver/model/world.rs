//! Two replicas over one cache, and the scheduler: every upstream call waits at
//! a gate until it is let through, so that what happens next is always one
//! thing, chosen by the case.
//!
//! Time is tokio's paused one: a sleep ends only when nothing else can run,
//! which is how the scheduler knows that all have come to their gates.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::case::{CONTENTS, Case, Expiry, Fetch, Layout, Oldest, Op, Push, qualifiers, uris};
use super::history::{Asked, Contents, Ended, History, Record, Served, Write, time};
use super::keys;
use super::mutant::{Mutant, Mutated};
use crate::asset::{AssetKind, OriginHeaders, Uri, Validators};
use crate::clock::Clock;
use crate::digest::{Digest, DigestFunction, InstanceName};
use crate::drain::Drain;
use crate::fetcher::{Failure, FetchError, FetchRequest, Fetched, Fetcher, Waiters};
use crate::proto::rev2;
use crate::resolver::{Query, Resolver, Settings, SubsetRules};
use crate::store::{ActionCacheStore, Carrier, Modes, Probes, ReferenceSettings};
use crate::upstream::double::{Checks, Double, Gate, Verdict, scope, sha256};
use crate::upstream::{Cache, CallContext};

/// Header by which the double sees whose call it is.
const RECORD: &str = "x-model-record";
/// More steps mean that something goes round in circles.
const MOST_STEPS: usize = 5_000;

pub(super) static CONTENT: LazyLock<Contents> = LazyLock::new(|| {
    let mut data: Vec<Bytes> = ["one", "two", "three"].map(Bytes::from).to_vec();
    let file = |data: &Bytes| rev2::FileNode {
        name: "f".to_owned(),
        digest: Some(sha256(data).to_wire()),
        ..Default::default()
    };
    let mut directory = |files: Vec<rev2::FileNode>, below: Option<usize>| {
        let below = below.map(|n| rev2::DirectoryNode {
            name: "d".to_owned(),
            digest: Some(sha256(&data[n]).to_wire()),
        });
        let message = rev2::Directory {
            files,
            directories: below.into_iter().collect(),
            ..Default::default()
        };
        data.push(message.encode_to_vec().into());
    };
    let (one, two, three) = (Bytes::from("one"), Bytes::from("two"), Bytes::from("three"));
    directory(vec![file(&one)], None);
    directory(vec![file(&two)], Some(3));
    directory(vec![file(&three)], None);
    let digests: Vec<Digest> = data.iter().map(|d| sha256(d)).collect();
    assert_eq!(digests.len(), CONTENTS);
    Contents {
        index: digests.iter().cloned().zip(0..).collect(),
        closures: vec![0, 0, 0, 0b00_1001, 0b01_1011, 0b10_0100],
        data,
        digests,
    }
});

/// A call at its gate.
struct Parked {
    id: usize,
    record: usize,
    method: String,
    go: oneshot::Sender<Verdict>,
}

/// What the replicas' calls and the scheduler share.
#[derive(Default)]
struct Gates {
    next: usize,
    parked: Vec<Parked>,
    /// Calls by record.
    calls: HashMap<usize, usize>,
    served: Vec<(usize, usize)>,
}

type Shared = Arc<Mutex<Gates>>;

/// Takes a call that is dropped away from its gate.
struct Leaves(Shared, usize);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.lock().parked.retain(|parked| parked.id != self.1);
    }
}

async fn pass(gates: Shared, method: String, record: usize) -> Verdict {
    let (go, gone) = oneshot::channel();
    let id = {
        let mut all = gates.lock();
        all.next += 1;
        let id = all.next;
        *all.calls.entry(record).or_default() += 1;
        all.parked.push(Parked {
            id,
            record,
            method,
            go,
        });
        id
    };
    let _leaves = Leaves(gates, id);
    gone.await.unwrap_or(Verdict::FailBefore)
}

fn record_of(metadata: &http::HeaderMap) -> usize {
    let value = metadata.get(RECORD).and_then(|v| v.to_str().ok());
    value
        .and_then(|v| v.parse().ok())
        .expect("a call of nobody")
}

fn context(record: usize) -> CallContext {
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert(RECORD, record.to_string().parse().unwrap());
    CallContext::from_caller(&metadata)
}

/// An origin that serves one blob for every URL.
#[derive(Clone)]
struct Origin {
    gates: Shared,
    serves: Arc<Mutex<Option<usize>>>,
    cas: Double,
    clock: Clock,
}

impl Fetcher for Origin {
    fn is_fetchable(&self, kind: AssetKind, uri: &Uri) -> bool {
        kind == AssetKind::Blob && uri.is_http()
    }

    fn unsupported(&self, request: &FetchRequest) -> Vec<String> {
        let names = request.qualifiers.iter().map(|q| q.name.clone());
        names.filter(|n| n != super::case::NAMES[0]).collect()
    }

    async fn fetch(
        &self,
        context: &CallContext,
        request: &FetchRequest,
    ) -> Result<Fetched, FetchError> {
        let record = record_of(&context.request(()).metadata().clone().into_headers());
        let started_at = self.clock.now();
        pass(Arc::clone(&self.gates), "origin".to_owned(), record).await;
        let failed = |failure| FetchError::Origin {
            failure,
            uri_index: 0,
            message: "the origin said no".to_owned(),
            detail: None,
            attempts: 1,
        };
        let Some(content) = *self.serves.lock() else {
            return Err(failed(Failure::Unavailable { retry_after: None }));
        };
        self.gates.lock().served.push((record, content));
        let uri_index = request.uris.iter().position(Uri::is_http).unwrap();
        let known = request.known.get(uri_index).and_then(Option::as_ref);
        let etag = Some(format!("\"{content}\""));
        let not_modified = known.is_some_and(|known| known.validators.etag == etag);
        let digest = if not_modified {
            CONTENT.digests[content].clone()
        } else {
            pass(Arc::clone(&self.gates), "deposit".to_owned(), record).await;
            self.cas.put(CONTENT.data[content].clone())
        };
        Ok(Fetched {
            digest,
            uri_index,
            not_modified,
            joined: false,
            started_at,
            validators: Validators {
                etag,
                last_modified: None,
            },
            verified: Vec::new(),
            with_credentials: false,
            origin_bytes: 0,
            attempts: 1,
        })
    }
}

type Replica = Resolver<Mutated, Origin, Cache>;

/// A push or fetch under way.
struct Running {
    record: usize,
    replica: usize,
    handle: JoinHandle<Ended>,
}

/// Everything of one case.
pub(super) struct World<'a> {
    case: &'a Case,
    mutant: Mutant,
    cas: Double,
    entries: Double,
    gates: Shared,
    origin: Origin,
    clock: Clock,
    now: Arc<AtomicU64>,
    drain: Drain,
    replicas: Vec<Replica>,
    running: Vec<Running>,
    failing: BTreeMap<usize, bool>,
    writes: usize,
    /// The step and record of the call that was let through.
    last: (usize, usize),
    history: History,
}

impl<'a> World<'a> {
    pub(super) fn new(case: &'a Case, mutant: Mutant) -> Self {
        let gates = Shared::default();
        let now = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&now);
        let clock = Clock::new(move || time(told.load(Ordering::SeqCst)));
        let cas = double(&gates, case.layout, mutant);
        let entries = match case.layout {
            Layout::Detached => double(&gates, case.layout, mutant),
            _ => cas.clone(),
        };
        for data in &CONTENT.data {
            cas.put(data.clone());
        }
        let origin = Origin {
            gates: Arc::clone(&gates),
            serves: Arc::new(Mutex::new(Some(0))),
            cas: cas.clone(),
            clock: clock.clone(),
        };
        let failing = case.failing.iter();
        let mut world = Self {
            case,
            mutant,
            cas,
            entries,
            gates,
            origin,
            clock,
            now,
            drain: Drain::new(),
            replicas: Vec::new(),
            running: Vec::new(),
            failing: failing.map(|f| (f.write.into(), f.written)).collect(),
            writes: 0,
            last: (0, 0),
            history: History::default(),
        };
        world.replicas = vec![world.replica(), world.replica()];
        world.history.present.push(world.present());
        world
    }

    fn replica(&self) -> Replica {
        let probes = Probes::default();
        let modes = match self.case.layout {
            Layout::Checked => Modes {
                checks_files: true,
                checks_trees: true,
                ..Modes::default()
            },
            Layout::Stripped => Modes {
                checks_files: true,
                checks_trees: true,
                carrier: Carrier::Blob,
            },
            _ => Modes::default(),
        };
        probes.set(&InstanceName::default(), modes);
        let settings = ReferenceSettings {
            clock: self.clock.clone(),
            ..ReferenceSettings::default()
        };
        let mut store = ActionCacheStore::new(self.cas.cache(), settings, probes);
        if self.case.layout == Layout::Detached {
            store = store.with_references(self.entries.cache());
        }
        let settings = Settings {
            subsets: SubsetRules {
                max: self.case.subset_max,
                ..SubsetRules::default()
            },
            clock: self.clock.clone(),
            ..Settings::default()
        };
        let runtime = tokio::runtime::Handle::current();
        let store = Mutated(store, self.mutant, self.clock.clone());
        let announce = self.cas.cache();
        Resolver::new(
            store,
            self.origin.clone(),
            announce,
            settings,
            self.drain.clone(),
            runtime,
        )
    }

    /// Runs the case, and what shows that it left all in order.
    pub(super) async fn run(mut self) -> History {
        let mut ops = self.case.ops.iter();
        let mut schedule = self.case.schedule.iter();
        loop {
            self.settle().await;
            let parked = self.gates.lock().parked.len();
            let number = schedule.next().copied().unwrap_or(0);
            if number >= 192 || parked == 0 {
                if let Some(op) = ops.next() {
                    self.start(op.clone());
                    continue;
                }
                if parked == 0 {
                    break;
                }
            }
            self.release(usize::from(number) % parked, true);
            if self.history.present.len() > MOST_STEPS {
                self.history.stuck = true;
                return self.history;
            }
        }
        self.history.stuck = !self.running.is_empty();
        self.history.quiet = self.history.records.len();
        for op in self.epilogue() {
            self.alone(op).await;
        }
        self.drain.start();
        self.history
    }

    /// When all is quiet: what was pushed is asked of both replicas, and one
    /// push that failed is repeated.
    fn epilogue(&self) -> Vec<Op> {
        let mut asked: Vec<(AssetKind, Vec<usize>, super::case::Set)> = Vec::new();
        let mut repeated = None;
        for (_, record, push) in self.history.pushes() {
            let first = (push.kind, push.uris[..1].to_vec(), push.set);
            if !asked.contains(&first) {
                asked.push(first);
            }
            if !record.is_acknowledged() && push.expiry != Expiry::Past {
                repeated = Some(push.clone());
            }
        }
        asked.truncate(2);
        let fetch = |replica, (kind, uris, set)| {
            Op::Fetch(Fetch {
                replica,
                kind,
                uris,
                set,
                oldest: Oldest::None,
            })
        };
        let mut ops = Vec::new();
        for one in asked {
            ops.extend([fetch(0, one.clone()), fetch(1, one)]);
        }
        if let Some(push) = repeated {
            let all = (push.kind, push.uris.clone(), push.set);
            let other = 1 - push.replica;
            ops.extend([Op::Push(push), fetch(other, all)]);
        }
        ops
    }

    async fn alone(&mut self, op: Op) {
        self.start(op);
        loop {
            self.settle().await;
            if self.gates.lock().parked.is_empty() {
                break;
            }
            self.release(0, false);
        }
        self.history.stuck |= !self.running.is_empty();
    }

    /// Waits until nothing can run, and sees what has ended.
    async fn settle(&mut self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if self.gates.lock().parked.is_empty()
            && self.running.iter().any(|r| !r.handle.is_finished())
        {
            // They wait for a timer.
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
        let step = self.history.present.len() - 1;
        let at = self.now.load(Ordering::SeqCst);
        self.note_keys();
        let (done, running) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running: &Running| running.handle.is_finished());
        self.running = running;
        for Running { record, handle, .. } in done {
            let ended = handle.await.unwrap_or(Ended::Panicked);
            self.end(record, ended, step, at);
        }
        // What happened since the last step was its consequence.
        let mask = self.present();
        if let Some(last) = self.history.present.last_mut() {
            *last = mask;
        }
        let mut gates = self.gates.lock();
        for (record, content) in gates.served.drain(..) {
            self.history.served.push(Served {
                step,
                at,
                record,
                content,
            });
        }
        for (record, calls) in gates.calls.drain() {
            self.history.records[record].calls += calls;
        }
    }

    /// Which entries the last call was about.
    fn note_keys(&mut self) {
        let (gets, updates) = self.entries.set(|s| {
            let gets = std::mem::take(&mut s.gets);
            (gets, std::mem::take(&mut s.updates))
        });
        let (step, record) = self.last;
        for action in gets {
            self.history
                .trace
                .push(format!("       {}", keys::name(&action)));
        }
        for action in updates {
            self.history
                .trace
                .push(format!("       {}", keys::name(&action)));
            self.history.writes.push(Write {
                step,
                record,
                action,
            });
        }
    }

    fn end(&mut self, record: usize, ended: Ended, step: usize, at: u64) {
        self.history
            .trace
            .push(format!("{step:4}   #{record} ended: {ended:?}"));
        let record = &mut self.history.records[record];
        record.end = step;
        record.ended_at = at;
        record.ended = Some(ended);
    }

    fn present(&self) -> u8 {
        self.cas.set(|s| {
            let there = |(n, d)| u8::from(s.blobs.contains_key(d)) << n;
            CONTENT.digests.iter().enumerate().map(there).sum()
        })
    }

    /// Begins a step.
    fn step(&mut self, what: String) -> usize {
        self.now.fetch_add(1, Ordering::SeqCst);
        let step = self.history.present.len();
        self.history.present.push(self.present());
        self.history.trace.push(format!("{step:4} {what}"));
        step
    }

    fn release(&mut self, n: usize, may_fail: bool) {
        let Parked {
            record, method, go, ..
        } = self.gates.lock().parked.remove(n);
        let mut verdict = Verdict::Pass;
        if method == "UpdateActionResult" || method == "BatchUpdateBlobs" {
            match self.failing.get(&self.writes) {
                Some(true) if may_fail => verdict = Verdict::FailAfter,
                Some(false) if may_fail => verdict = Verdict::FailBefore,
                _ => {}
            }
            self.writes += 1;
        }
        if verdict != Verdict::Pass {
            self.history.records[record].failed += 1;
        }
        let step = self.step(format!("#{record} {method} {verdict:?}"));
        self.last = (step, record);
        // The caller may have gone in between.
        let _gone = go.send(verdict);
    }

    fn start(&mut self, op: Op) {
        let step = self.step(format!("{op:?}"));
        match op {
            Op::Push(push) => self.launch(Asked::Push(push), step),
            Op::Fetch(fetch) => self.launch(Asked::Fetch(fetch), step),
            Op::Advance(n) => {
                self.now.fetch_add(u64::from(n) * 5_000, Ordering::SeqCst);
            }
            Op::EvictContent(n) => {
                self.cas.set(|s| s.blobs.remove(&CONTENT.digests[n]));
            }
            Op::EvictOther(n) => self.evict_other(usize::from(n), step),
            Op::EvictEntry(n) => self.evict_entry(usize::from(n), step),
            Op::Upload(n) => {
                self.cas.put(CONTENT.data[n].clone());
            }
            Op::Restart(replica) => self.restart(replica, step),
            Op::Origin(content) => *self.origin.serves.lock() = content,
        }
    }

    fn evict_other(&mut self, n: usize, step: usize) {
        let doubles = match self.case.layout {
            Layout::Detached => vec![&self.cas, &self.entries],
            _ => vec![&self.cas],
        };
        for double in doubles {
            let gone = double.set(|s| {
                let others = s.blobs.keys().filter(|d| !CONTENT.index.contains_key(*d));
                let others: Vec<Digest> = others.cloned().collect();
                let gone = others.get(n % others.len().max(1));
                gone.and_then(|digest| s.blobs.remove(digest)).is_some()
            });
            if gone {
                self.history.others.push(step);
            }
        }
    }

    fn evict_entry(&mut self, n: usize, step: usize) {
        let gone = self.entries.set(|s| {
            let mut all: Vec<String> = s.entries.keys().cloned().collect();
            all.sort();
            let gone = all.get(n % all.len().max(1)).cloned()?;
            s.entries.remove(&gone);
            Some(gone)
        });
        if let Some(gone) = gone {
            let named = keys::name(&gone);
            self.history.trace.push(format!("       evicted {named}"));
            self.history.evicted.push((step, gone));
        }
    }

    fn restart(&mut self, replica: usize, step: usize) {
        let at = self.now.load(Ordering::SeqCst);
        let (killed, others) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running: &Running| running.replica == replica);
        self.running = others;
        for Running { record, handle, .. } in killed {
            handle.abort();
            self.end(record, Ended::Killed, step, at);
        }
        self.replicas[replica] = self.replica();
    }

    fn launch(&mut self, asked: Asked, step: usize) {
        let record = self.history.records.len();
        let now = self.now.load(Ordering::SeqCst);
        let (replica, context) = match &asked {
            Asked::Push(push) => (push.replica, context(record)),
            Asked::Fetch(fetch) => (fetch.replica, context(record)),
        };
        let resolver = self.replicas[replica].clone();
        let handle = match &asked {
            Asked::Push(push) => {
                let push = push_of(push, now);
                self.drain
                    .spawn(async move { Ended::Pushed(resolver.push(&context, push).await) })
            }
            Asked::Fetch(fetch) => {
                let query = query_of(fetch, now);
                self.drain
                    .spawn(async move { Ended::Answered(resolver.fetch(&context, query).await) })
            }
        };
        self.history.trace.push(format!("       is #{record}"));
        self.running.push(Running {
            record,
            replica,
            handle,
        });
        self.history.records.push(Record {
            asked,
            start: step,
            end: usize::MAX,
            began: now,
            ended_at: u64::MAX,
            ended: None,
            calls: 0,
            failed: 0,
        });
    }
}

/// From when on it no longer holds, pushed at `began`.
pub(super) fn expires(push: &Push, began: u64) -> Option<i64> {
    let began = i64::try_from(began).unwrap();
    match push.expiry {
        Expiry::None => None,
        Expiry::Soon => Some(began + 8_000),
        Expiry::Late => Some(began + 1_000_000),
        Expiry::Past => Some(began - 5_000),
    }
}

/// `oldest_content_accepted` of a fetch that began then.
pub(super) fn oldest(fetch: &Fetch, began: u64) -> Option<i64> {
    let began = i64::try_from(began).unwrap();
    match fetch.oldest {
        Oldest::None => None,
        Oldest::Recent => Some(began - 7_000),
        Oldest::Any => Some(began - 1_000_000),
        Oldest::Future => Some(began + 1_000_000),
    }
}

fn at(ms: i64) -> std::time::SystemTime {
    let zero = time(0);
    match u64::try_from(ms) {
        Ok(ms) => time(ms),
        Err(_) => zero - Duration::from_millis(ms.unsigned_abs()),
    }
}

fn push_of(push: &Push, now: u64) -> crate::resolver::Push {
    let digest = |n: usize| CONTENT.digests[n].clone();
    crate::resolver::Push {
        kind: push.kind,
        instance: InstanceName::default(),
        function: Some(DigestFunction::Sha256),
        uris: uris(&push.uris),
        qualifiers: qualifiers(push.set),
        digest: digest(push.content),
        expire_at: expires(push, now).map(at),
        referenced_blobs: push.blobs.map(digest).into_iter().collect(),
        referenced_directories: push.directories.map(digest).into_iter().collect(),
    }
}

fn query_of(fetch: &Fetch, now: u64) -> Query {
    Query {
        request: FetchRequest {
            kind: fetch.kind,
            scope: scope(),
            uris: uris(&fetch.uris),
            qualifiers: qualifiers(fetch.set),
            integrity: None,
            headers: OriginHeaders::default(),
            timeout: None,
            oldest: oldest(fetch, now).map(at),
            known: Vec::new(),
            waiters: Waiters::default(),
        },
        comes_back: true,
    }
}

fn double(gates: &Shared, layout: Layout, mutant: Mutant) -> Double {
    let double = Double::new();
    let gates = Arc::clone(gates);
    let gate: Gate = Arc::new(move |method, metadata| {
        // It is asked once and then remembered, and no business of the model.
        if method == "GetCapabilities" {
            return async { Verdict::Pass }.boxed();
        }
        let record = record_of(metadata);
        pass(Arc::clone(&gates), method.to_owned(), record).boxed()
    });
    let checks = matches!(layout, Layout::Checked | Layout::Stripped);
    double.set(|s| {
        s.gate = Some(gate);
        if checks && mutant != Mutant::CacheChecksNothing {
            s.checks = Checks::all();
        }
        s.loses_payload = layout == Layout::Stripped;
        s.empty_update_answer = layout == Layout::Silent;
        s.first_writer_wins = mutant == Mutant::FirstWriterWins;
    });
    double
}
