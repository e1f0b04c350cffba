//! Streams that stall by the thousand: what does the proxy hold, and is a
//! bystander harmed?
//!
//! Not for: streams that flow; that is `stream`.
//! Called by: `main`.

use crate::client::{Conn, Repeat, call, connect, connect_all, message, one, request, stub_stats};
use grpc_fwd_bench::args::Args;
use grpc_fwd_bench::process::{anon_kib, cpu_ns, rss_kib};
use http_body_util::BodyExt;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

const SETTLED: Duration = Duration::from_secs(1);

/// A writer that stops after `take` bytes and stays.
async fn stalled_writer(a: &Args, mut conn: Conn, take: u64, started: &Cell<u64>) {
    let body = Repeat {
        chunk: message(65536),
        left: 1 << 20,
        stall_after: Some(take.div_ceil(65536)),
    };
    started.set(started.get() + 1);
    let _ = conn.send_request(request(a, "Write", body)).await;
}

/// A reader that takes the first bytes, then stops reading and stays.
async fn stalled_reader(a: &Args, mut conn: Conn, take: u64, started: &Cell<u64>) {
    let Ok(resp) = conn
        .send_request(request(a, "Read", one(message(100))))
        .await
    else {
        return;
    };
    let mut body = resp.into_body();
    let mut n = 0;
    while n < take {
        match body.frame().await {
            Some(Ok(f)) => n += f.data_ref().map_or(0, |d| d.len()) as u64,
            _ => return,
        }
    }
    started.set(started.get() + 1);
    std::future::pending::<()>().await;
    drop(body);
}

/// A unary call and a 4 MiB read on a connection of their own.
async fn bystander(a: &Args) -> String {
    let mut told = String::new();
    for (name, method, size) in [
        ("unary", "GetActionResult", "0"),
        ("read", "Read", "4194304"),
    ] {
        let mut conn = connect(a).await;
        let mut req = request(a, method, one(message(100)));
        req.headers_mut()
            .insert("x-bench-size", http::HeaderValue::from_static(size));
        req.headers_mut().remove("x-bench-stall");
        let began = Instant::now();
        told += &match tokio::time::timeout(Duration::from_secs(2), call(&mut conn, req)).await {
            Ok(Ok((_, true))) => format!(
                " bystander_{name}_ms {:.1}",
                began.elapsed().as_secs_f64() * 1e3
            ),
            Ok(_) => format!(" bystander_{name}_ms error"),
            Err(_) => format!(" bystander_{name}_ms BLOCKED"),
        };
    }
    told
}

/// Waits at least this long, and on a busy machine until memory has not grown for a second; the largest seen.
async fn filled(pids: &[u32], least: Duration) -> u64 {
    let began = Instant::now();
    let (mut peak, mut grew) = (0, began);
    while began.elapsed() < Duration::from_secs(20)
        && (began.elapsed() < least || grew.elapsed() < SETTLED)
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = rss_kib(pids);
        if now > peak + 1024 {
            grew = Instant::now();
        }
        peak = peak.max(now);
    }
    peak
}

pub async fn hold(a: Rc<Args>, write: bool) {
    let pids = a.pids();
    let mib = |kib: u64| kib as f64 / 1024.0;
    let before = rss_kib(&pids);
    let conns = connect_all(&a, 10).await;
    let streams = a.num("--streams", 1000);
    let take = a.num("--take", 65536);
    let stats = a.num("--stats", 0) as u16;
    let started = Rc::new(Cell::new(0u64));
    let mut tasks = vec![];
    for i in 0..streams {
        let mut conn = conns[i as usize % conns.len()].clone();
        let (a, started) = (a.clone(), started.clone());
        tasks.push(tokio::task::spawn_local(async move {
            if conn.ready().await.is_err() {
                return;
            }
            if write {
                stalled_writer(&a, conn, take, &started).await;
            } else {
                stalled_reader(&a, conn, take, &started).await;
            }
        }));
    }
    let peak = filled(&pids, Duration::from_secs(a.num("--secs", 5))).await;
    let cpu = cpu_ns(&pids);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle_ms = (cpu_ns(&pids) - cpu) as f64 / 1e6;
    let (rss, anon) = (rss_kib(&pids), anon_kib(&pids));
    let live = stub_stats(stats).await;
    let told = bystander(&a).await;
    for t in &tasks {
        t.abort();
    }
    drop(tasks);
    drop(conns);
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!(
        "hold{} streams {streams} reached {} rss_before_mib {:.1} rss_mib {:.1} anon_mib {:.1} peak_mib {:.1} kib_per_stream {:.1} idle_cpu_ms_per_s {idle_ms:.1} rss_after_mib {:.1} |{told} | stub during: {live} | stub after: {}",
        if write { "-write" } else { "" },
        started.get(),
        mib(before),
        mib(rss),
        mib(anon),
        mib(peak),
        rss.saturating_sub(before) as f64 / streams as f64,
        mib(rss_kib(&pids)),
        stub_stats(stats).await
    );
}
