//! What fails in passing is asked for again, and when.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::origin::{Origin, Step, answer, ok, status};
use super::*;

/// Answers each path's requests with what its name says, in order; the last
/// stays: `/503,200` fails once.
fn in_turn() -> impl Fn(&str) -> Vec<Step> + Send + Sync {
    let seen = parking_lot::Mutex::new(std::collections::HashMap::<String, usize>::new());
    move |path| {
        let turns: Vec<&str> = path[1..].split('?').next().unwrap().split(',').collect();
        let mut seen = seen.lock();
        let turn = seen.entry(path.to_owned()).or_default();
        let now = turns[(*turn).min(turns.len() - 1)];
        *turn += 1;
        match now {
            "200" => ok(b"good"),
            "429" => answer("429 Too Many Requests", "retry-after: 1\r\n", b""),
            "later" => answer("429 Too Many Requests", "retry-after: 120\r\n", b""),
            "reset" => vec![Step::Reset],
            code => status(&format!("{code} Whatever")),
        }
    }
}

fn with(attempts: u32) -> Rig {
    Rig::with(|s| s.attempts = attempts, FakeCache::default())
}

#[tokio::test]
async fn scenario_15_a_failure_that_may_pass_is_tried_again() {
    let (origin, rig) = (Origin::start(in_turn()).await, with(3));
    for (path, attempts) in [
        ("/200", 1),
        ("/503,200", 2),
        ("/502,503,200", 3),
        ("/reset,408,200", 3),
        ("/500,504,200", 3),
    ] {
        let fetched = rig.get(&[&origin.url(path)]).await.unwrap();
        assert_eq!(fetched.digest, digest(b"good"), "{path}");
        assert_eq!(fetched.attempts, attempts, "{path}");
    }
    for (path, requests) in [
        ("/503", 3),
        ("/404,200", 1),
        ("/403,200", 1),
        ("/400,200", 1),
    ] {
        let before = origin.requests();
        let (_, _, message) = rig.failure(&request(&[&origin.url(path)])).await;
        assert_eq!(origin.requests() - before, requests, "{path}");
        let told = message.contains("(the last of 3 tries)");
        assert_eq!(told, requests == 3, "{message}");
    }
}

#[tokio::test]
async fn scenario_15_every_try_shows_the_same_headers() {
    let (origin, rig) = (Origin::start(in_turn()).await, with(3));
    let url = origin.url("/503,503,200");
    let request = with_headers(&[&url], &[("http_header:Authorization", "Bearer x")]);
    rig.fetch(&request).await.unwrap();
    assert_eq!(origin.requests(), 3);
    for index in 0..3 {
        assert!(origin.head(index).contains("authorization: Bearer x"));
    }
}

#[tokio::test]
async fn no_time_is_lost_on_a_mirror_in_trouble_while_another_is_left() {
    let origin = Origin::start(in_turn()).await;
    let slow = |s: &mut Settings| s.retry_delay = Duration::from_secs(600);
    let rig = Rig::with(slow, FakeCache::default());
    let (bad, good) = (origin.url("/503"), origin.url("/200"));
    let fetched = rig.get(&[&bad, &good]).await.unwrap();
    assert_eq!((fetched.uri_index, fetched.attempts), (1, 2));
}

#[tokio::test]
async fn mirrors_are_asked_in_rounds_and_those_that_are_over_only_once() {
    let (origin, rig) = (Origin::start(in_turn()).await, with(5));
    let urls = ["/404", "/503,503,200", "/502"].map(|path| origin.url(path));
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let fetched = rig.get(&urls).await.unwrap();
    assert_eq!(fetched.uri_index, 1);
    let asked = |path: &str| {
        let heads = origin.heads.lock();
        heads
            .iter()
            .filter(|h| h.contains(&format!("{path} ")))
            .count()
    };
    assert_eq!((asked("/404"), asked("/503,503,200")), (1, 3));
}

