//! A scripted web server. It speaks HTTP/1.1 by hand, because what it is for
//! is what a proper server library refuses to do: lie about lengths, stop in
//! mid-body, never answer.

mod reply;
mod serve;

pub use reply::{Gate, Reply};

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serve::{Script, serve};
use tokio::task::JoinHandle;

use super::Pki;

/// A request as the origin saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Path and query.
    pub target: String,
    /// Names in lower case, in order of arrival.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    /// Every value of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let all = self.headers.iter().filter(|(n, _)| n == name);
        all.map(|(_, v)| v.as_str()).collect()
    }

    /// The one value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} came {} times", all.len());
        all.first().copied()
    }

    fn path(&self) -> &str {
        self.target.split(['?', '#']).next().unwrap()
    }
}

/// What to serve.
pub struct Origin {
    replies: HashMap<String, Vec<Reply>>,
    ip: &'static str,
    tls: Option<tokio_rustls::TlsAcceptor>,
}

impl Origin {
    pub fn new() -> Self {
        Self {
            replies: HashMap::new(),
            ip: "127.0.0.1",
            tls: None,
        }
    }

    /// 200 with these bytes.
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.reply(path, Reply::ok(content))
    }

    pub fn status(self, path: &str, status: u16) -> Self {
        self.reply(path, Reply::status(status))
    }

    pub fn reply(self, path: &str, reply: Reply) -> Self {
        self.replies(path, vec![reply])
    }

    /// One answer after another; the last one stays.
    pub fn replies(mut self, path: &str, replies: Vec<Reply>) -> Self {
        self.replies.insert(path.into(), replies);
        self
    }

    /// At another loopback address, which is another host.
    pub fn ip(mut self, ip: &'static str) -> Self {
        self.ip = ip;
        self
    }

    /// With a certificate of this authority.
    pub fn tls(mut self, pki: &Pki) -> Self {
        self.tls = Some(pki.acceptor("origin"));
        self
    }

    pub async fn start(self) -> Serving {
        let listener = tokio::net::TcpListener::bind((self.ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Script {
            replies: Mutex::new(self.replies),
            seen: Mutex::new(Vec::new()),
            left: Mutex::new(Vec::new()),
        });
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let task = tokio::spawn(serve(listener, script.clone(), self.tls));
        Serving {
            address,
            scheme,
            script,
            task,
        }
    }
}

/// A running origin.
pub struct Serving {
    address: SocketAddr,
    scheme: &'static str,
    script: Arc<Script>,
    task: JoinHandle<()>,
}

impl Serving {
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().unwrap().clone()
    }

    /// Requests for a path, whatever the query.
    pub fn seen_at(&self, path: &str) -> Vec<Seen> {
        let mut all = self.seen();
        all.retain(|s| s.path() == path);
        all
    }

    /// How many requests there were for a path.
    pub fn count(&self, path: &str) -> usize {
        self.seen_at(path).len()
    }

    /// How many clients left before they were answered at a path.
    pub fn left(&self, path: &str) -> usize {
        let left = self.script.left.lock().unwrap();
        left.iter().filter(|seen| seen.path() == path).count()
    }

    /// How many requests there were.
    pub fn total(&self) -> usize {
        self.script.seen.lock().unwrap().len()
    }

    /// Stops serving: connections end, new ones are refused.
    pub async fn stop(&mut self) {
        self.task.abort();
        (&mut self.task).await.ok();
    }
}
