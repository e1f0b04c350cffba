//! One peer: the client, or the upstream.
//!
//! Not for: the bytes of frames (`frames`).
//! Called by: `proxy`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{self, Block, Call, Frames, Head};

/// A peer; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Peer(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    call: Call,
    role: Role,
    frames: Frames,
    /// Encoded, to be read by the proxy.
    ready: Vec<u8>,
    /// How much of `ready` was read.
    read: usize,
    /// Bodies of which a part is still to be sent.
    bodies: VecDeque<Body>,
    /// A frame of zeros.
    zeros: Vec<u8>,
    send: Windows,
    /// Bytes received on the connection and not given back to its window.
    received: usize,
    /// The same of the streams.
    streams: Vec<(u32, usize)>,
    reader: Option<Waker>,
}

/// The windows that the proxy grants.
#[derive(Debug)]
struct Windows {
    connection: usize,
    stream: usize,
}

#[derive(Debug)]
struct Body {
    stream: u32,
    left: usize,
    window: usize,
}

#[derive(Debug)]
enum Role {
    Client(Calls),
    Upstream { head: Block, trailers: Block },
}

#[derive(Debug)]
struct Calls {
    head: Block,
    /// Not begun yet.
    left: usize,
    running: usize,
    next_stream: u32,
    broken: Option<String>,
    caller: Option<Waker>,
}

impl Peer {
    pub(crate) fn client(call: Call) -> Self {
        let role = Role::Client(Calls {
            head: frames::request(&call),
            left: 0,
            running: 0,
            next_stream: 1,
            broken: None,
            caller: None,
        });
        Self::new(call, role)
    }

    pub(crate) fn upstream(call: Call) -> Self {
        let [head, trailers] = frames::answer();
        let peer = Self::new(call, Role::Upstream { head, trailers });
        peer.0.lock().frames.preface = frames::PREFACE.len();
        peer
    }

    fn new(call: Call, role: Role) -> Self {
        let mut ready = Vec::new();
        if matches!(role, Role::Client(_)) {
            ready.extend_from_slice(frames::PREFACE);
        }
        frames::settings(&mut ready, call.frame);
        Self(Arc::new(Mutex::new(State {
            call,
            role,
            frames: Frames::default(),
            ready,
            read: 0,
            bodies: VecDeque::new(),
            zeros: vec![0; call.frame],
            send: Windows {
                connection: frames::FIRST_WINDOW,
                stream: frames::FIRST_WINDOW,
            },
            received: 0,
            streams: Vec::new(),
            reader: None,
        })))
    }

    /// Makes `count` calls, `at_once` at a time, and waits until all are answered.
    ///
    /// # Errors
    /// When the proxy resets a call or ends the connection.
    pub(crate) async fn call(&self, count: usize, at_once: usize) -> Result<(), String> {
        self.0.lock().begin(count, at_once);
        poll_fn(|cx| self.0.lock().poll_done(cx)).await
    }
}

impl State {
    fn begin(&mut self, count: usize, at_once: usize) {
        let first = count.min(at_once);
        if let Role::Client(calls) = &mut self.role {
            calls.left = count - first;
        }
        for _ in 0..first {
            self.begin_call();
        }
        self.wake_reader();
    }

    fn poll_done(&mut self, cx: &Context<'_>) -> Poll<Result<(), String>> {
        let Role::Client(calls) = &mut self.role else {
            return Poll::Ready(Err("an upstream makes no calls".to_owned()));
        };
        if let Some(broken) = calls.broken.take() {
            return Poll::Ready(Err(broken));
        }
        if calls.running == 0 && calls.left == 0 {
            return Poll::Ready(Ok(()));
        }
        calls.caller = Some(cx.waker().clone());
        Poll::Pending
    }

    fn begin_call(&mut self) {
        let Role::Client(calls) = &mut self.role else {
            return;
        };
        let stream = calls.next_stream;
        calls.next_stream += 2;
        calls.running += 1;
        let (ready, flags) = (&mut self.ready, frames::END_HEADERS);
        frames::frame(ready, frames::HEADERS, flags, stream, calls.head.take());
        self.send_body(stream, self.call.request);
    }

    fn answer(&mut self, stream: u32) {
        if let Role::Upstream { head, .. } = &mut self.role {
            let flags = frames::END_HEADERS;
            frames::frame(&mut self.ready, frames::HEADERS, flags, stream, head.take());
        }
        self.send_body(stream, self.call.response);
    }

    fn send_body(&mut self, stream: u32, left: usize) {
        let window = self.send.stream;
        self.bodies.push_back(Body {
            stream,
            left,
            window,
        });
    }

