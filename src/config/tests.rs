//! Layers, mistakes and rules, seen through `load`.

use std::path::Path;
use std::time::Duration;

use super::*;

/// For a user with a home.
fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut sources = sources.clone();
    sources.environment.push(("HOME".into(), "/home/u".into()));
    super::load(&sources)
}

fn from_file(text: &str) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    std::fs::write(&path, text).unwrap();
    (
        dir,
        Sources {
            file: Some(path),
            ..Sources::default()
        },
    )
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn flag(key: &'static str, values: &[&str]) -> (&'static str, Vec<String>) {
    (key, values.iter().map(|v| (*v).to_owned()).collect())
}

/// The problems, less the directory of the file.
fn problems(sources: &Sources) -> Vec<String> {
    let dir = sources
        .file
        .as_deref()
        .and_then(Path::parent)
        .unwrap_or(Path::new("/nowhere"));
    let dir = format!("{}/", dir.display());
    let found = load(sources).expect_err("must be refused");
    found
        .iter()
        .map(|problem| problem.to_string().replace(&dir, ""))
        .collect()
}

fn identity(dir: &Path) -> (String, String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let text = |path: &Path| path.display().to_string();
    (text(&cert), text(&key), text(&cert))
}

#[test]
fn without_sources_everything_has_its_default() {
    let sources = Sources {
        environment: environment(&[("HOME", "/home/u")]),
        ..Sources::default()
    };
    let config = load(&sources).unwrap().config;
    assert_eq!(config.listen.address.to_string(), "127.0.0.1:8980");
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:9980");
    assert_eq!(config.upstream, None);
    assert_eq!(config.embedded.dir, Path::new("/home/u/.cache/assetgate"));
    assert_eq!(config.embedded.max_size, 10 << 30);
    assert_eq!(config.fetch.timeout, Duration::from_secs(600));
    assert_eq!(config.upstream_connections, 128);
    assert!(config.upstream_zstd);
    assert_eq!(config.fetch.max_size, 16 << 30);
    assert!(config.fetch.allow_cidr.is_empty() && config.fetch.deny_cidr.is_empty());
    assert_eq!(config.errors.grpc_clients, ["please"]);
    assert_eq!(config.errors.channel, ErrorChannel::Auto);
    assert!(config.push.enabled && !config.allow_anonymous);
    assert_eq!(config.drain.timeout, Duration::from_secs(25));
    assert_eq!(config.drain.delay, Duration::ZERO);
    assert_eq!(config.namespace, "");
    assert_eq!(
        config.threads,
        std::thread::available_parallelism().unwrap().get()
    );
    assert_eq!(
        config.log,
        Log {
            format: LogFormat::Auto,
            level: "info".to_owned()
        }
    );
}

#[test]
fn the_cache_directory_follows_xdg_and_ignores_relative_paths() {
    let dir = |pairs: &[(&str, &str)]| {
        let sources = Sources {
            environment: environment(pairs),
            ..Sources::default()
        };
        load(&sources).unwrap().config.embedded.dir
    };
    assert_eq!(
        dir(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]),
        Path::new("/x/assetgate")
    );
    assert_eq!(
        dir(&[("XDG_CACHE_HOME", "x"), ("HOME", "/h")]),
        Path::new("/h/.cache/assetgate")
    );
    // Not a directory that all users share.
    let error = super::load(&Sources::default()).unwrap_err().to_string();
    for word in ["embedded.dir", "HOME", "--data-dir"] {
        assert!(error.contains(word), "{error}");
    }
    let before_a_cache = Sources {
        flags: vec![flag("upstream.url", &["grpc://cache.example:9092"])],
        ..Sources::default()
    };
    super::load(&before_a_cache).unwrap();
}

