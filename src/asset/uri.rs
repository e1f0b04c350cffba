//! URIs as the API means them: opaque byte strings that are matched as they
//! are, of which some happen to be URLs.
//!
//! Not for: deciding whether an address may be reached (`fetcher`).

use std::fmt;

use bytes::Bytes;

use super::scrub::{Display, scrub_uri};

/// A URI of a request. Its `Debug` and `Display` forms are redacted.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Uri(Bytes);

impl Uri {
    /// A URI from a request. Any bytes are one: Bazel is known to send URLs
    /// that are not UTF-8, and those are merely not fetchable.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// Exactly what the request said. Holds secrets: for the wire only.
    #[must_use]
    pub fn to_wire(&self) -> Bytes {
        self.0.clone()
    }

    /// The URI as text, if it is UTF-8. Holds secrets.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// What stands for the URI in keys: without user info and signatures.
    #[must_use]
    pub fn key_bytes(&self) -> Vec<u8> {
        scrub_uri(&self.0).0
    }

    /// Whether the URI itself carries a secret, so that fetching it counts as
    /// a fetch with credentials.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        scrub_uri(&self.0).1
    }

    /// The scheme in lower case, if there is one (RFC 3986, section 3.1).
    #[must_use]
    pub fn scheme(&self) -> Option<String> {
        let end = self.0.iter().position(|b| *b == b':')?;
        let scheme = &self.0[..end];
        let valid = scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b));
        valid.then(|| String::from_utf8_lossy(scheme).to_ascii_lowercase())
    }

    /// Whether an origin can be asked for it at all: `http` or `https`.
    #[must_use]
    pub fn is_http(&self) -> bool {
        matches!(self.scheme().as_deref(), Some("http" | "https"))
    }

    /// Host of an `http` or `https` URL, for logs and metrics.
    #[must_use]
    pub fn host(&self) -> Option<String> {
        let url = url::Url::parse(self.as_str()?).ok()?;
        url.host_str().map(str::to_owned)
    }

    /// The redacted form: no user info, no query, no control characters.
    #[must_use]
    pub fn redacted(&self) -> String {
        Display(&self.0).to_string()
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Display(&self.0), f)
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Display(&self.0), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes() {
        let scheme = |s: &'static str| Uri::new(s).scheme();
        assert_eq!(scheme("HTTPS://x"), Some("https".into()));
        assert_eq!(scheme("urn:fdc:x"), Some("urn".into()));
        assert_eq!(scheme("no-scheme"), None);
        assert_eq!(scheme("1a:x"), None);
        assert!(Uri::new("Http://x").is_http());
        assert!(!Uri::new(&b"\xff:x"[..]).is_http());
    }

    #[test]
    fn never_shows_a_secret() {
        let uri = Uri::new("https://user:hunter2@h.example/p/a.tgz?X-Amz-Signature=s3cret&v=1#f");
        assert_eq!(uri.redacted(), "https://h.example/p/a.tgz?...");
        assert_eq!(format!("{uri:?}"), uri.redacted());
        assert!(uri.has_secret());
        assert_eq!(uri.key_bytes(), b"https://h.example/p/a.tgz?v=1#f");
        assert_eq!(
            uri.to_wire(),
            &b"https://user:hunter2@h.example/p/a.tgz?X-Amz-Signature=s3cret&v=1#f"[..]
        );
    }
}
