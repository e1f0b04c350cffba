//! What bounds the load on origins and on this process: turns, rates, pauses,
//! connections. Scenarios with many fetches at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::support::answer::says;
use crate::support::{
    Code, Function, Origin, Proxy, Qualified as _, Reply, digest_of, eventually, fetch_blob, hit,
    inline, refused, sri,
};

/// An origin at every loopback address that serves each path itself, slowly,
/// and counts what it is asked.
struct Counting {
    port: u16,
    asked: Arc<AtomicUsize>,
    /// Requests being answered, most at once.
    most: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Counting {
    async fn start(time: Duration) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counts = (Arc::default(), asked.clone(), most.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer_all(stream, counts.clone(), time));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            port,
            asked,
            most,
            task,
        }
    }

    fn url(&self, host: usize, path: usize) -> String {
        let (high, low) = (host / 250, host % 250 + 1);
        format!("http://127.0.{high}.{low}:{}/{path}", self.port)
    }
}

async fn answer_all(
    mut stream: TcpStream,
    (now, asked, most): (Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>),
    time: Duration,
) -> Option<()> {
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            let mut piece = [0; 2048];
            let read = stream.read(&mut piece).await.ok().filter(|n| *n > 0)?;
            head.extend_from_slice(&piece[..read]);
        }
        let path = head.split(|b| *b == b' ').nth(1)?.to_owned();
        head.clear();
        asked.fetch_add(1, Ordering::SeqCst);
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::time::sleep(time).await;
        // Before the answer: once that is out the next may come.
        now.fetch_sub(1, Ordering::SeqCst);
        let length = path.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        stream
            .write_all(&[answer.as_bytes(), &path].concat())
            .await
            .ok()?;
    }
}

/// Fetches all, so many at a time.
async fn fetch_all(client: &crate::support::Client, urls: Vec<String>, at_once: usize) {
    let fetches = urls.into_iter().map(|url| async move {
        let path = url
            .splitn(4, '/')
            .nth(3)
            .map(|path| format!("/{path}"))
            .unwrap();
        let fetch =
            fetch_blob(&[&url]).qualifier("checksum.sri", &sri(Function::Sha512, path.as_bytes()));
        assert_eq!(
            hit(client.fetch_blob(fetch).await),
            digest_of(path.as_bytes())
        );
    });
    let mut running = futures_util::stream::iter(fetches).buffer_unordered(at_once);
    while running.next().await.is_some() {}
}

#[tokio::test]
async fn scenario_200_fetches_at_once_never_exceed_the_limit_of_a_host() {
    let origin = Counting::start(Duration::from_millis(100)).await;
    let (proxy, client) = Proxy::new().connected().await;
    let urls = (0..200).map(|path| origin.url(0, path)).collect();
    fetch_all(&client, urls, 200).await;
    assert_eq!(origin.asked.load(Ordering::SeqCst), 200);
    let most = origin.most.load(Ordering::SeqCst);
    assert!((8..=16).contains(&most), "{most} at once");
    let metrics = proxy.metrics().await;
    let delayed = ["by=\"max_per_host\""];
    assert!(metrics.sum("assetgate_origin_requests_delayed_total", &delayed) > 20.0);
    assert_eq!(metrics.sum("assetgate_origin_requests_waiting", &[]), 0.0);
}