#[test]
fn file_then_environment_then_flag() {
    let (_dir, mut sources) = from_file(
        "threads = 3\n[listen]\naddress = \"127.0.0.1:1\"\n[fetch]\nallow_cidr = [\"10.0.0.0/8\", \"192.168.0.0/16\"]\nmax_size = \"1GiB\"\n",
    );
    let config = load(&sources).unwrap().config;
    assert_eq!((config.threads, config.fetch.max_size), (3, 1 << 30));
    assert_eq!(config.fetch.allow_cidr.len(), 2);

    sources.environment = environment(&[
        ("ASSETGATE__LISTEN__ADDRESS", "127.0.0.1:2"),
        ("ASSETGATE__FETCH__MAX_SIZE", "2GiB"),
        ("ASSETGATE__FETCH__ALLOW_CIDR", "127.0.0.1/8, ::1"),
    ]);
    let config = load(&sources).unwrap().config;
    assert_eq!(config.listen.address.to_string(), "127.0.0.1:2");
    assert_eq!(config.fetch.max_size, 2 << 30);
    let shown: Vec<String> = config
        .fetch
        .allow_cidr
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(shown, ["127.0.0.0/8", "::1/128"]);

    sources.flags = vec![
        flag("listen.address", &["[::1]:3"]),
        flag("fetch.allow_cidr", &["172.16.0.0/12"]),
    ];
    let config = load(&sources).unwrap().config;
    assert_eq!(config.listen.address.to_string(), "[::1]:3");
    assert_eq!(config.fetch.max_size, 2 << 30);
    assert_eq!(
        config.fetch.allow_cidr.len(),
        1,
        "a list flag replaces the list"
    );
}

#[test]
fn one_url_or_several_and_either_spelling_of_errors() {
    let (_dir, sources) = from_file("upstream.url = \"grpc://a:1\"\nerrors = \"grpc\"\n");
    let config = load(&sources).unwrap().config;
    assert_eq!(config.upstream.unwrap().urls.len(), 1);
    assert_eq!(config.errors.channel, ErrorChannel::Grpc);

    let (_dir, sources) = from_file(
        "[upstream]\nurl = [\"grpc://a:1\", \"unix:/s\"]\n[errors]\nchannel = \"inline\"\ngrpc_clients = []\n",
    );
    let config = load(&sources).unwrap().config;
    assert_eq!(config.upstream.unwrap().urls.len(), 2);
    assert_eq!(
        config.errors,
        Errors {
            channel: ErrorChannel::Inline,
            grpc_clients: vec![]
        }
    );

    let sources = Sources {
        environment: environment(&[("ASSETGATE__ERRORS", "inline")]),
        ..Sources::default()
    };
    assert_eq!(
        load(&sources).unwrap().config.errors.channel,
        ErrorChannel::Inline
    );
}

#[test]
fn every_mistake_is_reported_with_line_column_and_nearest_name() {
    let (_dir, mut sources) = from_file(concat!(
        "thread = 2\n",
        "[listen]\n",
        "  adress = \"127.0.0.1:1\"\n",
        "max_connections = \"many\"\n",
        "[fetch]\n",
        "timeout = \"soon\"\n",
        "allow_cidr = [\"10.0.0.0/99\", \"10.0.0.0/8\"]\n",
        "max_size = []\n",
        "[upstreams]\n",
        "url = \"grpc://x:1\"\n",
    ));
    sources.environment = environment(&[
        ("ASSETGATE__LISTEN__ADDRES", "x"),
        ("ASSETGATE__PUSH__ENABLED", "maybe"),
    ]);
    sources.flags = vec![
        flag("upstream.url", &["cache:9092"]),
        flag("log.level", &["loud"]),
    ];
    assert_eq!(
        problems(&sources),
        [
            "a.toml:1:1: unknown key `thread`; did you mean `threads`?",
            "a.toml:3:3: unknown key `listen.adress`; did you mean `listen.address`?",
            "a.toml:4:19: `listen.max_connections`: `many` is not a whole number above 0",
            "a.toml:6:11: `fetch.timeout`: `soon` is not a duration; write it as in `90s` or `10m`",
            "a.toml:7:14: `fetch.allow_cidr`: `10.0.0.0/99` is not a network; write it as in `10.0.0.0/8`",
            "a.toml:8:12: `fetch.max_size`: takes one value, not a list",
            "a.toml:9:2: unknown section `upstreams`; did you mean `upstream`?",
            "ASSETGATE__LISTEN__ADDRES: no such setting; did you mean `ASSETGATE__LISTEN__ADDRESS`?",
            "ASSETGATE__PUSH__ENABLED: `push.enabled`: `maybe` is neither `true` nor `false`",
            "--log-level: `log.level`: `loud` is none of `error`, `warn`, `info`, `debug`, `trace`",
            "--upstream: `upstream.url`: `cache:9092` has no scheme: a URL must begin with `grpc://` (plain), `grpcs://` (TLS) or `unix:` (a socket's path)",
        ]
    );
}

