//! Who is connected: how many from one client, and which connections carry no
//! call and can give way to a newcomer, the one idle longest first. A watch is
//! no call here: it can stay open for ever, at no cost to whoever opened it.
//! Connections with one go after those that have nothing.
//!
//! A client is an IPv4 address or an IPv6 network of 64 bits, which is what one
//! customer of a provider gets. Not counted are those behind which many may
//! stand: this host itself, Unix sockets, and proxies the operator names.
//! Not for: clients that have not spoken yet (`lobby`).
//! Called by: `door`, `connection`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// Whose connections are counted, and how many there may be of one client.
#[derive(Debug, Clone)]
pub struct ClientLimit {
    /// Connections of one client.
    pub connections: usize,
    /// Networks of proxies, whose connections are many clients' each.
    pub fronts: Vec<IpNet>,
    /// Whether this host is a client like any other.
    pub loopback: bool,
}

impl ClientLimit {
    /// Whose connection this is, if it counts.
    pub(super) fn client(&self, address: Option<SocketAddr>) -> Option<IpAddr> {
        let address = address?.ip().to_canonical();
        let exempt = (address.is_loopback() && !self.loopback)
            || self.fronts.iter().any(|front| front.contains(&address));
        if exempt {
            return None;
        }
        Some(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
                address.to_bits() & !u128::from(u64::MAX),
            )),
        })
    }
}

/// All connections of a listener.
#[derive(Debug, Default)]
pub(super) struct Crowd(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Entry>,
    /// Connections of each client that are not leaving.
    clients: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    client: Option<IpAddr>,
    activity: Arc<Activity>,
    leave: CancellationToken,
    /// Leaves now, without a word more.
    hurry: CancellationToken,
    /// Its place among the connections, or since it was told to leave another.
    slot: OwnedSemaphorePermit,
}

impl Table {
    fn uncount(&mut self, client: Option<IpAddr>) {
        let Some(client) = client else { return };
        if let Some(count) = self.clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
    }
}

/// How busy a connection is. Calls write here, so it costs them next to nothing.
#[derive(Debug)]
pub(super) struct Activity {
    /// Calls that run, and one for a connection that has not spoken.
    running: AtomicU32,
    /// When the last one ended, by [`now`].
    idle_since: AtomicU64,
    /// Watches that are open.
    watches: AtomicU32,
    /// How often it became idle, about.
    rests: AtomicU32,
}

impl Activity {
    pub(super) fn watch(self: &Arc<Self>) -> Watching {
        self.watches.fetch_add(1, Relaxed);
        Watching(Arc::clone(self))
    }

    fn watches(&self) -> bool {
        self.watches.load(Relaxed) > 0
    }

    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Relaxed);
        Running(Arc::clone(self))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.load(Relaxed) == 0
    }

    fn end(&self) {
        if self.running.fetch_sub(1, Relaxed) == 1 {
            let rests = self.rests.load(Relaxed);
            self.rests.store(rests.wrapping_add(1), Relaxed);
            let exact = rests < RESTS || rests.is_multiple_of(RESTS);
            let since = if exact { next() } else { now() };
            self.idle_since.store(since, Relaxed);
        }
    }
}

/// A call that runs, until dropped.
#[derive(Debug)]
pub(super) struct Running(Arc<Activity>);

