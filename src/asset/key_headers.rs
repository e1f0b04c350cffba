//! Request headers that an operator declares to select a representation
//! (`fetch.key_headers`), beside those that always do.
//!
//! Their values stand in keys and entries of unpinned content, which whoever
//! reads the cache sees: what may hold a secret is refused.
//! Not for: values (`headers.rs`).
//! Called by: `config` (parsing), `headers.rs` and `resolver`.

use std::str::FromStr;
use std::sync::Arc;

use http::HeaderName;

use super::headers::{FORBIDDEN, is_selecting_header};

/// Words that names of headers with credentials hold.
const SECRET: [&str; 13] = [
    "auth",
    "token",
    "cookie",
    "secret",
    "passw",
    "credential",
    "session",
    "signature",
    "apikey",
    "api-key",
    "access-key",
    "private",
    "jwt",
];

/// A header that may be declared to select a representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHeader(HeaderName);

impl FromStr for KeyHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
            // Not echoed: `Authorization: Bearer ...` is no name either.
            "one of these is no name of a header; write it without a value, as in `X-Api-Version`"
                .to_owned()
        })?;
        let lower = name.as_str();
        if SECRET.iter().any(|word| lower.contains(word)) {
            return Err(format!(
                "`{lower}` may hold credentials, and values of these headers become part of keys \
                 and entries that others can read"
            ));
        }
        if FORBIDDEN.contains(&lower) {
            return Err(format!("`{lower}` cannot be set by a client"));
        }
        if lower.starts_with("if-") {
            return Err(format!(
                "`{lower}` is a condition, which selects no representation"
            ));
        }
        Ok(Self(name))
    }
}

/// Those that were declared. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyHeaders(Arc<[HeaderName]>);

impl KeyHeaders {
    /// These.
    #[must_use]
    pub fn new(headers: &[KeyHeader]) -> Self {
        Self(headers.iter().map(|header| header.0.clone()).collect())
    }

    /// Whether a header selects a representation: one of these, or one that
    /// always does.
    #[must_use]
    pub fn select(&self, name: &str) -> bool {
        is_selecting_header(name) || self.contains(name)
    }

    /// Whether a header, named in lower case or not, is one of them.
    fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|h| h.as_str().eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_whatever_their_case() {
        let headers = KeyHeaders::new(&["X-Api-Version".parse().unwrap()]);
        assert!(headers.contains("x-api-version") && headers.contains("X-API-VERSION"));
        assert!(!headers.contains("x-api") && !KeyHeaders::default().contains("x-api-version"));
    }

    #[test]
    fn what_may_hold_a_secret_is_refused_without_its_value() {
        for bad in [
            "Authorization",
            "authorization",
            "Proxy-Authorization",
            "Cookie",
            "PRIVATE-TOKEN",
            "X-Api-Key",
            "X-Amz-Security-Token",
            "X-JFrog-Art-Api-Key",
            "Host",
            "If-None-Match",
            "X-Password: s3cret",
            "",
        ] {
            let error = bad.parse::<KeyHeader>().unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
        for good in [
            "Accept-Encoding",
            "X-Variant",
            "Docker-Distribution-Api-Version",
        ] {
            good.parse::<KeyHeader>().unwrap();
        }
    }
}