#[tokio::test]
async fn scenario_a_slow_host_leaves_room_for_others() {
    let slow = Origin::new()
        .reply("/silent", Reply::silence())
        .start()
        .await;
    let quick = Counting::start(Duration::ZERO).await;
    let proxy = Proxy::new().config("[fetch]\nmax_concurrent = 3\nmax_per_host = 2\n");
    let (_proxy, client) = proxy.connected().await;
    let stuck: Vec<_> = (0..20)
        .map(|i| {
            let (client, url) = (client.clone(), slow.url(&format!("/silent?v={i}")));
            tokio::spawn(async move {
                client
                    .fetch_blob_in_vain(fetch_blob(&[url]), Duration::from_secs(30))
                    .await;
            })
        })
        .collect();
    eventually("two at the slow host", async || {
        (slow.total() == 2).then_some(())
    })
    .await;
    fetch_all(&client, (0..20).map(|i| quick.url(1, i)).collect(), 4).await;
    assert_eq!(slow.total(), 2);
    stuck.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn scenario_1000_hosts_in_a_row_do_not_pile_up_descriptors() {
    let origin = Counting::start(Duration::ZERO).await;
    let proxy = Proxy::new().config("[fetch]\nmax_connections = 40\n");
    let (proxy, client) = proxy.connected().await;
    fetch_all(&client, vec![origin.url(0, 0)], 1).await;
    let before = proxy.descriptors();
    let all: Vec<String> = (0..1000).map(|host| origin.url(host, host)).collect();
    let mut most = 0;
    for some in all.chunks(100) {
        fetch_all(&client, some.to_vec(), 8).await;
        most = most.max(proxy.descriptors());
    }
    assert_eq!(
        origin.asked.load(Ordering::SeqCst),
        1000,
        "0/0 was there already"
    );
    assert!(most <= before + 40 + 20, "{before} at first, then {most}");
    let metrics = proxy.metrics().await;
    let open = metrics.sum("assetgate_origin_connections", &[]);
    assert!((1.0..=40.0).contains(&open), "{open}");
    assert!(metrics.sum("assetgate_origin_connections_displaced_total", &[]) > 500.0);
}

#[tokio::test]
async fn a_rate_is_kept_at_the_origin() {
    let origin = Counting::start(Duration::ZERO).await;
    let proxy = Proxy::new().config("[fetch]\nrate_per_host = \"10/s\"\n");
    let (_proxy, client) = proxy.connected().await;
    let start = Instant::now();
    fetch_all(
        &client,
        (0..25).map(|path| origin.url(0, path)).collect(),
        25,
    )
    .await;
    let passed = start.elapsed();
    assert!(
        passed >= Duration::from_millis(1450),
        "25 took {passed:?}, 10 of them at once"
    );
    assert_eq!(origin.asked.load(Ordering::SeqCst), 25);
}

#[tokio::test]
async fn a_429_with_retry_after_pauses_its_host() {
    let busy = Reply::status(429).header("Retry-After", "30");
    let origin = Origin::new().reply("/busy", busy).file("/a", "content");
    let origin = origin.start().await;
    let other = Origin::new()
        .ip("127.0.0.2")
        .file("/a", "content")
        .start()
        .await;
    let (proxy, client) = Proxy::new()
        .config("[fetch]\ntimeout = \"5s\"\n")
        .connected()
        .await;
    refused(
        client.fetch_blob(fetch_blob(&[origin.url("/busy")])).await,
        Code::ResourceExhausted,
    );
    let answer = client.fetch_blob(fetch_blob(&[origin.url("/a")])).await;
    let status = refused(answer, Code::ResourceExhausted);
    says(
        status.message(),
        &[&format!(
            "{} answered 429 Too Many Requests before",
            origin.address()
        )],
    );
    assert_eq!(origin.count("/a"), 0);
    let fetch = fetch_blob(&[other.url("/a")]);
    assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"content"));
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("assetgate_origin_pauses_total", &[]) >= 1.0);
}

#[tokio::test]
async fn a_fetch_that_waited_for_its_turn_in_vain_says_so() {
    let origin = Origin::new()
        .reply("/silent", Reply::silence())
        .file("/a", "content");
    let origin = origin.start().await;
    let toml = "[fetch]\nmax_per_host = 1\ntimeout = \"1s\"\n";
    let (_proxy, client) = Proxy::new().config(toml).connected().await;
    use crate::support::Fetching as _;
    let stuck = fetch_blob(&[origin.url("/silent")]).timeout(Duration::from_secs(30));
    let holder = {
        let client = client.clone();
        tokio::spawn(async move {
            client
                .fetch_blob_in_vain(stuck, Duration::from_secs(30))
                .await;
        })
    };
    eventually("the request that is stuck", async || {
        (origin.total() == 1).then_some(())
    })
    .await;
    let answer = client.fetch_blob(fetch_blob(&[origin.url("/a")])).await;
    says(
        &inline(answer, Code::DeadlineExceeded),
        &["turn", "fetch.max_per_host"],
    );
    holder.abort();
}
