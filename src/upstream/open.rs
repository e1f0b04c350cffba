//! Opens the connections of a pool: to which address, how many, and again when
//! one is lost.
//!
//! Not for: calls (`pool`), sockets (`dial`).
//! Called by: `pool`.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connection::Connection;
use super::dial::resolve;
use super::health::{Health, Place};
use super::load::Load;
use super::stalls::Clock;
use super::target::{Address, Target};
use super::{PoolSettings, TransportError};

/// Free connections kept for the next downstream connection.
const SPARES: usize = 4;
/// How long the addresses of a name are used without asking again.
const RESOLVED: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Opener {
    pub(super) settings: PoolSettings,
    pub(super) runtime: Handle,
    pub(super) state: Mutex<State>,
    /// Connections being opened.
    opening: AtomicUsize,
    /// Wakes those that wait for one of them.
    opened: Notify,
    /// Claims that look for a connection.
    looking: AtomicUsize,
    /// Calls refused by an upstream that was busy, counted round.
    pub(super) refusals: AtomicU8,
    pub(super) keep_one: AtomicBool,
    /// Ticks while connections are shared; see `stalls`.
    pub(super) clock: Arc<Clock>,
    pub(super) probing: AtomicBool,
    pub(super) refilling: AtomicBool,
    pub(super) this: Weak<Opener>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// All connections, owned or spare.
    live: Vec<Weak<Connection>>,
    /// Where connections are being opened.
    dialled: Vec<Address>,
    /// Those that nobody owns.
    pub(super) spares: Vec<Arc<Connection>>,
    pub(super) health: Health,
    pub(super) resolved: HashMap<usize, (Instant, Vec<Arc<Target>>)>,
}

impl State {
    /// All connections, with those on which calls only finish.
    pub(super) fn all(&mut self) -> Vec<Arc<Connection>> {
        self.live.retain(|connection| connection.strong_count() > 0);
        self.live.iter().filter_map(Weak::upgrade).collect()
    }

    /// All connections that take calls.
    pub(super) fn usable(&mut self) -> Vec<Arc<Connection>> {
        let mut usable = self.all();
        usable.retain(|connection| connection.usable());
        usable
    }
}

