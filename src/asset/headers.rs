//! Headers a client wants sent to the origin, from the three qualifier forms:
//! `http_header:NAME`, `http_header_url:INDEX:NAME` and Bazel's old
//! `bazel.auth_headers` JSON.
//!
//! Values are secrets: they have no `Debug` and reach nothing but the request
//! to the origin they were meant for.
//! Called by: `api::convert` (building), `fetcher` (sending), `resolver`
//! (whether a fetch was made with credentials).

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher};

use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::KeyHeaders;
use super::qualifiers::BAZEL_AUTH_HEADERS;

const GLOBAL: &str = "http_header:";
const PER_URL: &str = "http_header_url:";

/// Headers that would change the framing or the target of the request.
pub(super) const FORBIDDEN: [&str; 11] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "expect",
];

/// A header value; shown nowhere.
pub type SecretValue = SecretString;

/// Whether a header selects among representations rather than authenticating:
/// such a header is part of the key of unpinned content. An operator may declare
/// further ones ([`KeyHeaders`]).
#[must_use]
pub fn is_selecting_header(name: &str) -> bool {
    ["accept", "accept-language", "range"]
        .iter()
        .any(|h| name.eq_ignore_ascii_case(h))
}

/// Whether only whoever makes the request sets this header.
#[must_use]
pub fn is_forbidden_header(name: &str) -> bool {
    FORBIDDEN.iter().any(|h| name.eq_ignore_ascii_case(h))
}

/// What is wrong with a header qualifier. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not a header name.
    #[error("{0:?} does not end in a valid header name")]
    Name(String),
    /// A header Assetgate sets itself.
    #[error("{0:?}: this header cannot be set by a client")]
    Forbidden(String),
    /// Not a header value.
    #[error("the value of {0:?} is not a valid header value")]
    Value(String),
    /// The index is no index into the URIs.
    #[error("{0:?}: the index must be below the number of URIs, {1}")]
    Index(String, usize),
    /// A header that is not per URL stands twice.
    #[error("{0:?} occurs more than once")]
    Duplicate(String),
    /// The JSON of `bazel.auth_headers` has another shape.
    #[error("{BAZEL_AUTH_HEADERS} is not a JSON object of URL to header to value")]
    AuthHeaders,
}

type Values = BTreeMap<String, (HeaderName, Vec<SecretValue>)>;

/// Headers for the origin of each URI.
#[derive(Default, Clone)]
pub struct OriginHeaders {
    global: Values,
    per_url: BTreeMap<usize, Values>,
    by_url: BTreeMap<String, Values>,
    key_headers: KeyHeaders,
}

impl OriginHeaders {
    /// Takes in one qualifier of the credential role; `uris` is how many URIs
    /// the request has.
    pub fn insert(&mut self, name: &str, value: &str, uris: usize) -> Result<(), HeaderError> {
        if name == BAZEL_AUTH_HEADERS {
            return self.insert_auth_headers(value);
        }
        if let Some(rest) = name.strip_prefix(PER_URL) {
            let (index, header) = rest
                .split_once(':')
                .ok_or_else(|| HeaderError::Name(shown(name)))?;
            let index = index.parse().ok().filter(|i: &usize| *i < uris);
            let index = index.ok_or_else(|| HeaderError::Index(shown(name), uris))?;
            return add(self.per_url.entry(index).or_default(), name, header, value);
        }
        let Some(header) = name.strip_prefix(GLOBAL) else {
            return Ok(());
        };
        if self.global.contains_key(&header.to_ascii_lowercase()) {
            return Err(HeaderError::Duplicate(shown(name)));
        }
        add(&mut self.global, name, header, value)
    }

    fn insert_auth_headers(&mut self, json: &str) -> Result<(), HeaderError> {
        type Json = BTreeMap<String, BTreeMap<String, OneOrMany>>;
        let parsed: Json = serde_json::from_str(json).map_err(|_| HeaderError::AuthHeaders)?;
        for (url, headers) in parsed {
            let into = self.by_url.entry(url).or_default();
            for (header, values) in headers {
                for value in values.into_vec() {
                    add(into, BAZEL_AUTH_HEADERS, &header, &value)?;
                }
            }
        }
        Ok(())
    }

