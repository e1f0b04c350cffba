//! Facts about one native call that its layers share: the request id that
//! answers, errors and logs carry, and the report that the log event and the
//! metrics of an asset call are made of.
//!
//! Travels as an extension of the HTTP request, so that an error can carry no
//! less than an answer. Not for: anything that decides how a call is answered.
//! Called by: `middleware` (makes one, reads it when the call ends), `api`
//! (fills it in).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;

/// The number of the next call. It begins anywhere: processes must not give
/// the same ids.
static NEXT: LazyLock<AtomicU64> =
    LazyLock::new(|| AtomicU64::new(uuid::Uuid::new_v4().as_u64_pair().1));

/// Which downstream connection a call came over; an extension of requests to
/// the embedded cache. The default is this process itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// That of a new connection.
    #[must_use]
    pub fn next() -> Self {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
        Self(CONNECTIONS.fetch_add(1, Relaxed))
    }
}

/// How long a call may take in all (`grpc-timeout`); an extension of requests
/// that say so.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit(pub Duration);

/// What is known of one call.
#[derive(Debug, Clone)]
pub struct Call {
    id: [u8; 16],
    report: Arc<Mutex<Report>>,
}

/// What an asset call was about and how it went. Everything in it may be
/// shown: URIs are redacted before they get here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// `hit_exact`, `fetched`, ... ; empty if the call never got that far.
    pub outcome: &'static str,
    /// The code inside an OK answer, if that is a failure.
    pub inline_code: Option<&'static str>,
    /// Why a call failed, for people.
    pub message: String,
    /// Why the cache had no answer, if it had none.
    pub missed: Option<&'static str>,
    /// Blob or directory.
    pub kind: &'static str,
    /// The URI that answered, or the first, redacted.
    pub uri: String,
    /// Host of that URI, if it is a URL.
    pub origin_host: String,
    /// Size of the content named in the answer, or pushed.
    pub bytes: u64,
    /// Bytes received from origins.
    pub origin_bytes: u64,
    /// Requests sent to origins.
    pub attempts: u32,
    /// Name and version of the client's tool.
    pub tool: String,
    /// The client's invocation id.
    pub invocation_id: String,
}

impl Call {
    /// A call with an id of its own.
    #[must_use]
    pub fn new() -> Self {
        let mut id = [0; 16];
        let number = scatter(NEXT.fetch_add(1, Relaxed)).to_be_bytes();
        // Never fails: there is room for two digits of each byte.
        let _ = hex::encode_to_slice(number, &mut id);
        Self {
            id,
            report: Arc::default(),
        }
    }

    /// The call a request belongs to. One that no layer has marked, as in a
    /// unit test, gets an id here.
    #[must_use]
    pub fn of(extensions: &http::Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// 16 hexadecimal characters.
    #[must_use]
    pub fn id(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }

    /// Notes something about the call.
    pub fn note(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock());
    }

    /// What is known by now.
    pub fn read<T>(&self, look: impl FnOnce(&Report) -> T) -> T {
        look(&self.report.lock())
    }
}

/// Another number for each number, of which neighbours have nothing in common
/// (the last step of SplitMix64). A random number for each call would be a
/// system call for each.
fn scatter(number: u64) -> u64 {
    let mut x = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Default for Call {
    fn default() -> Self {
        Self::new()
    }
}

/// A code as the gRPC specification spells it, for logs and metrics.
#[must_use]
pub fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_neighbours_differ_all_over() {
        let ids: Vec<Call> = (0..10_000).map(|_| Call::new()).collect();
        let unique: HashSet<&str> = ids.iter().map(Call::id).collect();
        assert_eq!(unique.len(), ids.len());
        for pair in ids.windows(2) {
            let [a, b] = pair else { continue };
            assert!(a.id().bytes().all(|b| b.is_ascii_hexdigit()));
            let same = a.id().bytes().zip(b.id().bytes()).filter(|(a, b)| a == b);
            assert!(same.count() < 12, "{} {}", a.id(), b.id());
        }
    }
}
