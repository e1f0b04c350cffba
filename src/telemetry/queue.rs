//! Output that never makes whoever writes wait: lines go into a bounded queue,
//! and a thread of its own takes them to where they belong.
//!
//! A pipe that nobody reads is full after 64 KiB, and a write to it blocks; on
//! a listener thread it would stop every connection there. What does not fit
//! is dropped and counted, and a line says how much once it flows again.
//! (`tracing-appender` counts lines rather than bytes, and tells nobody.)
//!
//! Not for: what lines look like (`log`).
//! Called by: `log`, `cli::serve`.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait at most; as much again may be on its way out.
const CAPACITY: usize = 4 << 20;

/// How long the end of the process waits for what is queued.
const FLUSH: Duration = Duration::from_secs(1);

/// Where lines are put. Clones put them into the same queue.
#[derive(Debug, Clone)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or nothing more will come.
    changed: Condvar,
    /// All of it was written.
    empty: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    writing: bool,
    /// Lines left out and not told yet.
    dropped: u64,
    closed: bool,
}

/// What is queued is written when this is dropped, if that takes no longer
/// than a second.
#[derive(Debug)]
#[must_use = "what is queued is lost otherwise"]
pub struct Flush(Queue);

impl Flush {
    /// Puts in one line more, as it is.
    pub fn say(&self, line: &str) {
        self.0.put(format!("{line}\n").as_bytes());
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.close(FLUSH);
    }
}

/// Starts a thread that writes to `out`. Whenever lines were left out, it calls
/// `told` with their number, which may put in a line about it.
///
/// # Errors
/// When there is no thread to be had.
pub(super) fn start(
    out: impl Write + Send + 'static,
    told: impl Fn(u64) + Send + 'static,
) -> io::Result<(Queue, Flush)> {
    let queue = Queue(Arc::default());
    let shared = Arc::clone(&queue.0);
    std::thread::Builder::new()
        .name("output".to_owned())
        .spawn(move || shared.write_all(out, told))?;
    Ok((queue.clone(), Flush(queue)))
}

impl Queue {
    fn put(&self, line: &[u8]) {
        let mut state = self.0.state.lock();
        if state.waiting.len() + line.len() > CAPACITY {
            state.dropped += 1;
            drop(state);
            metrics::counter!("assetgate_log_lines_dropped_total").increment(1);
            return;
        }
        state.waiting.extend_from_slice(line);
        drop(state);
        self.0.changed.notify_one();
    }

    fn close(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let mut state = self.0.state.lock();
        state.closed = true;
        self.0.changed.notify_one();
        while !state.waiting.is_empty() || state.writing {
            if self
                .0
                .empty
                .wait_until(&mut state, end.into_std())
                .timed_out()
            {
                return;
            }
        }
    }
}

impl Shared {
    /// Writes until nothing more will come.
    fn write_all(&self, mut out: impl Write, told: impl Fn(u64)) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.state.lock();
            while state.waiting.is_empty() {
                state.writing = false;
                self.empty.notify_all();
                if state.closed {
                    return;
                }
                self.changed.wait(&mut state);
            }
            state.writing = true;
            // The buffers change places: neither is made anew.
            std::mem::swap(&mut lines, &mut state.waiting);
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);
            // When nobody can be told, there is nobody to tell.
            drop(out.write_all(&lines).and_then(|()| out.flush()));
            lines.clear();
            if dropped > 0 {
                told(dropped);
            }
        }
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Queue;

    fn make_writer(&'a self) -> &'a Queue {
        self
    }
}

/// A write is a whole line, or several.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes what it is given once it may.
    struct Gated {
        may: mpsc::Receiver<()>,
        out: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once the other end is gone it always may.
            let _ = self.may.recv();
            self.out.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Gated, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (open, may) = mpsc::channel();
        let out = Arc::default();
        let gated = Gated {
            may,
            out: Arc::clone(&out),
        };
        (gated, open, out)
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_told_and_the_rest_comes_out() {
        let (stuck, open, out) = gated();
        let (tell, told) = mpsc::channel();
        let (queue, flush) = start(stuck, move |dropped| tell.send(dropped).unwrap()).unwrap();
        let line = [b'x'; 1 << 10];
        // Twice the capacity may be under way: the first part is being written.
        let sent = 3 * CAPACITY / line.len();
        let started = Instant::now();
        for _ in 0..sent {
            (&queue).write_all(&line).unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(5));
        drop(open);
        drop(flush);
        let dropped: u64 = told.try_iter().sum();
        let written = out.lock().len() / line.len();
        assert!(dropped > 0 && written >= CAPACITY / line.len());
        assert_eq!(written + usize::try_from(dropped).unwrap(), sent);
    }

    #[test]
    fn the_end_waits_for_what_is_queued_but_not_for_ever() {
        let (stuck, open, out) = gated();
        let (queue, flush) = start(stuck, |_| ()).unwrap();
        (&queue).write_all(b"last\n").unwrap();
        let started = Instant::now();
        drop(flush);
        assert!(started.elapsed() >= FLUSH / 2 && started.elapsed() < FLUSH * 5);
        assert!(out.lock().is_empty());
        drop(open);
        queue.close(FLUSH);
        assert_eq!(*out.lock(), b"last\n");
    }
}
