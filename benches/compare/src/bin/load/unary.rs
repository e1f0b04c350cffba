//! Unary calls: latency and CPU, closed loop or at a pace.
//!
//! Not for: the most calls per second; that is h2load.
//! Called by: `main`.

use crate::client::{Conn, call, connect_all, connect_how, message, one, request};
use bytes::Bytes;
use grpc_fwd_bench::args::Args;
use grpc_fwd_bench::process::{cpu_ns, rss_kib};
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// One call, within 5 s.
pub async fn once(a: &Args) {
    let attempt = async {
        let (mut conn, how) = connect_how(a).await;
        let good = matches!(
            call(&mut conn, request(a, "GetActionResult", one(message(100)))).await,
            Ok((_, true))
        );
        println!("call {} tls {how}", if good { "ok" } else { "failed" });
    };
    if tokio::time::timeout(Duration::from_secs(5), attempt)
        .await
        .is_err()
    {
        println!("call hung");
    }
}

/// What all callers of a run share.
struct Callers {
    a: Rc<Args>,
    method: String,
    message: Bytes,
    streams: u64,
    /// Calls per second of all callers together; 0 is a closed loop.
    rate: u64,
    began: Instant,
    from: Instant,
    until: Instant,
    seen: RefCell<Histogram<u64>>,
    errors: Cell<u64>,
}

impl Callers {
    fn new(a: Rc<Args>) -> Self {
        let began = Instant::now();
        let from = began + Duration::from_millis(a.num("--warm-ms", 500));
        Self {
            method: a.text("--method").unwrap_or("GetActionResult").to_string(),
            message: message(a.num("--req", 100) as usize),
            streams: a.num("--streams", 10),
            rate: a.num("--rate", 0),
            began,
            from,
            until: from + Duration::from_secs(a.num("--secs", 5)),
            seen: RefCell::new(Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds")),
            errors: Cell::new(0),
            a,
        }
    }

    fn gap(&self) -> Duration {
        match self.rate {
            0 => Duration::ZERO,
            rate => Duration::from_nanos(1_000_000_000 * self.streams / rate),
        }
    }

    /// Closed loop, or with a pace each caller keeps its own timetable and
    /// latency counts from the time the call was due.
    async fn run(&self, i: u64, mut conn: Conn) {
        let mut due = self.began + self.gap().mul_f64(i as f64 / self.streams as f64);
        while Instant::now() < self.until {
            if self.rate > 0 {
                tokio::time::sleep_until(due.into()).await;
            }
            // Timer wheel grain is 1 ms: count from the wake-up when it is late by less.
            let late = self.rate > 0 && due.elapsed() > Duration::from_millis(3);
            let start = if late { due } else { Instant::now() };
            let result = call(
                &mut conn,
                request(&self.a, &self.method, one(self.message.clone())),
            )
            .await;
            let now = Instant::now();
            if !matches!(result, Ok((_, true))) {
                self.errors.set(self.errors.get() + 1);
                if self.errors.get() > 1000 {
                    return;
                }
            } else if now >= self.from && now < self.until {
                self.seen
                    .borrow_mut()
                    .saturating_record((now - start).as_nanos() as u64 / 100);
            }
            due += self.gap();
        }
    }
}

pub async fn unary(a: Rc<Args>) {
    let conns = connect_all(&a, 1).await;
    let pids = a.pids();
    let callers = Rc::new(Callers::new(a.clone()));
    let mut tasks = vec![];
    for i in 0..callers.streams {
        let (callers, conn) = (callers.clone(), conns[i as usize % conns.len()].clone());
        tasks.push(tokio::task::spawn_local(async move {
            callers.run(i, conn).await
        }));
    }
    tokio::time::sleep_until(callers.from.into()).await;
    let before = cpu_ns(&pids);
    tokio::time::sleep_until(callers.until.into()).await;
    let used = (cpu_ns(&pids) - before) as f64;
    for t in tasks {
        let _ = tokio::time::timeout(Duration::from_secs(5), t).await;
    }
    let secs = (callers.until - callers.from).as_secs_f64();
    let h = callers.seen.borrow();
    let us = |q: f64| h.value_at_quantile(q) as f64 / 10.0;
    println!(
        "unary method {} conns {} streams {} rps {:.0} p50_us {:.1} p90_us {:.1} p99_us {:.1} p999_us {:.1} cpu_us_per_req {:.2} cpu_pct {:.0} rss_mib {:.1} errors {}",
        callers.method,
        conns.len(),
        callers.streams,
        h.len() as f64 / secs,
        us(0.5),
        us(0.9),
        us(0.99),
        us(0.999),
        used / 1e3 / (h.len().max(1) as f64),
        used / 1e7 / secs,
        rss_kib(&pids) as f64 / 1024.0,
        callers.errors.get()
    );
}
