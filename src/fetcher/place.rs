//! Where large downloads wait when no place was named: on a disk, never
//! silently in memory, which the budget for memory would not know of.
//!
//! Files there have no name from the start, so a directory that all users may
//! write, such as `/var/tmp`, is as good as one of our own.
//! Not for: the files (`spool`).
//! Called by: `server`, which knows of the embedded cache's directory.

use std::path::{Path, PathBuf};

/// For files that outlive a boot; the directory for those that need not is in
/// memory on many systems.
const SYSTEM: &str = "/var/tmp";

/// `f_type` of file systems in memory (`statfs(2)`).
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// The first of these that is on a disk and takes files: within the directory
/// of the embedded cache, if there is one; `/var/tmp`.
#[must_use]
pub fn spool_place(embedded: Option<&Path>) -> Option<PathBuf> {
    let within = embedded.map(|dir| dir.join("tmp"));
    first(within.into_iter().chain([PathBuf::from(SYSTEM)]))
}

fn first(places: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let mut places = places;
    places.find(|place| !in_memory(place) && tempfile::tempfile_in(place).is_ok())
}

fn in_memory(place: &Path) -> bool {
    rustix::fs::statfs(place).is_ok_and(|found| {
        #[allow(
            clippy::useless_conversion,
            reason = "its type differs between systems"
        )]
        let kind = i64::from(found.f_type);
        IN_MEMORY.contains(&kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_in_memory_is_passed_over() {
        let shm = Path::new("/dev/shm");
        assert!(in_memory(shm), "{} is in memory on Linux", shm.display());
        let dir = tempfile::tempdir_in(SYSTEM).unwrap();
        assert!(!in_memory(dir.path()));
        let places = [shm.to_owned(), "/no/such".into(), dir.path().to_owned()];
        assert_eq!(
            first(places.clone().into_iter()).as_deref(),
            Some(dir.path())
        );
        assert_eq!(first(places.into_iter().take(2)), None);
    }
}
