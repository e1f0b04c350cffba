//! Counts forwarded calls under the names of the gRPC ecosystem:
//! `grpc_server_started_total`, `grpc_server_handled_total`.
//!
//! Labels come from the vendored definitions only, anything else is `other`: a
//! client could otherwise make as many series as it likes. There is no
//! histogram: reading the clock and recording would cost the hot path more
//! than the rest of this file.
//!
//! Not for: calls we answer ourselves (`middleware`).
//! Called by: `forward`.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use metrics::Counter;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Code;

use crate::proto::FILE_DESCRIPTOR_SET;

/// The codes, in order of their numbers.
const CODES: [&str; 17] = [
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

/// Counters of all methods; share one among all threads.
#[derive(Debug)]
pub struct Observer {
    methods: HashMap<String, Arc<Method>>,
    other: Arc<Method>,
}

#[derive(Debug)]
struct Method {
    service: String,
    method: String,
    kind: &'static str,
    started: OnceLock<Counter>,
    handled: [OnceLock<Counter>; CODES.len()],
}

impl Method {
    fn new(service: &str, method: &str, kind: &'static str) -> Arc<Self> {
        Arc::new(Self {
            service: service.to_owned(),
            method: method.to_owned(),
            kind,
            started: OnceLock::new(),
            handled: Default::default(),
        })
    }

    fn started(&self) -> &Counter {
        self.started.get_or_init(|| {
            metrics::counter!(
                "grpc_server_started_total",
                "grpc_service" => self.service.clone(),
                "grpc_method" => self.method.clone(),
                "grpc_type" => self.kind,
            )
        })
    }

    fn handled(&self, code: Code) -> Option<&Counter> {
        let code = code as usize;
        Some(self.handled.get(code)?.get_or_init(|| {
            metrics::counter!(
                "grpc_server_handled_total",
                "grpc_service" => self.service.clone(),
                "grpc_method" => self.method.clone(),
                "grpc_type" => self.kind,
                "grpc_code" => CODES[code],
            )
        }))
    }
}

impl Default for Observer {
    fn default() -> Self {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
        let mut methods = HashMap::new();
        for file in &set.file {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                for method in &service.method {
                    let kind = match (method.client_streaming(), method.server_streaming()) {
                        (false, false) => "unary",
                        (true, false) => "client_stream",
                        (false, true) => "server_stream",
                        (true, true) => "bidi_stream",
                    };
                    methods.insert(
                        format!("/{name}/{}", method.name()),
                        Method::new(&name, method.name(), kind),
                    );
                }
            }
        }
        Self {
            methods,
            other: Method::new("other", "other", "other"),
        }
    }
}

impl Observer {
    /// Counts a call that begins.
    pub(super) fn start(&self, path: &str) -> Call {
        let method = Arc::clone(self.methods.get(path).unwrap_or(&self.other));
        method.started().increment(1);
        Call {
            method,
            ended: false,
        }
    }
}

/// One call; it was cancelled if it is dropped before it ended.
#[derive(Debug)]
pub struct Call {
    method: Arc<Method>,
    ended: bool,
}

impl Call {
    /// The head of the answer, which holds the status if there is nothing else.
    pub(super) fn head(&mut self, headers: &HeaderMap) {
        if headers.contains_key("grpc-status") {
            self.trailers(headers);
        }
    }

    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        self.end(match trailers.get("grpc-status") {
            Some(code) => Code::from_bytes(code.as_bytes()),
            None => Code::Unknown,
        });
    }

    pub(super) fn end(&mut self, code: Code) {
        if !self.ended {
            self.ended = true;
            if let Some(handled) = self.method.handled(code) {
                handled.increment(1);
            }
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
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn labels_come_from_the_definitions_and_outcomes_from_the_answer() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let observer = Observer::default();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "5".parse().unwrap());

            let read = "/google.bytestream.ByteStream/Read";
            observer.start(read).trailers(&trailers);
            observer.start(read).end(Code::Ok);
            drop(observer.start(read));
            observer.start("/made.Up/Name").head(&trailers);
            drop(observer.start("/made.Up/Other"));
        });
        let text = recorder.handle().render();
        let read = r#"grpc_service="google.bytestream.ByteStream",grpc_method="Read",grpc_type="server_stream""#;
        for line in [
            format!("grpc_server_started_total{{{read}}} 3"),
            format!("grpc_server_handled_total{{{read},grpc_code=\"NotFound\"}} 1"),
            format!("grpc_server_handled_total{{{read},grpc_code=\"OK\"}} 1"),
            format!("grpc_server_handled_total{{{read},grpc_code=\"Canceled\"}} 1"),
            r#"grpc_server_started_total{grpc_service="other",grpc_method="other",grpc_type="other"} 2"#.into(),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("made"), "{text}");
    }

    #[test]
    fn every_code_has_its_name() {
        assert_eq!(CODES[Code::Unavailable as usize], "Unavailable");
        assert_eq!(CODES[Code::Unauthenticated as usize], "Unauthenticated");
        assert_eq!(CODES[Code::Cancelled as usize], "Canceled");
    }
}
