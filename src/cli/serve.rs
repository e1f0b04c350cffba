//! `assetgate serve`: logs first, then the server, then the news that it serves.
//!
//! Not for: serving; `main` hands in the function that does.
//! Called by: `cli`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::{banner, complain, port_file};
use crate::config::{Config, LogFormat};
use crate::store::{Report, Told};
use crate::telemetry::{Flush, LogSettings, init_log, printer};

/// Told once, when calls are served: the gRPC address (`HOST:PORT` or
/// `unix:PATH`) and the admin address. An error here must end the server.
pub type Announce = Box<dyn FnOnce(&str, Option<&str>) -> io::Result<()> + Send>;

/// Serves until the process is told to stop; tells what probes find.
pub type Run = fn(Config, Announce, Told) -> anyhow::Result<()>;

/// Returns when the server has ended.
pub(super) fn serve(config: Config, ports: Option<PathBuf>, run: Run) -> ExitCode {
    let settings = LogSettings {
        json: match config.log.format {
            LogFormat::Auto => None,
            LogFormat::Text => Some(false),
            LogFormat::Json => Some(true),
        },
        level: config.log.level.clone(),
        directives: std::env::var("RUST_LOG").ok(),
    };
    if config.core_dumps {
        super::core_dumps(true);
    }
    // Dropped last: what was logged comes out before the process ends.
    let log = match init_log(&settings) {
        Ok(log) => log,
        Err(error) => {
            complain(&format!("assetgate: cannot log: {error}"));
            return ExitCode::FAILURE;
        }
    };
    for warning in crate::config::warnings(&config) {
        tracing::warn!("{warning}");
    }
    let json = settings.is_json();
    let ended = prepare(ports.as_deref()).and_then(|()| {
        let (told, _printed) = told(json)?;
        run(config.clone(), announcement(config, ports, json), told)
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if json => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
        Err(error) => {
            log.say(&format!("assetgate: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn prepare(ports: Option<&std::path::Path>) -> anyhow::Result<()> {
    use anyhow::Context as _;
    let Some(path) = ports else { return Ok(()) };
    port_file::remove(path).with_context(|| format!("cannot replace {}", path.display()))
}

/// What a probe found, under the banner. Scripts read the log event.
fn told(json: bool) -> io::Result<(Told, Option<Flush>)> {
    if json {
        return Ok((Arc::new(|_: &Report| ()), None));
    }
    let (print, flush) = printer()?;
    let told = move |report: &Report| print(&format!("\n{}", report.text()));
    Ok((Arc::new(told), Some(flush)))
}

fn announcement(config: Config, ports: Option<PathBuf>, json: bool) -> Announce {
    Box::new(move |grpc, admin| {
        if json {
            tracing::info!(
                grpc,
                admin,
                upstream = banner::upstream(&config),
                bazelrc = banner::bazel(&config, grpc),
                "serving"
            );
        } else {
            // Losing the terminal is no reason to stop serving.
            let text = banner::banner(&config, grpc, admin);
            let _ = io::stdout().lock().write_all(text.as_bytes());
        }
        match &ports {
            Some(path) => port_file::write_port_file(path, grpc, admin).map_err(|error| {
                let text = format!("cannot write the port file {}: {error}", path.display());
                io::Error::new(error.kind(), text)
            }),
            None => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        crate::config::load(&crate::config::Sources {
            environment: vec![("HOME".to_owned(), "/home/u".to_owned())],
            ..crate::config::Sources::default()
        })
        .unwrap()
        .config
    }

    #[test]
    fn the_port_file_is_there_when_it_serves_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ports");
        std::fs::write(&path, "stale").unwrap();
        prepare(Some(&path)).unwrap();
        assert!(!path.exists());
        announcement(config(), Some(path.clone()), true)("127.0.0.1:1", None).unwrap();
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .contains("127.0.0.1:1")
        );

        let nowhere = dir.path().join("no/ports");
        let error = announcement(config(), Some(nowhere), true)("127.0.0.1:1", None).unwrap_err();
        assert!(error.to_string().contains("no/ports"), "{error}");
    }
}