#[tokio::test]
async fn s4_an_origin_is_left_alone_for_as_long_as_it_says() {
    let (origin, rig) = (Origin::start(in_turn()).await, with(3));
    let since = Instant::now();
    rig.get(&[&origin.url("/429,200")]).await.unwrap();
    assert!(since.elapsed() >= Duration::from_secs(1));

    let since = Instant::now();
    let (failure, ..) = rig.failure(&request(&[&origin.url("/later,200")])).await;
    let retry_after = Some(Duration::from_secs(120));
    assert_eq!(failure, Failure::TooManyRequests { retry_after });
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "nobody waits so long"
    );
}

#[tokio::test]
async fn retries_end_with_the_time_of_the_fetch() {
    let origin = Origin::start(in_turn()).await;
    let slow = |s: &mut Settings| s.retry_delay = Duration::from_secs(2);
    let rig = Rig::with(slow, FakeCache::default());
    let mut short = request(&[&origin.url("/503")]);
    short.timeout = Some(Duration::from_millis(300));
    let since = Instant::now();
    let (failure, ..) = rig.failure(&short).await;
    assert_eq!(failure, Failure::Unavailable { retry_after: None });
    assert!(
        since.elapsed() < Duration::from_secs(2),
        "a wait in vain is none"
    );
}

#[tokio::test]
async fn a_try_that_was_not_made_is_none() {
    let (origin, rig) = (Origin::start(in_turn()).await, with(1));
    rig.get(&[&origin.url("/429,200")]).await.unwrap_err();
    // The host is left alone for a second; then this one is asked for.
    let fetched = rig.get(&[&origin.url("/200")]).await.unwrap();
    assert_eq!((fetched.digest, fetched.attempts), (digest(b"good"), 1));
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn who_comes_when_all_tries_have_just_failed_is_told_at_once() {
    let origin = Origin::start(in_turn()).await;
    let settings = |s: &mut Settings| {
        s.attempts = 3;
        s.retry_delay = Duration::from_millis(150);
    };
    let rig = Rig::with(settings, FakeCache::default());
    let (down, good) = (origin.url("/503,503,503,200"), origin.url("/200"));
    rig.get(&[&down]).await.unwrap_err();
    assert_eq!(origin.requests(), 3);
    let since = Instant::now();
    let (failure, ..) = rig.failure(&request(&[&down])).await;
    assert_eq!(failure, Failure::Unavailable { retry_after: None });
    assert_eq!(origin.requests(), 3, "nobody asked");
    assert!(
        since.elapsed() < Duration::from_millis(100),
        "and nobody waited"
    );
    assert_eq!(rig.get(&[&down, &good]).await.unwrap().uri_index, 1);
    // When it is due, it is asked again: at most 1.5 times four delays.
    tokio::time::sleep(Duration::from_millis(950)).await;
    assert_eq!(rig.get(&[&down]).await.unwrap().digest, digest(b"good"));
}

#[tokio::test]
async fn many_requests_together_ask_a_failing_origin_no_more_often_than_one() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let origin = Origin::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        status("503 Down")
    });
    let origin = origin.await;
    let settings = |s: &mut Settings| {
        s.attempts = 3;
        s.retry_delay = Duration::from_millis(100);
    };
    let rig = Rig::with(settings, FakeCache::default());
    let url = origin.url("/x");
    let all = (0..20).map(|i| {
        let (rig, url) = (&rig, &url);
        async move {
            tokio::time::sleep(Duration::from_millis(i * 2)).await;
            rig.failure(&request(&[url])).await.0
        }
    });
    let all = futures_util::future::join_all(all).await;
    let down = Failure::Unavailable { retry_after: None };
    assert!(all.iter().all(|failure| *failure == down), "{all:?}");
    let asked = asked.load(Ordering::SeqCst);
    assert!((3..=5).contains(&asked), "{asked}");
}
