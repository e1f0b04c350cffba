//! A URI as something that can be requested: URL, credentials in it, and the
//! rule for where a redirect may lead.
//!
//! Not for: addresses (`policy`).
//! Called by: `fetch`, `client`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use url::Url;

use super::Failure;
use super::failed::Failed;
use crate::asset::{Uri, backslash_in_authority, percent_decoded};

/// A URL that can be requested.
#[derive(Clone)]
pub(super) struct Target {
    /// Without user info and fragment.
    pub(super) url: Url,
    /// The user info as an `Authorization` value; for this origin only.
    pub(super) basic: Option<HeaderValue>,
    /// That user info is this service's: a rule says it.
    pub(super) lent: bool,
    /// The client meant this origin, so its headers may go there.
    pub(super) own: bool,
    /// Which origin a rule has asked in place of the client's, if it does.
    pub(super) by_rule: Option<String>,
}

impl Target {
    /// Reads a URI of a request.
    pub(super) fn parse(uri: &Uri) -> Result<Self, &'static str> {
        uri.url().map(Self::from_url)
    }

    fn from_url(mut url: Url) -> Self {
        let basic = basic(&url);
        // These fail only for URLs without a host, which have none of it.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        Self {
            url,
            basic,
            lent: false,
            own: true,
            by_rule: None,
        }
    }

    /// What a rule puts in place of this one, with what of this one may go
    /// there.
    pub(super) fn instead(&self, mut other: Self) -> Self {
        other.own = self.same_origin(&other);
        other.lent = other.basic.is_some();
        let changed = other.url != self.url;
        other.by_rule = changed.then(|| other.url.origin().ascii_serialization());
        if other.own && !other.lent {
            other.basic.clone_from(&self.basic);
        }
        other
    }

    /// Where a redirect with this `Location` leads. `pinned`: a checksum will
    /// tell whether the bytes are the right ones.
    pub(super) fn redirected(&self, location: &HeaderValue, pinned: bool) -> Result<Self, Failed> {
        let unusable = |text: &str| Failed::new(Failure::Unusable, text);
        let location = std::str::from_utf8(location.as_bytes())
            .map_err(|_| unusable("a redirect to what is not UTF-8"))?;
        if is_ambiguous(location) {
            let text = "a redirect with a backslash or a tab in the part that names the host, \
                        which is not followed";
            return Err(unusable(text));
        }
        let url = self.url.join(location);
        let url = url.map_err(|_| unusable("a redirect to what is not a URL"))?;
        match (self.url.scheme(), url.scheme()) {
            ("https", "http") if !pinned => Err(Failed::new(
                Failure::Disallowed,
                "a redirect from https to http, which is not followed without a checksum",
            )),
            (_, "http" | "https") => {
                let mut next = Self::from_url(url);
                let stays = next.same_origin(self);
                next.own = self.own && stays;
                if next.basic.is_none() && stays {
                    next.basic.clone_from(&self.basic);
                    next.lent = self.lent;
                }
                Ok(next)
            }
            (_, other) => {
                let scheme: String = other.chars().take(20).collect();
                let text = format!("a redirect to {scheme}:, which is not followed");
                Err(Failed::new(Failure::Disallowed, text))
            }
        }
    }

    /// Whether credentials for `self` may go to `other`.
    pub(super) fn same_origin(&self, other: &Self) -> bool {
        self.url.origin() == other.url.origin()
    }

    /// Scheme, host, port and path, for people.
    pub(super) fn redacted(&self) -> String {
        Uri::new(self.url.as_str().to_owned()).redacted()
    }
}