impl Running {
    /// Calls of its connection that run, with this one.
    pub(super) fn calls(&self) -> u32 {
        self.0.running.load(Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A watch that is open, until dropped.
#[derive(Debug)]
pub(super) struct Watching(Arc<Activity>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Relaxed);
    }
}

/// So many rests of a connection are told from all others, and then each of so
/// many.
const RESTS: u32 = 64;

/// The order in which connections became idle. A clock, or a number for each
/// call, would cost every call more: processors take the number from each other.
/// So those of connections that are busy all the time are numbered only now and
/// then, and are as old as each other in between.
#[repr(align(128))]
struct Order(AtomicU64);

static ORDER: Order = Order(AtomicU64::new(0));

/// Where the order is: later than every number that was given out.
fn now() -> u64 {
    ORDER.0.load(Relaxed)
}

/// A number of its own, later than all that are known.
fn next() -> u64 {
    ORDER.0.fetch_add(2, Relaxed) + 1
}

impl Crowd {
    pub(super) fn enter(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        slot: OwnedSemaphorePermit,
    ) -> Member {
        let activity = Arc::new(Activity {
            running: AtomicU32::new(1),
            idle_since: AtomicU64::new(0),
            watches: AtomicU32::new(0),
            rests: AtomicU32::new(0),
        });
        let [leave, hurry] = [(); 2].map(|()| CancellationToken::new());
        let entry = Entry {
            client,
            activity: Arc::clone(&activity),
            leave: leave.clone(),
            hurry: hurry.clone(),
            slot,
        };
        let mut table = self.0.lock();
        let number = table.next;
        table.next += 1;
        table.open.insert(number, entry);
        if let Some(client) = client {
            *table.clients.entry(client).or_default() += 1;
        }
        Member {
            crowd: Arc::clone(self),
            number,
            activity,
            leave,
            hurry,
        }
    }

    pub(super) fn count(&self, client: IpAddr) -> usize {
        self.0.lock().clients.get(&client).copied().unwrap_or(0)
    }

    /// Asks the connection to leave that has carried no call for the longest
    /// time; of this client, if one is named. Returns its place, if there was
    /// one; meanwhile it has the spare one.
    pub(super) fn displace_idlest(
        &self,
        client: Option<IpAddr>,
        spare: OwnedSemaphorePermit,
    ) -> Option<OwnedSemaphorePermit> {
        let mut table = self.0.lock();
        let idle = table.open.iter_mut().filter(|(_, entry)| {
            (client.is_none() || entry.client == client)
                && entry.activity.is_idle()
                && !entry.leave.is_cancelled()
        });
        let (_, entry) = idle.min_by_key(|(n, e)| {
            let since = e.activity.idle_since.load(Relaxed);
            (e.activity.watches(), since, **n)
        })?;
        entry.leave.cancel();
        let slot = std::mem::replace(&mut entry.slot, spare);
        let client = entry.client;
        table.uncount(client);
        Some(slot)
    }

    /// Has those that were asked to leave do so now.
    pub(super) fn hurry(&self) {
        let table = self.0.lock();
        let leaving = table.open.values().filter(|e| e.leave.is_cancelled());
        leaving.for_each(|entry| entry.hurry.cancel());
    }
}

/// One connection, until dropped.
#[derive(Debug)]
pub(super) struct Member {
    crowd: Arc<Crowd>,
    number: u64,
    activity: Arc<Activity>,
    leave: CancellationToken,
    hurry: CancellationToken,
}

impl Member {
    /// It speaks: from now on it is idle unless a call runs.
    pub(super) fn speaks(&self) {
        self.activity.end();
    }

    pub(super) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    /// Waits until its place is needed.
    pub(super) async fn asked_to_leave(&self) {
        self.leave.cancelled().await;
    }

