//! A file of settings or secrets, gone with the test.

use std::path::PathBuf;

use tempfile::TempDir;

/// A file that goes with its directory.
pub struct File(TempDir);

impl File {
    pub fn new(text: &str) -> Self {
        let file = Self(TempDir::new().unwrap());
        file.write(text);
        file
    }

    /// As one does whose readers must never see half of it.
    pub fn write(&self, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let new = self.0.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("file")
    }
}
