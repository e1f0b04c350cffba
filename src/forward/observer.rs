//! Sums up what the threads counted and shows it under the names of the gRPC
//! ecosystem: `grpc_server_started_total`, `grpc_server_handled_total`.
//!
//! There is no histogram: reading the clock and recording would cost the hot
//! path more than counting does.
//!
//! Not for: calls we answer ourselves (`middleware`), counting (`tally`).
//! Called by: `forward` for every thread; `server::run` before metrics are
//! shown.

use std::sync::Arc;

use parking_lot::Mutex;

use super::methods::{Method, Methods};
use super::tally::{CODES, Counts, Tally};

/// The codes, in order of their numbers.
const CODE_NAMES: [&str; CODES] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Counts forwarded calls; share one among all threads.
#[derive(Debug)]
pub struct Observer {
    methods: Arc<Methods>,
    threads: Mutex<Vec<Thread>>,
}

/// The counts of one thread, and how much of them is in the metrics.
#[derive(Debug)]
struct Thread {
    tally: Arc<Tally>,
    shown: Vec<Counts>,
}

impl Default for Observer {
    fn default() -> Self {
        Self {
            methods: Arc::new(Methods::vendored()),
            threads: Mutex::default(),
        }
    }
}

impl Observer {
    /// Where a new thread counts its calls.
    pub(super) fn tally(&self) -> Arc<Tally> {
        let tally = Arc::new(Tally::new(Arc::clone(&self.methods)));
        self.threads.lock().push(Thread {
            tally: Arc::clone(&tally),
            shown: vec![Counts::default(); self.methods.all().len()],
        });
        tally
    }

    /// Brings the metrics up to date with what the threads have counted. To be
    /// called before metrics are shown; calls cost nothing by it.
    pub fn fold(&self) {
        self.threads.lock().retain_mut(|thread| {
            // Asked first: who is alone now finds all that will ever be there.
            let ended = Arc::get_mut(&mut thread.tally).is_some();
            let methods = self.methods.all().iter().zip(&mut thread.shown);
            for ((method, shown), now) in methods.zip(thread.tally.read()) {
                show(method, *shown, now);
                *shown = now;
            }
            !ended
        });
    }
}

