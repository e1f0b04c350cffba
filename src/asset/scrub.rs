//! Takes secrets out of URLs, wherever these stand: user info and parameters
//! that hold secrets, in path, query and fragment.
//!
//! Two uses with different rules. [`scrub`] makes what goes into keys and
//! entries: everything stays but the secrets, so that two requests that differ
//! only in a secret agree. [`Display`] makes what people read: the query goes
//! as a whole, as no list of names is ever complete.
//! Not for: where secrets stand (`cuts.rs`), names (`secret_names.rs`).
//! Called by: `uri.rs`, `qualifiers.rs`.

use std::borrow::Cow;
use std::fmt;

use super::cuts::cuts;

const SHOWN_BYTES: usize = 512;

/// Where a secret was, what stood around it meets and may be read as another:
/// user info behind user info, say. So what is found clean has been looked at
/// once more, and a stored value is taken for what it is when it comes back.
/// What is not clean by then was made to be so: of that only its beginning
/// stays, up to the first colon, where no secret is ([`nothing_left`]).
const PASSES: usize = 8;

/// `text` without the secrets of the URLs in it.
#[must_use]
pub fn scrub(text: &str) -> Cow<'_, str> {
    match cleaned(text.as_bytes(), false) {
        Some(clean) => Cow::Owned(String::from_utf8_lossy(&clean).into_owned()),
        None => Cow::Borrowed(text),
    }
}

/// A URI without its secrets, and whether there were any. Unlike a text it is
/// one URL whatever is in it: white space too may stand in a password.
pub(super) fn scrub_uri(uri: &[u8]) -> (Vec<u8>, bool) {
    match cleaned(uri, true) {
        Some(clean) => (clean, true),
        None => (uri.to_vec(), false),
    }
}

/// Whether no secret is to be found in it: nothing is a parameter or user info,
/// nor encoded. Base64 ends with what else gives a parameter its value; nearly
/// every request has some.
fn is_plain(text: &[u8]) -> bool {
    let padding = text.iter().rev().take_while(|b| **b == b'=').count();
    let text = &text[..text.len() - padding];
    let in_base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/-_".contains(b);
    match padding {
        0 => !text.iter().any(|b| b"=@%".contains(b)),
        _ => text.iter().all(in_base64),
    }
}

/// What is left of it, if there is anything in it that must not be kept.
fn cleaned(text: &[u8], whole: bool) -> Option<Vec<u8>> {
    let mut clean: Option<Vec<u8>> = None;
    for _ in 0..PASSES {
        let text = clean.as_deref().unwrap_or(text);
        if is_plain(text) {
            return clean;
        }
        let cuts = cuts(text, whole);
        if cuts.is_empty() {
            return clean;
        }
        let mut left = Vec::with_capacity(text.len());
        let mut from = 0;
        for cut in cuts {
            left.extend_from_slice(&text[from..cut.start]);
            from = cut.end;
        }
        left.extend_from_slice(&text[from..]);
        clean = Some(left);
    }
    clean.map(nothing_left)
}

/// What stays of a text in which there were secrets within secrets, however
/// often these were taken out: its scheme, if it has one.
fn nothing_left(mut text: Vec<u8>) -> Vec<u8> {
    let in_scheme = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
    let scheme = text.iter().take_while(|b| in_scheme(b)).count();
    let left = match text.get(scheme) {
        Some(b':') => scheme + 1,
        _ => 0,
    };
    text.truncate(left);
    text
}

/// Shows a URI to people: scheme, host, port and path; `?...` for a query. It
/// is one from [`scrub_uri`].
pub(super) struct Display<'a>(pub(super) &'a [u8]);

fn is_url(uri: &[u8]) -> bool {
    let scheme = uri.split(|b| *b == b':').next().unwrap_or(uri);
    let web = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    (web && scheme.len() < uri.len()) || uri.windows(3).any(|w| w == b"://")
}

