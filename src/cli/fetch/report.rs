//! What a fetch brought, for people and as JSON.
//!
//! Called by: `cli::fetch`.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytesize::ByteSize;
use serde_json::{Map, Value, json};

use super::call::Fetched;
use super::snippet;
use crate::asset::scrub;
use crate::digest::DigestFunction;

/// Everything that is said of a fetch.
#[derive(Debug)]
pub(super) struct Report {
    /// As given, without secrets.
    pub(super) urls: Vec<String>,
    pub(super) fetched: Fetched,
    /// In SHA-256.
    pub(super) integrity: Option<String>,
    pub(super) function: DigestFunction,
    /// As given, without secrets.
    pub(super) canonical_id: Option<String>,
    pub(super) out: Option<PathBuf>,
}

impl Report {
    pub(super) fn text(&self) -> String {
        let fetched = &self.fetched;
        let mut out = String::new();
        let mut line = |name: &str, value: &str| {
            // It goes to a terminal.
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            let _ = writeln!(out, "{name:<10} {value}");
        };
        line("uri", &fetched.uri);
        let digest = match self.function {
            DigestFunction::Sha256 => fetched.digest.to_string(),
            function => format!("{} ({})", fetched.digest, function.name()),
        };
        line("digest", &digest);
        let size = fetched.digest.size();
        let size = match size {
            0..1024 => format!("{size} bytes"),
            _ => format!("{size} bytes ({})", ByteSize(size)),
        };
        line("size", &size);
        let integrity = self.integrity.as_deref().unwrap_or_default();
        line("integrity", integrity);
        if let Some(outcome) = &fetched.outcome {
            line("outcome", outcome);
        }
        if let Some(path) = &self.out {
            line("written", &path.display().to_string());
        }
        out.push('\n');
        let id = self.canonical_id.as_deref();
        out.push_str(&snippet::rule(&self.urls, integrity, id));
        out
    }

    pub(super) fn json(&self) -> String {
        let fetched = &self.fetched;
        let qualifiers = fetched.qualifiers.iter();
        let qualifiers = qualifiers.map(|q| (q.name.clone(), json!(scrub(&q.value))));
        let mut told = json!({
            "uri": fetched.uri,
            "digest": fetched.digest.to_string(),
            "digest_function": self.function.name(),
            "size": fetched.digest.size(),
            "integrity": self.integrity,
            "qualifiers": Value::Object(qualifiers.collect::<Map<_, _>>()),
        });
        let optional = [
            ("outcome", fetched.outcome.clone()),
            ("request_id", fetched.request_id.clone()),
            (
                "out",
                self.out.as_ref().map(|path| path.display().to_string()),
            ),
        ];
        for (name, value) in optional {
            if let (Some(value), Some(object)) = (value, told.as_object_mut()) {
                object.insert(name.to_owned(), json!(value));
            }
        }
        format!("{told:#}\n")
    }
}
