//! The effective configuration, as a file one could start from.
//!
//! There is nothing to redact: no key holds a secret, only paths of files that
//! do, and a URL with a password in it is refused when it is read.
//! Not for: the running state (`admin`).
//! Called by: `cli config show`.

use std::fmt::Write as _;

use super::keys::KEYS;
use super::layers::{Layers, Raw};
use super::problem::Place;
use super::settings::half;

/// TOML, the origin of every value in a comment beside it.
pub(super) fn render(layers: &Layers) -> String {
    let mut out = String::new();
    let mut section = "";
    for key in KEYS {
        let (parent, leaf) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if parent != section {
            let _ = writeln!(out, "\n[{parent}]");
            section = parent;
        }
        let _ = match layers.effective(key.name) {
            Some((raw, place)) => {
                writeln!(
                    out,
                    "{leaf} = {}  # {}",
                    value(raw, key.list),
                    origin(place)
                )
            }
            None => match derived(layers, key.name) {
                Some((value, from)) => writeln!(out, "# {leaf} is not set: {value}, {from}"),
                None => writeln!(out, "# {leaf} is not set"),
            },
        };
    }
    out
}

/// The value of a key that nobody set, where it follows from another, and how.
fn derived(layers: &Layers, key: &str) -> Option<(String, &'static str)> {
    match key {
        "listen.max_connections_per_client" => {
            let (most, _) = layers.effective("listen.max_connections")?;
            let most: usize = value(most, false).parse().ok()?;
            Some((half(most).to_string(), "half of max_connections"))
        }
        _ => None,
    }
}

fn origin(place: &Place) -> String {
    match place {
        Place::Default | Place::Whole => "default".to_owned(),
        Place::File { .. } => format!("file {place}"),
        Place::Environment(name) => format!("env {name}"),
        Place::Flag(flag) => format!("flag {flag}"),
    }
}

fn value(raw: &Raw, list: bool) -> String {
    match raw {
        Raw::One(text) if list => format!("[{}]", quoted(text)),
        Raw::One(text) => scalar(text),
        Raw::List(texts) if list => {
            format!(
                "[{}]",
                texts
                    .iter()
                    .map(|t| quoted(t))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        }
        Raw::List(texts) => scalar(texts.first().map_or("", String::as_str)),
    }
}

/// Numbers and truth values stand bare; a mode such as 0600 is no number in TOML.
fn scalar(text: &str) -> String {
    let bare = matches!(text, "true" | "false")
        || text.parse::<u64>().is_ok_and(|n| n.to_string() == text);
    if bare { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
