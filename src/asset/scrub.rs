//! Takes secrets out of URLs, wherever these stand: user info and parameters
//! that hold secrets, in path, query and fragment.
//!
//! Two uses with different rules. [`scrub`] makes what goes into keys and
//! entries: everything stays but the secrets, so that two requests that differ
//! only in a secret agree. [`Display`] makes what people read: the query goes
//! as a whole, as no list of names is ever complete.
//!
//! Every step looks at each byte a fixed number of times, so all of it takes
//! time linear in the length, whoever wrote the text.
//! Not for: names (`secret_names.rs`).
//! Called by: `uri.rs`, `qualifiers.rs`.

use std::borrow::Cow;
use std::fmt;

use super::secret_names::is_secret;

const SHOWN_BYTES: usize = 512;

/// URLs inside values of URLs are looked at this many levels deep.
const LEVELS: u8 = 2;

/// Where a secret was, what stood around it meets and may be read as another:
/// user info behind user info, say. So what is found clean has been looked at
/// once more, and a stored value is taken for what it is when it comes back.
/// What is not clean by then was made to be so: of that only its beginning
/// stays, up to the first colon, where no secret is ([`nothing_left`]).
const PASSES: usize = 8;

/// `text` without the secrets of the URLs in it.
#[must_use]
pub fn scrub(text: &str) -> Cow<'_, str> {
    let mut clean = Cow::Borrowed(text);
    for _ in 0..PASSES {
        let mut out = Vec::with_capacity(clean.len());
        let mut found = false;
        for piece in pieces(&clean) {
            let url = piece.trim_end_matches(between);
            found |= scrub_url(url.as_bytes(), &mut out, LEVELS);
            out.extend_from_slice(&piece.as_bytes()[url.len()..]);
        }
        if !found {
            return clean;
        }
        clean = Cow::Owned(String::from_utf8_lossy(&out).into_owned());
    }
    let left = nothing_left(clean.as_bytes());
    Cow::Owned(String::from_utf8_lossy(left).into_owned())
}

/// A URI without its secrets, and whether there were any. Unlike a text it is
/// one URL whatever is in it: white space too may stand in a password.
pub(super) fn scrub_uri(uri: &[u8]) -> (Vec<u8>, bool) {
    let mut clean = uri.to_vec();
    for pass in 0..PASSES {
        let mut out = Vec::with_capacity(clean.len());
        if !scrub_url(&clean, &mut out, LEVELS) {
            return (clean, pass > 0);
        }
        clean = out;
    }
    (nothing_left(&clean).to_vec(), true)
}

/// What stays of a text in which there were secrets within secrets, however
/// often these were taken out. It is clean: no URL goes on behind it.
fn nothing_left(text: &[u8]) -> &[u8] {
    let colon = text.iter().position(|b| *b == b':');
    &text[..colon.map_or(0, |i| i + 1)]
}

/// What stands between URLs that were joined.
fn between(c: char) -> bool {
    c.is_ascii_whitespace() || matches!(c, ',' | '|')
}

/// A text in parts of one URL at most: each begins with a word that has one.
/// What stands between two ends the first.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    for word in text.split_inclusive(between) {
        if word.contains("://") && at > start {
            pieces.push(&text[start..at]);
            start = at;
        }
        at += word.len();
    }
    pieces.push(&text[start..]);
    pieces
}