fn basic(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut pair = percent_decoded(url.username().as_bytes());
    pair.push(b':');
    pair.extend(percent_decoded(url.password().unwrap_or("").as_bytes()));
    let value = format!("Basic {}", STANDARD.encode(pair));
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether parsers disagree about which host a `Location` names: one takes a
/// backslash for a slash and leaves out tabs, another does not.
fn is_ambiguous(location: &str) -> bool {
    let (scheme, rest) = match location.split_once(':') {
        Some((scheme, rest)) if !scheme.contains(['/', '?', '#', '\\']) => (scheme, rest),
        _ => ("", location),
    };
    let tab = |text: &str| text.contains(char::is_control);
    let slashes = rest.chars().take_while(|c| matches!(c, '/' | '\\')).count();
    let end = rest[slashes..].find(['/', '?', '#']);
    let names_host = slashes > 1 || !scheme.is_empty();
    let head = &rest[..end.map_or(rest.len(), |end| slashes + end)];
    tab(scheme) || tab(head) || (names_host && backslash_in_authority(head.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Result<Target, &'static str> {
        Target::parse(&Uri::new(uri.to_owned()))
    }

    #[test]
    fn scenario_17_what_is_no_http_url_cannot_be_fetched() {
        for bad in [
            "ftp://h/x",
            "file:///etc/passwd",
            "relative/path",
            "http:///path",
            "https:token",
            "urn:a:b",
            "http://",
            "http:/h/x",
            "http://h:99999/",
            "http://[::1/",
            "http://a b/",
            "http://h/a\nb",
            "http:\\\\h\\x",
            "",
            "http://?x",
            "http://%zz/",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(Target::parse(&Uri::new(&b"http://h/\xff"[..])).is_err());
        for good in [
            "http://h/a b",
            "HTTPS://H:8443",
            "http://[::1]/x",
            "http://127.1/",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        assert_eq!(
            parse("http://0x7f.1/").unwrap().url.host_str(),
            Some("127.0.0.1")
        );
    }

    #[test]
    fn user_info_becomes_a_header_and_leaves_the_url() {
        let target = parse("http://us%40er:p%3Ass@h/x?y=1#frag").unwrap();
        assert_eq!(target.url.as_str(), "http://h/x?y=1");
        let basic = target.basic.unwrap();
        assert!(basic.is_sensitive());
        assert_eq!(basic, "Basic dXNAZXI6cDpzcw==");
        assert_eq!(parse("http://h/").unwrap().basic, None);
    }

    #[test]
    fn what_a_rule_chose_gets_what_was_meant_for_its_origin_only() {
        let asked = parse("http://u:p@h/x").unwrap();
        let instead = |to: &str| asked.instead(parse(to).unwrap());
        let same = instead("http://h/y");
        assert!(same.own && !same.lent && same.basic == asked.basic);
        assert_eq!(same.by_rule.as_deref(), Some("http://h"));
        assert_eq!(instead("http://h/x").by_rule, None);
        for to in ["https://h/x", "http://h:81/x", "http://g/x"] {
            let other = instead(to);
            assert!(!other.own && !other.lent && other.basic.is_none(), "{to}");
        }
        let lent = instead("http://me:own@h/x");
        assert!(lent.own && lent.lent && lent.basic != asked.basic);
        let value = HeaderValue::from_static;
        let on = lent.redirected(&value("/z"), true).unwrap();
        assert!(on.own && on.lent && on.basic == lent.basic);
        let off = lent.redirected(&value("http://g/z"), true).unwrap();
        assert!(!off.own && !off.lent && off.basic.is_none());
        let back = off.redirected(&value("http://h/z"), true).unwrap();
        assert!(!back.own, "who left does not come back with credentials");
    }

    #[test]
    fn where_redirects_may_lead() {
        let from = parse("https://h/a/b").unwrap();
        let to = |location: &'static str, pinned| {
            let value = HeaderValue::from_static(location);
            from.redirected(&value, pinned).map(|t| t.url.to_string())
        };
        assert_eq!(to("c", false).unwrap(), "https://h/a/c");
        assert_eq!(to("//cdn/c", false).unwrap(), "https://cdn/c");
        assert_eq!(to("http://h/c", true).unwrap(), "http://h/c");
        for (location, failure) in [
            ("http://h/c", Failure::Disallowed),
            ("ftp://h/c", Failure::Disallowed),
            ("file:///etc/passwd", Failure::Disallowed),
            ("https://h:99999/", Failure::Unusable),
        ] {
            assert_eq!(
                to(location, false).unwrap_err().failure,
                failure,
                "{location}"
            );
        }
        assert!(!from.same_origin(&parse("http://h/a/b").unwrap()));
        assert!(!from.same_origin(&parse("https://h:444/").unwrap()));
        assert!(from.same_origin(&parse("https://h:443/x").unwrap()));
    }
}
