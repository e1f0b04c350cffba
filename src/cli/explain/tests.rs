//! Flags of `assetgate explain`.

use clap::Parser as _;

use super::super::{Cli, Command};
use super::*;

fn asked(arguments: &[&str]) -> Asked {
    let before = ["assetgate", "explain"];
    let cli = Cli::try_parse_from(before.iter().chain(arguments)).unwrap();
    match cli.command {
        Command::Explain { asked, .. } => asked,
        other => panic!("{other:?}"),
    }
}

#[test]
fn flags_make_the_request_a_client_would_send() {
    let asked = asked(&[
        "--uri",
        "urn:a",
        "urn:b",
        "--uri=urn:c",
        "--qualifier",
        "a=1=2",
        "b=",
        "--instance=one/two",
        "--kind=directory",
        "--digest-function=blake3",
        "--oldest-content-accepted=2026-01-31T12:00:00Z",
    ]);
    let query = asked.query().unwrap();
    let request = &query.request;
    let uris: Vec<String> = request.uris.iter().map(ToString::to_string).collect();
    assert_eq!(uris, ["urn:a", "urn:b", "urn:c"]);
    assert_eq!(request.qualifiers.get("a"), Some("1=2"));
    assert_eq!(request.qualifiers.get("b"), Some(""));
    assert_eq!(request.kind, AssetKind::Directory);
    assert_eq!(request.scope.instance.as_str(), "one/two");
    assert_eq!(request.scope.function, DigestFunction::Blake3);
    assert_eq!(
        query.request.oldest.map(stamp).as_deref(),
        Some("2026-01-31T12:00:00Z")
    );
}

#[test]
fn times_may_be_seconds() {
    assert_eq!(stamp(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
    assert_eq!(instant("60").unwrap().seconds, 60);
    assert!(instant("yesterday").unwrap_err().contains("2026-01-31T"));
}

#[test]
fn mistakes_are_told_without_their_values() {
    for (arguments, told) in [
        (&[][..], "uris: at least one URI is required"),
        (
            &["--uri", "urn:a", "--qualifier", "http_header:A s3cret"],
            "--qualifier: write NAME=VALUE",
        ),
        (
            &["--uri", "urn:a", "--digest-function", "s3cret"],
            "--digest-function: one of SHA256, ",
        ),
        (
            &["--uri", "urn:a", "--qualifier", "a=s3cret", "a=s3cret"],
            "\"a\" occurs more than once",
        ),
    ] {
        let problem = asked(arguments).query().unwrap_err();
        assert!(
            problem.contains(told) && !problem.contains("s3cret"),
            "{problem}"
        );
    }
}
