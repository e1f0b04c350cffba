//! What is open to others, and who is told: warnings about addresses, the
//! service's credential in the clear, and under which names the admin port
//! answers.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::answer::says;
use crate::support::{File, Pki, Proxy, bounded, eventually};

/// What `config check` prints: to standard output and to standard error.
fn check(toml: &str) -> (Option<i32>, String, String) {
    let file = File::new(toml);
    let output = Command::new(env!("CARGO_BIN_EXE_assetgate"))
        .args(["config", "check", "--config"])
        .arg(file.path())
        .env_clear()
        .env("HOME", "/home/nobody")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn warnings(toml: &str) -> Vec<String> {
    let (code, out, err) = check(toml);
    assert_eq!((code, out.as_str()), (Some(0), "OK\n"), "{err}");
    err.lines().map(str::to_owned).collect()
}

#[test]
fn p5_config_check_warns_of_what_is_open_once_each() {
    assert_eq!(warnings(""), [""; 0]);
    assert_eq!(warnings("[listen]\naddress = \"[::1]:8980\"\n"), [""; 0]);
    let open =
        warnings("[listen]\naddress = \"0.0.0.0:8980\"\n[admin]\naddress = \"0.0.0.0:9980\"\n");
    assert_eq!(open.len(), 3, "{open:?}");
    says(
        &open[0],
        &["warning: `listen.address`", "0.0.0.0:8980", "listen.tls"],
    );
    says(
        &open[1],
        &["warning: `push.enabled`", "push.enabled = false"],
    );
    says(&open[2], &["warning: `admin.address`", "0.0.0.0:9980"]);
    let alone = warnings("[listen]\naddress = \"h.example:1\"\n[push]\nenabled = false\n");
    assert_eq!(alone.len(), 1, "{alone:?}");
    let pki = Pki::new();
    let issued = pki.issue("localhost");
    std::fs::set_permissions(&issued.key, Permissions::from_mode(0o600)).unwrap();
    let (cert, key) = (issued.cert.display(), issued.key.display());
    let tls = format!(
        "[listen]\naddress = \"0.0.0.0:1\"\n[listen.tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n"
    );
    let tls_alone = warnings(&tls);
    assert_eq!(tls_alone.len(), 2, "{tls_alone:?}");
    says(&tls_alone[0], &["listen.tls.client_ca"]);
    let both = format!("{tls}client_ca = \"{}\"\n", pki.ca().display());
    assert_eq!(warnings(&both), [""; 0]);
}

#[tokio::test]
async fn p5_a_start_warns_of_what_is_open() {
    let proxy = Proxy::new().listen("0.0.0.0:0").admin("0.0.0.0:0");
    let proxy = proxy.start().await;
    let logs = proxy.stderr().text();
    for said in ["`listen.address`", "`push.enabled`", "`admin.address`"] {
        let begins = format!("\"WARN\",\"message\":\"{said}");
        let about = |line: &&str| line.contains(&begins);
        assert_eq!(logs.lines().filter(about).count(), 1, "{said}: {logs}");
    }
    let proxy = Proxy::new().start().await;
    assert!(!proxy.stderr().text().contains("WARN"));
}

#[tokio::test]
async fn p5_the_services_credential_is_not_shown_in_the_clear() {
    let file = File::new("authorization: Bearer of-the-service\n");
    let with = |url: &str, more: &str| {
        let proxy = Proxy::new().upstream_at(url);
        let proxy = proxy.arg("--upstream-credential").arg(file.path());
        proxy.config(format!("{more}\n[push]\nenabled = false\n"))
    };
    for url in ["grpc://192.0.2.1:9092", "grpc://cache.example:9092"] {
        let (status, printed) = with(url, "").start_to_end().await;
        assert_eq!(status.code(), Some(64), "{printed}");
        says(
            &printed,
            &[
                "`upstream.credential`",
                url,
                "grpcs://",
                "upstream.credential_in_clear = true",
            ],
        );
        assert!(!printed.contains("of-the-service"));
    }
    let elsewhere = "[references]\nupstream = \"grpc://192.0.2.1:1\"\n";
    let (status, printed) = with("grpc://127.0.0.1:1", elsewhere).start_to_end().await;
    assert_eq!(status.code(), Some(64), "{printed}");
    says(&printed, &["grpc://192.0.2.1:1"]);
    for (url, more) in [
        ("grpc://127.0.0.1:1", ""),
        ("grpc://localhost:1", ""),
        ("grpc://[::1]:1", ""),
        ("unix:/nonexistent/cache", ""),
        ("grpcs://192.0.2.1:1", ""),
        (
            "grpc://192.0.2.1:1",
            "[upstream]\ncredential_in_clear = true\n",
        ),
    ] {
        with(url, more).start().await;
    }
    let (code, _, printed) = check("[upstream]\ncredential_in_clear = true\n");
    assert_eq!(code, Some(64));
    says(
        &printed,
        &["`upstream.credential_in_clear` needs `upstream.credential`"],
    );
}

/// Status and head of an answer.
async fn ask(address: std::net::SocketAddr, path: &str, host: Option<&str>) -> (u16, String) {
    bounded(path, async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = match host {
            Some(host) => {
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
            }
            None => format!("GET {path} HTTP/1.0\r\n\r\n"),
        };
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.to_ascii_lowercase())
    })
    .await
}

