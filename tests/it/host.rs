//! The host it runs on: directories, sockets and secret files are this
//! service's alone, and a crash leaves nothing behind.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rustix::process::{getegid, geteuid};
use tempfile::TempDir;

use crate::support::content::noise;
use crate::support::{
    File, ForwardProxy, Origin, Pki, Proxy, Upstream, digest_of, eventually, fetch_blob, hit,
};

/// Some other user; `nobody` on most systems.
const OTHER: u32 = 65534;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

async fn refuses(proxy: Proxy, reasons: &[&str]) {
    let (status, text) = proxy.start_to_end().await;
    assert!(!status.success(), "{text}");
    for reason in reasons {
        assert!(text.contains(reason), "{reason} in: {text}");
    }
}

#[tokio::test]
async fn without_a_home_the_embedded_cache_has_no_directory_and_says_so() {
    let said = ["embedded.dir", "HOME", "XDG_CACHE_HOME", "--data-dir"];
    refuses(Proxy::new().without_home(), &said).await;
}

#[tokio::test]
async fn before_a_cache_no_data_directory_is_needed_nor_a_directory_of_temporary_files() {
    let content = noise(20 << 20, 1);
    let origin = Origin::new().file("/large", content.clone()).start().await;
    let cache = Upstream::start();
    let proxy = Proxy::new().upstream(&cache).without_home();
    let proxy = proxy.variable("TMPDIR", "/no/such/directory");
    let (_proxy, client) = proxy.connected().await;
    // More than fits into memory.
    let fetched = client.fetch_blob(fetch_blob(&[origin.url("/large")])).await;
    assert_eq!(hit(fetched), digest_of(&content));
}

#[tokio::test]
async fn a_link_in_the_data_directory_is_not_followed() {
    let dir = TempDir::new().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "kept").unwrap();
    for planted in ["lock", "cas", "ac"] {
        let data = dir.path().join(planted).join("data");
        fs::create_dir_all(&data).unwrap();
        let to = if planted == "lock" {
            victim.as_path()
        } else {
            dir.path()
        };
        symlink(to, data.join(planted)).unwrap();
        refuses(Proxy::new().data_dir(&data), &[planted, "remove it"]).await;
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
    let link = dir.path().join("link");
    symlink(dir.path().join("elsewhere"), &link).unwrap();
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    refuses(
        Proxy::new().data_dir(&link),
        &["symbolic link", "elsewhere"],
    )
    .await;
}

#[tokio::test]
async fn a_directory_of_another_user_is_not_used() {
    let dir = TempDir::new().unwrap();
    let theirs = if geteuid().is_root() {
        let theirs = dir.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        std::os::unix::fs::chown(&theirs, Some(OTHER), None).unwrap();
        theirs
    } else {
        "/var/tmp".into()
    };
    refuses(
        Proxy::new().data_dir(&theirs),
        &["belongs to user", "chown"],
    )
    .await;
}

#[tokio::test]
async fn what_the_embedded_cache_keeps_is_for_this_user_alone() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    set_mode(&data, 0o755);
    let origin = Origin::new().file("/a", "content").start().await;
    let (_proxy, client) = Proxy::new().data_dir(&data).connected().await;
    let fetched = client.fetch_blob(fetch_blob(&[origin.url("/a")])).await;
    assert_eq!(hit(fetched), digest_of(b"content"));
    let mut files = 0;
    let mut directories = vec![data];
    while let Some(directory) = directories.pop() {
        assert_eq!(mode(&directory), 0o700, "{}", directory.display());
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 3, "the blob, its reference, `lock` and `state`");
}

#[tokio::test]
async fn a_directory_that_others_may_write_is_not_used() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    set_mode(&data, 0o777);
    refuses(Proxy::new().data_dir(&data), &["may be written by all"]).await;
}

