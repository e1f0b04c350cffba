//! The list of attacks by name, and what they have in common: one connection
//! each, and a count of what came of it.
//!
//! Not for: what an attack sends.
//! Called by: `main`.

use crate::client::{Conn, Outgoing, answer, connect, send};
use crate::{calls, frames, memory, streams};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use grpc_fwd_bench::args::Args;
use http::{HeaderName, Response};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

type Seen = Rc<RefCell<BTreeMap<String, u64>>>;

/// All of them; one connection each, but `silent`.
const NAMES: [&str; 17] = [
    "half-messages",
    "results",
    "five-results",
    "batches",
    "qualifiers",
    "trees",
    "uris",
    "metadata",
    "nested",
    "checks",
    "drips",
    "uploads",
    "unread",
    "heads",
    "continuations",
    "logged",
    "silent",
];

/// Those that connect themselves.
const OWN_CONNECTION: [&str; 3] = ["unread", "continuations", "silent"];

/// What runs at once: ten connections, each with the attacks that share it and where it goes.
const STORM: [(&str, &[&str]); 10] = [
    ("--port", &["half-messages"]),
    ("--front", &["half-messages"]),
    ("--port", &["five-results"]),
    ("--port", &["batches", "qualifiers"]),
    ("--front", &["trees"]),
    ("--port", &["uris", "metadata", "nested"]),
    ("--port", &["drips", "uploads", "checks"]),
    ("--port", &["unread"]),
    ("--port", &["heads"]),
    ("--port", &["continuations"]),
];

/// One attack on one connection.
#[derive(Clone)]
pub struct Attack {
    pub port: u16,
    name: &'static str,
    conn: Option<Conn>,
    seen: Seen,
}

impl Attack {
    /// The same over another connection.
    pub fn over(&self, conn: Conn) -> Self {
        Self {
            conn: Some(conn),
            ..self.clone()
        }
    }

    /// Counts what came of something.
    pub fn saw(&self, what: String) {
        let key = format!("{}: {what}", self.name);
        *self.seen.borrow_mut().entry(key).or_default() += 1;
    }

    async fn start(
        &self,
        path: &str,
        headers: Vec<(HeaderName, String)>,
        body: Outgoing,
    ) -> Result<Response<Incoming>, String> {
        let mut conn = self.conn.clone().ok_or("no connection")?;
        self.saw("sent".into());
        send(&mut conn, path, headers, body).await
    }

    /// One call, up to the head of its answer.
    pub async fn head(&self, path: &str, body: Outgoing) -> Result<Response<Incoming>, String> {
        self.start(path, vec![], body).await
    }

    /// One call.
    pub async fn once(&self, path: &str, body: Outgoing) {
        self.once_with(path, vec![], body).await;
    }

    /// One call with more headers.
    pub async fn once_with(&self, path: &str, headers: Vec<(HeaderName, String)>, body: Outgoing) {
        let ended = match self.start(path, headers, body).await {
            Ok(head) => answer(head).await.map(|_| "grpc-status 0".to_owned()),
            Err(error) => Err(error),
        };
        self.saw(ended.unwrap_or_else(|error| error));
        // A connection that is gone must not make this a busy loop.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// The same call again and again, `at_once` at a time.
    pub async fn repeat(&self, at_once: usize, path: &str, body: &Bytes) {
        let one = async || {
            loop {
                self.once(path, Outgoing::whole(body.clone())).await;
            }
        };
        self.hold((0..at_once).map(|_| one())).await;
    }

    /// All of these at once; returns when all have ended.
    pub async fn hold<F: Future<Output = ()>>(&self, each: impl Iterator<Item = F>) {
        let mut all: FuturesUnordered<F> = each.collect();
        while all.next().await.is_some() {}
    }

    async fn run(self) {
        match self.name {
            "half-messages" => memory::half_messages(self).await,
            "results" => memory::results(self, 1).await,
            "five-results" => memory::results(self, 5).await,
            "batches" => memory::batches(self).await,
            "qualifiers" => memory::qualifiers(self).await,
            "trees" => memory::trees(self).await,
            "uris" => calls::uris(self).await,
            "metadata" => calls::metadata(self).await,
            "nested" => calls::nested(self).await,
            "checks" => calls::checks(self).await,
            "drips" => streams::drips(self).await,
            "uploads" => streams::uploads(self).await,
            "unread" => streams::unread(self).await,
            "heads" => streams::heads(self).await,
            "logged" => streams::logged(self).await,
            "continuations" => frames::continuations(self).await,
            "silent" => frames::silent(self, 260).await,
            _ => unreachable!("an attack without a beginning"),
        }
    }
}

/// Runs attacks for as long as it is told; what came of them, a line each.
pub async fn run(a: &Args) {
    let seen = Seen::default();
    let at = format!("--{}", a.text("--at").unwrap_or("port"));
    let own = [(at.as_str(), [a.command()])];
    let storm = a.command() == "storm";
    let mut tasks = vec![];
    let plan: Vec<(&str, Vec<&str>)> = if storm {
        STORM
            .iter()
            .map(|(at, names)| (*at, names.to_vec()))
            .collect()
    } else {
        own.iter()
            .map(|(at, names)| (*at, names.to_vec()))
            .collect()
    };
    for (at, names) in plan {
        let port = a.num(at, 0) as u16;
        // Those that bring their own connection need no other.
        let alone = names.iter().all(|name| OWN_CONNECTION.contains(name));
        let conn = if alone {
            None
        } else {
            connect(port).await.ok()
        };
        for name in names {
            let name = NAMES.iter().find(|known| **known == name);
            let attack = Attack {
                port,
                name: name.expect("the name of an attack"),
                conn: conn.clone(),
                seen: seen.clone(),
            };
            tasks.push(tokio::task::spawn_local(attack.run()));
        }
    }
    tokio::time::sleep(Duration::from_secs(a.num("--secs", 5))).await;
    for (what, count) in seen.borrow().iter() {
        println!("{what} {count}");
    }
}