    /// Encodes the next piece of a body, if there is one that may be sent.
    fn next_data(&mut self) -> bool {
        let connection = self.send.connection;
        let may = |body: &Body| body.window > 0 && connection > 0;
        let Some(at) = self.bodies.iter().position(may) else {
            return false;
        };
        let Some(mut body) = self.bodies.remove(at) else {
            return false;
        };
        let length = body
            .left
            .min(body.window)
            .min(connection)
            .min(self.call.frame);
        body.left -= length;
        body.window -= length;
        self.send.connection -= length;
        let last = body.left == 0;
        let flags = match self.role {
            Role::Client(_) if last => frames::END_STREAM,
            _ => 0,
        };
        let payload = &self.zeros[..length];
        frames::frame(&mut self.ready, frames::DATA, flags, body.stream, payload);
        if !last {
            self.bodies.push_back(body);
        } else if let Role::Upstream { trailers, .. } = &mut self.role {
            let flags = frames::END_HEADERS | frames::END_STREAM;
            let block = trailers.take();
            frames::frame(&mut self.ready, frames::HEADERS, flags, body.stream, block);
        }
        true
    }

    /// Reads what the proxy wrote.
    fn hear(&mut self, mut bytes: &[u8]) {
        let mut frames = std::mem::take(&mut self.frames);
        while let Some((head, payload)) = frames.next(&mut bytes) {
            self.hear_frame(head, payload);
        }
        self.frames = frames;
        if self.anything_to_read() {
            self.wake_reader();
        }
    }

    fn hear_frame(&mut self, head: Head, payload: &[u8]) {
        match head.kind {
            frames::DATA => self.take_data(head),
            frames::SETTINGS if !head.has(frames::ACK) => {
                for (id, value) in frames::each_setting(payload) {
                    if id == frames::INITIAL_WINDOW_SIZE {
                        let more = (value as usize).saturating_sub(self.send.stream);
                        self.send.stream += more;
                        for body in &mut self.bodies {
                            body.window += more;
                        }
                    }
                }
                frames::frame(&mut self.ready, frames::SETTINGS, frames::ACK, 0, &[]);
            }
            frames::PING if !head.has(frames::ACK) => {
                frames::frame(&mut self.ready, frames::PING, frames::ACK, 0, payload);
            }
            frames::WINDOW_UPDATE => {
                let by = payload
                    .iter()
                    .fold(0, |by, byte| by << 8 | usize::from(*byte));
                let same = |body: &&mut Body| body.stream == head.stream;
                if head.stream == 0 {
                    self.send.connection += by;
                } else if let Some(body) = self.bodies.iter_mut().find(same) {
                    body.window += by;
                }
            }
            frames::RST_STREAM | frames::GOAWAY => self.broken(head, payload),
            _ => {}
        }
        if matches!(head.kind, frames::DATA | frames::HEADERS) && head.has(frames::END_STREAM) {
            self.end(head.stream);
        }
    }

    /// Gives windows back once half of one is used up, as most peers do.
    fn take_data(&mut self, head: Head) {
        self.received += head.length;
        if self.received >= frames::WINDOW / 2 {
            frames::window_update(&mut self.ready, 0, self.received);
            self.received = 0;
        }
        let known = self.streams.iter_mut().find(|(id, _)| *id == head.stream);
        let Some((_, received)) = known else {
            self.streams.push((head.stream, head.length));
            return;
        };
        *received += head.length;
        if *received >= frames::WINDOW / 2 && !head.has(frames::END_STREAM) {
            frames::window_update(&mut self.ready, head.stream, *received);
            *received = 0;
        }
    }

    fn end(&mut self, stream: u32) {
        self.streams.retain(|(id, _)| *id != stream);
        let Role::Client(calls) = &mut self.role else {
            self.answer(stream);
            return;
        };
        calls.running -= 1;
        if calls.left > 0 {
            calls.left -= 1;
            self.begin_call();
        } else if calls.running == 0 {
            calls.wake();
        }
    }

    fn broken(&mut self, head: Head, payload: &[u8]) {
        if let Role::Client(calls) = &mut self.role {
            calls.broken = Some(format!(
                "the proxy broke off: {head:?}, {}",
                payload.escape_ascii()
            ));
            calls.wake();
        }
    }

    fn anything_to_read(&self) -> bool {
        self.read < self.ready.len()
            || (self.send.connection > 0 && self.bodies.iter().any(|body| body.window > 0))
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn read(&mut self, out: &mut ReadBuf<'_>) {
        while out.remaining() > 0 {
            if self.read == self.ready.len() {
                self.ready.clear();
                self.read = 0;
                if !self.next_data() {
                    return;
                }
            }
            let rest = &self.ready[self.read..];
            let length = rest.len().min(out.remaining());
            out.put_slice(&rest[..length]);
            self.read += length;
        }
    }
}

impl Calls {
    fn wake(&mut self) {
        if let Some(caller) = self.caller.take() {
            caller.wake();
        }
    }
}

impl AsyncRead for Peer {
    #[inline(never)]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if !state.anything_to_read() {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.read(out);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    #[inline(never)]
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().hear(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    #[inline(never)]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        for slice in slices {
            state.hear(slice);
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