    /// The headers for the URI at `index`, more specific ones in place of
    /// general ones; repeated values are joined by a comma (RFC 9110, 5.3).
    #[must_use]
    pub fn for_uri(&self, index: usize, uri: &str) -> Vec<(HeaderName, SecretValue)> {
        let mut merged: BTreeMap<&str, &(HeaderName, Vec<SecretValue>)> = BTreeMap::new();
        let sources = [
            Some(&self.global),
            self.per_url.get(&index),
            self.by_url.get(uri),
        ];
        for (name, values) in sources.into_iter().flatten().flatten() {
            merged.insert(name, values);
        }
        let joined = merged.into_values().map(|(name, values)| {
            let all: Vec<&str> = values.iter().map(ExposeSecret::expose_secret).collect();
            (name.clone(), SecretValue::from(all.join(", ")))
        });
        joined.collect()
    }

    /// Takes these for representation-selecting ones too.
    pub fn select_by(&mut self, key_headers: &KeyHeaders) {
        self.key_headers = key_headers.clone();
    }

    /// What [`OriginHeaders::select_by`] was told.
    #[must_use]
    pub fn key_headers(&self) -> &KeyHeaders {
        &self.key_headers
    }

    /// Whether a header selects a representation: it is no secret, and without
    /// it an origin may serve something else.
    #[must_use]
    pub fn selects(&self, name: &str) -> bool {
        self.key_headers.select(name)
    }

    /// Whether anything but representation-selecting headers is sent to this
    /// URI: then the fetch is made with credentials.
    #[must_use]
    pub fn has_credentials(&self, index: usize, uri: &str) -> bool {
        self.for_uri(index, uri)
            .iter()
            .any(|(name, _)| !self.selects(name.as_str()))
    }

    /// Representation-selecting headers of this URI, which are no secrets.
    #[must_use]
    pub fn selecting(&self, index: usize, uri: &str) -> Vec<(String, String)> {
        let all = self.for_uri(index, uri).into_iter();
        all.filter(|(name, _)| self.selects(name.as_str()))
            .map(|(name, value)| (name.as_str().to_owned(), value.expose_secret().to_owned()))
            .collect()
    }

    /// Feeds in every header with its values, which are secrets. For keyed
    /// hashes that stay in memory, and nothing else.
    pub fn feed(&self, hasher: &mut impl Hasher) {
        feed(&self.global, hasher);
        self.per_url.len().hash(hasher);
        for (index, values) in &self.per_url {
            index.hash(hasher);
            feed(values, hasher);
        }
        self.by_url.len().hash(hasher);
        for (url, values) in &self.by_url {
            url.hash(hasher);
            feed(values, hasher);
        }
    }

    /// Whether there are none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.global.is_empty() && self.per_url.is_empty() && self.by_url.is_empty()
    }
}

/// Shows that there are headers, and nothing of them.
impl std::fmt::Debug for OriginHeaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_empty() {
            "no headers"
        } else {
            "headers withheld"
        })
    }
}

/// One value, or several of the same header (Bazel's newer form).
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(value) => vec![value],
            OneOrMany::Many(values) => values,
        }
    }
}

fn feed(values: &Values, hasher: &mut impl Hasher) {
    values.len().hash(hasher);
    for (name, (_, values)) in values {
        name.hash(hasher);
        values.len().hash(hasher);
        for value in values {
            value.expose_secret().hash(hasher);
        }
    }
}

fn add(into: &mut Values, qualifier: &str, header: &str, value: &str) -> Result<(), HeaderError> {
    let name = HeaderName::from_bytes(header.as_bytes())
        .map_err(|_| HeaderError::Name(shown(qualifier)))?;
    if is_forbidden_header(name.as_str()) {
        return Err(HeaderError::Forbidden(shown(qualifier)));
    }
    HeaderValue::from_str(value).map_err(|_| HeaderError::Value(shown(qualifier)))?;
    let slot = into
        .entry(name.as_str().to_owned())
        .or_insert_with(|| (name, Vec::new()));
    slot.1.push(SecretValue::from(value.to_owned()));
    Ok(())
}

