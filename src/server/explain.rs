//! Explains a fetch outside of a serving process, over the same parts and
//! settings.
//!
//! Not for: what is explained (`resolver::explain`), words (`cli`).
//! Called by: `cli`.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::assembly;
use super::backend::Backend;
use crate::config::Config;
use crate::embedded;
use crate::resolver::{Explanation, Query};
use crate::upstream::{CallContext, Identity};

/// How long the cache may take for all keys together.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a fetch of this caller would look up, find and answer at this moment.
/// As in a server, the service's own credential goes before the caller's.
///
/// # Errors
/// When the cache cannot be asked.
pub fn explain(
    config: &Config,
    caller: &CallContext,
    query: &Query,
) -> anyhow::Result<Explanation> {
    if config.uses_embedded() {
        check_is_there(&config.embedded.dir)?;
    }
    let backend = Backend::open(config).map_err(|error| advise(config, error))?;
    let service = Identity::new(backend.credential()).service();
    let context = service.as_ref().unwrap_or(caller);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime")?;
    let explained = runtime.block_on(async {
        let resolver = assembly::explaining(config, &backend)?;
        let explained = tokio::time::timeout(PATIENCE, resolver.explain(context, query)).await;
        let explained =
            explained.with_context(|| format!("the cache did not answer within {PATIENCE:?}"))?;
        explained.map_err(|error| anyhow::anyhow!("{}", context.redact(&error.to_string())))
    });
    runtime.shutdown_background();
    explained
}

/// Looking must not create a cache where there is none.
fn check_is_there(dir: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        dir.join("ac").is_dir(),
        "there is no embedded cache in {} (--upstream names another cache, --data-dir another \
         directory)",
        dir.display()
    );
    Ok(())
}

fn advise(config: &Config, error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(embedded::Error::InUse(_)) if config.upstream.is_none() => error.context(
            "the embedded cache belongs to a running server: point --upstream at that server's \
             address, which passes on what is asked of its cache",
        ),
        Some(embedded::Error::InUse(_)) => error.context(
            "references.upstream is the embedded cache of a running server, which nobody else \
             can read: stop that server first",
        ),
        _ => error,
    }
}