// Bytes that were looked at, counted where a test asks for it.
#[cfg(test)]
thread_local! {
    static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[inline]
fn look_at(bytes: usize) {
    #[cfg(test)]
    LOOKED_AT.set(LOOKED_AT.get() + bytes);
    #[cfg(not(test))]
    let _ = bytes;
}

fn scrub_url(url: &[u8], out: &mut Vec<u8>, levels: u8) -> bool {
    look_at(url.len());
    let Some(start) = authority(url) else {
        out.extend_from_slice(url);
        return false;
    };
    out.extend_from_slice(&url[..start]);
    let rest = &url[start..];
    let user = user_info(rest, is_web(url));
    let rest = &rest[user..];
    let query = rest.iter().position(|b| b"?#".contains(b));
    let (path, query) = rest.split_at(query.unwrap_or(rest.len()));
    let inside = scrub_path(path, out, levels);
    let dropped = scrub_parameters(query, out, levels);
    user > 0 || inside || dropped
}

/// Copies authority and path without the secret parameters of its segments
/// (`/a;token=x/b`), and without the secrets of URLs in it.
fn scrub_path(path: &[u8], out: &mut Vec<u8>, levels: u8) -> bool {
    if !path.iter().any(|b| b";%".contains(b)) {
        return scrub_users(path, out);
    }
    let authority = path.iter().position(|b| *b == b'/');
    let (authority, mut rest) = path.split_at(authority.unwrap_or(path.len()));
    let mut clean = authority.to_vec();
    let mut found = false;
    while let Some((&separator, after)) = rest.split_first() {
        let end = after.iter().position(|b| b"/;".contains(b));
        let (part, next) = after.split_at(end.unwrap_or(after.len()));
        if separator == b';' && is_secret_parameter(part) {
            found = true;
        } else {
            clean.push(separator);
            if scrub_encoded(part, &mut clean, levels) {
                found = true;
            } else {
                clean.extend_from_slice(part);
            }
        }
        rest = next;
    }
    scrub_users(&clean, out) || found
}

fn is_web(url: &[u8]) -> bool {
    let scheme = url.split(|b| *b == b':').next().unwrap_or(url);
    scheme.len() < url.len()
        && (scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https"))
}

/// Where the authority of a URL begins. With `http` people leave slashes out,
/// turn them round or write too many.
fn authority(url: &[u8]) -> Option<usize> {
    if !is_web(url) {
        return find(url, b"://").map(|i| i + 3);
    }
    let colon = url.iter().position(|b| *b == b':')? + 1;
    let slashes = url[colon..].iter().take_while(|b| b"/\\".contains(b));
    Some(colon + slashes.count())
}

/// How many bytes the user info at the beginning of `rest` takes, its `@`
/// included. A password may hold what ends an authority: then what comes
/// before it reads as a port that is none.
fn user_info(rest: &[u8], web: bool) -> usize {
    let end = rest.iter().position(|b| b"/?#".contains(b));
    let authority = &rest[..end.unwrap_or(rest.len())];
    look_at(authority.len());
    let last_at = |bytes: &[u8]| bytes.iter().rposition(|b| *b == b'@').map(|i| i + 1);
    if let Some(user) = last_at(authority) {
        return user;
    }
    let port = match authority.iter().rposition(|b| b":]".contains(b)) {
        Some(i) if authority[i] == b':' => &authority[i + 1..],
        _ => return 0,
    };
    if !web || port.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    look_at(rest.len());
    last_at(rest).unwrap_or(0)
}

/// Copies what comes after an authority without the user info of URLs in it.
fn scrub_users(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let mut found = false;
    let mut rest = bytes;
    while let Some(start) = find(rest, b"://").map(|i| i + 3) {
        out.extend_from_slice(&rest[..start]);
        let user = user_info(&rest[start..], false);
        found |= user > 0;
        rest = &rest[start + user..];
    }
    out.extend_from_slice(rest);
    found
}

/// Copies `?a=1&b=2#c` without secret parameters.
fn scrub_parameters(tail: &[u8], out: &mut Vec<u8>, levels: u8) -> bool {
    look_at(tail.len());
    let mut found = false;
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
            found = true;
        } else {
            out.push(opening.take().unwrap_or(separator));
            found |= scrub_parameter(&after[..end], out, levels);
        }
        rest = &after[end..];
    }
    found
}

/// Copies a parameter; if its name, its value or both together are a URL with
/// secrets, without these.
fn scrub_parameter(parameter: &[u8], out: &mut Vec<u8>, levels: u8) -> bool {
    let equals = parameter.iter().position(|b| *b == b'=');
    let Some(equals) = equals else {
        return scrub_encoded(parameter, out, levels) || scrub_users(parameter, out);
    };
    let mut parts = Vec::with_capacity(parameter.len());
    let mut found = false;
    for (part, before) in [
        (&parameter[..equals], &b""[..]),
        (&parameter[equals + 1..], b"="),
    ] {
        parts.extend_from_slice(before);
        if scrub_encoded(part, &mut parts, levels) {
            found = true;
        } else {
            parts.extend_from_slice(part);
        }
    }
    let together = scrub_encoded(&parts, out, levels) || scrub_users(&parts, out);
    found || together
}

/// Appends an encoded URL, or a part of one, without its secrets, if it has
/// any. It stays encoded: were it not, what is in it would be taken apart in
/// another way the next time, and a key made of it would not be that of what is
/// stored.
fn scrub_encoded(text: &[u8], out: &mut Vec<u8>, levels: u8) -> bool {
    let mut clean = Vec::new();
    let found = levels > 0
        && text.contains(&b'%')
        && scrub_decoded(&percent_decoded(text), &mut clean, levels - 1);
    if found {
        percent_encode(&clean, out);
    }
    found
}