impl fmt::Display for Display<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = self.0;
        let is_url = is_url(clean);
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
    use proptest::prelude::*;

    use super::super::decoded::LOOKED_AT;
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
            "=https:b",
            "=http%3Aa%3Ab%3Fhttp%3Aa%3Ab",
            ",",
            "=token== ",
            "token = ",
            ",token==,",
            ", ,a",
            " a/b",
            ":%2F/",
            ":/%2F",
            "%2F",
            "?Expires=1",
            "&Expires=1",
            "=%26Expires%3D",
            "&a%3FExpires%3D1",
            "token=1,a=1,",
            "token=1,b ",
            "=token=,",
            "=https:a:b",
            "http:1",
            "%25252525252525252541;",
            "%25252525252525252541",
            "=%3Ftoken%253D1%26",
            "%2525252C%252C%2C,",
        ] {
            let steps = |before: &str, bytes: usize| {
                let text = format!("{before}{}", piece.repeat(bytes / piece.len()));
                LOOKED_AT.set(0);
                std::hint::black_box((scrub(&text), scrub_uri(text.as_bytes())));
                LOOKED_AT.get()
            };
            for before in ["https://h/?=%41", "https://h.invalid/%41="] {
                let (small, large) = (steps(before, 4 << 10), steps(before, 64 << 10));
                assert!(small >= 4 << 10, "{piece:?}: {small}");
                assert!(large < small * 18, "{piece:?}: {small} and {large}");
                assert!(large < 150 * (64 << 10), "{piece:?}: {large}");
            }
        }
    }

    /// What texts are made of, encoded so many times over; `M4RK` stands for a
    /// secret, and only where there is no doubt that it is one.
    fn texts() -> impl Strategy<Value = String> {
        let parts = [
            "https://",
            "http:",
            "ftp://u:M4RK@h/",
            "h",
            "/",
            "//",
            ":",
            "@",
            "?",
            "#",
            "&",
            ";",
            ",",
            "=token== ",
            "token = ",
            ",token==,",
            "|",
            " ",
            "=",
            "%",
            "%2",
            "25",
            "3D",
            "v=1",
            "a",
            "?token=M4RK",
            "&sig=M4RK",
            "/;jwt=M4RK",
            ",apikey=M4RK",
            "#access_token=M4RK",
            "Expires=1",
            "to=https://u:M4RK@i?token=M4RK",
            "\u{fc}",
        ];
        let part = (prop::sample::select(parts.to_vec()), 0..4usize);
        let part = part.prop_map(|(part, times)| encoded(part, times));
        let inner = prop::collection::vec(part.clone(), 0..5);
        let inner = (inner, 0..6usize).prop_map(|(parts, times)| encoded(&parts.concat(), times));
        prop::collection::vec(prop_oneof![part, inner], 0..8).prop_map(|parts| parts.concat())
    }

    fn encoded(text: &str, times: usize) -> String {
        (0..times).fold(text.to_owned(), |text, _| {
            let byte = |b: u8| match b.is_ascii_alphanumeric() {
                true => char::from(b).to_string(),
                false => format!("%{b:02X}"),
            };
            text.bytes().map(byte).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 4_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// What was scrubbed is clean, and it is the text but for what was cut.
        #[test]
        fn no_secret_is_left_whatever_the_text(text in texts()) {
            // Not in the host, which stays.
            let text = format!("https://h/{text}");
            let clean = scrubbed(&text);
            prop_assert!(!clean.contains("M4RK"), "{clean}");
            prop_assert!(matches!(scrub(&clean), Cow::Borrowed(_)), "{clean}");
            let mut rest = text.bytes();
            prop_assert!(clean.bytes().all(|b| rest.any(|other| b == other)), "{clean}");
            let (uri, _) = scrub_uri(text.as_bytes());
            prop_assert!(!String::from_utf8_lossy(&uri).contains("M4RK"));
            prop_assert!(!scrub_uri(&uri).1);
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
        for same in ["v1.2", "", "https://h/?q=token", "https://h/a@b", "a  b"] {
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
