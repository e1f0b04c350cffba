//! The real program: what it prints, where, and how it exits.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn assetgate(arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_assetgate"))
        .args(arguments)
        .env_clear()
        .env("HOME", "/home/nobody")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        code: status.code(),
        out: text(stdout),
        err: text(stderr),
    }
}

fn file(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("assetgate.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn help_and_version_succeed_on_standard_output() {
    let ran = assetgate(&["--version"], &[]);
    assert_eq!(ran.code, Some(0));
    assert_eq!(
        ran.out,
        format!("assetgate {}\n", env!("CARGO_PKG_VERSION"))
    );
    let ran = assetgate(&["serve", "--help"], &[]);
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.out.contains("--origin-allow-cidr <CIDR>"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("[default: 127.0.0.1:8980]"), "{}", ran.out);
}

#[test]
fn bad_usage_is_64_and_on_standard_error() {
    for arguments in [
        &["srve"][..],
        &[],
        &["serve", "--lisen", "x"],
        &["serve", "--threads", "1", "--threads", "2"],
    ] {
        let ran = assetgate(arguments, &[]);
        assert_eq!(ran.code, Some(64), "{arguments:?}");
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{arguments:?}");
    }
    assert!(
        assetgate(&["serve", "--lisen", "x"], &[])
            .err
            .contains("'--listen'")
    );
}

#[test]
fn config_check_says_ok() {
    let ran = assetgate(&["config", "check"], &[]);
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (Some(0), "OK\n", "")
    );
}

#[test]
fn every_mistake_of_every_source_is_reported_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(
        directory.path(),
        "[listen]\nadress = \"x\"\n\n[upstream]\nurl = \"cache:9092\"\n[fetch]\ntimeout = 5\n",
    );
    let name = path.to_str().unwrap();
    let expected = [
        format!("{name}:2:1: unknown key `listen.adress`; did you mean `listen.address`?"),
        format!("{name}:5:7: `upstream.url`: `cache:9092` has no scheme: a URL must begin with `grpc://` (plain), `grpcs://` (TLS) or `unix:` (a socket's path)"),
        format!("{name}:7:11: `fetch.timeout`: `5` is not a duration; write it as in `90s` or `10m`"),
        "ASSETGATE__LOG__LEVLE: no such setting; did you mean `ASSETGATE__LOG__LEVEL`?".to_owned(),
        "--threads: `threads`: `0` is not a whole number above 0".to_owned(),
        "--tls-cert: `listen.tls.cert` needs `listen.tls.key`".to_owned(),
        "--tls-cert: `listen.tls.cert`: /no/cert.pem cannot be read: No such file or directory (os error 2)".to_owned(),
    ];
    for command in [&["config", "check"][..], &["config", "show"], &["serve"]] {
        let rest = [
            "--config",
            name,
            "--threads",
            "0",
            "--tls-cert",
            "/no/cert.pem",
        ];
        let ran = assetgate(
            &[command, &rest[..]].concat(),
            &[("ASSETGATE__LOG__LEVLE", "debug")],
        );
        assert_eq!(ran.code, Some(64), "{command:?}");
        assert_eq!(ran.err.lines().collect::<Vec<_>>(), expected, "{command:?}");
        assert_eq!(ran.out, "", "{command:?}");
    }
}

#[test]
fn config_show_prints_values_in_force_and_their_origin() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(
        directory.path(),
        "[fetch]\ntimeout = \"1m\"\nmax_size = \"1GiB\"\n",
    );
    let name = path.to_str().unwrap();
    let ran = assetgate(
        &[
            "config",
            "show",
            "--config",
            name,
            "--upstream",
            "grpc://a:1",
            "--upstream",
            "unix:/b",
        ],
        &[("ASSETGATE__FETCH__MAX_SIZE", "2GiB")],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for line in [
        &format!("timeout = \"1m\"  # file {name}:2:11"),
        "max_size = \"2GiB\"  # env ASSETGATE__FETCH__MAX_SIZE",
        "url = [\"grpc://a:1\", \"unix:/b\"]  # flag --upstream",
        "dir = \"/home/nobody/.cache/assetgate\"  # default",
    ] {
        assert!(ran.out.contains(line), "{line}\nin\n{}", ran.out);
    }
    // What is shown can be used.
    let shown = file(directory.path(), &ran.out);
    let ran = assetgate(
        &["config", "check", "--config", shown.to_str().unwrap()],
        &[],
    );
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn a_password_never_shows() {
    let ran = assetgate(
        &["config", "show", "--upstream", "grpcs://me:s3cret@cache:1"],
        &[],
    );
    assert_eq!(ran.code, Some(64));
    assert!(
        !ran.err.contains("s3cret") && !ran.out.contains("s3cret"),
        "{}",
        ran.err
    );
}

/// Promise P5, at the door.
#[test]
fn an_open_listener_with_a_client_certificate_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
    let (cert, key) = (directory.path().join("cert"), directory.path().join("key"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let arguments = [
        "serve",
        "--listen",
        "0.0.0.0:0",
        "--upstream",
        "grpcs://cache.invalid:1",
        "--upstream-client-cert",
        cert.to_str().unwrap(),
        "--upstream-client-key",
        key.to_str().unwrap(),
    ];
    let ran = assetgate(&arguments, &[]);
    assert_eq!(ran.code, Some(64), "{}", ran.err);
    assert!(
        ran.err.starts_with("--listen: ") && ran.err.contains("allow_anonymous"),
        "{}",
        ran.err
    );
    assert_eq!(ran.err.lines().count(), 1);
}

#[test]
fn a_start_that_fails_is_1_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    for (format, begins) in [("text", "assetgate: "), ("json", "{")] {
        let arguments = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "off",
            "--data-dir",
            data.to_str().unwrap(),
            "--log-format",
            format,
            "--port-file",
            "/proc/no/such/dir/ports",
        ];
        let ran = assetgate(&arguments, &[]);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        let last = ran.err.lines().last().unwrap();
        assert!(last.starts_with(begins), "{}", ran.err);
    }
}

#[test]
fn a_taken_port_is_1_and_says_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    for (listen, admin, flag) in [
        (&*taken, "off", "--listen"),
        ("127.0.0.1:0", &*taken, "--admin-listen"),
    ] {
        let arguments = ["serve", "--data-dir", data, "--listen", listen];
        let ran = assetgate(&[&arguments[..], &["--admin-listen", admin]].concat(), &[]);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        for part in [&*taken, flag] {
            assert!(ran.err.contains(part), "{part}: {}", ran.err);
        }
    }
}
