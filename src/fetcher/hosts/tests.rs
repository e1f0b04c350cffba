//! Whose turn it is at a host: places, rates, pauses, and an end to what is
//! remembered.

use std::future::Future;
use std::pin::pin;

use futures_util::FutureExt as _;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn hosts(per_host: usize, rate: &str, total: usize) -> Hosts {
    Hosts::new(per_host, rate.parse().ok(), total)
}

impl Hosts {
    async fn enters(&self, host: &str) -> Turn {
        let mut turn = Turn::default();
        let entered = self.enter(host, &mut turn, &Standing::default()).await;
        entered.unwrap_or_else(|failed| panic!("{}", failed.text));
        turn
    }

    async fn goes_on(&self, host: &str, turn: &mut Turn) -> Result<(), Failed> {
        turn.goes_on = true;
        self.enter(host, turn, &Standing::default()).await
    }

    /// How long it is not asked for.
    async fn paused(&self, host: &str) -> Option<Duration> {
        let (mut turn, standing) = Default::default();
        let failed = self.enter(host, &mut turn, &standing).await.err()?;
        assert!(failed.text.contains("answered 429"), "{}", failed.text);
        let Failure::TooManyRequests { retry_after } = failed.failure else {
            panic!("{}", failed.text);
        };
        retry_after
    }

    fn remembered(&self) -> usize {
        self.0.table.lock().len()
    }
}

async fn waits<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    for _ in 0..10 {
        if (&mut future).now_or_never().is_some() {
            return false;
        }
        tokio::task::yield_now().await;
    }
    true
}

