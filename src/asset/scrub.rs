//! Takes secrets out of URLs, wherever these stand: user info and the values
//! of signature and token parameters.
//!
//! Two uses with different rules. [`scrub`] makes what goes into keys and
//! entries: everything stays but the secrets, so that two requests that differ
//! only in a secret agree. [`Display`] makes what people read: the query goes
//! as a whole, as no list of names is ever complete.
//! Called by: `uri.rs`, `qualifiers.rs`.

use std::borrow::Cow;
use std::fmt;

/// Parameters whose value is a secret, in lower case; `*` ends a prefix.
const SECRET_PARAMETERS: [&str; 12] = [
    "x-amz-*",
    "x-goog-*",
    "sig",
    "signature",
    "token",
    "access_token",
    "private_token",
    "id_token",
    "api_key",
    "apikey",
    "password",
    "key-pair-id",
];

const SHOWN_BYTES: usize = 512;

/// `text` without the secrets of the URLs in it.
#[must_use]
pub fn scrub(text: &str) -> Cow<'_, str> {
    match scrub_bytes(text.as_bytes()) {
        (clean, true) => Cow::Owned(String::from_utf8_lossy(&clean).into_owned()),
        (_, false) => Cow::Borrowed(text),
    }
}

/// `bytes` without the secrets of the URLs in it, and whether there were any.
/// URLs are taken to end at white space.
pub(super) fn scrub_bytes(bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::with_capacity(bytes.len());
    let mut found = false;
    for piece in bytes.split_inclusive(u8::is_ascii_whitespace) {
        let end = piece.len() - usize::from(piece.last().is_some_and(u8::is_ascii_whitespace));
        found |= scrub_url(&piece[..end], &mut out);
        out.extend_from_slice(&piece[end..]);
    }
    (out, found)
}

fn scrub_url(url: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(authority) = find(url, b"://").map(|i| i + 3) else {
        out.extend_from_slice(url);
        return false;
    };
    let rest = &url[authority..];
    let host_end = rest
        .iter()
        .position(|b| b"/?#".contains(b))
        .unwrap_or(rest.len());
    let host_start = rest[..host_end]
        .iter()
        .rposition(|b| *b == b'@')
        .map_or(0, |i| i + 1);
    out.extend_from_slice(&url[..authority]);
    let tail = &rest[host_start..];
    let query = tail
        .iter()
        .position(|b| b"?#".contains(b))
        .unwrap_or(tail.len());
    out.extend_from_slice(&tail[..query]);
    let dropped = scrub_parameters(&tail[query..], out);
    host_start > 0 || dropped
}

/// Copies `?a=1&b=2#c` without secret parameters.
fn scrub_parameters(tail: &[u8], out: &mut Vec<u8>) -> bool {
    let mut dropped = false;
    let mut rest = tail;
    let mut opening: Option<u8> = None;
    while let Some((&separator, after)) = rest.split_first() {
        let end = after
            .iter()
            .position(|b| b"&;?#".contains(b))
            .unwrap_or(after.len());
        if matches!(separator, b'?' | b'#') {
            opening = Some(separator);
        }
        if is_secret_parameter(&after[..end]) {
            dropped = true;
        } else {
            out.push(opening.take().unwrap_or(separator));
            out.extend_from_slice(&after[..end]);
        }
        rest = &after[end..];
    }
    dropped
}

fn is_secret_parameter(parameter: &[u8]) -> bool {
    let Some(end) = parameter.iter().position(|b| *b == b'=') else {
        return false;
    };
    let name = percent_decoded(&parameter[..end]).to_ascii_lowercase();
    SECRET_PARAMETERS
        .iter()
        .any(|secret| match secret.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix.as_bytes()),
            None => name == secret.as_bytes(),
        })
}

fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut i = 0;
    while i < name.len() {
        let hex = name
            .get(i + 1..i + 3)
            .and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) if name[i] == b'%' => {
                out.push(byte);
                i += 3;
            }
            _ => {
                out.push(name[i]);
                i += 1;
            }
        }
    }
    out
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// Shows a URI to people: scheme, host, port and path; `?...` for a query.
pub(super) struct Display<'a>(pub(super) &'a [u8]);

impl fmt::Display for Display<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (clean, _) = scrub_bytes(self.0);
        let is_url = find(&clean, b"://").is_some();
        let end = if is_url {
            clean.iter().position(|b| b"?#".contains(b))
        } else {
            None
        };
        let shown = &clean[..end.unwrap_or(clean.len()).min(SHOWN_BYTES)];
        for c in String::from_utf8_lossy(shown).chars() {
            if c.is_control() {
                f.write_str("\u{fffd}")?
            } else {
                write!(f, "{c}")?
            }
        }
        if end.is_some_and(|i| clean[i] == b'?') {
            f.write_str("?...")
        } else if clean.len() > SHOWN_BYTES {
            f.write_str("...")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(s: &str) -> String {
        scrub(s).into_owned()
    }

    #[test]
    fn user_info_and_signatures_go() {
        assert_eq!(scrubbed("https://u:p@h/x"), "https://h/x");
        assert_eq!(scrubbed("https://h/x?a=1&sig=S&b=2"), "https://h/x?a=1&b=2");
        assert_eq!(scrubbed("https://h/x?token=T"), "https://h/x");
        assert_eq!(scrubbed("https://h/x?token=T&b=2"), "https://h/x?b=2");
        assert_eq!(
            scrubbed("https://h/x?X-Goog-Signature=T#top"),
            "https://h/x#top"
        );
        assert_eq!(scrubbed("https://h/x#access_token=T"), "https://h/x");
        assert_eq!(scrubbed("https://h/x?%74oken=T"), "https://h/x");
        assert_eq!(scrubbed("https://a@b:c@h/x"), "https://h/x");
    }

    #[test]
    fn urls_inside_other_values_are_found() {
        assert_eq!(
            scrubbed("https://u@a/1 https://b/2?sig=S"),
            "https://a/1 https://b/2"
        );
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for same in [
            "urn:a:b?token=x",
            "v1.2",
            "",
            "https://h/?q=token",
            "https://h/a@b",
            "a  b",
        ] {
            assert!(
                matches!(scrub(same), Cow::Borrowed(s) if s == same),
                "{same}"
            );
        }
    }

    #[test]
    fn display_has_no_control_characters_and_an_end() {
        let shown = Display(b"https://h/a\r\nb").to_string();
        assert!(!shown.contains('\n'), "{shown}");
        assert!(Display(&[b'a'; 5000]).to_string().len() < 600);
    }
}
