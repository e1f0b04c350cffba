//! FetchBlob: one, or many at once.
//!
//! Not for: downloads without a cache (`download`).
//! Called by: `main`.

use crate::client::{Conn, call, connect};
use crate::made::{self, Made};
use bytes::Bytes;
use grpc_fwd_bench::args::Args;
use grpc_fwd_bench::process::cpu_ns;
use grpc_fwd_bench::wire;
use http_body_util::{BodyExt, Full};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

const PATH: &str = "/build.bazel.remote.asset.v1.Fetch/FetchBlob";

/// A request, and the digest it has to be answered with.
struct Wanted {
    request: Bytes,
    digest: String,
}

impl Wanted {
    fn new(uri: &str, sha256: &[u8], size: u64) -> Self {
        Self {
            request: wire::fetch_blob(uri, sha256),
            digest: format!("{}/{size}", made::hex(sha256)),
        }
    }

    async fn fetch(&self, conn: &mut Conn) -> Result<(), String> {
        let body = Full::new(self.request.clone()).map_err(|never| match never {});
        let answer = call(conn, PATH, body.boxed_unsync()).await?;
        let digest = wire::fetched(&answer)?;
        if digest == self.digest {
            return Ok(());
        }
        Err(format!("`{digest}` instead of {}", self.digest))
    }
}

pub async fn one(a: &Args) -> u64 {
    let hash = made::from_hex(a.text("--sha256").expect("--sha256"));
    let wanted = Wanted::new(a.text("--uri").expect("--uri"), &hash, a.num("--size", 0));
    let mut conn = connect(a.num("--port", 0) as u16).await;
    let began = Instant::now();
    let result = wanted.fetch(&mut conn).await;
    println!("blob seconds {:.3}", began.elapsed().as_secs_f64());
    result.map_or_else(
        |error| {
            eprintln!("failed: {error}");
            1
        },
        |()| 0,
    )
}

fn wanted(a: &Args, count: u64) -> Vec<Wanted> {
    let (block, size) = (made::block(), a.num("--size", 1 << 16));
    let origin = a.text("--origin").expect("--origin");
    let path = a.text("--path").unwrap_or("made");
    let run = a.text("--run").expect("--run");
    let one = |i| {
        let name = format!("{run}-{i}");
        let hash = made::sha256(Made::new(&block, &name, size));
        Wanted::new(&format!("{origin}/{path}/{size}/{name}"), &hash, size)
    };
    (0..count).map(one).collect()
}

pub async fn many(a: &Args) -> u64 {
    let (count, at_once) = (a.num("--count", 2000), a.num("--at-once", 2000));
    let different = if a.num("--same", 0) == 1 { 1 } else { count };
    let wanted = Rc::new(wanted(a, different));
    let mut conns = vec![];
    for _ in 0..a.num("--conns", 20) {
        conns.push(connect(a.num("--port", 0) as u16).await);
    }
    let (next, errors, pids) = (
        Rc::new(Cell::new(0)),
        Rc::new(RefCell::new(vec![])),
        a.pids(),
    );
    let (began, before) = (Instant::now(), cpu_ns(&pids));
    let mut tasks = vec![];
    for i in 0..at_once {
        let mut conn = conns[i as usize % conns.len()].clone();
        let (wanted, next, errors) = (wanted.clone(), next.clone(), errors.clone());
        tasks.push(tokio::task::spawn_local(async move {
            while next.get() < count {
                let i = next.replace(next.get() + 1);
                let one = &wanted[(i % different) as usize];
                if let Err(error) = one.fetch(&mut conn).await {
                    errors.borrow_mut().push(error);
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("a caller's task");
    }
    let used = (cpu_ns(&pids) - before) as f64;
    let took = began.elapsed().as_secs_f64();
    let errors = errors.borrow();
    for error in errors.iter().take(5) {
        eprintln!("failed: {error}");
    }
    println!(
        "blobs count {count} right {} seconds {took:.3} per_s {:.0} cpu_us {:.0} errors {}",
        count - errors.len() as u64,
        count as f64 / took,
        used / 1e3 / count as f64,
        errors.len()
    );
    errors.len() as u64
}