#[test]
fn a_mistake_in_the_file_is_reported_although_a_flag_hides_it() {
    let (_dir, mut sources) = from_file("[drain]\ntimeout = \"x\"\n");
    sources.flags = vec![flag("drain.timeout", &["1s"])];
    assert_eq!(problems(&sources).len(), 1);
}

#[test]
fn syntax_errors_and_sections_used_as_values() {
    let (_dir, sources) = from_file("listen = 3\nthreads = \n[push\n");
    let found = problems(&sources);
    assert!(
        found
            .iter()
            .any(|p| p.contains("a.toml:1:1: `listen` is a section")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|p| p.starts_with("a.toml:2:")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|p| p.starts_with("a.toml:3:")),
        "{found:?}"
    );
}

#[test]
fn a_missing_file_is_a_mistake() {
    let sources = Sources {
        file: Some("/nowhere/at/all.toml".into()),
        ..Sources::default()
    };
    assert!(problems(&sources)[0].starts_with("all.toml: cannot be read"));
}

#[test]
fn what_kubernetes_injects_is_not_ours() {
    let injected = environment(&[
        ("ASSETGATE_SERVICE_HOST", "10.0.0.1"),
        ("ASSETGATE_PORT", "tcp://10.0.0.1:8980"),
        ("ASSETGATE__CACHE_SERVICE_HOST", "10.0.0.1"),
        ("ASSETGATE__CACHE_SERVICE_PORT", "8980"),
        ("ASSETGATE__CACHE_SERVICE_PORT_GRPC", "8980"),
        ("ASSETGATE__CACHE_PORT", "tcp://10.0.0.1:8980"),
        ("ASSETGATE__CACHE_PORT_8980_TCP_ADDR", "10.0.0.1"),
    ]);
    load(&Sources {
        environment: injected,
        ..Sources::default()
    })
    .unwrap();
    for name in [
        "ASSETGATE__LISTEN__PORT",
        "ASSETGATE__LISTEN_PORT",
        "ASSETGATE__FOO",
    ] {
        let sources = Sources {
            environment: environment(&[(name, "8980")]),
            ..Sources::default()
        };
        assert_eq!(problems(&sources).len(), 1, "{name}");
    }
}

#[test]
fn half_a_tls_setup_is_refused_with_everything_that_is_missing() {
    let (_dir, sources) = from_file(concat!(
        "[listen.tls]\nkey = \"/no/key\"\nclient_ca = \"/no/ca\"\n",
        "[upstream]\nurl = \"grpc://a:1\"\nclient_cert = \"/no/cert\"\n",
    ));
    let found = problems(&sources).join("\n");
    for text in [
        "a.toml:2:7: `listen.tls.key` needs `listen.tls.cert`",
        "a.toml:2:7: `listen.tls.key`: /no/key: the file cannot be read",
        "`listen.tls.client_ca` needs `listen.tls.cert`: only a TLS listener",
        "`listen.tls.client_ca`: /no/ca cannot be read",
        "`upstream.client_cert` needs `upstream.client_key`",
        "`upstream.client_cert` needs a `grpcs://` URL in `upstream.url`",
        "`upstream.client_cert`: /no/cert cannot be read",
    ] {
        assert!(found.contains(text), "{text}\nin\n{found}");
    }
}

