//! Bulk reads and writes: bytes a second and CPU a GiB.
//!
//! Not for: streams that stall; that is `hold`.
//! Called by: `main`.

use crate::client::{Conn, Repeat, call, connect_all, message, one, request};
use bytes::Bytes;
use grpc_fwd_bench::args::Args;
use grpc_fwd_bench::process::{cpu_ns, rss_kib};
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What all streams of a run share.
struct Transfer {
    a: Rc<Args>,
    write: bool,
    size: u64,
    chunk: u64,
    message: Bytes,
    left: Cell<u64>,
    bytes: Cell<u64>,
    errors: Cell<u64>,
}

impl Transfer {
    async fn run(&self, mut conn: Conn) {
        while self.left.get() > 0 {
            self.left.set(self.left.get() - 1);
            let (method, body) = if self.write {
                let left = self.size.div_ceil(self.chunk);
                (
                    "Write",
                    Repeat {
                        chunk: self.message.clone(),
                        left,
                        stall_after: None,
                    },
                )
            } else {
                ("Read", one(message(100)))
            };
            match call(&mut conn, request(&self.a, method, body)).await {
                Ok((n, true)) => self
                    .bytes
                    .set(self.bytes.get() + if self.write { self.size } else { n }),
                e => {
                    eprintln!("failed: {e:?}");
                    self.errors.set(self.errors.get() + 1);
                }
            }
        }
    }
}

/// The largest resident memory while it ran.
async fn watch(pids: Vec<u32>, peak: Rc<Cell<u64>>) {
    loop {
        peak.set(peak.get().max(rss_kib(&pids)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn stream(a: Rc<Args>, write: bool) {
    let conns = connect_all(&a, 1).await;
    let streams = a.num("--streams", 1);
    let chunk = a.num("--chunk", 64 << 10);
    let pids = a.pids();
    let transfer = Rc::new(Transfer {
        write,
        size: a.num("--size", 64 << 20),
        chunk,
        message: message(chunk as usize),
        left: Cell::new(a.num("--count", 16)),
        bytes: Cell::new(0),
        errors: Cell::new(0),
        a,
    });
    let peak = Rc::new(Cell::new(0));
    let watching = tokio::task::spawn_local(watch(pids.clone(), peak.clone()));
    let (began, before) = (Instant::now(), cpu_ns(&pids));
    let mut tasks = vec![];
    for i in 0..streams {
        let (transfer, conn) = (transfer.clone(), conns[i as usize % conns.len()].clone());
        tasks.push(tokio::task::spawn_local(
            async move { transfer.run(conn).await },
        ));
    }
    for t in tasks {
        t.await.expect("a stream's task");
    }
    let used = (cpu_ns(&pids) - before) as f64;
    let took = began.elapsed().as_secs_f64();
    watching.abort();
    let bytes = transfer.bytes.get() as f64;
    let gib = bytes / (1u64 << 30) as f64;
    println!(
        "{} conns {} streams {streams} chunk {chunk} gib {gib:.2} mb_per_s {:.0} cpu_ms_per_gib {:.0} peak_rss_mib {:.1} errors {}",
        if write { "write" } else { "read" },
        conns.len(),
        bytes / 1e6 / took,
        used / 1e6 / gib.max(1e-9),
        peak.get() as f64 / 1024.0,
        transfer.errors.get()
    );
}
