//! Load that a server is made for: as much of it as keeps the servers as busy
//! as an attack did, so that what a bystander waits then is the price of a
//! busy core, and what it waits more under attack is the attack's.
//!
//! Not for: the most calls per second; that is `load`.
//! Called by: `main`.

use crate::client::{Conn, Outgoing, call, connect};
use crate::stored::{FETCH_BLOB, GET_RESULT, HIT, fetch, get_result};
use grpc_fwd_bench::args::Args;
use grpc_fwd_bench::process::cpu_ns;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

const CONNECTIONS: u64 = 10;
const STREAMS: u64 = 10;

/// Calls in a closed loop while `go` says so.
async fn caller(mut conn: Conn, go: Rc<Cell<bool>>) -> Result<(), String> {
    let (fetch, get) = (fetch(HIT), get_result("bystander"));
    loop {
        while !go.get() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        call(&mut conn, FETCH_BLOB, Outgoing::whole(fetch.clone())).await?;
        call(&mut conn, GET_RESULT, Outgoing::whole(get.clone())).await?;
    }
}

pub async fn honest(a: Rc<Args>) -> Result<(), String> {
    let (busy, pids) = (a.num("--busy", 100) as f64 / 100.0, a.pids());
    let go = Rc::new(Cell::new(true));
    let mut tasks = vec![];
    for n in 0..CONNECTIONS {
        let port = if n % 2 == 0 { "--port" } else { "--front" };
        let conn = connect(a.num(port, 0) as u16).await?;
        for _ in 0..STREAMS {
            tasks.push(tokio::task::spawn_local(caller(conn.clone(), go.clone())));
        }
    }
    let (began, before) = (Instant::now(), cpu_ns(&pids));
    let until = began + Duration::from_secs(a.num("--secs", 5));
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let used = (cpu_ns(&pids) - before) as f64;
        go.set(used < busy * began.elapsed().as_nanos() as f64);
    }
    // A caller only ends by an answer that was not the right one.
    match tasks.into_iter().find(|task| task.is_finished()) {
        Some(task) => task.await.map_err(|e| e.to_string())?,
        None => Ok(()),
    }
}