#[test]
fn files_must_hold_what_they_are_for() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key, _) = identity(dir.path());
    let swapped = Sources {
        flags: vec![
            flag("listen.tls.cert", &[&key]),
            flag("listen.tls.key", &[&cert]),
        ],
        ..Sources::default()
    };
    let found = problems(&swapped).join("\n");
    assert!(found.contains("`listen.tls.cert`: ") && found.contains("holds no certificate"));
    assert!(found.contains("`listen.tls.key`: ") && found.contains("holds no private key"));

    let right = Sources {
        flags: vec![
            flag("listen.tls.cert", &[&cert]),
            flag("listen.tls.key", &[&key]),
        ],
        ..Sources::default()
    };
    assert!(load(&right).unwrap().config.listen.tls.is_some());
}

#[test]
fn a_key_pasted_instead_of_its_path_is_not_echoed() {
    let sources = Sources {
        environment: environment(&[(
            "ASSETGATE__LISTEN__TLS__KEY",
            "-----BEGIN PRIVATE KEY-----\nabc",
        )]),
        ..Sources::default()
    };
    let found = problems(&sources).join("\n");
    assert!(
        found.contains("not what the file holds") && !found.contains("abc"),
        "{found}"
    );
}

#[test]
fn a_password_in_a_url_is_refused_and_not_echoed() {
    for url in ["grpc://u:s3cret@h:1", "u:s3cret@h:1", "http://u:s3cret@h:1"] {
        let sources = Sources {
            flags: vec![flag("upstream.url", &[url])],
            ..Sources::default()
        };
        let found = problems(&sources).join("\n");
        assert!(!found.contains("s3cret"), "{found}");
    }
}

#[test]
fn tls_options_without_an_upstream_are_refused() {
    let (_dir, sources) = from_file("[upstream]\nserver_name = \"x\"\nauthority = \"y\"\n");
    let found = problems(&sources).join("\n");
    assert!(
        found.contains("`upstream.server_name` needs `upstream.url`"),
        "{found}"
    );
    assert!(
        found.contains("`upstream.authority` needs `upstream.url`"),
        "{found}"
    );
}

#[test]
fn proxy_settings_must_agree_and_their_secrets_are_not_repeated() {
    let (_dir, sources) = from_file(
        "[fetch]\nproxy = \"http://user:S3CRET@proxy.example\"\nno_proxy = [\".ok.example\", \"h:80\"]\nrate_per_host = \"fast\"\n",
    );
    let text = problems(&sources).join("\n");
    assert!(!text.contains("S3CRET"), "{text}");
    for part in [
        "`fetch.proxy`: must not hold user and password",
        "`fetch.no_proxy`: `h:80` is not a host",
        "`fetch.rate_per_host`: `fast` is not a rate",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let (_dir, sources) =
        from_file("[fetch]\nproxy_credential = \"user:S3CRET\"\nno_proxy = [\"*\"]\n");
    let text = problems(&sources).join("\n");
    assert!(!text.contains("S3CRET"), "{text}");
    for part in [
        "`fetch.proxy_credential` needs `fetch.proxy`",
        "`fetch.no_proxy` needs `fetch.proxy`",
        "`fetch.proxy_credential` is the path of a file with the credential: the file cannot be read",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn fetch_settings_must_agree() {
    let (_dir, sources) = from_file(
        "[fetch]\ntimeout = \"2h\"\nmemory = \"1KiB\"\nspool_dir = \"/no/such\"\nspool_size = \"1KiB\"\n",
    );
    assert_eq!(
        problems(&sources),
        [
            "a.toml:2:11: `fetch.timeout` must not be longer than `fetch.max_timeout`",
            "a.toml:3:10: `fetch.memory`: must be at least 1MiB",
            "a.toml:4:13: `fetch.spool_dir`: /no/such is not a directory",
            "a.toml:5:14: `fetch.spool_size`: must be at least 1MiB",
        ]
    );
    let (_dir, sources) = from_file("[fetch]\nmax_timeout = \"5m\"\n");
    assert!(
        problems(&sources)[0].starts_with("a.toml:2:15: "),
        "the default is not to blame"
    );
}

/// Promise P5.
#[test]
fn an_open_listener_may_not_lend_the_upstream_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key, ca) = identity(dir.path());
    let load_with = |listen: &str, more: Vec<(&'static str, Vec<String>)>| {
        let mut flags = vec![
            flag("upstream.url", &["grpcs://cache:1"]),
            flag("upstream.client_cert", &[&cert]),
            flag("upstream.client_key", &[&key]),
            flag("listen.address", &[listen]),
        ];
        flags.extend(more);
        load(&Sources {
            flags,
            ..Sources::default()
        })
        .map(|loaded| loaded.config)
    };
    for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "build.example:1"] {
        let refused = load_with(open, vec![]).expect_err(open).to_string();
        assert!(
            refused.contains("--listen: ") && refused.contains("allow_anonymous"),
            "{refused}"
        );
        assert_eq!(refused.lines().count(), 1);
    }
    for closed in [
        "127.0.0.1:1",
        "127.9.9.9:1",
        "[::1]:1",
        "localhost:1",
        "unix:/s",
    ] {
        load_with(closed, vec![]).expect(closed);
    }
    load_with("0.0.0.0:1", vec![flag("allow_anonymous", &["true"])]).unwrap();
    let tls = vec![
        flag("listen.tls.cert", &[&cert]),
        flag("listen.tls.key", &[&key]),
    ];
    load_with("0.0.0.0:1", tls.clone()).expect_err("TLS alone tells nobody apart");
    let mtls = [tls, vec![flag("listen.tls.client_ca", &[&ca])]].concat();
    load_with("0.0.0.0:1", mtls).unwrap();
}