/// What was encoded may be a URL, a path with parameters, or parameters alone.
fn scrub_decoded(text: &[u8], out: &mut Vec<u8>, levels: u8) -> bool {
    if authority(text).is_some() {
        return scrub_url(text, out, levels);
    }
    let tail = text.iter().position(|b| b"?#&;".contains(b));
    let (first, tail) = text.split_at(tail.unwrap_or(text.len()));
    let secret = is_secret_parameter(first);
    if !secret {
        out.extend_from_slice(first);
    }
    scrub_parameters(tail, out, levels) || secret
}

fn percent_encode(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(*byte);
        } else {
            let digit = |n: u8| DIGITS[usize::from(n & 15)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(*byte)]);
        }
    }
}

fn is_secret_parameter(parameter: &[u8]) -> bool {
    let Some(end) = parameter.iter().position(|b| *b == b'=') else {
        return false;
    };
    let name = &parameter[..end];
    match name.contains(&b'%') {
        true => is_secret(&percent_decoded(name)),
        false => is_secret(name),
    }
}

/// Without percent-encoding (RFC 3986, section 2.1). What is no encoding stays.
pub(crate) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    look_at(text.len());
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let encoded = (byte == b'%').then(|| Some(digit(at + 1)? << 4 | digit(at + 2)?));
        match encoded.flatten().and_then(|n| u8::try_from(n).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let found = haystack.windows(needle.len()).position(|w| w == needle);
    look_at(found.unwrap_or(haystack.len()));
    found
}

/// Shows a URI to people: scheme, host, port and path; `?...` for a query. It
/// is one from [`scrub_uri`].
pub(super) struct Display<'a>(pub(super) &'a [u8]);

