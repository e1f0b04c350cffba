//! The file that tells scripts where the server listens.
//!
//! Not for: people; they read the banner.
//! Called by: `cli::serve`.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Writes `{"grpc": "...", "admin": "..." or null}`, whole or not at all, so
/// that whoever waits for the file never reads half of it.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_port_file(path: &Path, grpc: &str, admin: Option<&str>) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".assetgate-ports-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(directory)?;
    writeln!(
        file,
        "{}",
        serde_json::json!({ "grpc": grpc, "admin": admin })
    )?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Removes what an earlier run left, so that nobody connects to its ports.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ports.json");
        std::fs::write(&path, "stale").unwrap();
        write_port_file(&path, "unix:/p", None).unwrap();
        let read = || -> serde_json::Value {
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
        };
        assert_eq!(
            read(),
            serde_json::json!({ "grpc": "unix:/p", "admin": null })
        );
        write_port_file(&path, "127.0.0.1:1", Some("127.0.0.1:2")).unwrap();
        assert_eq!(
            read(),
            serde_json::json!({ "grpc": "127.0.0.1:1", "admin": "127.0.0.1:2" })
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
        assert!(write_port_file(&dir.path().join("no/such"), "x", None).is_err());
    }
}