#[test]
fn show_is_a_file_that_loads_to_the_same_settings_and_names_origins() {
    let (_dir, mut sources) = from_file("threads = 3\n[upstream]\nurl = \"grpc://a\"\n");
    sources.environment = environment(&[
        ("ASSETGATE__FETCH__DENY_CIDR", "10.0.0.0/8"),
        ("HOME", "/h"),
    ]);
    sources.flags = vec![flag("admin.address", &["off"])];
    let loaded = load(&sources).unwrap();
    let shown = loaded.show();
    for line in [
        "threads = 3  # file ",
        "url = [\"grpc://a\"]  # file ",
        "deny_cidr = [\"10.0.0.0/8\"]  # env ASSETGATE__FETCH__DENY_CIDR",
        "address = \"off\"  # flag --admin-listen",
        "dir = \"/h/.cache/assetgate\"  # default",
        "# ca is not set",
    ] {
        assert!(shown.contains(line), "{line}\nin\n{shown}");
    }
    let (_again, sources) = from_file(&shown);
    assert_eq!(load(&sources).unwrap().config, loaded.config);
}

#[test]
fn every_key_is_read() {
    // A key nobody reads would accept anything.
    for key in KEYS {
        let sources = Sources {
            flags: vec![flag(key.name, &["\u{1}no value\u{1} is like this/"])],
            ..Sources::default()
        };
        let Err(found) = load(&sources) else {
            assert_eq!(key.name, "embedded.dir", "{} takes anything", key.name);
            continue;
        };
        assert!(
            found.to_string().contains(key.name),
            "{}: {found}",
            key.name
        );
    }
}

#[test]
fn keys_without_a_section_come_first_and_sections_are_together() {
    let mut seen: Vec<&str> = Vec::new();
    for key in KEYS {
        let section = key.name.rsplit_once('.').map_or("", |(section, _)| section);
        if seen.last() != Some(&section) {
            assert!(!seen.contains(&section), "{section} stands twice");
            seen.push(section);
        }
    }
    assert_eq!(seen[0], "");
}

