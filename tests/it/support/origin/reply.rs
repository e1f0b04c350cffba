//! One scripted answer.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

/// Holds answers back until it is opened.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub fn open(&self) {
        self.0.close();
    }

    pub(super) async fn opened(&self) {
        self.0.acquire().await.map(drop).ok();
    }
}

/// How the body's end is told.
#[derive(Clone, Copy)]
pub(super) enum Framing {
    Length,
    Declared(u64),
    Chunked,
    UntilClose,
    /// There is none.
    NoBody,
}

/// What to answer.
#[derive(Clone)]
pub struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    pub(super) framing: Framing,
    pub(super) cut: Option<usize>,
    pub(super) head_gate: Option<Gate>,
    pub(super) body_gate: Option<(usize, Gate)>,
    pub(super) ranges: bool,
    pub(super) times: usize,
    pub(super) raw: bool,
    pub(super) conditions: bool,
}

impl Reply {
    fn new(status: u16, body: Bytes) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
            framing: Framing::Length,
            cut: None,
            head_gate: None,
            body_gate: None,
            ranges: false,
            times: 1,
            raw: false,
            conditions: false,
        }
    }

    pub fn ok(content: impl AsRef<[u8]>) -> Self {
        Self::new(200, Bytes::copy_from_slice(content.as_ref()))
    }

    /// A status with a small page for people.
    pub fn status(status: u16) -> Self {
        Self::new(status, Bytes::from_static(b"<html>an error page</html>"))
    }

    pub fn redirect(to: &str) -> Self {
        Self::status(302).header("Location", to)
    }

    /// 304, whatever was asked.
    pub fn not_modified() -> Self {
        Self::new(304, Bytes::new()).without_body()
    }

    pub(super) fn without_body(mut self) -> Self {
        self.status = 304;
        self.body = Bytes::new();
        self.framing = Framing::NoBody;
        self
    }

    /// Never answers.
    pub fn silence() -> Self {
        Self::status(200).gated(&Gate::new())
    }

    /// Closes the connection in place of an answer.
    pub fn hang_up() -> Self {
        Self::raw("")
    }

    /// These bytes, which need be no answer, and then the end.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        let mut reply = Self::ok(bytes);
        reply.raw = true;
        reply
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Without `Content-Length`, in chunks.
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Without `Content-Length`, ended by closing the connection.
    pub fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self
    }

    /// With a `Content-Length` that is not the body's.
    pub fn declaring(mut self, length: u64) -> Self {
        self.framing = Framing::Declared(length);
        self
    }

    /// Closes the connection after this much of the body.
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    /// Answers nothing before the gate opens.
    pub fn gated(mut self, gate: &Gate) -> Self {
        self.head_gate = Some(gate.clone());
        self
    }

    /// Stops after this much of the body until the gate opens.
    pub fn gated_after(mut self, bytes: usize, gate: &Gate) -> Self {
        self.body_gate = Some((bytes, gate.clone()));
        self
    }

    /// The body so many times over.
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Honours `If-None-Match` and `If-Modified-Since`.
    pub fn conditional(mut self) -> Self {
        self.conditions = true;
        self
    }

    /// Honours `Range`.
    pub fn ranged(mut self) -> Self {
        self.ranges = true;
        self
    }
}
