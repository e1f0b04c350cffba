//! That the cache directory belongs to this service alone: it is ours, nobody
//! else may write it, and nothing in it leads elsewhere.
//!
//! Whoever can put a file or a link there decides what clients are given, or
//! which file of ours is overwritten.
//! Not for: what is above it (`ancestors.rs`), what it holds (`disk.rs`).
//! Called by: `disk.rs`.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

use rustix::fs::OFlags;

use super::ancestors;

/// Of directories.
const DIRECTORY: u32 = 0o700;
/// Of files.
const FILE: u32 = 0o600;
/// The group may write.
pub(super) const BY_GROUP: u32 = 0o020;
/// All users may write.
pub(super) const BY_ALL: u32 = 0o002;
/// In a directory with this bit one user cannot replace what is another's.
pub(super) const STICKY: u32 = 0o1000;

/// Creates the directory if need be, and takes away what others may read.
///
/// # Errors
/// If it is a link, belongs to another user, or others may write it or replace
/// it; the text says what to do. A group may write what root made for it, as
/// volumes are (`fsGroup` of Kubernetes): that is the operator's choice.
pub(super) fn prepare(root: &Path) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    ancestors::check(root, user)?;
    create(root)?;
    let metadata = fs::symlink_metadata(root)?;
    if metadata.is_symlink() {
        let to = fs::canonicalize(root).unwrap_or_default();
        return refuse(format!(
            "is a symbolic link; name the directory itself: {}",
            to.display()
        ));
    }
    check(&metadata, user)?;
    // Of what was not there yet, too.
    for directory in ancestors::check(root, user)? {
        tracing::warn!(
            directory = %directory.display(),
            "who is in the group of this directory may replace the cache directory below it"
        );
    }
    narrow(root, &metadata, user)
}

fn narrow(root: &Path, found: &Metadata, user: u32) -> io::Result<()> {
    let (directory, mode) = (root.display(), found.mode() & 0o777);
    if found.uid() == user && mode & 0o077 != 0 {
        fs::set_permissions(root, Permissions::from_mode(DIRECTORY))?;
        tracing::info!(%directory, was = format!("{mode:o}"), "the cache directory is for this user alone now");
    } else if mode & BY_GROUP != 0 {
        tracing::warn!(
            %directory,
            group = found.gid(),
            "who is in this group may change what is in the cache directory"
        );
    }
    Ok(())
}

/// Creates a directory, and those above it, for this user alone.
pub(super) fn create(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(DIRECTORY).create(directory)
}

/// Creates a directory within the cache directory; a link is none.
///
/// # Errors
/// If something else has its name.
pub(super) fn create_within(directory: &Path) -> io::Result<()> {
    match fs::symlink_metadata(directory) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => refuse(format!(
            "{} is not a directory; remove it",
            directory.display()
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(directory),
        Err(error) => Err(error),
    }
}

/// A new file that only this user may read.
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create_new(true);
    options.mode(FILE).open(path)
}

/// A file that may be there, for reading and writing; never what a link leads
/// to.
///
/// # Errors
/// If it is a link, or anything but a file.
pub(super) fn own_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    // Opening a pipe would wait for its other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let opened = options.mode(FILE).custom_flags(flags).open(path);
    let is_link = || fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    let file = match opened {
        Err(_) if is_link() => {
            return refuse(format!("{} is a symbolic link; remove it", path.display()));
        }
        opened => opened?,
    };
    let found = file.metadata()?;
    if !found.is_file() || found.nlink() > 1 {
        return refuse(format!(
            "{} is not a file of this directory alone; remove it",
            path.display()
        ));
    }
    Ok(file)
}

fn check(directory: &Metadata, user: u32) -> io::Result<()> {
    if directory.uid() != user && directory.uid() != 0 {
        return refuse(format!(
            "belongs to user {}, not to user {user}, who runs this; chown it or use another",
            directory.uid()
        ));
    }
    if directory.mode() & BY_ALL != 0 {
        return refuse(format!(
            "may be written by all users (mode {:o}), who may have put anything there; \
             use another, or empty it and chmod 700 it",
            directory.mode() & 0o777
        ));
    }
    Ok(())
}

pub(super) fn refuse<T>(text: String) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(dir.path()).unwrap();
        check(&metadata, metadata.uid()).unwrap();
        if metadata.uid() != 0 {
            let error = check(&metadata, metadata.uid() + 1).unwrap_err();
            assert!(error.to_string().contains("chown"), "{error}");
        }
    }

    #[test]
    fn a_directory_whose_parent_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (parent, root) = (dir.path().join("shared"), dir.path().join("shared/data"));
        prepare(&root).unwrap();
        assert_eq!((mode(&parent), mode(&root)), (0o700, 0o700));
        fs::set_permissions(&parent, Permissions::from_mode(0o777)).unwrap();
        let error = prepare(&root).unwrap_err();
        assert!(error.to_string().contains("elsewhere"), "{error}");
        // As the directory of temporary files is.
        fs::set_permissions(&parent, Permissions::from_mode(0o1777)).unwrap();
        prepare(&root).unwrap();
    }

    #[test]
    fn what_a_group_could_do_it_no_longer_can_and_what_all_could_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        prepare(&root).unwrap();
        // As a umask of 002 makes it.
        fs::set_permissions(&root, Permissions::from_mode(0o775)).unwrap();
        prepare(&root).unwrap();
        assert_eq!(mode(&root), 0o700);
        fs::set_permissions(&root, Permissions::from_mode(0o777)).unwrap();
        let error = prepare(&root).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }

    #[test]
    fn files_are_this_users_and_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "kept").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(own_file(&link).is_err());
        fs::hard_link(&victim, dir.path().join("hard")).unwrap();
        assert!(own_file(&dir.path().join("hard")).is_err());
        let new = dir.path().join("new");
        own_file(&new).unwrap();
        assert_eq!(mode(&new), 0o600);
        new_file(&dir.path().join("newer")).unwrap();
        assert_eq!(mode(&dir.path().join("newer")), 0o600);
        assert!(create_within(&link).is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
    }
}