#[tokio::test]
async fn a_directory_anywhere_below_one_that_others_may_write_is_not_used() {
    let dir = TempDir::new().unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("open/ours/deeper")).unwrap();
    set_mode(&at("open"), 0o777);
    let named = at("open").display().to_string();
    let said = [
        named.as_str(),
        "may be written by other users",
        "chmod go-w",
    ];
    for data in [
        at("open/ours/deeper/data"),
        at("open/ours"),
        at("open/new/data"),
    ] {
        refuses(Proxy::new().data_dir(&data), &said).await;
    }
    assert!(!at("open/new").exists(), "nothing is made there");
    // Neither where a link leads there, nor where one that lies there leads.
    fs::create_dir_all(at("safe/deeper")).unwrap();
    symlink(at("open/ours"), at("safe/to-open")).unwrap();
    symlink("../safe", at("open/to-safe")).unwrap();
    for data in [
        "safe/to-open/data",
        "open/to-safe/data",
        "safe/deeper/../../open/ours/data",
    ] {
        refuses(Proxy::new().data_dir(&at(data)), &said).await;
    }
    symlink(at("round"), at("round")).unwrap();
    refuses(Proxy::new().data_dir(&at("round/data")), &["round"]).await;
    // A group of ours may write it: others of that group replace what is below.
    set_mode(&at("open"), 0o775);
    let alone = dir.path().metadata().unwrap().gid() == geteuid().as_raw();
    if !geteuid().is_root() && !alone {
        refuses(Proxy::new().data_dir(&at("open/ours/data")), &said).await;
    }
    // As the directory of temporary files is.
    set_mode(&at("open"), 0o1777);
    Proxy::new()
        .data_dir(&at("open/to-safe/data"))
        .start()
        .await;
    Proxy::new().data_dir(&at("open/new/data")).start().await;
}

