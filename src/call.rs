//! Facts about one native call that its layers share: the request id that
//! answers, errors and logs carry, and the report that the log event and the
//! metrics of an asset call are made of.
//!
//! Travels as an extension of the HTTP request, so that an error can carry no
//! less than an answer. Not for: anything that decides how a call is answered.
//! Called by: `middleware` (makes one, reads it when the call ends), `api`
//! (fills it in).

use std::sync::Arc;

use parking_lot::Mutex;

/// What is known of one call.
#[derive(Debug, Clone)]
pub struct Call {
    id: Arc<str>,
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
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self {
            id: id.chars().take(16).collect::<String>().into(),
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
        &self.id
    }

    /// Notes something about the call.
    pub fn note(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock());
    }

    /// What is known by now.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report.lock().clone()
    }
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
