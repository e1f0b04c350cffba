//! One client among others: what it waits, and whether its answers are right.
//!
//! Calls are made by a timetable, whether or not those before were answered,
//! and each is timed from when it was due: one that hangs costs as many
//! samples as it would cost callers.
//! Not for: load; it keeps a core a few percent busy.
//! Called by: `main`.

use crate::client::{Conn, Outgoing, call, connect, read};
use crate::stored::{FETCH_BLOB, GET_RESULT, HIT, blob, fetch, get_result, hash, result};
use bytes::Bytes;
use grpc_fwd_bench::args::Args;
use grpc_fwd_bench::process::cpu_ns;
use grpc_fwd_bench::wire;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// For how long an answer is waited for that is late.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Hit,
    Forwarded,
    Read,
}

/// One kind of call: where it goes, and what came of it.
struct Caller {
    kind: Kind,
    port: u16,
    /// The connection that all calls share; none: one each.
    conn: Option<Conn>,
    content: Bytes,
    micros: RefCell<Vec<u64>>,
    wrong: RefCell<Vec<String>>,
}

impl Caller {
    async fn right(&self, conn: &mut Conn) -> Result<(), String> {
        let name = || format!("{}/{}", hash(&self.content), self.content.len());
        let good = match self.kind {
            Kind::Hit => {
                let answer = call(conn, FETCH_BLOB, Outgoing::whole(fetch(HIT))).await?;
                wire::fetched(&answer)? == name()
            }
            Kind::Forwarded => {
                let body = Outgoing::whole(get_result("bystander"));
                call(conn, GET_RESULT, body).await? == result()
            }
            Kind::Read => read(conn, &format!("blobs/{}", name())).await? == self.content,
        };
        if good {
            return Ok(());
        }
        Err("another answer than the right one".into())
    }

    async fn one(&self, due: Instant) {
        let whole = async {
            let mut conn = match &self.conn {
                Some(conn) => conn.clone(),
                None => connect(self.port).await?,
            };
            self.right(&mut conn).await
        };
        let ended = tokio::time::timeout(PATIENCE, whole).await;
        self.micros
            .borrow_mut()
            .push(due.elapsed().as_micros() as u64);
        if let Err(error) = ended.unwrap_or_else(|_| Err("no answer".into())) {
            self.wrong.borrow_mut().push(error);
        }
    }

    async fn all(self: Rc<Self>, every: Duration, until: Instant) {
        let mut calls = vec![];
        let mut due = Instant::now();
        while due < until {
            tokio::time::sleep_until(due.into()).await;
            let this = self.clone();
            // The timer's grain is 1 ms.
            let from = Instant::now();
            let from = if from - due > Duration::from_millis(3) {
                due
            } else {
                from
            };
            calls.push(tokio::task::spawn_local(
                async move { this.one(from).await },
            ));
            due += every;
        }
        for call in calls {
            let _ = call.await;
        }
    }

    /// ` NAME_p50_us N NAME_p99_us N NAME_max_us N NAME_calls N`.
    fn told(&self, name: &str) -> String {
        let mut micros = self.micros.borrow_mut();
        micros.sort_unstable();
        let at = |share: f64| {
            let index = (micros.len() as f64 * share) as usize;
            micros
                .get(index.min(micros.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0)
        };
        format!(
            " {name}_p50_us {} {name}_p99_us {} {name}_max_us {} {name}_calls {}",
            at(0.5),
            at(0.99),
            at(1.0),
            micros.len()
        )
    }
}

const CALLS: [(Kind, &str, &str, u64); 3] = [
    (Kind::Hit, "hit", "--port", 10),
    (Kind::Forwarded, "forwarded", "--front", 10),
    (Kind::Read, "read", "--port", 50),
];

pub async fn bystander(a: &Args) -> Result<(), String> {
    let pids = a.pids();
    let fresh = a.num("--fresh", 0) == 1;
    let content = blob();
    let mut callers = vec![];
    for (kind, _, at, _) in CALLS {
        let port = a.num(at, 0) as u16;
        let conn = if fresh {
            None
        } else {
            Some(connect(port).await?)
        };
        callers.push(Rc::new(Caller {
            kind,
            port,
            conn,
            content: content.clone(),
            micros: RefCell::default(),
            wrong: RefCell::default(),
        }));
    }
    let (began, before) = (Instant::now(), cpu_ns(&pids));
    let until = began + Duration::from_secs(a.num("--secs", 5));
    let mut tasks = vec![];
    for (caller, (.., every)) in callers.iter().zip(CALLS) {
        let every = Duration::from_millis(every);
        tasks.push(tokio::task::spawn_local(caller.clone().all(every, until)));
    }
    tokio::time::sleep_until(until.into()).await;
    let share = (cpu_ns(&pids) - before) as f64 / began.elapsed().as_nanos() as f64;
    for task in tasks {
        let _ = task.await;
    }
    let mut wrong = 0;
    let mut line = format!("bystander busy_percent {:.0}", share * 100.0);
    for (caller, (_, name, ..)) in callers.iter().zip(CALLS) {
        line += &caller.told(name);
        wrong += caller.wrong.borrow().len();
        for error in caller.wrong.borrow().iter().take(3) {
            eprintln!("{name}: {error}");
        }
    }
    println!("{line} wrong {wrong}");
    if wrong > 0 {
        return Err(format!("{wrong} calls were not answered rightly"));
    }
    Ok(())
}