#[test]
fn a_route_names_a_service_and_a_server() {
    let routed = |text: &str| {
        load(&Sources {
            environment: environment(&[("HOME", "/h")]),
            flags: vec![flag("route", &[text])],
            ..Sources::default()
        })
    };
    let config = routed("build.bazel.remote.execution.v2.Execution=grpc://exec:8980");
    let routes = config.unwrap().config.routes;
    assert_eq!(routes.len(), 1);
    assert_eq!(
        routes[0].service,
        "build.bazel.remote.execution.v2.Execution"
    );
    assert_eq!(routes[0].url.to_string(), "grpc://exec:8980");
    for (bad, says) in [
        ("grpc://exec:1", "SERVICE=URL"),
        ("=grpc://exec:1", "no name of a service"),
        ("a b=grpc://exec:1", "no name of a service"),
        ("a=exec:1", "has no scheme"),
    ] {
        let problems = routed(bad).unwrap_err().to_string();
        assert!(problems.contains(says), "{bad}: {problems}");
    }
}

#[test]
fn the_number_of_upstream_connections_is_a_number_up_to_ten_thousand() {
    let with = |text: &str| Sources {
        flags: vec![flag("upstream.max_connections", &[text])],
        ..Sources::default()
    };
    for (text, number) in [("1", 1), ("10000", 10_000)] {
        assert_eq!(
            load(&with(text)).unwrap().config.upstream_connections,
            number
        );
    }
    for (text, why) in [("0", "is not a whole number"), ("10001", "at most 10000")] {
        let found = problems(&with(text)).join("");
        assert!(found.contains(why), "{found}");
        assert!(found.contains("--upstream-max-connections"), "{found}");
    }
}

