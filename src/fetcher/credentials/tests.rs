//! Whom a credential goes to, and files that are none.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use secrecy::SecretString;

use super::*;
use crate::net::SecretFileError;

fn netrc(text: &str) -> Result<(Netrc, bool), SecretFileError> {
    Netrc::parse(&SecretString::from(text.to_owned()))
}

fn login(text: &str, host: &str) -> Option<String> {
    let url = Url::parse(&format!("https://{host}/")).unwrap();
    let value = netrc(text).unwrap().0.authorization(&url)?;
    assert!(value.is_sensitive());
    let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
    Some(String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap())
}

#[test]
fn netrc_in_every_form_there_is() {
    for (text, pair) in [
        ("machine h login u password p", Some("u:p")),
        ("machine h\n\tlogin u\r\n\tpassword p\r\n", Some("u:p")),
        ("machine h password p login u account a", Some("u:p")),
        (
            "machine h login \"u v\" password \"p\\\"\\\\ \"",
            Some("u v:p\"\\ "),
        ),
        (
            "# c\nmachine h login u # machine x\npassword #p",
            Some("u:#p"),
        ),
        ("machine h login u", Some("u:")),
        ("machine h password p", Some(":p")),
        ("machine h", None),
        ("machine g login u password p", None),
        ("machine H. login u password p", Some("u:p")),
        (
            "machine h login a password b\nmachine h login c password d",
            Some("a:b"),
        ),
        (
            "macdef m\nmachine h login x\n\nmachine h login u password p",
            Some("u:p"),
        ),
        (
            "machine h login u macdef m\ncd /\n \npassword p",
            Some("u:p"),
        ),
        ("machine g login x default login d password e", None),
        (
            "machine h login p\u{e9} password \u{4e2d}",
            Some("p\u{e9}:\u{4e2d}"),
        ),
        (
            "machine \"h\" login machine password default",
            Some("machine:default"),
        ),
        ("", None),
    ] {
        assert_eq!(login(text, "h").as_deref(), pair, "{text:?}");
    }
    assert!(netrc("default login u password p").unwrap().1);
    assert!(!netrc("machine default login u password p").unwrap().1);
}

