//! Who joins which flight, what goes on without its caller, and the bounds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;
use tonic::metadata::MetadataMap;

use super::table::{LANDED, REMEMBERED};
use super::*;
use crate::fetcher::Failure;
use crate::resolver::testing::{TestResolver, World, content, refused};
use crate::resolver::tests::{at, query};
use crate::resolver::{Query, Settings};
use crate::upstream::CallContext;

const URL: &str = "https://origin.example/a";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A fetch that takes what was retrieved `t` from now or later.
fn later(t: Duration) -> Query {
    at(query(&[URL], None), SystemTime::now() + t)
}

fn with_header(value: &str) -> Query {
    let mut query = query(&[URL], None);
    let headers = &mut query.request.headers;
    headers.insert("http_header:X-Token", value, 1).unwrap();
    query
}

fn caller(name: &str) -> CallContext {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", name.parse().unwrap());
    CallContext::from_caller(&metadata)
}

async fn fetch(resolver: &TestResolver, query: &Query) -> Landing {
    resolver.fetch(&CallContext::default(), query.clone()).await
}

/// The clients of a test, whose patience is a minute.
async fn impatient(resolver: &TestResolver, query: &Query) {
    let left = timeout(MINUTE, fetch(resolver, query)).await;
    assert!(left.is_err(), "{left:?}");
}

fn slow(takes: Duration) -> (World, TestResolver) {
    let world = World::default();
    *world.fetcher.takes.lock() = takes;
    let resolver = world.resolver(Settings::default());
    (world, resolver)
}

