//! Each kind of value: what is taken, what is refused.

use super::*;

#[test]
fn upstream_urls_get_bazels_default_ports() {
    for (text, shown) in [
        ("grpc://cache:9092", "grpc://cache:9092"),
        ("grpc://cache", "grpc://cache:80"),
        ("grpcs://cache/", "grpcs://cache:443"),
        ("grpcs://[::1]:1", "grpcs://[::1]:1"),
        ("grpc://[::1]", "grpc://[::1]:80"),
        ("unix:/run/cache", "unix:/run/cache"),
        ("unix:///run/cache", "unix:/run/cache"),
    ] {
        assert_eq!(upstream_url(text).unwrap().to_string(), shown, "{text}");
    }
}

#[test]
fn upstream_urls_say_what_is_wrong() {
    for (text, says) in [
        ("cache:9092", "has no scheme"),
        (
            "http://cache:9092",
            "`http://` is not a way to reach a cache",
        ),
        ("grpc://cache:port", "not a number"),
        ("grpc://cache:70000", "not a number"),
        ("grpc://:1", "no host"),
        ("grpc://::1:1", "without brackets"),
        ("grpc://cache:1/path", "as in `cache:1`"),
        ("grpc://a b:1", "neither a name nor an address"),
        ("unix:", "must be followed"),
    ] {
        let said = upstream_url(text).unwrap_err();
        assert!(said.contains(says), "{text}: {said}");
    }
    assert!(upstream_url(&format!("unix:/{}", "x".repeat(103))).is_err());
}

#[test]
fn addresses() {
    assert_eq!(address("[::]:0").unwrap().to_string(), "[::]:0");
    assert_eq!(address("unix:a.sock").unwrap().to_string(), "unix:a.sock");
    for text in ["8980", ":8980", "127.0.0.1", "[::1]", "::1:80", "[x]:1", ""] {
        assert!(address(text).is_err(), "{text}");
    }
    assert_eq!(admin_address("off").unwrap(), None);
    assert!(admin_address("unix:/x").is_err());
}

#[test]
fn sizes_durations_counts_and_networks() {
    assert_eq!(size("10GiB").unwrap(), 10 << 30);
    assert_eq!(size("500 MB").unwrap(), 500_000_000);
    assert_eq!(size("4096").unwrap(), 4096);
    assert!(size("0").is_err() && size("-1").is_err() && size("lots").is_err());
    assert_eq!(duration("1m 30s").unwrap(), Duration::from_secs(90));
    assert!(duration("0s").is_ok() && positive_duration("0s").is_err() && duration("5").is_err());
    assert!(count("0").is_err() && count("-1").is_err() && count("7") == Ok(7));
    assert_eq!(network("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
    assert_eq!(network("fd00::1").unwrap().to_string(), "fd00::1/128");
    assert!(network("example.com").is_err());
    assert!(name("a b").is_err() && name("") == Ok(String::new()));
    assert!(authority_header("u@h").is_err() && authority_header("h:1").is_ok());
    assert!(server_name("bad name").is_err() && server_name("cache.example").is_ok());
}
