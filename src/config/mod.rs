//! What the operator said, checked: file, environment and flags become one
//! [`Config`], or every mistake in them at once.
//!
//! Order, per key: default < TOML file < environment
//! (`ASSETGATE__SECTION__KEY`) < flag; a list replaces the list below it.
//! `keys` has every key, its flag and its default; `sections` turns texts into
//! settings; `checks` is about settings that contradict each other,
//! `warnings` about what is allowed and open.
//!
//! Not for: what the settings do. Components own types of their own and never
//! see this module; `server::assembly` translates.
//! Called by: `server`, `cli`.

mod checks;
mod environment;
mod file;
mod keys;
mod layers;
mod nearest;
mod problem;
mod sections;
mod settings;
mod show;
mod values;
mod warnings;

use std::path::PathBuf;

pub use keys::{KEYS, Key};
pub use problem::{Place, Problem, Problems};
pub use settings::{
    Compat, Config, Drain, Embedded, ErrorChannel, Errors, Fetch, Listen, ListenTls, Log,
    LogFormat, Probe, Push, References, ReferencesUpstream, Route, Upstream,
};
pub use warnings::{exposed_files, warnings};

use layers::{Layers, Reader};

/// Where settings come from. Nothing else is read, so a test needs no
/// process-wide state.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file of `--config`, if one was named.
    pub file: Option<PathBuf>,
    /// The environment, as name and value.
    pub environment: Vec<(String, String)>,
    /// Flags given: the key each stands for, and its values.
    pub flags: Vec<(&'static str, Vec<String>)>,
}

impl Sources {
    /// The sources of this process; names and values that are not Unicode
    /// cannot be ours and are left out.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(&'static str, Vec<String>)>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            file,
            environment,
            flags,
        }
    }
}

/// A valid configuration and where each value in it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    layers: Layers,
}

impl Loaded {
    /// The effective configuration as TOML, the origin of each value beside it.
    #[must_use]
    pub fn show(&self) -> String {
        show::render(&self.layers)
    }
}

/// Reads all sources.
///
/// # Errors
/// Everything that is wrong, in order of place.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut problems = Problems::default();
    let mut layers = Layers::default();
    keys::defaults(&sources.environment, &mut layers);
    if let Some(path) = &sources.file {
        file::read(path, &mut layers, &mut problems);
    }
    environment::read(&sources.environment, &mut layers, &mut problems);
    for (key, values) in &sources.flags {
        layers.push(
            key,
            layers::Raw::List(values.clone()),
            Place::Flag(keys::flag_of(key)),
        );
    }
    let mut reader = Reader::new(&layers, &mut problems);
    let config = sections::read(&mut reader);
    checks::check(&config, &layers, &mut problems);
    problems.into_result()?;
    Ok(Loaded { config, layers })
}

#[cfg(test)]
mod tests;
