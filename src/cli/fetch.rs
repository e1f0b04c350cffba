//! `assetgate fetch`: has a server download something, and says how to name it.
//!
//! The server downloads, not this process: several calls may wait for one
//! download, which goes on between them. What is printed can be pasted into a
//! Bazel file.
//! Exit codes: 0; 1 when the fetch failed; 64 for bad usage; 69 when the server
//! cannot be reached.
//! Not for: what a fetch is (`api`, `fetcher`); here is only a client.
//! Called by: `cli`.

mod bar;
mod blob;
mod call;
mod failure;
mod report;
mod request;
mod snippet;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::{USAGE, complain, say};
use crate::asset::{Algorithm, Checksum, scrub};
use crate::digest::DigestFunction;
use bar::Bar;
use blob::{Blob, Target};
use call::Caller;
use failure::Failure;
use report::Report;
use request::Prepared;
use watch::Watch;

/// The port of the admin pages, on the machine of a local server.
const ADMIN: &str = "http://127.0.0.1:9980";

/// What to fetch, and from which server.
#[derive(Debug, clap::Args)]
pub(super) struct Asked {
    /// Mirrors of one file, in order of preference
    #[arg(value_name = "URL", required = true)]
    urls: Vec<String>,
    /// Write the content there; `-` is standard output, and the report then goes to standard error
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What the content must be, such as sha256-...
    #[arg(long, value_name = "SRI")]
    integrity: Option<String>,
    /// As in http_archive: content of another id is not taken from the cache
    #[arg(long, value_name = "ID")]
    canonical_id: Option<String>,
    /// Header for the origins, or @FILE with such lines; may be given again
    #[arg(long = "origin-header", value_name = "NAME: VALUE")]
    origin_headers: Vec<String>,
    /// Parameter of URLs that holds a secret, which is not printed: NAME, or NAME* for all that
    /// begin so; may be given again [default: ASSETGATE__FETCH__SECRET_PARAMETERS, as the server's]
    #[arg(long = "secret-parameter", value_name = "NAME")]
    secret_parameters: Vec<String>,
    /// For all of it; the server gets the same limit
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    timeout: Duration,
    /// For one call; after that it is repeated, and joins the download that goes on
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    call_timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Server")]
    server: Server,
}

/// Where the server is, and what it is shown.
#[derive(Debug, clap::Args)]
struct Server {
    /// The server: grpc://, grpcs:// or unix:
    #[arg(long, value_name = "URL", default_value = "grpc://127.0.0.1:8980")]
    endpoint: String,
    /// PEM roots for grpcs://, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Certificate to show to the server
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// Metadata of the calls, or @FILE with such lines; may be given again
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Instance name
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    instance: String,
    /// Digest function of the content's digest [default: SHA256]
    #[arg(long, value_name = "NAME")]
    digest_function: Option<String>,
    /// The server's admin pages, for the progress of the download; `off` is none [default:
    /// http://127.0.0.1:9980 for a server on this machine]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

/// Fetches, prints, and says by the exit code whether it was possible.
pub(super) fn fetch(asked: &Asked) -> ExitCode {
    let prepared = match Prepared::of(asked) {
        Ok(prepared) => prepared,
        Err(problems) => {
            for problem in problems {
                complain(&format!("assetgate: {problem}"));
            }
            return ExitCode::from(USAGE);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("assetgate: no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        tokio::select! {
            done = run(asked, &prepared) => done,
            _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
        }
    });
    runtime.shutdown_background();
    match done {
        Ok(report) => tell(asked, &report),
        Err(failure) => {
            complain(&format!("assetgate: {}", prepared.redact(&failure.text)));
            ExitCode::from(failure.code)
        }
    }
}

fn tell(asked: &Asked, report: &Report) -> ExitCode {
    let told = match asked.json {
        true => report.json(),
        false => report.text(),
    };
    if asked.out.as_deref() == Some(Path::new("-")) {
        complain(told.trim_end());
        return ExitCode::SUCCESS;
    }
    say(&told)
}

async fn run(asked: &Asked, prepared: &Prepared) -> Result<Report, Failure> {
    let bar = Bar::new();
    let server = prepared.connect();
    let caller = Caller {
        server: server.clone(),
        prepared,
        timeout: asked.timeout,
        call_timeout: asked.call_timeout,
    };
    let watch = Watch::new(prepared.admin.as_ref(), &prepared.uris);
    let fetched = tokio::select! {
        fetched = caller.fetch(&bar) => fetched?,
        () = watch.follow(&bar) => return Err(Failure::failed("the progress ended early")),
    };
    let blob = Blob {
        server,
        prepared,
        digest: fetched.digest.clone(),
    };
    let function = prepared.scope.function;
    let mut target = Target::of(asked.out.as_deref())?;
    let sha256 = match (function, &target) {
        (DigestFunction::Sha256, Target::Nowhere) => fetched.digest.raw(),
        _ => blob.read(&mut target, &bar).await?,
    };
    target.finish()?;
    bar.done();
    Ok(Report {
        urls: prepared.shown_urls(),
        integrity: Checksum::new(Algorithm::Sha256, &sha256).map(|checksum| checksum.to_string()),
        function,
        canonical_id: asked
            .canonical_id
            .as_deref()
            .map(|id| scrub(id).into_owned()),
        out: asked.out.clone(),
        fetched,
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let told = "write it as in `90s` or `10m`";
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err(format!("must be more than nothing; {told}")),
        Ok(duration) => Ok(duration),
        Err(_) => Err(told.to_owned()),
    }
}