/// Adds what is new. Added rather than set: other servers in the same process
/// count under the same names.
fn show(method: &Method, shown: Counts, now: Counts) {
    if now.started > shown.started {
        metrics::counter!(
            "grpc_server_started_total",
            "grpc_service" => method.service.clone(),
            "grpc_method" => method.name.clone(),
            "grpc_type" => method.kind,
        )
        .increment(now.started - shown.started);
    }
    for (code, name) in CODE_NAMES.into_iter().enumerate() {
        if now.handled[code] > shown.handled[code] {
            metrics::counter!(
                "grpc_server_handled_total",
                "grpc_service" => method.service.clone(),
                "grpc_method" => method.name.clone(),
                "grpc_type" => method.kind,
                "grpc_code" => name,
            )
            .increment(now.handled[code] - shown.handled[code]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use http::HeaderMap;
    use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
    use tonic::Code;

    use super::*;

    const READ: &str = "/google.bytestream.ByteStream/Read";
    const LABELS: &str = r#"grpc_service="google.bytestream.ByteStream",grpc_method="Read",grpc_type="server_stream""#;

    fn shown(observer: &Observer, recorder: &PrometheusRecorder) -> String {
        metrics::with_local_recorder(recorder, || observer.fold());
        let text = recorder.handle().render();
        // Sorted, as it comes in another order each time.
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    /// The value of a series, 0 when there is none.
    fn value(text: &str, series: &str) -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    fn started(text: &str) -> u64 {
        value(text, &format!("grpc_server_started_total{{{LABELS}}}"))
    }

    fn handled(text: &str, code: &str) -> u64 {
        let series = format!("grpc_server_handled_total{{{LABELS},grpc_code=\"{code}\"}}");
        value(text, &series)
    }

    #[test]
    fn labels_come_from_the_definitions_and_outcomes_from_the_answer() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let observer = Observer::default();
        assert_eq!(shown(&observer, &recorder), "", "no series without a call");
        let tally = observer.tally();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "5".parse().unwrap());
        tally.start(READ).trailers(&trailers);
        tally.start(READ).end(Code::Ok);
        drop(tally.start(READ));
        tally.start("/made.Up/Name").head(&trailers);
        drop(tally.start("/made.Up/Other"));

        let text = shown(&observer, &recorder);
        for line in [
            format!("grpc_server_started_total{{{LABELS}}} 3"),
            format!("grpc_server_handled_total{{{LABELS},grpc_code=\"NotFound\"}} 1"),
            format!("grpc_server_handled_total{{{LABELS},grpc_code=\"OK\"}} 1"),
            format!("grpc_server_handled_total{{{LABELS},grpc_code=\"Canceled\"}} 1"),
            r#"grpc_server_started_total{grpc_service="other",grpc_method="other",grpc_type="other"} 2"#.into(),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("made"), "{text}");
        assert!(text.lines().all(|line| !line.ends_with(" 0")), "{text}");
        assert_eq!(shown(&observer, &recorder), text, "nothing counts twice");
    }

    #[test]
    fn threads_that_ended_keep_their_counts_and_nothing_else() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let observer = Observer::default();
        let (ends, stays) = (observer.tally(), observer.tally());
        ends.start(READ).end(Code::Ok);
        stays.start(READ).end(Code::Ok);
        let late = ends.start(READ);
        drop(ends);
        assert_eq!(handled(&shown(&observer, &recorder), "OK"), 2);
        assert_eq!(observer.threads.lock().len(), 2, "a call of it still runs");
        drop(late);
        let text = shown(&observer, &recorder);
        assert_eq!((started(&text), handled(&text, "Canceled")), (3, 1));
        assert_eq!(observer.threads.lock().len(), 1);
        assert_eq!(shown(&observer, &recorder), text);
    }

    #[test]
    fn other_servers_in_the_process_count_under_the_same_names() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let (one, two) = (Observer::default(), Observer::default());
        one.tally().start(READ).end(Code::Ok);
        two.tally().start(READ).end(Code::Ok);
        shown(&one, &recorder);
        assert_eq!(handled(&shown(&two, &recorder), "OK"), 2);
    }

    #[test]
    fn what_is_shown_under_load_only_grows_and_ends_exact() {
        const THREADS: u64 = 4;
        const CALLS: u64 = 50_000;
        let recorder = PrometheusBuilder::new().build_recorder();
        let observer = Observer::default();
        let shared = observer.tally();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let (mut before, mut rounds) = ([0; 3], 0);
                while !done.load(Relaxed) || rounds < 10 {
                    let text = shown(&observer, &recorder);
                    let codes = ["OK", "Canceled"].map(|code| handled(&text, code));
                    let now = [started(&text), codes[0], codes[1]];
                    assert!(now.iter().zip(before).all(|(now, before)| *now >= before));
                    assert!(now[0] >= now[1] + now[2], "more ended than began: {now:?}");
                    (before, rounds) = (now, rounds + 1);
                }
            });
            let work = |_| {
                scope.spawn(|| {
                    let own = observer.tally();
                    for _ in 0..CALLS {
                        own.start(READ).end(Code::Ok);
                        // As if it ended on another thread.
                        drop(shared.start(READ));
                    }
                })
            };
            let threads: Vec<_> = (0..THREADS).map(work).collect();
            for thread in threads {
                thread.join().unwrap();
            }
            done.store(true, Relaxed);
            watch.join().unwrap();
        });
        let text = shown(&observer, &recorder);
        assert_eq!(started(&text), 2 * THREADS * CALLS);
        assert_eq!(handled(&text, "OK"), THREADS * CALLS);
        assert_eq!(handled(&text, "Canceled"), THREADS * CALLS);
    }

    #[test]
    fn every_code_has_its_name() {
        assert_eq!(CODE_NAMES[Code::Unavailable as usize], "Unavailable");
        assert_eq!(
            CODE_NAMES[Code::Unauthenticated as usize],
            "Unauthenticated"
        );
        assert_eq!(CODE_NAMES[Code::Cancelled as usize], "Canceled");
    }
}