#[tokio::test]
async fn a_directory_below_one_of_another_user_is_not_used() {
    let dir = TempDir::new().unwrap();
    assert!(
        geteuid().is_root(),
        "this test needs root, to give a directory away"
    );
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("theirs/ours/data")).unwrap();
    fs::create_dir_all(at("tmp/ours")).unwrap();
    std::os::unix::fs::chown(at("theirs"), Some(OTHER), None).unwrap();
    let named = at("theirs").display().to_string();
    let said = [named.as_str(), "belongs to user 65534", "chown"];
    refuses(Proxy::new().data_dir(&at("theirs/ours/data")), &said).await;
    // A link of theirs, where each user has entries of their own.
    set_mode(&at("tmp"), 0o1777);
    symlink(at("tmp/ours"), at("tmp/link")).unwrap();
    std::os::unix::fs::lchown(at("tmp/link"), Some(OTHER), None).unwrap();
    let named = at("tmp/link").display().to_string();
    let said = [named.as_str(), "belongs to user 65534"];
    refuses(Proxy::new().data_dir(&at("tmp/link/data")), &said).await;
    // What root made for a group, as volumes are: the operator's choice.
    fs::create_dir_all(at("volume/cache")).unwrap();
    set_mode(&at("volume"), 0o2775);
    let running = Proxy::new()
        .data_dir(&at("volume/cache/data"))
        .start()
        .await;
    eventually("a warning", async || {
        let text = running.stderr().text();
        text.contains("who is in the group of").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_is_for_this_user_unless_set_otherwise() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("socket");
    let address = format!("unix:{}", path.display());
    let running = Proxy::new().listen(&address).start().await;
    assert_eq!(mode(&path), 0o600);
    drop(running);
    let proxy = Proxy::new().listen(&address);
    let _running = proxy
        .config("[listen]\nsocket_mode = \"0660\"\n")
        .start()
        .await;
    assert_eq!(mode(&path), 0o660);
}

/// What a service that lends its rights has to say.
const PUSHES: &str = "[push]\ninstances = [\"*\"]\n";

/// A key of each kind, with what makes it a valid configuration otherwise.
fn secrets(pki: &Pki, file: &Path) -> Vec<(&'static str, String, String)> {
    let server = pki.issue("localhost");
    let key = fs::read_to_string(&server.key).unwrap();
    let cert = server.cert.display();
    let shown = file.display();
    let text = |text: &str| text.to_owned();
    vec![
        (
            "listen.tls.key",
            key.clone(),
            format!("[listen.tls]\ncert = \"{cert}\"\nkey = \"{shown}\"\n"),
        ),
        (
            "upstream.client_key",
            key,
            format!(
                "[upstream]\nurl = [\"grpcs://127.0.0.1:1\"]\nclient_cert = \"{cert}\"\nclient_key = \"{shown}\"\n{PUSHES}"
            ),
        ),
        (
            "upstream.credential",
            text("authorization: S3CRET\n"),
            format!(
                "[upstream]\nurl = [\"grpc://127.0.0.1:1\"]\ncredential = \"{shown}\"\n{PUSHES}"
            ),
        ),
        (
            "references.mac_key",
            text("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n"),
            format!("[references]\nmac_key = \"{shown}\"\n"),
        ),
        (
            "fetch.proxy_credential",
            text("user:S3CRET\n"),
            format!("[fetch]\nproxy = \"http://127.0.0.1:1\"\nproxy_credential = \"{shown}\"\n"),
        ),
        (
            "fetch.netrc",
            text("machine origin.example login a password S3CRET\n"),
            format!("[fetch]\nnetrc = \"{shown}\"\n"),
        ),
        (
            "fetch.credentials",
            text("Authorization: S3CRET\n"),
            format!("[fetch]\ncredentials = [\"origin.example={shown}\"]\n"),
        ),
    ]
}

#[tokio::test]
async fn a_secret_that_others_may_write_is_an_error_and_one_they_may_read_a_warning() {
    let pki = Pki::new();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("secret");
    for (key, text, toml) in secrets(&pki, &file) {
        fs::write(&file, text).unwrap();
        set_mode(&file, 0o666);
        refuses(Proxy::new().config(&toml), &[key, "chmod 600"]).await;
        if geteuid().is_root() {
            set_mode(&file, 0o600);
            std::os::unix::fs::chown(&file, Some(OTHER), None).unwrap();
            refuses(Proxy::new().config(&toml), &[key, "chown"]).await;
            std::os::unix::fs::chown(&file, Some(0), None).unwrap();
        }
        set_mode(&file, 0o644);
        let running = Proxy::new().config(&toml).start().await;
        eventually("a warning", async || {
            let text = running.stderr().text();
            text.contains("may be read by other users").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_renewed_credential_of_the_proxy_is_used_without_a_restart() {
    let origin = Origin::new().status("/", 404).start().await;
    let company = ForwardProxy::new().start().await;
    let file = File::new("user:first\n");
    let proxy = Proxy::new().origin_proxy(&company.url()).config(format!(
        "[fetch]\nproxy_credential = \"{}\"\n",
        file.path().display()
    ));
    let (_proxy, client) = proxy.connected().await;
    client
        .fetch_blob(fetch_blob(&[origin.url("/0")]))
        .await
        .unwrap();
    // user:first
    assert!(company.heads()[0].contains("dXNlcjpmaXJzdA=="));
    file.write("user:second\n");
    let mut next = 1..50;
    eventually("the new credential", async || {
        let url = origin.url(&format!("/{}", next.next().unwrap()));
        client.fetch_blob(fetch_blob(&[url])).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        // user:second
        let head = company.heads().pop().unwrap();
        head.contains("dXNlcjpzZWNvbmQ=").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_crash_leaves_no_core_dump_unless_asked_for() {
    // What the system shows about a process that must not be dumped belongs to
    // root and its group, whoever runs it.
    let group = if geteuid().is_root() {
        OTHER
    } else {
        getegid().as_raw()
    };
    for (proxy, shown) in [
        (Proxy::new(), group),
        (Proxy::new().without_core_dumps(), 0),
    ] {
        let running = proxy.group(group).start().await;
        assert_eq!(running.group_of_status(), shown);
    }
}
