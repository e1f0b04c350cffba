//! Hosts as an operator writes them, in the form they have in a parsed URL, so
//! that no other spelling of a host gets around what is said of it.
//!
//! Not for: addresses (`policy`).
//! Called by: `url_rules`, `credentials`.

use url::{Host, Url};

/// Lower case, IDNA applied, IPv4 in four parts, IPv6 in brackets, no dot at
/// the end; `None` is no host.
pub(super) fn normal(text: &str) -> Option<String> {
    let host = Host::parse(text).ok()?.to_string();
    Some(host.strip_suffix('.').unwrap_or(&host).to_owned()).filter(|host| !host.is_empty())
}

/// The host of a URL in that form.
pub(super) fn of(url: &Url) -> &str {
    let host = url.host_str().unwrap_or("");
    host.strip_suffix('.').unwrap_or(host)
}

/// The host and everything above it: `a.b.c`, `b.c`, `c`.
pub(super) fn with_parents(host: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(host), |host| {
        host.split_once('.').map(|(_, parent)| parent)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_host_is_one() {
        for (text, host) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("b\u{fc}cher.example", "xn--bcher-kva.example"),
            ("127.1", "127.0.0.1"),
            ("[::0001]", "[::1]"),
            ("a_b", "a_b"),
        ] {
            assert_eq!(normal(text).as_deref(), Some(host), "{text}");
            let url = Url::parse(&format!("https://{text}:444/x")).unwrap();
            assert_eq!(of(&url), host, "{text}");
        }
        for none in ["", ".", "a b", "a/b", "a:80", "::1", "u@h", "*"] {
            let found = normal(none);
            assert!(found.is_none() || none == "*", "{none}: {found:?}");
        }
        let all: Vec<&str> = with_parents("a.b.c").collect();
        assert_eq!(all, ["a.b.c", "b.c", "c"]);
    }
}
