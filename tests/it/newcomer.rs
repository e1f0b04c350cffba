//! What somebody meets who sets this up for the first time.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::content::noise;
use crate::support::{Code, Origin, Proxy, digest_of, fetch_blob, hit, refused};

fn run(arguments: &[&str], config: &str) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("assetgate.toml");
    std::fs::write(&file, config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_assetgate"))
        .args(arguments)
        .arg("--config")
        .arg(&file)
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

fn secret(mode: u32, text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(file.path(), mode).unwrap();
    file
}

#[test]
fn config_check_tells_which_secret_files_others_may_read() {
    let key = |mode| secret(mode, "0123456789abcdef0123456789abcdef");
    let netrc = |mode| secret(mode, "machine a.example login me password it");
    for (mode, told) in [(0o640, true), (0o604, true), (0o600, false)] {
        let (key, netrc) = (key(mode), netrc(mode));
        let config = format!(
            "[references]\nmac_key = {:?}\n[fetch]\nnetrc = {:?}\n",
            key.path(),
            netrc.path()
        );
        let (code, out, err) = run(&["config", "check"], &config);
        assert_eq!((code, &*out), (Some(0), "OK\n"), "{err}");
        for (name, file) in [("references.mac_key", &key), ("fetch.netrc", &netrc)] {
            let said = format!("warning: `{name}`: {} may be read", file.path().display());
            assert_eq!(err.contains(&said), told, "{mode:o}: {err}");
        }
    }
}

#[test]
fn config_show_tells_what_follows_from_other_keys() {
    for (config, shown) in [
        (
            "",
            "# max_connections_per_client is not set: 5000, half of max_connections",
        ),
        (
            "[listen]\nmax_connections = 7\n",
            "# max_connections_per_client is not set: 4, half of max_connections",
        ),
        (
            "[listen]\nmax_connections_per_client = 3\n",
            "max_connections_per_client = 3  # file",
        ),
    ] {
        let (code, out, err) = run(&["config", "show"], config);
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains(shown), "{out}");
    }
}

#[test]
fn a_mode_that_is_no_number_of_toml_is_written_as_text() {
    for mode in ["0660", "0o660", "9999"] {
        let config = format!("[listen]\nsocket_mode = {mode}\n");
        let (code, _, err) = run(&["config", "check"], &config);
        assert_eq!(code, Some(64), "{err}");
        assert!(err.contains("as text, as in \"0660\""), "{mode}: {err}");
        assert!(!err.contains("``"), "{mode}: {err}");
    }
}

#[tokio::test]
async fn counters_are_there_before_what_they_count() {
    let (proxy, _client) = Proxy::new().connected().await;
    let metrics = proxy.metrics().await;
    for series in [
        "assetgate_panics_total 0",
        "assetgate_embedded_corrupt_total 0",
        "assetgate_received_refused_total{reason=\"no_room\"} 0",
        "assetgate_connections_refused_total{reason=\"client_limit\"} 0",
        "assetgate_checksum_claims_total{result=\"wrong\"} 0",
    ] {
        assert!(metrics.0.lines().any(|l| l == series), "{series}");
    }
}

async fn large(spool: &Path) -> (crate::support::Running, crate::support::Client) {
    let config = format!("[fetch]\nspool_dir = {spool:?}\n");
    Proxy::new().config(config).connected().await
}

#[tokio::test]
async fn a_spool_directory_that_is_gone_is_made_again_or_said_to_be_gone() {
    let content = noise(3 << 20, 5);
    let origin = Origin::new()
        .file("/a", content.clone())
        .file("/b", noise(3 << 20, 6))
        .file("/small", "small")
        .start()
        .await;
    let outer = tempfile::tempdir().unwrap();
    let spool = outer.path().join("within/spool");
    std::fs::create_dir_all(&spool).unwrap();
    let (_proxy, client) = large(&spool).await;
    std::fs::remove_dir(&spool).unwrap();
    let fetch = |path: &str| fetch_blob(&[origin.url(path)]);
    let digest = hit(client.fetch_blob(fetch("/a")).await);
    assert_eq!(digest, digest_of(&content));
    let mode = std::fs::metadata(&spool).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    std::fs::remove_dir_all(outer.path().join("within")).unwrap();
    let refusal = refused(client.fetch_blob(fetch("/b")).await, Code::Unavailable);
    assert!(refusal.message().contains("fetch.spool_dir"), "{refusal:?}");
    // What needs no such place is served as before.
    hit(client.fetch_blob(fetch("/small")).await);
}