    /// Waits until it is needed at once.
    pub(super) async fn hurried(&self) {
        self.hurry.cancelled().await;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut table = self.crowd.0.lock();
        let entry = table.open.remove(&self.number);
        if let Some(entry) = entry.filter(|entry| !entry.leave.is_cancelled()) {
            table.uncount(entry.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    fn limit(fronts: &[&str]) -> ClientLimit {
        ClientLimit {
            connections: 5,
            fronts: fronts.iter().map(|f| f.parse().unwrap()).collect(),
            loopback: false,
        }
    }

    fn client(limit: &ClientLimit, address: &str) -> Option<String> {
        let address = format!("{address}:1").parse().unwrap();
        limit.client(Some(address)).map(|c| c.to_string())
    }

    #[test]
    fn a_client_is_an_address_or_a_network_of_64_bits_and_some_are_none() {
        let limit = limit(&["10.1.0.0/16", "fd01::/16"]);
        let of = |address| client(&limit, address);
        assert_eq!(of("192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(of("[::ffff:192.0.2.7]").as_deref(), Some("192.0.2.7"));
        assert_eq!(
            of("[2001:db8:1:2:3:4:5:6]").as_deref(),
            Some("2001:db8:1:2::")
        );
        assert_eq!(of("[2001:db8:1:2::9]").as_deref(), Some("2001:db8:1:2::"));
        for none in ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"] {
            assert_eq!(of(none), None, "{none}");
        }
        for front in ["10.1.2.3", "[::ffff:10.1.2.3]", "[fd01::5]"] {
            assert_eq!(of(front), None, "{front}");
        }
        assert_eq!(of("10.2.0.1").as_deref(), Some("10.2.0.1"));
        assert_eq!(limit.client(None), None, "a Unix socket");
    }

    #[tokio::test]
    async fn who_is_idle_longest_goes_first_and_the_busy_stay() {
        let crowd = Arc::new(Crowd::default());
        let slots = Arc::new(Semaphore::new(4));
        let spares = Arc::new(Semaphore::new(4));
        let take = |from: &Arc<Semaphore>| Arc::clone(from).try_acquire_owned().unwrap();
        let displace = |client| {
            let slot = crowd.displace_idlest(client, take(&spares));
            slot.inspect(|slot| assert!(Arc::ptr_eq(slot.semaphore(), &slots)))
                .is_some()
        };
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|a| Some(a.parse().unwrap()));
        let members = [a, a, b, b].map(|client| crowd.enter(client, take(&slots)));
        assert!(!displace(None), "nobody has spoken");
        members.iter().for_each(Member::speaks);
        for (n, since) in [40, 20, 10, 30].into_iter().enumerate() {
            members[n].activity.idle_since.store(since, Relaxed);
        }
        let call = members[2].activity().begin();
        assert!(displace(None));
        members[1].asked_to_leave().await;
        assert_eq!(crowd.count(a.unwrap()), 1, "who leaves does not count");
        assert_eq!(
            (slots.available_permits(), spares.available_permits()),
            (1, 3)
        );
        assert!(displace(b));
        members[3].asked_to_leave().await;
        assert!(!displace(b), "the other one has a call");
        drop(call);
        assert!(displace(b));
        members[2].asked_to_leave().await;
        crowd.hurry();
        members[2].hurried().await;
        assert!(!members[0].hurry.is_cancelled(), "nobody asked it to leave");
        drop(members);
        assert_eq!(
            (slots.available_permits(), spares.available_permits()),
            (4, 4)
        );
        let table = crowd.0.lock();
        assert!(table.open.is_empty() && table.clients.is_empty());
    }

    #[tokio::test]
    async fn watches_are_no_calls_but_go_after_those_without() {
        let crowd = Arc::new(Crowd::default());
        let slots = Arc::new(Semaphore::new(9));
        let take = || Arc::clone(&slots).try_acquire_owned().unwrap();
        let members = [(); 3].map(|()| crowd.enter(None, take()));
        members.iter().for_each(Member::speaks);
        for (n, since) in [20, 10, 30].into_iter().enumerate() {
            members[n].activity.idle_since.store(since, Relaxed);
        }
        let watches = [0, 1].map(|n| members[n].activity().watch());
        for next in [2, 1, 0] {
            assert!(crowd.displace_idlest(None, take()).is_some());
            members[next].asked_to_leave().await;
        }
        drop(watches);
        assert!(!members[0].activity.watches());
    }

    #[test]
    fn who_became_idle_later_is_known_of_all_but_the_busiest() {
        let crowd = Arc::new(Crowd::default());
        let slots = Arc::new(Semaphore::new(9));
        let take = || Arc::clone(&slots).try_acquire_owned().unwrap();
        let [quiet, busy, other] = [(); 3].map(|()| crowd.enter(None, take()));
        let rest = |member: &Member| {
            drop(member.activity().begin());
            member.activity.idle_since.load(Relaxed)
        };
        let mut last = 0;
        for member in [&quiet, &busy, &other] {
            member.speaks();
        }
        for member in [&other, &busy, &quiet, &busy, &other] {
            let since = rest(member);
            assert!(since > last, "{since} after {last}");
            last = since;
        }
        for _ in 0..10 * RESTS {
            rest(&busy);
        }
        let then = rest(&quiet);
        assert!(then > busy.activity.idle_since.load(Relaxed));
        assert!(rest(&busy) > then);
        let then = rest(&busy);
        for _ in 0..RESTS {
            rest(&busy);
        }
        assert!(rest(&busy) > then, "it goes on without the others");
    }
}
