//! The metrics of native calls. Each thread looks a series up once, and from
//! then on holds it: labels need not be put together and found again for every
//! call.
//!
//! Not for: when a call has ended, and how (`observe.rs`).

use std::cell::RefCell;
use std::collections::HashMap;

use metrics::{Counter, Histogram};
use tonic::Code;

use super::methods::Method;
use crate::telemetry::Metrics;

/// What of an ended asset call stands in labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Asset {
    pub(super) rpc: &'static str,
    /// That inside an OK answer, if there is one.
    pub(super) code: &'static str,
    pub(super) outcome: &'static str,
}

/// By the address of the method, of which there is one each; and what else
/// tells series apart. All of it are names, of which there are few.
#[derive(Default)]
struct Known {
    started: HashMap<usize, Counter>,
    ended: HashMap<(usize, i32, Option<Asset>), Ended>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// Counts a call that begins.
pub(super) fn started(method: &'static Method) {
    let count = |counter: &Counter| counter.increment(1);
    with_known(|known| match known {
        Some(known) => count(
            known
                .started
                .entry(address(method))
                .or_insert_with(|| started_counter(method)),
        ),
        None => count(&started_counter(method)),
    });
}

/// Counts a call that ended, and how long it took.
pub(super) fn ended(method: &'static Method, code: Code, asset: Option<Asset>, seconds: f64) {
    with_known(|known| match known {
        Some(known) => known
            .ended
            .entry((address(method), code as i32, asset))
            .or_insert_with(|| Ended::new(method, code, asset))
            .record(seconds),
        None => Ended::new(method, code, asset).record(seconds),
    });
}

/// Nothing is held before there is something that records: it would be held
/// for ever and lead nowhere.
fn with_known(count: impl Fn(Option<&mut Known>)) {
    if Metrics::are_installed() {
        // Fails only where the thread is ending, or a recorder counted calls.
        let counted = KNOWN.try_with(|known| {
            let known = known.try_borrow_mut();
            known.map(|mut known| count(Some(&mut known))).is_ok()
        });
        if counted == Ok(true) {
            return;
        }
    }
    count(None);
}

fn address(method: &'static Method) -> usize {
    std::ptr::from_ref(method).addr()
}

fn started_counter(method: &'static Method) -> Counter {
    metrics::counter!(
        "grpc_server_started_total",
        "grpc_service" => method.service.as_str(),
        "grpc_method" => method.name.as_str(),
        "grpc_type" => method.kind,
    )
}

/// The series that an ended call counts in.
struct Ended {
    handled: Counter,
    seconds: Histogram,
    asset: Option<(Counter, Histogram)>,
}

impl Ended {
    fn new(method: &'static Method, code: Code, asset: Option<Asset>) -> Self {
        let labels = [
            ("grpc_service", method.service.as_str()),
            ("grpc_method", method.name.as_str()),
            ("grpc_type", method.kind),
        ];
        let [service, name, kind] = labels;
        let with_code = [service, name, kind, ("grpc_code", go_name(code))];
        Self {
            handled: metrics::counter!("grpc_server_handled_total", &with_code),
            seconds: metrics::histogram!("grpc_server_handling_seconds", &labels),
            asset: asset.map(|Asset { rpc, code, outcome }| {
                let requests = metrics::counter!("assetgate_asset_requests_total",
                    "rpc" => rpc, "code" => code, "outcome" => outcome);
                let seconds = metrics::histogram!("assetgate_asset_duration_seconds",
                    "rpc" => rpc, "outcome" => outcome);
                (requests, seconds)
            }),
        }
    }

    fn record(&self, seconds: f64) {
        self.seconds.record(seconds);
        self.handled.increment(1);
        if let Some((requests, durations)) = &self.asset {
            requests.increment(1);
            durations.record(seconds);
        }
    }
}

/// Code names of the grpc-ecosystem metrics, which are Go's.
fn go_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