fn shown(name: &str) -> String {
    name.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Result<OriginHeaders, HeaderError> {
        let mut headers = OriginHeaders::default();
        pairs
            .iter()
            .try_for_each(|(n, v)| headers.insert(n, v, 2))?;
        Ok(headers)
    }

    fn sent(headers: &OriginHeaders, index: usize, uri: &str) -> Vec<(String, String)> {
        let all = headers.for_uri(index, uri).into_iter();
        all.map(|(n, v)| (n.to_string(), v.expose_secret().to_owned()))
            .collect()
    }

    #[test]
    fn specific_beats_general_whatever_the_case() {
        let h = headers(&[
            ("http_header:X-Token", "general"),
            ("http_header_url:1:x-token", "specific"),
            (
                "bazel.auth_headers",
                r#"{"https://b/":{"X-TOKEN":"oldest"}}"#,
            ),
        ]);
        let h = h.unwrap();
        assert_eq!(
            sent(&h, 0, "https://a/"),
            [("x-token".into(), "general".into())]
        );
        assert_eq!(
            sent(&h, 1, "https://a/"),
            [("x-token".into(), "specific".into())]
        );
        assert_eq!(
            sent(&h, 1, "https://b/"),
            [("x-token".into(), "oldest".into())]
        );
    }

    #[test]
    fn repeated_per_url_values_are_joined() {
        let h = headers(&[("http_header_url:0:X", "a"), ("http_header_url:0:X", "b")]).unwrap();
        assert_eq!(sent(&h, 0, ""), [("x".into(), "a, b".into())]);
        assert_eq!(
            headers(&[("http_header:X", "a"), ("http_header:x", "a")]).unwrap_err(),
            HeaderError::Duplicate("http_header:x".into())
        );
        let json = r#"{"u":{"X":["a","b"]}}"#;
        assert_eq!(
            sent(&headers(&[("bazel.auth_headers", json)]).unwrap(), 0, "u").len(),
            1
        );
    }

    #[test]
    fn bad_ones_are_named_without_their_value() {
        for (name, value) in [
            ("http_header:", "secret"),
            ("http_header:a b", "secret"),
            ("http_header:X", "secret\r\nEvil: 1"),
            ("http_header:Host", "secret"),
            ("http_header_url:2:X", "secret"),
            ("http_header_url:-1:X", "secret"),
            ("http_header_url:X", "secret"),
            ("bazel.auth_headers", "secret"),
        ] {
            let error = headers(&[(name, value)]).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn every_value_and_its_place_is_fed_in() {
        let fed = |pairs: &[(&str, &str)]| {
            let mut hasher = std::hash::DefaultHasher::new();
            headers(pairs).unwrap().feed(&mut hasher);
            hasher.finish()
        };
        let json = r#"{"u":{"X":"a"}}"#;
        let different = [
            fed(&[]),
            fed(&[("http_header:X", "a")]),
            fed(&[("http_header:X", "b")]),
            fed(&[("http_header:Y", "a")]),
            fed(&[("http_header_url:0:X", "a")]),
            fed(&[("http_header_url:1:X", "a")]),
            fed(&[("http_header_url:0:X", "a"), ("http_header_url:0:X", "b")]),
            fed(&[("http_header_url:0:X", "a, b")]),
            fed(&[("bazel.auth_headers", json)]),
        ];
        let unique: std::collections::BTreeSet<u64> = different.into();
        assert_eq!(unique.len(), different.len());
        assert_eq!(different[1], fed(&[("http_header:x", "a")]));
    }

    #[test]
    fn selecting_headers_are_no_credentials() {
        let h = headers(&[("http_header:Accept", "text/plain")]).unwrap();
        assert!(!h.has_credentials(0, ""));
        assert_eq!(h.selecting(0, ""), [("accept".into(), "text/plain".into())]);
        let h = headers(&[("http_header:Authorization", "Bearer x")]).unwrap();
        assert!(h.has_credentials(0, ""));
        assert!(!format!("{h:?}").contains("Bearer"));
    }

    #[test]
    fn an_operator_may_declare_further_selecting_headers() {
        let mut h = headers(&[("http_header:X-Variant", "b"), ("http_header:X-Key", "k")]).unwrap();
        h.select_by(&KeyHeaders::new(&["x-variant".parse().unwrap()]));
        assert!(h.has_credentials(0, ""));
        assert_eq!(h.selecting(0, ""), [("x-variant".into(), "b".into())]);
        let mut h = headers(&[("http_header:X-Variant", "b")]).unwrap();
        assert!(h.has_credentials(0, ""));
        h.select_by(&KeyHeaders::new(&["x-variant".parse().unwrap()]));
        assert!(!h.has_credentials(0, ""));
    }
}
