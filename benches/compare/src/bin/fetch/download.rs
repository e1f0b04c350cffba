//! Plain downloads, as little around them as possible: connections that are used again, GET, SHA-256.
//!
//! Not for: FetchBlob (`blobs`).
//! Called by: `main`.

use crate::made::{self, Made};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use grpc_fwd_bench::args::Args;
use grpc_fwd_bench::process::cpu_ns;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;
use tokio::net::TcpStream;

struct Loop {
    authority: String,
    size: u64,
    count: u64,
    hashes: Vec<(String, Vec<u8>)>,
    next: Cell<u64>,
    errors: Cell<u64>,
}

impl Loop {
    async fn run(&self) -> Result<(), Box<dyn std::error::Error>> {
        let tcp = TcpStream::connect(&self.authority).await?;
        let (mut tx, conn) = http1::handshake(TokioIo::new(tcp)).await?;
        tokio::task::spawn_local(conn);
        while self.next.get() < self.count {
            let i = self.next.replace(self.next.get() + 1);
            let (name, want) = &self.hashes[i as usize];
            let request = Request::get(format!("/made/{}/{name}", self.size))
                .header("host", &self.authority)
                .body(Empty::<Bytes>::new())?;
            tx.ready().await?;
            let mut body = tx.send_request(request).await?.into_body();
            let mut context = Context::new(&SHA256);
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame?.into_data() {
                    context.update(&data);
                }
            }
            if context.finish().as_ref() != want {
                self.errors.set(self.errors.get() + 1);
            }
        }
        Ok(())
    }
}

pub async fn many(a: &Args) -> u64 {
    let (count, size) = (a.num("--count", 2000), a.num("--size", 1 << 16));
    let (block, run) = (made::block(), a.text("--run").expect("--run"));
    let named = |i| {
        let name = format!("{run}-{i}");
        let hash = made::sha256(Made::new(&block, &name, size));
        (name, hash)
    };
    let origin = a.text("--origin").expect("--origin");
    let this = Rc::new(Loop {
        authority: origin.trim_start_matches("http://").to_string(),
        size,
        count,
        hashes: (0..count).map(named).collect(),
        next: Cell::new(0),
        errors: Cell::new(0),
    });
    let pids = [std::process::id()];
    let (began, before) = (Instant::now(), cpu_ns(&pids));
    let mut tasks = vec![];
    for _ in 0..a.num("--at-once", 64) {
        let this = this.clone();
        tasks.push(tokio::task::spawn_local(async move {
            if let Err(error) = this.run().await {
                eprintln!("failed: {error}");
                this.errors.set(this.errors.get() + 1);
            }
        }));
    }
    for task in tasks {
        task.await.expect("a downloader's task");
    }
    let (used, took) = (
        (cpu_ns(&pids) - before) as f64,
        began.elapsed().as_secs_f64(),
    );
    println!(
        "download count {count} seconds {took:.3} per_s {:.0} cpu_us {:.0} errors {}",
        count as f64 / took,
        used / 1e3 / count as f64,
        this.errors.get()
    );
    this.errors.get()
}
