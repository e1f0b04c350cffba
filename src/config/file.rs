//! The TOML file: every syntax error, unknown key and ill-typed value with its
//! line and column, and all of them in one reading.
//!
//! It walks the parsed document instead of deserializing into structs, because
//! serde stops at the first mistake and `keys` already is the schema.
//! Not for: what values mean.
//! Called by: `config`.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::layers::{Layers, Raw};
use super::nearest::{hint, nearest, nearest_section};
use super::problem::{Place, Problems};

/// Lays the file over what is there.
pub(super) fn read(path: &Path, layers: &mut Layers, problems: &mut Problems) {
    match std::fs::read_to_string(path) {
        Ok(text) => read_text(path, &text, layers, problems),
        Err(error) => problems.add(
            Place::File {
                path: path.to_owned(),
                at: None,
            },
            format!("cannot be read: {error}"),
        ),
    }
}

fn read_text(path: &Path, text: &str, layers: &mut Layers, problems: &mut Problems) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut walk = Walk {
        path,
        text,
        layers,
        problems,
    };
    for error in errors {
        let place = walk.place(error.span().unwrap_or_default());
        walk.problems.add(place, error.message().to_owned());
    }
    walk.table("", table.get_ref());
}

struct Walk<'a> {
    path: &'a Path,
    text: &'a str,
    layers: &'a mut Layers,
    problems: &'a mut Problems,
}

impl Walk<'_> {
    fn table(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = match section {
                "" => name.get_ref().to_string(),
                _ => format!("{section}.{}", name.get_ref()),
            };
            self.entry(&path, name.span(), value);
        }
    }

    fn entry(&mut self, path: &str, name: Range<usize>, value: &Spanned<DeValue<'_>>) {
        let place = self.place(name);
        if keys::is_section(path) {
            match (value.get_ref(), keys::shorthand(path)) {
                (DeValue::Table(table), _) => self.table(path, table),
                (_, Some(key)) => self.value(key, value),
                (other, None) => self.problems.add(
                    place,
                    format!(
                        "`{path}` is a section, not {}; write `[{path}]`",
                        kind(other)
                    ),
                ),
            }
        } else if let Some(key) = keys::find(path) {
            self.value(key, value);
        } else {
            let (what, known) = match value.get_ref() {
                DeValue::Table(_) => ("section", nearest_section(path)),
                _ => ("key", nearest(path)),
            };
            let text = format!("unknown {what} `{path}`{}", hint(known));
            self.problems.add(place, text);
        }
    }

    fn value(&mut self, key: &keys::Key, value: &Spanned<DeValue<'_>>) {
        let place = self.place(value.span());
        let raw = match value.get_ref() {
            DeValue::Array(items) if key.list => items
                .iter()
                .map(|item| scalar(item.get_ref()).ok_or_else(|| kind(item.get_ref())))
                .collect::<Result<Vec<_>, _>>()
                .map(Raw::List),
            other => scalar(other).map(Raw::One).ok_or_else(|| kind(other)),
        };
        match raw {
            Ok(raw) => self.layers.push(key.name, raw, place),
            Err(kind) => {
                let text = if key.list {
                    "takes texts"
                } else {
                    "takes one value"
                };
                self.problems
                    .add(place, format!("`{}`: {text}, not {kind}", key.name));
            }
        }
    }

    fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(start..).unwrap_or_default().chars().count() + 1;
        Place::File {
            path: self.path.to_owned(),
            at: Some((line, column)),
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