#[tokio::test(start_paused = true)]
async fn a_host_has_so_many_places_and_others_have_their_own() {
    let hosts = hosts(2, "", 100);
    let first = hosts.enters("a").await;
    let _second = hosts.enters("a").await;
    let mut third = pin!(hosts.enters("a"));
    let mut fourth = pin!(hosts.enters("a"));
    assert!(waits(third.as_mut()).await && waits(fourth.as_mut()).await);
    let _other = hosts.enters("b").await;
    drop(first);
    assert!(waits(fourth.as_mut()).await, "in order of arrival");
    let _third = third.await;
    assert!(waits(fourth.as_mut()).await);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_host_holds_no_slot() {
    let hosts = hosts(1, "", 2);
    let _slow = hosts.enters("slow").await;
    let mut others: Vec<_> = (0..10).map(|_| Box::pin(hosts.enters("slow"))).collect();
    for other in &mut others {
        assert!(waits(other.as_mut()).await);
    }
    let _fast = hosts.enters("fast").await;
    let mut one_more = pin!(hosts.enters("third"));
    assert!(waits(one_more.as_mut()).await, "two slots in all");
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_leaves_nothing_behind() {
    let hosts = hosts(1, "1/s", 1);
    let held = hosts.enters("a").await;
    for _ in 0..100 {
        let mut waiting = pin!(hosts.enters("a"));
        assert!(waits(waiting.as_mut()).await);
    }
    drop(held);
    // It may go after the one second since the first, not after a hundred.
    let start = Instant::now();
    for _ in 0..100 {
        let mut waiting = pin!(hosts.enters("a"));
        assert!(waits(waiting.as_mut()).await, "the rate");
    }
    drop(hosts.enters("a").await);
    assert!(start.elapsed() <= SECOND + SECOND / 10);
    tokio::time::sleep(SECOND).await;
    drop(hosts.enters("a").await);
    drop(hosts.enters("b").await);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_after_a_small_burst() {
    let hosts = hosts(100, "10/s", 100);
    let start = Instant::now();
    for i in 0..40 {
        drop(hosts.enters("a").await);
        let passed = start.elapsed();
        if i < 10 {
            assert!(passed.is_zero(), "{i} after {passed:?}");
        }
    }
    let passed = start.elapsed();
    assert!(
        (SECOND * 3..SECOND * 31 / 10).contains(&passed),
        "{passed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_told_at_once_and_only_of_that_host() {
    let hosts = hosts(4, "", 4);
    let before = hosts.enters("a").await;
    let start = Instant::now();
    hosts.pause("a", start + SECOND * 20);
    hosts.pause("a", start + SECOND);
    drop(before);
    drop(hosts.enters("b").await);
    assert_eq!(hosts.paused("a").await, Some(SECOND * 20));
    assert!(start.elapsed().is_zero());
    tokio::time::sleep(SECOND * 20).await;
    drop(hosts.enters("a").await);
    hosts.pause("a", Instant::now() + Duration::from_secs(86_400));
    assert_eq!(hosts.paused("a").await, Some(MAX_PAUSE));
    tokio::time::sleep(MAX_PAUSE).await;
    drop(hosts.enters("a").await);
    assert_eq!(hosts.remembered(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_begins_while_one_waits_is_told_too() {
    let hosts = hosts(1, "", 4);
    let held = hosts.enters("a").await;
    let mut waiting = pin!(hosts.paused("a"));
    assert!(waits(waiting.as_mut()).await);
    hosts.pause("a", Instant::now() + SECOND * 5);
    drop(held);
    assert_eq!(waiting.await, Some(SECOND * 5));
}

#[tokio::test(start_paused = true)]
async fn a_redirect_gives_back_what_it_holds_before_it_waits() {
    let hosts = hosts(1, "", 1);
    let mut turn = hosts.enters("a").await;
    let mut standing_by = pin!(hosts.enters("a"));
    assert!(waits(standing_by.as_mut()).await);
    let standing = Standing::default();
    let mut redirected = pin!(hosts.enter("b", &mut turn, &standing));
    // It got place and slot of its own, or would never get them.
    let ((), other) = tokio::join!(
        async {
            redirected
                .as_mut()
                .await
                .unwrap_or_else(|f| panic!("{}", f.text))
        },
        async { timeout(SECOND, standing_by.as_mut()).await }
    );
    assert!(other.is_err(), "the only slot is taken again");
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_with_a_body_has_kept_its_turn() {
    let hosts = hosts(1, "", 1);
    let mut turn = hosts.enters("a").await;
    let mut next = pin!(hosts.enters("a"));
    assert!(waits(next.as_mut()).await);
    assert!(hosts.goes_on("a", &mut turn).await.is_ok());
    turn.leave_host();
    assert!(
        waits(next.as_mut()).await,
        "the slot is held until all is stored"
    );
    drop(turn);
    next.await;
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_elsewhere_waits_with_its_slot_and_not_for_ever() {
    let hosts = hosts(1, "", 2);
    let mut turn = hosts.enters("mirror").await;
    let _busy = hosts.enters("start").await;
    let start = Instant::now();
    let failed = hosts.goes_on("start", &mut turn).await.err().unwrap();
    assert_eq!(start.elapsed(), MAX_WAIT_WITH_SLOT);
    assert!(failed.is_passing() && failed.text.contains("fetch.max_per_host"));
    let mut third = pin!(hosts.enters("mirror"));
    assert!(waits(third.as_mut()).await, "two slots are taken");
    drop(turn);
    third.await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_download_learns_for_what() {
    async fn told(hosts: &Hosts, host: &str) -> String {
        let standing = Standing::default();
        let told = {
            let mut turn = Turn::default();
            let mut waiting = pin!(hosts.enter(host, &mut turn, &standing));
            assert!(waits(waiting.as_mut()).await);
            standing.waits_for().unwrap()
        };
        assert_eq!(standing.waits_for(), None, "it has left");
        told
    }
    let all = hosts(1, "", 1);
    let held = all.enters("a").await;
    let busy = "1 requests at a time to a (fetch.max_per_host)";
    assert_eq!(told(&all, "a").await, busy);
    let full = "1 downloads at a time (fetch.max_concurrent)";
    assert_eq!(told(&all, "b").await, full);
    drop(held);
    let rated = hosts(4, "1/h", 4);
    drop(rated.enters("a").await);
    let fast = "1/h requests to a (fetch.rate_per_host)";
    assert_eq!(told(&rated, "a").await, fast);
}

#[tokio::test(start_paused = true)]
async fn idle_hosts_are_forgotten() {
    let plain = hosts(1, "", 1);
    for i in 0..10_000 {
        drop(plain.enters(&format!("{i}")).await);
    }
    assert_eq!(plain.remembered(), 0);
    let rated = hosts(1, "1/m", 1);
    for i in 0..MAX_RESTING + 500 {
        drop(rated.enters(&format!("{i}")).await);
    }
    assert_eq!(rated.remembered(), MAX_RESTING, "no more than these");
    tokio::time::sleep(SECOND * 61).await;
    drop(rated.enters("one more").await);
    assert_eq!(rated.remembered(), 1, "these had rested");
}

#[tokio::test]
async fn all_come_through_and_never_more_than_the_limit_at_once() {
    let all = Arc::new((hosts(4, "", 6), std::sync::atomic::AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let all = Arc::clone(&all);
            async move {
                let (hosts, inside) = &*all;
                let host = if i % 4 == 0 { "b" } else { "a" };
                let permit = hosts.enters(host).await;
                let now = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                assert!(now <= 6, "{now}");
                tokio::time::sleep(Duration::from_millis(1)).await;
                inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                drop(permit);
            }
        })
        .collect();
    futures_util::future::join_all(tasks).await;
    assert_eq!(all.0.remembered(), 0);
}
