//! `assetgate explain`: why a fetch finds what it finds, or does not.
//!
//! Exit codes: 0 if the cache would answer, 1 if not, 64 for bad usage, 69 if
//! the cache cannot be asked.
//! Not for: finding out (`server::explain`), words (`text.rs`, `json.rs`).
//! Called by: `cli`.

mod json;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use super::{USAGE, complain, say};
use crate::api;
use crate::asset::AssetKind;
use crate::config::Config;
use crate::digest::DigestFunction;
use crate::proto::asset::{FetchBlobRequest, Qualifier};
use crate::resolver::{Query, Verdict};
use crate::upstream::{CallContext, Identity, ServiceCredential};

/// The cache cannot be asked, as in `sysexits.h` (EX_UNAVAILABLE).
const UNAVAILABLE: u8 = 69;

/// The fetch to explain.
#[derive(Debug, clap::Args)]
pub(super) struct Asked {
    /// A URI of the fetch, in its order; may be given again
    #[arg(long = "uri", value_name = "URI", num_args = 1..)]
    uris: Vec<String>,
    /// A qualifier of the fetch; may be given again
    #[arg(long = "qualifier", value_name = "NAME=VALUE", num_args = 1..)]
    qualifiers: Vec<String>,
    /// Instance name of the fetch
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    instance: String,
    /// FetchBlob or FetchDirectory
    #[arg(long, value_name = "KIND", default_value = "blob", value_parser = ["blob", "directory"])]
    kind: String,
    /// Digest function of the fetch [default: SHA256]
    #[arg(long, value_name = "NAME")]
    digest_function: Option<String>,
    /// As 2026-01-31T12:00:00Z, or in seconds since 1970
    #[arg(long, value_name = "TIME")]
    oldest_content_accepted: Option<String>,
    /// File with metadata of the caller, such as credentials: lines `name: value`
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Asked {
    fn kind(&self) -> AssetKind {
        match self.kind.as_str() {
            "directory" => AssetKind::Directory,
            _ => AssetKind::Blob,
        }
    }

    /// The request as a client would send it. No text made here holds a value.
    fn request(&self) -> Result<FetchBlobRequest, String> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=')?;
            Some(Qualifier {
                name: name.to_owned(),
                value: value.to_owned(),
            })
        };
        let qualifiers: Option<_> = self.qualifiers.iter().map(pair).collect();
        let function = self.digest_function.as_deref().map(function).transpose()?;
        let oldest = self.oldest_content_accepted.as_deref();
        Ok(FetchBlobRequest {
            instance_name: self.instance.clone(),
            uris: self.uris.iter().cloned().map(Into::into).collect(),
            qualifiers: qualifiers.ok_or("--qualifier: write NAME=VALUE")?,
            digest_function: function.map_or(0, DigestFunction::to_wire),
            oldest_content_accepted: oldest.map(instant).transpose()?,
            ..Default::default()
        })
    }

    fn query(&self) -> Result<Query, String> {
        let read = api::read_fetch(self.kind(), self.request()?);
        read.map_err(|violations| {
            let lines = violations
                .iter()
                .map(|(field, why)| format!("{field}: {why}"));
            lines.collect::<Vec<_>>().join("\n")
        })
    }
}

/// Explains, and says by the exit code whether the cache would answer.
pub(super) fn explain(config: &Config, asked: &Asked) -> ExitCode {
    let query = match asked.query() {
        Ok(query) => query,
        Err(problem) => return usage(&problem),
    };
    let context = match context(asked.metadata_file.as_deref()) {
        Ok(context) => context,
        Err(problem) => return usage(&problem),
    };
    let explanation = match crate::server::explain(config, &context, &query) {
        Ok(explanation) => explanation,
        Err(error) => {
            complain(&format!("assetgate: {error:#}"));
            return ExitCode::from(UNAVAILABLE);
        }
    };
    let now = SystemTime::now();
    let told = match asked.json {
        true => json::tell(&query, &explanation, now),
        false => text::tell(&query, &explanation, now),
    };
    let said = say(&context.redact(&told));
    match explanation.verdict {
        Verdict::Miss { .. } => ExitCode::FAILURE,
        Verdict::Hit(_) => said,
    }
}

fn usage(problem: &str) -> ExitCode {
    complain(problem);
    ExitCode::from(USAGE)
}

/// On whose behalf the cache is asked.
fn context(file: Option<&Path>) -> Result<CallContext, String> {
    let Some(file) = file else {
        return Ok(CallContext::default());
    };
    let credential = ServiceCredential::from_file(file.to_owned())
        .map_err(|error| format!("--metadata-file: {}: {error}", file.display()))?;
    Ok(Identity::new(Some(credential))
        .service()
        .unwrap_or_default())
}

fn function(name: &str) -> Result<DigestFunction, String> {
    let all = DigestFunction::all();
    let found = all.iter().find(|f| f.name().eq_ignore_ascii_case(name));
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|f| f.name()).collect();
        format!("--digest-function: one of {}", names.join(", "))
    })
}

fn instant(text: &str) -> Result<prost_types::Timestamp, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(prost_types::Timestamp { seconds, nanos: 0 });
    }
    text.parse().map_err(|_| {
        "--oldest-content-accepted: write a time as 2026-01-31T12:00:00Z, or seconds since 1970"
            .to_owned()
    })
}

/// As in RFC 3339.
fn stamp(time: SystemTime) -> String {
    prost_types::Timestamp::from(time).to_string()
}

#[cfg(test)]
mod tests;