impl fmt::Display for Display<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = self.0;
        let is_url = authority(clean).is_some();
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
    fn secrets_within_secrets_have_an_end_and_none_is_left() {
        for levels in [1, 3, PASSES - 1, PASSES, PASSES + 1, 40] {
            let nested = format!("{}s3cret@h/x", "https:@/".repeat(levels));
            let once = scrubbed(&nested);
            assert!(!once.contains("s3cret"), "{levels}: {once}");
            assert_eq!(scrubbed(&once), once, "{levels}");
            let (uri, had_secret) = scrub_uri(nested.as_bytes());
            assert!(had_secret);
            assert_eq!(scrub_uri(&uri), (uri.clone(), false), "{levels}");
            assert!(
                !String::from_utf8_lossy(&uri).contains("s3cret"),
                "{levels}"
            );
        }
        assert_eq!(scrubbed(&"https:@/".repeat(40)), "https:");
    }

    #[test]
    fn urls_inside_other_values_are_found() {
        assert_eq!(
            scrubbed("https://u@a/1 https://b/2?sig=S"),
            "https://a/1 https://b/2"
        );
        assert_eq!(
            scrubbed("https://u:p w@a/1 https://b/2"),
            "https://a/1 https://b/2"
        );
    }

    #[test]
    fn user_info_is_found_where_people_write_it() {
        for (url, clean) in [
            ("https://u:p w@h/x", "https://h/x"),
            ("https://h/x?sig=a b&v=1", "https://h/x?v=1"),
            ("https://u:p/w@h/x", "https://h/x"),
            ("https://u:p#w@h/x", "https://h/x"),
            ("https:///u:p@h/x", "https:///h/x"),
            ("https:u:p@h/x", "https:h/x"),
            ("HTTPS:\\\\u:p@h/x", "HTTPS:\\\\h/x"),
            ("https://proxy/https://u:p@h/x", "https://proxy/https://h/x"),
            ("https://a/1,https://u:p@h/x", "https://a/1,https://h/x"),
            ("https://h/x?to=https://u:p@i/", "https://h/x?to=https://i/"),
            (
                "https://h/x?to=https%3A%2F%2Fu%3Ap%40i%2F%3Fsig%3Ds",
                "https://h/x?to=https%3A%2F%2Fi%2F",
            ),
        ] {
            let (scrubbed, found) = scrub_uri(url.as_bytes());
            assert!(found, "{url}");
            assert_eq!(String::from_utf8_lossy(&scrubbed), clean);
            let shown = Display(&scrubbed).to_string();
            assert!(!shown.contains("u:") && !shown.contains("w@"), "{shown}");
        }
        // Ports, literals and scopes of packages are no user info.
        for same in [
            "https://h:443/@scope/x",
            "https://[::1]/@scope/x",
            "https://[::1]:8/@scope/x",
            "https://h/@scope/x?q=a%20b",
        ] {
            assert_eq!(
                scrub_uri(same.as_bytes()),
                (same.as_bytes().to_vec(), false)
            );
        }
        let many = "a://".repeat(1 << 18);
        assert!(!scrub_uri(many.as_bytes()).1);
    }

    #[test]
    fn joined_urls_are_taken_apart_and_what_joins_them_stays() {
        for (joined, clean) in [
            ("https://h/a?jwt=1 https://i/x", "https://h/a https://i/x"),
            ("https://h/a?jwt=1,https://i/x", "https://h/a,https://i/x"),
            (
                "https://h/a?jwt=1 | https://i/x?sig=2 ",
                "https://h/a | https://i/x ",
            ),
            ("https://h/a?v=1,2&jwt=3,4", "https://h/a?v=1,2"),
        ] {
            assert_eq!(scrubbed(joined), clean, "{joined}");
        }
    }

    #[test]
    fn parameters_go_from_paths_and_from_what_is_encoded() {
        for (url, clean) in [
            ("https://h/a;jwt=1/b", "https://h/a/b"),
            ("https://h/a;v=1;jwt=1;w=2/b;v", "https://h/a;v=1;w=2/b;v"),
            ("https://h;jwt=1/a", "https://h;jwt=1/a"),
            (
                "https://h/https%3A%2F%2Fu%3Ap%40i/a",
                "https://h/https%3A%2F%2Fi/a",
            ),
            (
                "https://h/a?to=%2Fb%3Fv%3D1%26jwt%3D2",
                "https://h/a?to=%2Fb%3Fv%3D1",
            ),
            ("https://h/a?to=jwt%3D2%26v%3D1", "https://h/a?to=%26v%3D1"),
            ("https://h/a?jwt%3D2", "https://h/a?"),
            ("https://h/a?to=%+5jwt", "https://h/a?to=%+5jwt"),
        ] {
            assert_eq!(scrubbed(url), clean, "{url}");
            assert_eq!(scrubbed(clean), clean, "{url}");
        }
    }

    /// Sixteen times the text is sixteen times the bytes that are looked at, and
    /// none is looked at too often.
    #[test]
    fn time_is_linear_whatever_the_text() {
        for piece in [
            "a://",
            "https:@/",
            "?jwt=1",
            ";jwt=1",
            "%3A%2F%2F",
            "https%3A%2F%2Fu%40",
            "&a%3Db=%26",
            "@",
            ":",
            "/",
            "http://a@b,",
            "%",
            "a=",
            "?#",
            "://u:p@",
            "%2525",
        ] {
            let steps = |bytes: usize| {
                let text = format!("https://h/?{}", piece.repeat(bytes / piece.len()));
                LOOKED_AT.set(0);
                std::hint::black_box((scrub(&text), scrub_uri(text.as_bytes())));
                LOOKED_AT.get()
            };
            let (small, large) = (steps(4 << 10), steps(64 << 10));
            assert!(small >= 8 << 10, "{piece:?}: {small}");
            assert!(large < small * 18, "{piece:?}: {small} and {large}");
            assert!(large < 150 * (64 << 10), "{piece:?}: {large}");
        }
    }

    #[test]
    fn what_is_clean_stays_as_it_is() {
        for url in [
            // A secret of the inner URL that decoded would be one of the outer.
            "https://h/x?b=https%3A%2F%2Fu%3Ap%40i%2F%3Fa%23%2526token%3Ds%26c",
            "https://h/x?b=https%3A%2F%01#%2Fu%3A%40i?token%3Ds=https%3A%2F%2Fu%3Ap%40i",
            "https://a@:b/x?c=d@h/x",
            "https:/@/:b/x?c=d@h/x",
            "https://h/x?https%3A%2F%2Fus=er%40i%2Fsig%3Ds",
            "https://h/x?a%3Db=https%3A%2F%2Fu%3Ap%40i%2F%3F%26sig%3D1&v=1",
        ] {
            let (clean, found) = scrub_uri(url.as_bytes());
            assert!(found, "{url}");
            let shown = String::from_utf8_lossy(&clean);
            assert_eq!(scrub_uri(&clean), (clean.clone(), false), "{shown}");
            assert!(matches!(scrub(&shown), Cow::Borrowed(_)), "{shown}");
        }
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