impl Opener {
    pub(super) fn new(settings: PoolSettings, runtime: Handle) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            settings,
            runtime,
            state: Mutex::default(),
            opening: AtomicUsize::new(0),
            opened: Notify::new(),
            looking: AtomicUsize::new(0),
            refusals: AtomicU8::new(0),
            keep_one: AtomicBool::new(false),
            clock: Arc::default(),
            probing: AtomicBool::new(false),
            refilling: AtomicBool::new(false),
            this: this.clone(),
        })
    }

    /// Takes back a connection that lost its last owner.
    pub(super) fn keep_spare(&self, connection: Arc<Connection>) {
        if !connection.usable() {
            return;
        }
        let mut state = self.state.lock();
        state.spares.retain(|spare| spare.usable());
        if state.spares.len() < SPARES {
            state.spares.push(connection);
        }
    }

    /// Notes that a claim begins to look for a connection.
    pub(super) fn look(self: &Arc<Self>) -> Looking {
        self.looking.fetch_add(1, Relaxed);
        Looking(Arc::clone(self))
    }

    pub(super) fn anybody_looks(&self) -> bool {
        self.looking.load(Relaxed) > 0
    }

    /// A connection for a claim that has none: a free one, a new one, or above
    /// the cap the one with the least load.
    pub(super) async fn obtain(&self) -> Result<Arc<Connection>, TransportError> {
        loop {
            let mut opened = pin!(self.opened.notified());
            opened.as_mut().enable();
            match self.next_step() {
                Step::Take(connection) => return Ok(connection),
                Step::Wait => opened.await,
                Step::Open(least) => {
                    let opened = self.open().await;
                    // Also when the upstream takes no further connection.
                    return opened.or_else(|error| least.ok_or(error));
                }
            }
        }
    }

    /// What a claim without a connection does next.
    fn next_step(&self) -> Step {
        let (connections, spare) = {
            let mut state = self.state.lock();
            state.spares.retain(|spare| spare.usable());
            (state.usable(), state.spares.pop())
        };
        if let Some(spare) = spare {
            return Step::Take(spare);
        }
        let opening = self.opening.load(Relaxed);
        let count = connections.len() + opening;
        let least = least_loaded(&connections);
        let cap = match &least {
            // All are: the point of the hard cap.
            Some(least) if least.load.congested() => self.settings.hard_cap,
            _ => self.settings.soft_cap,
        };
        match least {
            least if count < cap => Step::Open(least),
            // A congested one moves again at the latest after the stall limit.
            Some(least) => Step::Take(least),
            None if opening > 0 => Step::Wait,
            None => Step::Open(None),
        }
    }

    /// Opens a connection to the least loaded address that is not known to be
    /// down. When all are, that is the answer: the probe finds out when one
    /// comes back.
    pub(super) async fn open(&self) -> Result<Arc<Connection>, TransportError> {
        self.opening.fetch_add(1, Relaxed);
        let _opening = Opening(self);
        let mut targets = self.targets(false).await;
        while let Some(target) = self.choose(&mut targets) {
            let opened = self.connect(Arc::clone(&target)).await;
            let mut state = self.state.lock();
            let dialled = state.dialled.iter().position(|a| *a == target.address);
            if let Some(index) = dialled {
                state.dialled.swap_remove(index);
            }
            if let Some(connection) = opened {
                return Ok(connection);
            }
        }
        Err(self.unreachable())
    }

    /// Takes out the least loaded target that is not down, and notes that it
    /// is dialled: clients that come together shall not all go to one.
    fn choose(&self, targets: &mut Vec<Arc<Target>>) -> Option<Arc<Target>> {
        let mut state = self.state.lock();
        targets.retain(|target| !state.health.is_down(&target.place()));
        let connections = state.usable();
        let least = targets
            .iter()
            .enumerate()
            .min_by_key(|(_, target)| load_of(target, &connections, &state.dialled));
        let target = targets.remove(least?.0);
        state.dialled.push(target.address.clone());
        Some(target)
    }

    fn unreachable(&self) -> TransportError {
        let down = self.state.lock().health.any();
        let (address, reason) = down.unwrap_or_else(|| {
            let first = self.settings.endpoints.first();
            let address = first.map_or_else(|| "(none)".into(), |e| e.to_string().into());
            (address, "it has no address".into())
        });
        TransportError::Unreachable { address, reason }
    }

    /// One connection to one address. Must run on the pool's runtime.
    pub(super) async fn connect(&self, target: Arc<Target>) -> Option<Arc<Connection>> {
        let load = Arc::new(Load::new(
            Arc::clone(&target.label),
            Arc::clone(&self.clock),
        ));
        let this = self.this.clone();
        let board = self.settings.board.clone();
        let ended = move |load: Arc<Load>, reason: Option<String>| {
            board.closed(reason.as_deref());
            if let Some(reason) = reason {
                tracing::info!(upstream.address = %load.address, %reason, "upstream connection lost");
            }
            if let Some(opener) = this.upgrade() {
                opener.lost(&load);
            }
        };
        let opened = Connection::open(Arc::clone(&target), load, &self.settings, ended).await;
        match opened {
            Ok(connection) => {
                let connection = Arc::new(connection);
                self.settings.board.opened();
                let mut state = self.state.lock();
                state.live.push(Arc::downgrade(&connection));
                let shares = state.usable().len() >= self.settings.soft_cap;
                let again = state.health.set_up(&target.place());
                drop(state);
                if shares {
                    self.tick();
                }
                if again {
                    tracing::info!(upstream.address = %target.label, "upstream can be reached again");
                    self.rebalance();
                }
                Some(connection)
            }
            Err(reason) => {
                self.set_down(target.place(), Arc::clone(&target.label), &reason);
                None
            }
        }
    }

    fn set_down(&self, place: Place, label: Arc<str>, reason: &str) {
        self.settings.board.failed(&format!("{label}: {reason}"));
        let mut state = self.state.lock();
        if state
            .health
            .set_down(place, Arc::clone(&label), reason.into())
        {
            tracing::warn!(upstream.address = %label, %reason, "upstream cannot be reached");
        }
        drop(state);
        self.probe();
    }

    /// The addresses of all endpoints, fresh enough. A name that could not be
    /// resolved is only tried again when `probing`.
    pub(super) async fn targets(&self, probing: bool) -> Vec<Arc<Target>> {
        let mut all = Vec::new();
        for (index, endpoint) in self.settings.endpoints.iter().enumerate() {
            let known = self.state.lock().resolved.get(&index).cloned();
            if let Some((when, targets)) = known
                && when.elapsed() < RESOLVED
            {
                all.extend(targets);
                continue;
            }
            if !probing && self.state.lock().health.is_down(&Place::Name(index)) {
                continue;
            }
            let targets = resolve(endpoint).await.and_then(|addresses| {
                let target = |address| Target::new(endpoint, address, &self.settings).map(Arc::new);
                addresses
                    .into_iter()
                    .map(target)
                    .collect::<Result<Vec<_>, _>>()
            });
            match targets {
                Ok(targets) => {
                    let mut state = self.state.lock();
                    state.health.set_up(&Place::Name(index));
                    state
                        .resolved
                        .insert(index, (Instant::now(), targets.clone()));
                    all.extend(targets);
                }
                Err(reason) => {
                    self.set_down(Place::Name(index), endpoint.to_string().into(), &reason);
                }
            }
        }
        all
    }
}

/// A connection being opened.
struct Opening<'a>(&'a Opener);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.fetch_sub(1, Relaxed);
        self.0.opened.notify_waiters();
    }
}

/// How a claim comes by a connection.
enum Step {
    /// This one.
    Take(Arc<Connection>),
    /// A new one, or else this one.
    Open(Option<Arc<Connection>>),
    /// As many are being opened as there may be: one of these, to share.
    Wait,
}

/// A claim that looks for a connection.
pub(super) struct Looking(Arc<Opener>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.looking.fetch_sub(1, Relaxed);
    }
}

/// The connection with the fewest calls, one that is not congested if there is
/// any.
fn least_loaded(connections: &[Arc<Connection>]) -> Option<Arc<Connection>> {
    let load = |connection: &&Arc<Connection>| {
        let load = &connection.load;
        (
            connection.load.congested(),
            load.in_flight.load(Relaxed) + load.waiting.load(Relaxed),
            load.owners.load(Relaxed),
        )
    };
    connections.iter().min_by_key(load).cloned()
}

/// How much goes to one address already: connections, then calls.
fn load_of(
    target: &Target,
    connections: &[Arc<Connection>],
    dialled: &[Address],
) -> (usize, usize) {
    let dialled = dialled.iter().filter(|a| **a == target.address).count();
    connections
        .iter()
        .filter(|connection| connection.target.address == target.address)
        .fold((dialled, 0), |(count, calls), connection| {
            (count + 1, calls + connection.load.in_flight.load(Relaxed))
        })
}