#[test]
fn a_netrc_that_is_none_is_told_by_line_and_not_quoted() {
    for (text, why) in [
        ("hunter2", "line 1 has a word that is none of"),
        (
            "machine h\nlogin u\npassword hun hunter2",
            "line 3 has a word",
        ),
        ("\nlogin hunter2", "line 2 has `login` before any `machine`"),
        ("machine h password", "line 1 ends after `password`"),
        (
            "machine h password \"hunter2",
            "line 1 has a quoted value that does not end",
        ),
        ("machine h password \"hunter2\n\"", "does not end"),
        (
            "machine h login hunter2:u",
            "line 1 ends an entry whose login has a `:`",
        ),
    ] {
        let said = netrc(text).unwrap_err().to_string();
        assert!(said.contains(why), "{text:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    let shown = format!("{:?}", netrc("machine h login u password hunter2").unwrap());
    assert!(!shown.contains("hunter2") && !shown.contains(&STANDARD.encode("u:hunter2")));
}

#[test]
fn a_header_file_is_told_by_line_and_not_quoted() {
    let parse = |text: &str| HeaderFile::parse(&SecretString::from(text.to_owned()));
    let file = parse("# c\n\nAuthorization: Bearer a:b\r\nX-Key:k3y\n").unwrap();
    let headers = file.headers();
    assert_eq!(headers.get("authorization").unwrap(), "Bearer a:b");
    assert!(headers.values().all(|value| value.is_sensitive()));
    assert!(!format!("{file:?} {headers:?}").contains("k3y"));
    for (text, why) in [
        ("hunter2", "line 1 is not of the form"),
        ("Bearer hunter2: x", "line 1 begins with what is no name"),
        ("Host: hunter2", "line 1 sets `host`"),
        ("Content-Length: 7", "sets `content-length`"),
        ("Range: bytes=0-", "sets `range`"),
        ("If-None-Match: *", "sets `if-none-match`"),
        ("A: ", "has no value"),
        ("A: hunter2\u{7}x", "visible ASCII"),
        ("A: hunter2\na: b", "line 2 has the name of line 1"),
        ("# nothing", "holds no header"),
    ] {
        let said = parse(text).unwrap_err().to_string();
        assert!(said.contains(why), "{text:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn files_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, vec![b'#'; 70_000]).unwrap();
    assert_eq!(
        Netrc::read(&file).unwrap_err(),
        SecretFileError::TooLarge(64 << 10)
    );
    let error = HeaderFile::read(&file).unwrap_err();
    assert_eq!(error.to_string(), "the file is larger than 8 KiB");
    std::fs::write(&file, b"a: \xff").unwrap();
    assert_eq!(
        HeaderFile::read(&file).unwrap_err(),
        SecretFileError::NotText
    );
    let none = Netrc::read(&dir.path().join("none")).unwrap_err();
    assert!(matches!(none, SecretFileError::Unreadable(_)));
}

#[test]
fn what_host_equals_file_may_be() {
    let parse = |text: &str| text.parse::<OriginCredential>();
    for (text, shown) in [
        ("Example.org=/a=b", "example.org"),
        ("example.org:8443=f", "example.org:8443"),
        ("*.example.org=f", "*.example.org"),
        ("[::1]=f", "[::1]"),
        ("[::1]:80=f", "[::1]:80"),
        ("127.0.0.1=f", "127.0.0.1"),
        ("https://h=f", "h"),
        ("http://H:81=f", "http://h:81"),
        ("http://*.h=f", "http://*.h"),
    ] {
        assert_eq!(parse(text).unwrap().host.to_string(), shown, "{text}");
    }
    assert_eq!(parse("h=/a=b").unwrap().file, PathBuf::from("/a=b"));
    for bad in [
        "h",
        "=f",
        "h=",
        "*=f",
        "*.=f",
        "a*=f",
        "*.1.2.3.4=f",
        "h:x=f",
        "h:99999=f",
        "::1=f",
        "ftp://h=f",
        "http://=f",
        "http://h/=f",
        "h/x=f",
        "u@h=f",
        "h=a\nb",
    ] {
        let said = parse(bad).unwrap_err();
        assert!(said.starts_with("is HOST=FILE"), "{bad}: {said}");
    }
}

/// Which of the named files is for a URL.
fn chosen(hosts: &[&str], netrc: Option<&str>, url: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let files: Vec<OriginCredential> = hosts
        .iter()
        .enumerate()
        .map(|(index, host)| OriginCredential {
            host: host.parse().unwrap(),
            file: file(&index.to_string(), &format!("X-For: {host}")),
        })
        .collect();
    let netrc = netrc.map(|text| file("netrc", text));
    let credentials = Credentials::new(netrc, &files).unwrap();
    let headers = credentials.for_url(&Url::parse(url).unwrap());
    let value = headers.get("x-for").or(headers.get("authorization"))?;
    Some(value.to_str().unwrap().to_owned())
}

#[test]
fn only_the_named_origin_is_shown_a_file() {
    for (host, yes, no) in [
        (
            "a.example",
            &[
                "https://a.example/",
                "https://A.example:80/",
                "https://a.example./",
            ][..],
            &[
                "http://a.example/",
                "https://a.example:81/",
                "https://x.a.example/",
                "https://example/",
                "https://a.example.evil/",
                "https://evil/a.example",
            ][..],
        ),
        (
            "*.a.example",
            &["https://x.a.example/", "https://y.x.a.example/"],
            &[
                "https://a.example/",
                "https://xa.example/",
                "https://x.a.example.evil/",
            ],
        ),
        (
            "a.example:443",
            &["https://a.example/"],
            &["http://a.example:443/", "https://a.example:444/"],
        ),
        (
            "http://[::1]:80",
            &["http://[::1]/", "https://[::1]:80/"],
            &["https://[::1]/", "http://[::2]/", "http://[::1]:81/"],
        ),
        (
            "http://127.0.0.1",
            &["http://127.1/", "https://127.0.0.1/"],
            &["http://127.0.0.2/", "http://127.0.0.1:81/"],
        ),
        (
            "http://*.a.example:81",
            &["http://x.a.example:81/"],
            &["http://x.a.example/", "http://a.example:81/"],
        ),
    ] {
        for url in yes {
            assert_eq!(chosen(&[host], None, url).as_deref(), Some(host), "{url}");
        }
        for url in no {
            assert_eq!(chosen(&[host], None, url), None, "{host} {url}");
            let text = format!("machine {host} login u password p");
            let by_netrc = chosen(&[], Some(&text), url);
            assert!(by_netrc.is_none(), "{host} {url}");
        }
    }
}

#[test]
fn the_most_specific_file_counts() {
    let hosts = [
        "*.example",
        "*.b.example",
        "http://a.b.example",
        "a.b.example",
        "a.b.example:81",
    ];
    for (url, host) in [
        ("https://a.b.example:81/", "a.b.example:81"),
        ("https://a.b.example/", "a.b.example"),
        ("http://a.b.example/", "http://a.b.example"),
        ("https://c.b.example/", "*.b.example"),
        ("https://c.example/", "*.example"),
    ] {
        assert_eq!(chosen(&hosts, None, url).as_deref(), Some(host), "{url}");
    }
}

#[test]
fn netrc_fills_in_where_a_file_has_no_authorization() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let netrc = write(
        "netrc",
        "machine a login u password p\nmachine b login u password p",
    );
    let files =
        [("a", "X-Key: k"), ("b", "Authorization: own")].map(|(host, text)| OriginCredential {
            host: host.parse().unwrap(),
            file: write(host, text),
        });
    let credentials = Credentials::new(Some(netrc), &files).unwrap();
    let of = |url: &str| credentials.for_url(&Url::parse(url).unwrap());
    assert_eq!(of("https://a/").len(), 2);
    assert_eq!(of("https://a/")["authorization"], "Basic dTpw");
    assert_eq!(of("https://b/")["authorization"], "own");
    assert!(of("https://c/").is_empty());
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let missing = |host: &str| OriginCredential {
        host: host.parse().unwrap(),
        file: "/nonexistent/hunter2".into(),
    };
    let files = [missing("a"), missing("b")];
    let errors = Credentials::new(Some("/nonexistent/netrc".into()), &files)
        .err()
        .unwrap();
    let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 3);
    assert!(
        said[0].starts_with("fetch.netrc: the file cannot be read"),
        "{said:?}"
    );
    assert!(
        said[1].starts_with("fetch.credentials: the file for a: "),
        "{said:?}"
    );
    assert!(!said.concat().contains("hunter2"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever login and password are, quoted they come through.
    #[test]
    fn quoted_values_come_through(login in "[^:\\p{Cc}]{0,12}", password in "[^\\p{Cc}]{0,12}") {
        let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let text = format!("machine h login {} password {}", quote(&login), quote(&password));
        prop_assert_eq!(super::tests::login(&text, "h"), Some(format!("{login}:{password}")));
    }

    #[test]
    fn no_text_makes_it_panic(text in "(machine|default|login|password|macdef|#|\"|\\\\|[ \n\ta-z]){0,30}") {
        let _ = netrc(&text);
    }
}