#[tokio::test]
async fn p5_the_admin_port_answers_to_its_own_names_beyond_loopback_too() {
    let proxy = Proxy::new().admin("0.0.0.0:0");
    let proxy = proxy.config("[admin]\nhosts = [\"assetgate.ci.svc\"]\n");
    let proxy = proxy.start().await;
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], proxy.admin().port()));
    for path in ["/", "/metrics", "/fetches", "/status", "/livez"] {
        for host in [
            "evil.example",
            "evil.example:9980",
            "localhost.evil.example",
            "",
            "a b",
        ] {
            let (status, said) = ask(at, path, Some(host)).await;
            assert!([400, 421].contains(&status), "{path} {host}: {said}");
            if status == 421 {
                says(&said, &["admin.hosts"]);
            }
        }
        // What no name leads to, or one that the operator named.
        for host in [
            "10.1.2.3:9980",
            "[fd00::1]:9980",
            "localhost:9980",
            "ASSETGATE.ci.svc:80",
        ] {
            assert_eq!(ask(at, path, Some(host)).await.0, 200, "{path} {host}");
        }
        // Health checks of HTTP/1.0; no browser leaves it out.
        assert_eq!(ask(at, path, None).await.0, 200, "{path}");
    }
    let any = Proxy::new()
        .admin("0.0.0.0:0")
        .config("[admin]\nhosts = [\"*\"]\n");
    let any = any.start().await;
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], any.admin().port()));
    assert_eq!(ask(at, "/metrics", Some("any.example")).await.0, 200);
    let local = Proxy::new().config("[admin]\nhosts = [\"gate.example\"]\n");
    let local = local.start().await;
    assert_eq!(
        ask(local.admin(), "/metrics", Some("gate.example:1"))
            .await
            .0,
        200
    );
    assert_eq!(
        ask(local.admin(), "/metrics", Some("evil.example:1"))
            .await
            .0,
        421
    );
    assert_eq!(
        ask(local.admin(), "/metrics", Some("10.1.2.3")).await.0,
        421
    );
    let bad = "[admin]\nhosts = [\"http://h\", \"h:1\", \"\"]\n";
    let (status, printed) = Proxy::new().config(bad).start_to_end().await;
    assert_eq!(status.code(), Some(64));
    assert_eq!(printed.matches("`admin.hosts`").count(), 3, "{printed}");
}

#[tokio::test]
async fn p5_no_page_of_the_admin_port_can_be_framed_or_guessed_at() {
    let proxy = Proxy::new().start().await;
    eventually("the pages", async || Some(())).await;
    for (path, host) in [
        ("/", "localhost"),
        ("/status", "localhost"),
        ("/fetches", "localhost"),
        ("/metrics", "localhost"),
        ("/livez", "localhost"),
        ("/readyz", "localhost"),
        ("/nope", "localhost"),
        ("/", "evil.example"),
    ] {
        let (_, head) = ask(proxy.admin(), path, Some(host)).await;
        says(
            &head,
            &[
                "frame-ancestors 'none'",
                "default-src 'none'",
                "x-content-type-options: nosniff",
            ],
        );
    }
}

/// Status of the answer to a head as it is.
async fn ask_raw(address: std::net::SocketAddr, head: &str) -> u16 {
    bounded(head, async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    })
    .await
}

#[tokio::test]
async fn p5_a_request_to_the_admin_port_names_one_host() {
    let proxy = Proxy::new().start().await;
    let ours = "localhost:9980";
    for (target, hosts, status) in [
        ("/status", &[ours][..], 200),
        ("/status", &[ours, "evil.example"], 400),
        ("/status", &["evil.example", ours], 400),
        ("/status", &[ours, ours], 400),
        ("/status", &[], 400),
        ("/status", &["localhost, evil.example"], 421),
        ("http://localhost:9980/status", &[ours], 200),
        ("http://LOCALHOST:9980/status", &[ours], 200),
        ("http://evil.example/status", &[ours], 400),
        ("http://localhost:9980/status", &["evil.example"], 400),
        ("http://localhost:9981/status", &[ours], 400),
        ("http://evil.example/status", &["evil.example"], 421),
        ("http://localhost:9980@evil.example/", &[ours], 400),
    ] {
        let hosts: String = hosts.iter().map(|h| format!("Host: {h}\r\n")).collect();
        let head = format!("GET {target} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        assert_eq!(ask_raw(proxy.admin(), &head).await, status, "{head}");
    }
}
