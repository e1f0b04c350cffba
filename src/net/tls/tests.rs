//! Tests of reading and re-reading TLS files. Handshakes are tested with the
//! listener and the pool.

use std::path::Path;

use rcgen::generate_simple_self_signed;

use super::*;

fn write_pair(dir: &Path, name: &str) -> ServerFiles {
    let made = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = ServerFiles {
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
        client_ca: None,
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

#[test]
fn mistakes_are_reported_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let good = write_pair(dir.path(), "good");
    let other = write_pair(dir.path(), "other");
    ServerTls::server(good.clone()).unwrap();

    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "no PEM at all").unwrap();
    let missing = dir.path().join("missing.pem");
    for (cert, key, client_ca, named) in [
        (&missing, &good.key, None, &missing),
        (&good.cert, &missing, None, &missing),
        (&empty, &good.key, None, &empty),
        (&good.cert, &empty, None, &empty),
        (&good.cert, &good.key, Some(empty.clone()), &empty),
        (&good.cert, &other.key, None, &other.key),
    ] {
        let files = ServerFiles {
            cert: cert.clone(),
            key: key.clone(),
            client_ca,
        };
        let error = ServerTls::server(files).unwrap_err().to_string();
        let named = named.display().to_string();
        assert!(error.contains(&named), "{named} is not in: {error}");
    }
    let error = ClientTls::client(ClientFiles {
        ca: Some(missing.clone()),
        identity: None,
    });
    assert!(error.unwrap_err().to_string().contains("missing.pem"));
}

#[test]
fn without_files_the_system_is_trusted() {
    ClientTls::client(ClientFiles::default()).unwrap();
}

#[test]
fn changed_files_are_used_and_broken_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let files = write_pair(dir.path(), "server");
    let tls = ServerTls::server(files.clone()).unwrap();
    let first = tls.current();
    assert!(!tls.reload_if_changed(), "nothing changed");

    std::fs::write(&files.cert, "broken").unwrap();
    assert!(!tls.reload_if_changed());
    assert!(
        std::sync::Arc::ptr_eq(&first, &tls.current()),
        "the old one stays"
    );

    write_pair(dir.path(), "server");
    assert!(tls.reload_if_changed());
    assert!(!std::sync::Arc::ptr_eq(&first, &tls.current()));
}

#[tokio::test]
async fn the_watch_notices_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let files = write_pair(dir.path(), "server");
    let tls = ServerTls::server(files).unwrap();
    let first = tls.current();
    let watch = std::sync::Arc::clone(&tls).watch(std::time::Duration::from_millis(5));
    write_pair(dir.path(), "server");
    let changed = async {
        while std::sync::Arc::ptr_eq(&first, &tls.current()) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = changed => {}
        () = tokio::time::sleep(std::time::Duration::from_secs(10)) => panic!("never noticed"),
    }
}
