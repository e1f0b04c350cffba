//! The counts of one thread, and the calls that are counted there.
//!
//! # Why per thread
//! A counter that threads share is a cache line that they take from each
//! other, twice per call. These lines are only written by the thread they
//! belong to, and read when somebody wants to see the sums (`observer`).
//! Counting stays exact wherever a call ends, as the counters are atomic.
//!
//! Not for: names of metrics (`observer`).
//! Called by: `forward` starts calls, `forward::body` ends them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use http::{HeaderMap, HeaderName};
use tonic::Code;

use super::methods::Methods;

/// How many codes there are.
pub(super) const CODES: usize = 17;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What a thread has counted. Alone on its cache lines (processors fetch them
/// in pairs), and so are the reference counts before it.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Tally {
    methods: Arc<Methods>,
    /// By number of method.
    rows: Box<[Row]>,
}

/// The counts of one method.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Row {
    started: AtomicU64,
    /// By number of code.
    handled: [AtomicU64; CODES],
}

/// What was counted of one method until some moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) started: u64,
    pub(super) handled: [u64; CODES],
}

impl Tally {
    pub(super) fn new(methods: Arc<Methods>) -> Self {
        let rows = methods.all().iter().map(|_| Row::default()).collect();
        Self { methods, rows }
    }

    /// Counts a call that begins.
    pub(super) fn start(self: &Arc<Self>, path: &str) -> Call {
        let method = self.methods.find(path);
        self.rows[usize::from(method)].started.fetch_add(1, Relaxed);
        Call {
            tally: Arc::clone(self),
            method,
            ended: false,
        }
    }

    /// The counts of every method, in the order of their numbers. No call is
    /// seen to have ended that is not seen to have begun.
    pub(super) fn read(&self) -> impl Iterator<Item = Counts> {
        self.rows.iter().map(|row| Counts {
            handled: std::array::from_fn(|code| row.handled[code].load(Acquire)),
            started: row.started.load(Relaxed),
        })
    }
}

/// One call; it was cancelled if it is dropped before it ended.
#[derive(Debug)]
pub struct Call {
    tally: Arc<Tally>,
    method: u16,
    ended: bool,
}

impl Call {
    /// The head of the answer, which holds the status if there is nothing else.
    pub(super) fn head(&mut self, headers: &HeaderMap) {
        if headers.contains_key(&GRPC_STATUS) {
            self.trailers(headers);
        }
    }

    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        self.end(match trailers.get(&GRPC_STATUS) {
            Some(code) => Code::from_bytes(code.as_bytes()),
            None => Code::Unknown,
        });
    }

    pub(super) fn end(&mut self, code: Code) {
        if !self.ended {
            self.ended = true;
            let row = &self.tally.rows[usize::from(self.method)];
            // Released after the call's own start; see `Tally::read`.
            row.handled[code as usize].fetch_add(1, Release);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses of the first and the last byte of something.
    fn span<T: ?Sized>(of: &T) -> (usize, usize) {
        let start = std::ptr::from_ref(of).cast::<u8>().addr();
        (start, start + size_of_val(of) - 1)
    }

    #[test]
    fn two_threads_counts_share_no_cache_line() {
        let methods = Arc::new(Methods::vendored());
        let tallies: Vec<_> = (0..8)
            .map(|_| Arc::new(Tally::new(Arc::clone(&methods))))
            .collect();
        let mut lines = std::collections::HashMap::new();
        for (thread, tally) in tallies.iter().enumerate() {
            // With the reference counts, which stand before the tally.
            let (start, end) = span(&**tally);
            for (start, end) in [(start - 2 * size_of::<usize>(), end), span(&*tally.rows)] {
                for line in start / 128..=end / 128 {
                    assert_eq!(*lines.entry(line).or_insert(thread), thread);
                }
            }
        }
        assert_eq!(span(&tallies[0].rows[1]).0 % 128, 0);
    }

    #[test]
    fn a_call_counts_once_whatever_happens_to_it() {
        let tally = Arc::new(Tally::new(Arc::new(Methods::vendored())));
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "5".parse().unwrap());
        let mut call = tally.start("/a/b");
        call.head(&HeaderMap::new());
        call.trailers(&trailers);
        call.end(Code::Unknown);
        drop(call);
        let mut cut_off = tally.start("/a/b");
        cut_off.trailers(&HeaderMap::new());
        drop(tally.start("/a/b"));

        let other = tally.read().next().unwrap();
        assert_eq!(other.started, 3);
        let mut expected = [0; CODES];
        for code in [Code::NotFound, Code::Unknown, Code::Cancelled] {
            expected[code as usize] = 1;
        }
        assert_eq!(other.handled, expected);
    }

    #[test]
    fn nothing_is_lost_and_nothing_ends_before_it_began() {
        const CALLS: u64 = 300_000;
        // Its count is read last, so that there is time for things to happen.
        const LAST: Code = Code::Unauthenticated;
        let tally = Arc::new(Tally::new(Arc::new(Methods::vendored())));
        let together = std::sync::Barrier::new(3);
        let done = AtomicU64::new(0);
        let counts = || tally.read().next().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    together.wait();
                    for _ in 0..CALLS {
                        tally.start("").end(LAST);
                    }
                    done.fetch_add(1, Relaxed);
                });
            }
            together.wait();
            while done.load(Relaxed) < 2 {
                let now = counts();
                let ended = now.handled[LAST as usize];
                assert!(ended <= now.started, "{ended} of {}", now.started);
            }
        });
        assert_eq!(counts().started, 2 * CALLS);
        assert_eq!(counts().handled[LAST as usize], 2 * CALLS);
    }
}