#[tokio::test(start_paused = true)]
async fn n4_a_retry_joins_the_flight_of_the_same_time_and_then_its_result() {
    let (world, resolver) = slow(MINUTE * 3 / 2);
    let query = later(HOUR);
    impatient(&resolver, &query).await;
    let answer = fetch(&resolver, &query).await.unwrap();
    assert_eq!(answer.outcome, Outcome::Joined);
    assert_eq!(world.fetcher.count(), 1);
    assert_eq!(world.store.checks.load(Ordering::SeqCst), 0);
    tokio::time::advance(REMEMBERED - Duration::from_secs(1)).await;
    let again = fetch(&resolver, &query).await.unwrap();
    assert_eq!(
        (again.outcome, again.stats.attempts, &again.digest),
        (Outcome::Joined, 0, &answer.digest)
    );
    assert_eq!(world.fetcher.count(), 1);
    assert_eq!(world.store.checks.load(Ordering::SeqCst), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    let later = fetch(&resolver, &query).await.unwrap();
    assert_eq!(later.outcome, Outcome::Fetched);
    assert_eq!(world.fetcher.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn n4_another_time_is_another_flight() {
    let (world, resolver) = slow(MINUTE * 2);
    let first = later(HOUR);
    impatient(&resolver, &first).await;
    let second = later(HOUR);
    assert_ne!(first.request.oldest, second.request.oldest);
    let answer = fetch(&resolver, &second).await.unwrap();
    assert_eq!(answer.outcome, Outcome::Fetched);
    fetch(&resolver, &later(HOUR * 2)).await.unwrap();
    assert_eq!(world.fetcher.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn n4_a_time_that_was_in_the_future_when_it_was_first_sent() {
    let (_world, resolver) = slow(Duration::ZERO);
    let answer = fetch(&resolver, &query(&[URL], None)).await;
    let same = Fingerprints::new().of(&CallContext::default(), &query(&[URL], None));
    let now = SystemTime::now();
    let wanted = Wanted {
        same,
        oldest: Some(now),
    };
    let second = Duration::from_secs(1);
    let mut table = Table::new();
    let Seat::New(id, _outcome, _departure) = table.board(wanted, now - second) else {
        panic!("there is no other flight")
    };
    let seat = table.board(wanted, now + second);
    assert!(matches!(seat, Seat::Joined(joined, _) if joined == id));
    table.land(id, Some(&answer));
    assert_eq!(table.landed(wanted), answer.ok());
    // A flight for a time in the past is one for any time before its start,
    // and the cache has its result.
    let Seat::New(id, _outcome, _departure) = table.board(wanted, now + second) else {
        panic!("that one has landed")
    };
    let other = Wanted {
        same,
        oldest: Some(now + second),
    };
    let seat = table.board(other, now + second * 2);
    assert!(matches!(seat, Seat::Joined(joined, _) if joined == id));
}

#[tokio::test(start_paused = true)]
async fn n4_a_past_time_joins_only_what_began_after_it() {
    let (world, resolver) = slow(MINUTE * 2);
    let ask = |oldest: Option<SystemTime>| at(query(&[URL], None), oldest);
    let before = SystemTime::now();
    impatient(&resolver, &ask(None)).await;
    let after = SystemTime::now();
    assert!(after > before);
    let old = ask(Some(before - HOUR));
    let new = ask(Some(after));
    let (joined, flown) = tokio::join!(fetch(&resolver, &old), fetch(&resolver, &new));
    assert_eq!(joined.unwrap().outcome, Outcome::Joined);
    assert_eq!(flown.unwrap().outcome, Outcome::Fetched);
    assert_eq!(world.fetcher.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn n4_what_is_remembered_has_to_be_in_the_cas() {
    let (world, resolver) = slow(Duration::ZERO);
    let query = later(HOUR);
    let first = fetch(&resolver, &query).await.unwrap();
    let refusal = refused(tonic::Code::PermissionDenied);
    *world.store.check_error.lock() = Some(refusal.into());
    let answer = fetch(&resolver, &query).await;
    assert!(
        matches!(answer, Err(ResolveError::Upstream(_))),
        "{answer:?}"
    );
    *world.store.check_error.lock() = None;
    world.store.gone.lock().insert(first.digest);
    world
        .fetcher
        .script(|request| Ok(content(request, b"changed")));
    let second = fetch(&resolver, &query).await.unwrap();
    assert_eq!(second.outcome, Outcome::Fetched);
    let third = fetch(&resolver, &query).await.unwrap();
    assert_eq!(
        (third.outcome, third.digest),
        (Outcome::Joined, second.digest)
    );
    assert_eq!(world.fetcher.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn n4_failures_are_not_remembered_for_a_time() {
    let (world, resolver) = slow(Duration::ZERO);
    let query = later(HOUR);
    for failure in [Failure::NotFound, Failure::TimedOut] {
        world.fetcher.fails(failure);
        fetch(&resolver, &query).await.unwrap_err();
    }
    world.fetcher.script(|request| Ok(content(request, b"x")));
    let answer = fetch(&resolver, &query).await.unwrap();
    assert_eq!(answer.outcome, Outcome::Fetched);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded() {
    let (world, resolver) = slow(Duration::ZERO);
    let first = later(HOUR);
    fetch(&resolver, &first).await.unwrap();
    for _ in 0..LANDED.get() {
        fetch(&resolver, &later(HOUR)).await.unwrap();
    }
    let flights = &resolver.inner.shared.flights;
    assert_eq!(flights.table.lock().sizes(), (0, 0, 0, LANDED.get()));
    let before = world.fetcher.count();
    fetch(&resolver, &first).await.unwrap();
    assert_eq!(world.fetcher.count(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn t5_identical_calls_share_one_request_and_its_result() {
    for failure in [None, Some(Failure::TimedOut)] {
        let (world, resolver) = slow(MINUTE);
        if let Some(failure) = failure.clone() {
            world.fetcher.fails(failure);
        }
        let query = query(&[URL], Some(b"from the origin"));
        let (one, other) = tokio::join!(fetch(&resolver, &query), fetch(&resolver, &query));
        assert_eq!(world.fetcher.count(), 1);
        assert_eq!(one.is_ok(), failure.is_none());
        match (one, other) {
            (Ok(one), Ok(other)) => assert_eq!(one.digest, other.digest),
            (one, other) => {
                assert_eq!(one.unwrap_err().to_string(), other.unwrap_err().to_string())
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_the_same_in_everything_is_joined() {
    let (world, resolver) = slow(MINUTE);
    let plain = || query(&[URL], None);
    let mut timed = plain();
    timed.request.timeout = Some(MINUTE);
    let mut named = plain();
    named.request.qualifiers = named.request.qualifiers.with("bazel.canonical_id", "x");
    let mut elsewhere = plain();
    elsewhere.request.scope.instance = crate::digest::InstanceName::new("other").unwrap();
    let others = [
        (caller("a"), plain()),
        (caller("b"), plain()),
        (CallContext::default(), with_header("a")),
        (CallContext::default(), with_header("b")),
        (
            CallContext::default(),
            query(&["https://u:a@origin.example/a"], None),
        ),
        (
            CallContext::default(),
            query(&["https://u:b@origin.example/a"], None),
        ),
        (CallContext::default(), query(&[URL, URL], None)),
        (
            CallContext::default(),
            query(&[URL], Some(b"from the origin")),
        ),
        (CallContext::default(), timed),
        (CallContext::default(), named),
        (CallContext::default(), elsewhere),
        (CallContext::default(), plain()),
    ];
    let fetches = others
        .iter()
        .map(|(context, query)| resolver.fetch(context, query.clone()));
    for answer in futures_util::future::join_all(fetches).await {
        assert_eq!(answer.unwrap().outcome, Outcome::Fetched);
    }
    assert_eq!(world.fetcher.count(), others.len());
}

#[tokio::test(start_paused = true)]
async fn t2_a_flight_ends_well_although_its_caller_left() {
    let (world, resolver) = slow(MINUTE * 2);
    let query = query(&[URL], Some(b"from the origin"));
    impatient(&resolver, &query).await;
    tokio::time::sleep(MINUTE * 2).await;
    let answer = fetch(&resolver, &query).await.unwrap();
    assert_eq!(answer.outcome, Outcome::HitChecksum);
    assert_eq!(world.fetcher.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn t3_a_flight_ends_with_the_last_caller_if_none_would_come_back() {
    let (world, resolver) = slow(HOUR);
    let flights = &resolver.inner.shared.flights;
    let ended = || world.fetcher.dropped.load(Ordering::SeqCst);
    let once = Query {
        comes_back: false,
        ..query(&[URL], None)
    };
    let again = query(&[URL], None);
    let short = Duration::from_secs(1);
    // The first to leave is not the last.
    let (stays, _) = tokio::join!(timeout(short * 3, fetch(&resolver, &once)), async {
        assert!(timeout(short, fetch(&resolver, &once)).await.is_err());
        assert_eq!((world.fetcher.count(), ended()), (1, 0));
    });
    assert!(stays.is_err());
    tokio::time::sleep(short).await;
    assert_eq!(ended(), 1);
    assert_eq!(flights.table.lock().sizes(), (0, 0, 0, 0));
    // One who may come back left before the last.
    let (stays, _) = tokio::join!(timeout(short * 3, fetch(&resolver, &once)), async {
        assert!(timeout(short, fetch(&resolver, &again)).await.is_err());
    });
    assert!(stays.is_err());
    tokio::time::sleep(short).await;
    assert_eq!((world.fetcher.count(), ended()), (2, 1));
    assert_eq!(flights.table.lock().sizes(), (1, 1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_oldest_flights_without_a_caller_are_ended() {
    let (world, resolver) = slow(HOUR);
    let names: Vec<String> = (0..=UNATTENDED).map(|i| format!("{URL}{i}")).collect();
    let queries: Vec<Query> = names.iter().map(|url| query(&[url], None)).collect();
    let flights = &resolver.inner.shared.flights;
    let short = Duration::from_millis(1);
    for query in &queries[..UNATTENDED] {
        assert!(timeout(short, fetch(&resolver, query)).await.is_err());
    }
    // Somebody asks for the oldest again: it is not unattended, then last.
    assert!(timeout(short, fetch(&resolver, &queries[0])).await.is_err());
    assert_eq!(world.fetcher.dropped.load(Ordering::SeqCst), 0);
    let all = UNATTENDED;
    assert_eq!(flights.table.lock().sizes(), (all, all, all, 0));
    let more = fetch(&resolver, &queries[UNATTENDED]);
    assert!(timeout(short, more).await.is_err());
    tokio::time::sleep(short).await;
    assert_eq!(world.fetcher.dropped.load(Ordering::SeqCst), 1);
    assert_eq!(flights.table.lock().sizes(), (all, all, all, 0));
    let before = world.fetcher.count();
    for (query, joins) in [(&queries[0], true), (&queries[1], false)] {
        assert!(timeout(short, fetch(&resolver, query)).await.is_err());
        assert_eq!(world.fetcher.count() == before, joins);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_table_shares_nothing_and_ends_with_the_caller() {
    let (world, resolver) = slow(HOUR);
    let names: Vec<String> = (0..table::FLIGHTS).map(|i| format!("{URL}{i}")).collect();
    let short = Duration::from_millis(1);
    let context = CallContext::default();
    let all = names
        .iter()
        .map(|url| resolver.fetch(&context, query(&[url], None)));
    let mut all = Box::pin(futures_util::future::join_all(all));
    assert!(timeout(short, &mut all).await.is_err());
    let alone = timeout(short, fetch(&resolver, &query(&[URL], None))).await;
    assert!(alone.is_err());
    tokio::time::sleep(short).await;
    assert_eq!(world.fetcher.count(), table::FLIGHTS + 1);
    assert_eq!(world.fetcher.dropped.load(Ordering::SeqCst), 1);
    let flights = &resolver.inner.shared.flights;
    let full = table::FLIGHTS;
    assert_eq!(flights.table.lock().sizes(), (full, full, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_no_flight_that_nobody_waits_for() {
    let (world, resolver) = slow(HOUR);
    impatient(&resolver, &query(&[URL], None)).await;
    assert_eq!(world.fetcher.dropped.load(Ordering::SeqCst), 0);
    let stay = query(&["https://origin.example/b"], None);
    let (answer, in_time) = tokio::join!(fetch(&resolver, &stay), async {
        tokio::time::sleep(MINUTE).await;
        world.drain.finish(HOUR * 2).await
    });
    answer.unwrap();
    assert!(in_time);
    assert_eq!(world.fetcher.dropped.load(Ordering::SeqCst), 1);
    let flights = &resolver.inner.shared.flights;
    assert_eq!(flights.table.lock().sizes(), (0, 0, 0, 0));
    // Nor for one whose caller leaves during the stop.
    impatient(&resolver, &query(&[URL], None)).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(world.fetcher.dropped.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_panic_is_told_to_all_who_wait_and_leaves_nothing() {
    let (world, resolver) = slow(Duration::ZERO);
    world.fetcher.panics.store(true, Ordering::SeqCst);
    let query = query(&[URL], None);
    let (one, other) = tokio::join!(fetch(&resolver, &query), fetch(&resolver, &query));
    for answer in [one, other] {
        assert!(matches!(answer, Err(ResolveError::Panicked)), "{answer:?}");
    }
    assert_eq!(world.fetcher.count(), 1);
    let flights = &resolver.inner.shared.flights;
    assert_eq!(flights.table.lock().sizes(), (0, 0, 0, 0));
    world.fetcher.panics.store(false, Ordering::SeqCst);
    fetch(&resolver, &query).await.unwrap();
}
