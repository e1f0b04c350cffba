//! Values before they mean anything: a stack of texts per key, and the reader
//! that parses them.
//!
//! Every layer is parsed, not only the one that wins, so that a mistake in the
//! file is reported although a flag hides it.
//! Not for: what a value must look like (`values`).
//! Called by: `config`, `file`, `environment`, `sections`, `show`.

use std::collections::BTreeMap;

use super::problem::{Place, Problems};

/// A value as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// One text, number or truth value.
    One(String),
    /// A list.
    List(Vec<String>),
}

/// All layers of all keys; the last entry of a key wins.
#[derive(Debug, Clone, Default)]
pub(super) struct Layers(BTreeMap<String, Vec<(Raw, Place)>>);

impl Layers {
    /// Lays a value over those already there.
    pub(super) fn push(&mut self, key: &str, value: Raw, place: Place) {
        self.0
            .entry(key.to_owned())
            .or_default()
            .push((value, place));
    }

    /// The value that counts, and where it stands.
    pub(super) fn effective(&self, key: &str) -> Option<(&Raw, &Place)> {
        let (raw, place) = self.0.get(key)?.last()?;
        Some((raw, place))
    }

    /// Where the effective value of the first of these keys stands.
    pub(super) fn place(&self, keys: &[&str]) -> Place {
        keys.iter()
            .find_map(|key| self.effective(key))
            .map_or(Place::Whole, |(_, place)| place.clone())
    }

    fn all(&self, key: &str) -> &[(Raw, Place)] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }
}

/// Parses values and notes what it could not parse.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    layers: &'a Layers,
    problems: &'a mut Problems,
}

impl<'a> Reader<'a> {
    /// A reader of these layers.
    pub(super) fn new(layers: &'a Layers, problems: &'a mut Problems) -> Self {
        Self { layers, problems }
    }

    /// The value of a key that has a default. Without a usable value there is
    /// a problem, so the placeholder returned then is never acted upon.
    pub(super) fn one<T: Default>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        self.maybe(key, parse).unwrap_or_default()
    }

    /// The value of a key that may be absent.
    pub(super) fn maybe<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let mut found = None;
        for (raw, place) in self.layers.all(key) {
            let parsed = match raw {
                Raw::One(text) => parse(text),
                Raw::List(texts) => match texts.as_slice() {
                    [text] => parse(text),
                    _ => Err("takes one value, not a list".to_owned()),
                },
            };
            found = self.note(key, place, parsed).or(found);
        }
        found
    }

    /// The value of a key that is a list; one text is a list of one.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut found = Vec::new();
        for (raw, place) in self.layers.all(key) {
            let texts: &[String] = match raw {
                Raw::One(text) => std::slice::from_ref(text),
                Raw::List(texts) => texts,
            };
            let parsed = texts.iter().map(|text| self.note(key, place, parse(text)));
            found = parsed.collect::<Vec<_>>().into_iter().flatten().collect();
        }
        found
    }

    fn note<T>(&mut self, key: &str, place: &Place, parsed: Result<T, String>) -> Option<T> {
        parsed
            .map_err(|text| self.problems.add(place.clone(), format!("`{key}`: {text}")))
            .ok()
    }
}
