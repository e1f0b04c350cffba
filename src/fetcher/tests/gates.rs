//! Turns, connections and the time limits of one attempt.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::origin::{Origin, Step, TlsOrigin, answer, ok, raw, redirect};
use super::*;

const WAIT: Duration = Duration::from_millis(50);

fn slow(_: &str) -> Vec<Step> {
    vec![Step::Sleep(WAIT), ok(b"x").remove(0)]
}

fn since(start: Instant) -> Duration {
    start.elapsed()
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// URLs of so many hosts, all of them at one origin.
fn names(origin: &Origin, count: usize, path: &str) -> Vec<String> {
    let port = origin.addr.port();
    let url = |i| format!("http://host-{i}.example:{port}{path}");
    (0..count).map(url).collect()
}

#[tokio::test]
async fn no_more_requests_go_to_a_host_at_once_than_the_limit() {
    let origin = Origin::start(slow).await;
    let rig = Rig::with(|s| s.max_per_host = 2, FakeCache::default());
    // What is asked is what is connected, as each answer ends its connection.
    let urls: Vec<String> = (0..8).map(|i| origin.url(&format!("/close/{i}"))).collect();
    let all = join_all(urls.iter().map(|url| async { rig.get(&[url]).await })).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(origin.requests(), 8);
    assert!(origin.most.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn a_turn_ends_with_the_body_and_not_with_the_head() {
    let head = |_: &str| {
        let mut steps = raw("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n");
        steps.push(Step::Sleep(WAIT));
        steps.push(Step::Send(vec![1]));
        steps
    };
    let origin = Origin::start(head).await;
    let rig = Rig::with(|s| s.max_per_host = 1, FakeCache::default());
    let (a, b) = (origin.url("/a"), origin.url("/b"));
    let start = now();
    let both = [a, b].map(|url| request(&[&url]));
    let both = join_all(both.iter().map(|request| rig.fetch(request))).await;
    assert!(both.iter().all(Result::is_ok), "{both:?}");
    assert!(since(start) >= WAIT * 2);
}

#[tokio::test]
async fn redirects_between_full_hosts_wait_for_each_other_and_end() {
    let far = Origin::start(slow).await;
    let to = format!("http://far.example:{}/x", far.addr.port());
    let near = Origin::start(move |_| vec![Step::Sleep(WAIT), redirect(&to).remove(0)]).await;
    let tight = |s: &mut Settings| (s.max_per_host, s.max_concurrent) = (1, 1);
    let rig = Rig::resolving(tight, FakeCache::default(), scripted(&["127.0.0.1"]));
    let port = near.addr.port();
    let urls: Vec<_> = (0..6)
        .map(|i| format!("http://near.example:{port}/{i}"))
        .collect();
    let all = join_all(urls.iter().map(|url| async { rig.get(&[url]).await })).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(far.requests(), 6);
}

#[tokio::test]
async fn a_body_that_is_gone_on_with_keeps_its_turn_and_others_wait() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::by_head(move |head| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        let cut = number == 0;
        let range = head.contains("range: bytes=20000-");
        match (cut, range) {
            (true, _) => {
                let head = "HTTP/1.1 200 OK\r\netag: \"v\"\r\ncontent-length: 30000\r\n\r\n";
                let part = [head.as_bytes(), &[7; 20_000]].concat();
                vec![Step::Send(part), Step::Sleep(WAIT), Step::Reset]
            }
            (_, true) => answer(
                "206 Partial Content",
                "content-range: bytes 20000-29999/30000\r\n",
                &[7; 10_000],
            ),
            _ => ok(b"other"),
        }
    })
    .await;
    let tight = |s: &mut Settings| {
        (s.max_per_host, s.max_concurrent) = (1, 1);
        s.retry_delay = WAIT;
    };
    let rig = Rig::with(tight, FakeCache::default());
    let (first, second) = (origin.url("/first"), origin.url("/second"));
    let (first, second) = (request(&[&first]), request(&[&second]));
    let both = tokio::join!(rig.fetch(&first), rig.fetch(&second));
    assert_eq!(both.0.unwrap().digest, digest(&[7; 30_000]));
    assert_eq!(both.1.unwrap().digest, digest(b"other"));
    let order: Vec<bool> = (0..3)
        .map(|i| origin.head(i).starts_with("GET /first"))
        .collect();
    assert_eq!(order, [true, true, false]);
}

#[tokio::test]
async fn a_429_with_retry_after_keeps_others_from_that_host() {
    let origin = Origin::start(|path| match path {
        "/busy" => answer("429 Too Many Requests", "retry-after: 2\r\n", b""),
        _ => ok(b"x"),
    })
    .await;
    let rig = Rig::with(|s| s.attempts = 2, FakeCache::default());
    let (failure, _, _) = rig.failure(&request(&[&origin.url("/busy")])).await;
    assert!(matches!(failure, Failure::TooManyRequests { .. }));
    assert_eq!(origin.requests(), 2);
    let start = now();
    // One with less time than that is not kept waiting.
    let mut hasty = request(&[&origin.url("/x")]);
    hasty.timeout = Some(Duration::from_millis(900));
    let Err(FetchError::Origin {
        failure,
        message,
        attempts,
        ..
    }) = rig.fetch(&hasty).await
    else {
        panic!("it is paused");
    };
    assert!(since(start) < Duration::from_millis(800));
    assert!(
        matches!(
            failure,
            Failure::TooManyRequests {
                retry_after: Some(_)
            }
        ),
        "{message}"
    );
    assert!(message.contains("is not asked for another 2s"), "{message}");
    assert_eq!(attempts, 0, "none was sent");
    assert_eq!(origin.requests(), 2);
    rig.get(&[&origin.url("/y")]).await.unwrap();
    assert!(since(start) >= Duration::from_millis(1800));
    assert_eq!(origin.requests(), 3);
}

#[tokio::test]
async fn idle_connections_give_way_to_those_that_are_needed() {
    let origin = Origin::start(|_| ok(b"x")).await;
    let tight = |s: &mut Settings| s.max_connections = 4;
    let rig = Rig::resolving(tight, FakeCache::default(), scripted(&["127.0.0.1"]));
    let start = now();
    for url in names(&origin, 60, "/x") {
        rig.get(&[&url])
            .await
            .unwrap_or_else(|e| panic!("{url}: {e}"));
    }
    assert!(
        since(start) < Duration::from_secs(5),
        "nobody waits for idle ones"
    );
    assert_eq!(origin.requests(), 60);
    for _ in 0..200 {
        if origin.open.load(Ordering::SeqCst) <= 4 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} are open", origin.open.load(Ordering::SeqCst));
}

#[tokio::test]
async fn more_hosts_at_once_than_connections_all_get_one() {
    let origin = Origin::start(slow).await;
    let tight = |s: &mut Settings| s.max_connections = 3;
    let rig = Rig::resolving(tight, FakeCache::default(), scripted(&["127.0.0.1"]));
    // Two requests for each host: the second may find the connection that the
    // first left, or that it is being closed.
    let urls = [names(&origin, 15, "/a"), names(&origin, 15, "/b")].concat();
    let all = join_all(urls.iter().map(|url| async { rig.get(&[url]).await })).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(origin.requests(), 30, "nothing was asked twice");
}

#[tokio::test]
async fn who_finds_all_connections_in_use_learns_which_setting_it_is() {
    let origin = Origin::start(|_| vec![Step::Hang]).await;
    let tight = |s: &mut Settings| {
        s.max_connections = 1;
        s.connect_timeout = Duration::from_millis(200);
    };
    let rig = Rig::resolving(tight, FakeCache::default(), scripted(&["127.0.0.1"]));
    let urls = names(&origin, 2, "/x");
    let (first, second) = (request(&[&urls[0]]), request(&[&urls[1]]));
    tokio::select! {
        _ = rig.fetch(&first) => panic!("it hangs"),
        (failure, _, message) = async {
            tokio::time::sleep(WAIT).await;
            rig.failure(&second).await
        } => {
            assert_eq!(failure, Failure::Unavailable { retry_after: None });
            assert!(message.contains("(fetch.max_connections)"), "{message}");
        }
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    for alpn in ["http/1.1", "h2"] {
        let origin = TlsOrigin::start(&[alpn], None, 5).await;
        let ca = origin.ca.clone();
        let allow = move |s: &mut Settings| {
            s.ca = Some(ca);
            s.allow_cidr.push("::1/128".parse().unwrap());
        };
        let rig = Rig::with(allow, FakeCache::default());
        for _ in 0..3 {
            rig.get(&[&origin.url()]).await.unwrap();
            tokio::time::sleep(WAIT).await;
        }
        assert_eq!(*origin.spoken.lock(), [alpn]);
    }
}

#[tokio::test]
async fn each_time_limit_is_its_own_and_named() {
    let origin = Origin::start(|path| match path {
        "/silent" => vec![Step::Hang],
        "/late" => vec![Step::Sleep(WAIT * 4), ok(b"x").remove(0)],
        _ => {
            let mut steps = raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
            steps.push(Step::Hang);
            steps
        }
    })
    .await;
    let (short, long) = (WAIT * 2, Duration::from_secs(20));
    let set = |connect, first, stall| {
        Rig::with(
            move |s| {
                s.connect_timeout = connect;
                s.first_byte_timeout = first;
                s.stall_timeout = stall;
            },
            FakeCache::default(),
        )
    };
    // An origin that never answers a TLS handshake.
    let unspoken = origin.url("/x").replace("http://", "https://");
    for (rig, url, text) in [
        (
            set(short, long, long),
            unspoken,
            "no connection to 127.0.0.1 within 100ms (fetch.connect_timeout)",
        ),
        (
            set(long, short, long),
            origin.url("/silent"),
            "no response within 100ms after the request was sent (fetch.first_byte_timeout)",
        ),
        (
            set(long, long, short),
            origin.url("/stalls"),
            "nothing more after 3 bytes for 100ms (fetch.stall_timeout)",
        ),
    ] {
        let start = now();
        let (failure, _, message) = rig.failure(&request(&[&url])).await;
        assert_eq!(failure, Failure::Unavailable { retry_after: None });
        assert!(message.contains(text), "{message}");
        assert!(since(start) < Duration::from_secs(5));
    }
    let patient = set(short, long, short);
    patient.get(&[&origin.url("/late")]).await.unwrap();
}
