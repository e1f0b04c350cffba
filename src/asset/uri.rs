//! URIs as the API means them: opaque byte strings that are matched as they
//! are, of which some happen to be URLs.
//!
//! Not for: deciding whether an address may be reached (`fetcher`).

use std::fmt;

use bytes::Bytes;
use url::Url;

use super::scrub::{Display, scrub_uri};

/// A URI of a request. Its `Debug` and `Display` forms are redacted.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Uri {
    wire: Bytes,
    /// Without secrets: worked out once, as it is asked for many times.
    key: Bytes,
}

impl Uri {
    /// A URI from a request. Any bytes are one: Bazel is known to send URLs
    /// that are not UTF-8, and those are merely not fetchable.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let wire = bytes.into();
        let key = match scrub_uri(&wire) {
            (clean, true) => clean.into(),
            (_, false) => wire.clone(),
        };
        Self { wire, key }
    }

    /// Exactly what the request said. Holds secrets: for the wire only.
    #[must_use]
    pub fn to_wire(&self) -> Bytes {
        self.wire.clone()
    }

    /// The URI as text, if it is UTF-8. Holds secrets.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.wire).ok()
    }

    /// What stands for the URI in keys: without user info and signatures.
    #[must_use]
    pub fn key_bytes(&self) -> Vec<u8> {
        self.key.to_vec()
    }

    /// Whether the URI itself carries a secret, so that fetching it counts as
    /// a fetch with credentials.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        self.key != self.wire
    }

    /// The scheme in lower case, if there is one (RFC 3986, section 3.1).
    #[must_use]
    pub fn scheme(&self) -> Option<String> {
        let end = self.wire.iter().position(|b| *b == b':')?;
        let scheme = &self.wire[..end];
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

    /// Why this can be no URI of a request, if there is a reason: some parsers
    /// end the authority of an `http` URL at a backslash and some do not, so
    /// with one in it there is no saying which host is meant.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self) -> Result<(), &'static str> {
        let after = self
            .wire
            .iter()
            .position(|b| *b == b':')
            .map_or(0, |i| i + 1);
        if self.is_http() && backslash_in_authority(&self.wire[after..]) {
            return Err(
                "a backslash in the part that names the host, which one parser takes for the \
                 end of it and another does not; write `/`, or `%5C` within user info",
            );
        }
        Ok(())
    }

    /// The URL as it is requested. This is the only parser of URLs from others:
    /// whoever judges one judges what this says.
    ///
    /// The lenient parser of browsers would find a host in `http:///path` and
    /// `https:token`, and take line breaks out; here these are no URLs.
    ///
    /// # Errors
    /// Why it cannot be fetched.
    pub fn url(&self) -> Result<Url, &'static str> {
        let text = self.as_str().ok_or("not UTF-8, cannot be fetched")?;
        if !self.is_http() {
            return Err("not an http or https URL, cannot be fetched");
        }
        let after_scheme = text.split_once(':').map_or("", |(_, rest)| rest);
        let authority = after_scheme.strip_prefix("//").unwrap_or("");
        if authority.is_empty() || authority.starts_with(['/', '?', '#', '\\']) {
            return Err("a URL without a host, cannot be fetched");
        }
        if text.chars().any(char::is_control) {
            return Err("a URL with control characters, cannot be fetched");
        }
        self.check()?;
        Url::parse(text).map_err(|_| "not a valid URL, cannot be fetched")
    }

    /// Host of an `http` or `https` URL, for logs and metrics.
    #[must_use]
    pub fn host(&self) -> Option<String> {
        self.url().ok()?.host_str().map(str::to_owned)
    }

    /// The redacted form: no user info, no query, no control characters.
    #[must_use]
    pub fn redacted(&self) -> String {
        Display(&self.key).to_string()
    }
}

/// Whether there is a backslash in the authority, or before it, of what follows
/// the scheme of an `http` URL. Slashes before it may be missing or too many.
pub(crate) fn backslash_in_authority(after_scheme: &[u8]) -> bool {
    let slashes = after_scheme.iter().take_while(|b| b"/\\".contains(b));
    let (slashes, rest) = after_scheme.split_at(slashes.count());
    let end = rest.iter().position(|b| b"/?#".contains(b));
    let authority = &rest[..end.unwrap_or(rest.len())];
    slashes.contains(&b'\\') || authority.contains(&b'\\')
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Display(&self.key), f)
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Display(&self.key), f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn a_backslash_is_no_part_of_an_authority() {
        for bad in [
            "http://a\\@b/x",
            "HTTPS://a\\x@b",
            "http:\\\\a/x",
            "http:/\\a/x",
            "http:a\\@b",
            "http:///\\a",
        ] {
            assert!(Uri::new(bad).check().is_err(), "{bad}");
            assert!(Uri::new(bad).url().is_err(), "{bad}");
        }
        for good in [
            "http://a/\\@b",
            "http://a?\\@b",
            "urn:a\\b",
            "c:\\http://a",
            "\\",
        ] {
            assert_eq!(Uri::new(good).check(), Ok(()), "{good}");
        }
    }

    /// What URLs are made of, and what parsers disagree about.
    fn texts() -> impl Strategy<Value = String> {
        let parts = [
            "http",
            "https",
            "HTTP",
            ":",
            "//",
            "/",
            "\\",
            "@",
            "?",
            "#",
            "a.example",
            "b.example",
            "u",
            "p",
            ":80",
            ":1x",
            ":",
            "[::1]",
            "[",
            "]",
            "127.1",
            "0x7f.1",
            "%2e",
            "%5c",
            "%40",
            "\t",
            "\n",
            " ",
            ".",
            ";",
            "token=s",
            "sig=s",
            "&",
            "=",
            "\u{fc}",
            "\u{3002}",
            "\u{ff0f}",
            "\u{200b}",
            "%",
            "..",
            "@c/",
        ];
        let part = prop::sample::select(parts.to_vec());
        prop::collection::vec(part, 0..12).prop_map(|parts| format!("http://{}", parts.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 4_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// The key of what can be fetched names the host that is asked, and
        /// the request says it too.
        #[test]
        fn the_host_that_is_judged_is_the_host_that_is_asked(text in texts()) {
            let uri = Uri::new(text.clone());
            if let Ok(url) = uri.url() {
                let key = Uri::new(uri.key_bytes());
                let judged = key.url().expect("a key of a URL is one");
                let place = |url: &Url| {
                    let host = url.host_str().map(str::to_owned);
                    (url.scheme().to_owned(), host, url.port_or_known_default())
                };
                prop_assert_eq!(place(&judged), place(&url));
                let mut bare = url.clone();
                let _ = bare.set_username("");
                let _ = bare.set_password(None);
                if let Ok(sent) = bare.as_str().parse::<http::Uri>() {
                    prop_assert_eq!(sent.host(), url.host_str());
                    prop_assert_eq!(sent.port_u16(), url.port());
                }
                let logged = uri.host();
                prop_assert_eq!(logged.as_deref(), url.host_str());
            }
            let again = Uri::new(uri.key_bytes());
            prop_assert!(!again.has_secret(), "{:?}", again.key_bytes());
        }
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
