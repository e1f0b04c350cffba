//! Cancelled calls: does the upstream learn of it, and does the connection live?
//!
//! Not for: resets sent as an attack; the project's tests do that.
//! Called by: `main`.

use crate::client::{Conn, Repeat, call, connect, connect_all, message, one, request, stub_stats};
use grpc_fwd_bench::args::Args;
use http_body_util::BodyExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Calls that are running at the stub.
async fn live(stats: u16) -> i64 {
    let line = stub_stats(stats).await;
    let mut words = line.split_whitespace().skip_while(|w| *w != "live");
    words.nth(1).and_then(|n| n.parse().ok()).unwrap_or(-1)
}

/// A call that stays where `kind` says until it is dropped.
async fn stay(a: &Args, mut conn: Conn, kind: &str) {
    let _ = conn.ready().await;
    let (method, body) = match kind {
        "writing" => (
            "Write",
            Repeat {
                chunk: message(1000),
                left: 1 << 20,
                stall_after: Some(2),
            },
        ),
        "waiting" => ("GetActionResult", one(message(100))),
        _ => ("Read", one(message(100))),
    };
    let mut req = request(a, method, body);
    if kind == "waiting" {
        req.headers_mut()
            .insert("x-bench-hold", http::HeaderValue::from_static("60000"));
    }
    let Ok(r) = conn.send_request(req).await else {
        return;
    };
    let mut body = r.into_body();
    let _ = body.frame().await;
    std::future::pending::<()>().await;
    drop(body);
}

async fn next_call(a: &Args, conn: &Conn) -> &'static str {
    let next = call(
        &mut conn.clone(),
        request(a, "GetCapabilities", one(message(0))),
    )
    .await;
    match next {
        Ok((_, true)) => "ok",
        _ => "error",
    }
}

/// Cancels calls in three states and asks the stub how many are still running there.
pub async fn cancel(a: Rc<Args>) {
    let stats = a.num("--stats", 0) as u16;
    let mut out = String::from("cancel");
    for kind in ["waiting", "reading", "writing"] {
        let conns = connect_all(&a, 1).await;
        let before = live(stats).await;
        let mut tasks = vec![];
        for i in 0..a.num("--streams", 200) {
            let (a, conn) = (a.clone(), conns[i as usize % conns.len()].clone());
            tasks.push(tokio::task::spawn_local(async move {
                stay(&a, conn, kind).await
            }));
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let during = live(stats).await - before;
        for t in tasks {
            t.abort();
            let _ = t.await;
        }
        let t0 = Instant::now();
        let mut after = during;
        while after > 0 && t0.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            after = live(stats).await - before;
        }
        let took = t0.elapsed().as_millis();
        let next = tokio::time::timeout(Duration::from_secs(2), next_call(&a, &conns[0]))
            .await
            .unwrap_or("hung");
        out += &format!(
            " | {kind} live_during {during} live_after {after} ms {took} next_call {next}"
        );
    }
    println!("{out}");
}

/// Opens calls and cancels them all while the proxy is stopped for 50 ms (as if its thread were busy):
/// does the proxy take this for a reset flood and close the connection?
pub async fn burst(a: Rc<Args>) {
    let streams = a.num("--streams", 100);
    let pids = a.pids();
    let signal = |s: &str| {
        for p in &pids {
            let _ = std::process::Command::new("kill")
                .args([s, &p.to_string()])
                .status();
        }
    };
    let conn = connect(&a).await;
    let first = call(
        &mut conn.clone(),
        request(&a, "GetCapabilities", one(message(0))),
    )
    .await
    .is_ok();
    signal("-STOP");
    let mut tasks = vec![];
    for _ in 0..streams {
        let mut tx = conn.clone();
        let a = a.clone();
        tasks.push(tokio::task::spawn_local(async move {
            let _ = call(&mut tx, request(&a, "GetActionResult", one(message(100)))).await;
        }));
    }
    tokio::time::sleep(Duration::from_millis(25)).await;
    for t in &tasks {
        t.abort();
    }
    tokio::time::sleep(Duration::from_millis(25)).await;
    signal("-CONT");
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Two calls: the first may be lost with the proxy's upstream connection, the second tells
    // whether the client's own connection is still there.
    let mut next = vec![];
    for _ in 0..2 {
        next.push(
            match call(
                &mut conn.clone(),
                request(&a, "GetCapabilities", one(message(0))),
            )
            .await
            {
                Ok((_, true)) => "ok".to_string(),
                Ok(_) => "grpc-error".to_string(),
                Err(e) => format!("failed({e:?})"),
            },
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!(
        "cancel-burst streams {streams} first_ok {first} client_connection {} next {} then {}",
        if conn.is_closed() { "CLOSED" } else { "kept" },
        next[0],
        next[1]
    );
}
