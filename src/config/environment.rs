//! `ASSETGATE__SECTION__KEY` variables.
//!
//! Not for: `RUST_LOG` (`telemetry`), `SSL_CERT_FILE` (TLS roots).
//! Called by: `config`.

use super::keys;
use super::layers::{Layers, Raw};
use super::nearest;
use super::problem::{Place, Problems};

/// What every variable of ours starts with.
pub(super) const PREFIX: &str = "ASSETGATE__";

/// Lays the environment over what is there.
pub(super) fn read(variables: &[(String, String)], layers: &mut Layers, problems: &mut Problems) {
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let path = rest.to_ascii_lowercase().replace("__", ".");
        let place = Place::Environment(name.clone());
        if let Some(key) = keys::find(&path).or_else(|| keys::shorthand(&path)) {
            let raw = if key.list {
                split(value)
            } else {
                Raw::One(value.clone())
            };
            layers.push(key.name, raw, place);
        } else if !is_injected(rest, value) {
            problems.add(place, format!("no such setting{}", hint(&path)));
        }
    }
}

/// Kubernetes tells a pod about every service by variables, and a service may
/// be called so that these begin as ours do: `NAME_SERVICE_HOST`,
/// `NAME_SERVICE_PORT[_X]`, `NAME_PORT=tcp://...`, `NAME_PORT_80_TCP[_X]`. No
/// name of a service ends in `-`, so `__PORT` is a mistake of the operator's.
fn is_injected(name: &str, value: &str) -> bool {
    name.match_indices('_').any(|(at, _)| {
        let (service, suffix) = name.split_at(at);
        let named = !service.is_empty() && !service.ends_with('_');
        let numbered = suffix
            .strip_prefix("_PORT_")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        named
            && (suffix == "_SERVICE_HOST"
                || suffix == "_SERVICE_PORT"
                || suffix.starts_with("_SERVICE_PORT_")
                || (suffix == "_PORT" && value.contains("://"))
                || numbered)
    })
}

fn hint(path: &str) -> String {
    nearest::nearest(path)
        .map(|known| format!("; did you mean `{}`?", variable(known)))
        .unwrap_or_default()
}

/// The variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

fn split(value: &str) -> Raw {
    Raw::List(
        value
            .split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}