fn credential_flags(path: &str, more: &[(&'static str, &[&str])]) -> Sources {
    let mut flags = vec![
        flag("upstream.url", &["grpcs://cache:1"]),
        flag("upstream.credential", &[path]),
    ];
    flags.extend(more.iter().map(|(key, values)| flag(key, values)));
    Sources {
        flags,
        ..Sources::default()
    }
}

/// Conformance C6.
#[test]
fn with_a_credential_pushing_needs_an_allow_list_of_its_own() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "authorization: Bearer hunter2").unwrap();
    let path = file.path().to_str().unwrap();
    let load_with = |more: &[(&'static str, &[&str])]| load(&credential_flags(path, more));
    let said = load_with(&[]).unwrap_err().to_string();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("--upstream-credential: "), "{said}");
    for part in ["`push.instances = [", "`push.enabled = false`"] {
        assert!(said.contains(part), "{said}");
    }
    for decided in [&["*"][..], &["a", "b/*"], &[]] {
        let loaded = load_with(&[("push.instances", decided)]).unwrap();
        assert_eq!(loaded.config.push.instances.len(), decided.len());
        assert_eq!(loaded.config.fetch.instances.len(), 1, "as before: all");
        assert!(loaded.show().contains(path) && !loaded.show().contains("hunter2"));
    }
    let off = load_with(&[("push.enabled", &["false"])]).unwrap().config;
    assert_eq!(
        off.upstream.unwrap().credential.as_deref(),
        Some(file.path())
    );
}

#[test]
fn a_file_that_is_no_credential_is_refused_without_being_quoted() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "# token\nBearer hunter2\n").unwrap();
    let decided: &[(&'static str, &[&str])] = &[("push.instances", &["*"])];
    let path = file.path().to_str().unwrap();
    for (value, part) in [
        (path, "line 2 is not of the form"),
        (
            "Bearer hunter2",
            "is the path of a file with the credential",
        ),
        ("authorization: hunter2\nx: y", "is the path of a file"),
    ] {
        let said = load(&credential_flags(value, decided)).unwrap_err();
        let said = said.to_string();
        assert!(said.contains(part) && !said.contains("hunter2"), "{said}");
    }
    std::fs::write(file.path(), "authorization: Bearer hunter2").unwrap();
    let mut sources = credential_flags(path, decided);
    sources.flags.remove(0);
    let said = load(&sources).unwrap_err().to_string();
    assert!(
        said.contains("`upstream.credential` needs `upstream.url`"),
        "{said}"
    );
}

/// Promise P5.
#[test]
fn an_open_listener_may_not_lend_the_credential() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key, ca) = identity(dir.path());
    let file = dir.path().join("credential");
    std::fs::write(&file, "authorization: Bearer hunter2").unwrap();
    let load_with = |more: &[(&'static str, &[&str])]| {
        let mut all = vec![
            ("listen.address", &["0.0.0.0:1"][..]),
            ("push.enabled", &["false"]),
        ];
        all.extend(more);
        load(&credential_flags(file.to_str().unwrap(), &all)).map(|loaded| loaded.config)
    };
    let said = load_with(&[]).unwrap_err().to_string();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("--listen: ") && said.contains("`upstream.credential` would lend"));
    load_with(&[("allow_anonymous", &["true"])]).unwrap();
    let tls: &[(&'static str, &[&str])] =
        &[("listen.tls.cert", &[&cert]), ("listen.tls.key", &[&key])];
    load_with(tls).unwrap_err();
    load_with(&[tls, &[("listen.tls.client_ca", &[&ca])]].concat()).unwrap();
}

#[test]
fn instances_and_prefixes_in_every_spelling() {
    let (_dir, sources) = from_file(
        "[push]\ninstances = [\"\", \"a\", \"b/*\"]\nallow_uris = [\"urn:\"]\n[fetch]\ninstances = []\n",
    );
    let config = load(&sources).unwrap().config;
    assert_eq!(config.push.instances.len(), 3);
    assert_eq!(config.push.allow_uris.len(), 1);
    assert!(config.fetch.instances.is_empty() && config.push.deny_uris.is_empty());
    let sources = Sources {
        environment: environment(&[("ASSETGATE__PUSH__INSTANCES", "\"\", a")]),
        ..Sources::default()
    };
    let from_variable = load(&sources).unwrap().config.push.instances;
    assert_eq!(from_variable, config.push.instances[..2]);

    let (_dir, sources) = from_file(
        "[push]\ninstances = [\"a*\"]\nallow_uris = [\"https://host\"]\ndeny_uris = [\"https://u:p@h/\"]\n",
    );
    let said = load(&sources).unwrap_err().to_string();
    assert_eq!(said.lines().count(), 3, "{said}");
    for part in ["NAME/*", "write `https://host/`", "user info"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn the_probe_has_names_of_instances_and_conditions() {
    let config = load(&Sources::default()).unwrap().config;
    assert_eq!(
        config.probe.instances,
        [crate::digest::InstanceName::default()]
    );
    let (_dir, sources) = from_file(
        "[probe]\ninstances = [\"\", \"a/b\"]\nrequire = [\"complete\"]\nenabled = false\n",
    );
    assert!(problems(&sources)[0].contains("means nothing with `probe.enabled = false`"));
    let (_dir, sources) = from_file("probe.require = \"fast\"\nprobe.instances = \"a//b\"\n");
    let found = problems(&sources).join("\n");
    assert!(
        found.contains("`fast` is none of `writable`, `complete`"),
        "{found}"
    );
    assert!(found.contains("`a//b`"), "{found}");
}

#[test]
fn rules_about_content_that_nothing_pins() {
    let (_dir, sources) = from_file(
        "[fetch]\nunpinned = [\"ttl=1h https://p.example/*\", \"reject *\"]\n\
         key_headers = \"X-Variant\"\nshare_private = false\n",
    );
    let fetch = load(&sources).unwrap().config.fetch;
    assert_eq!((fetch.unpinned.len(), fetch.key_headers.len()), (2, 1));
    assert!(!fetch.share_private);
    let fetch = load(&Sources::default()).unwrap().config.fetch;
    assert!(fetch.unpinned.is_empty() && fetch.key_headers.is_empty());
    assert!(fetch.share_private);
    let (_dir, sources) = from_file(
        "[fetch]\nunpinned = [\"ttl=0s *\", \"reject https://u:s3cret@h.example/\"]\n\
         key_headers = [\"Authorization\", \"X: s3cret\"]\nshare_private = 1\n",
    );
    let found = problems(&sources);
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(!found.join("").contains("s3cret"), "{found:?}");
}
