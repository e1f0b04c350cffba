//! That nobody else can put another directory in the place of ours: whoever may
//! write a directory above it, or one in which a link on the way lies, can.
//!
//! Every directory on the way is looked at, as `sshd` does (`StrictModes`), and
//! every link followed as the kernel would.
//! Not for: the directory itself (`private.rs`).
//! Called by: `private.rs`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::private::{BY_ALL, BY_GROUP, STICKY, refuse};

/// Links that are followed at most, as by the kernel.
const LINKS: usize = 40;

/// The user and the group that all share who have no other.
const NOBODY: u32 = 65534;

/// Who may own what is on the way.
struct Trusted {
    user: u32,
    /// Of `/`, who can replace anything anyway: root, or what a user namespace
    /// without root shows in its place.
    root: u32,
}

impl Trusted {
    fn owner(&self, path: &Path, found: &Metadata) -> io::Result<()> {
        let owner = found.uid();
        if [self.user, self.root, 0].contains(&owner) {
            return Ok(());
        }
        refuse(format!(
            "could be replaced by user {owner}: {} belongs to user {owner}; chown it to root or \
             user {}, or use a directory elsewhere",
            path.display(),
            self.user
        ))
    }

    /// Fails if others may replace what is in it; true if a group may, which is
    /// the operator's choice. In a sticky directory they cannot, and who owns
    /// what is there is looked at next.
    fn directory(&self, path: &Path, found: &Metadata) -> io::Result<bool> {
        self.owner(path, found)?;
        let by_others = found.mode() & (BY_ALL | BY_GROUP);
        if by_others == 0 || found.mode() & STICKY != 0 {
            return Ok(false);
        }
        // A group of one: where each user has one, what they make is for it.
        let shared = [0, NOBODY].contains(&self.user);
        let private = !shared && found.uid() == self.user && found.gid() == self.user;
        if by_others == BY_GROUP && private {
            return Ok(false);
        }
        // As volumes are made for a group (`fsGroup` of Kubernetes).
        if by_others == BY_GROUP && found.uid() == self.root {
            return Ok(true);
        }
        refuse(format!(
            "could be replaced by others: {} may be written by other users (mode {:o}); chmod \
             go-w it, or use a directory elsewhere",
            path.display(),
            found.mode() & 0o7777
        ))
    }
}

/// Looks at all that leads to a directory, which need not be there yet. Returns
/// those that a group may write, as root made them for it.
///
/// # Errors
/// If others can replace any of it; the text says what, and what to do.
pub(super) fn check(directory: &Path, user: u32) -> io::Result<Vec<PathBuf>> {
    let trusted = Trusted {
        user,
        root: fs::metadata("/")?.uid(),
    };
    let mut here = PathBuf::from("/");
    trusted.directory(&here, &fs::metadata("/")?)?;
    let (mut links, mut of_groups) = (0, Vec::new());
    let mut ahead = components(&std::path::absolute(directory)?);
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        let found = match fs::symlink_metadata(&next) {
            // It is made later, for this user alone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            found => found?,
        };
        if found.is_symlink() {
            trusted.owner(&next, &found)?;
            links += 1;
            if links > LINKS {
                return refuse(format!("has too many links before it: {}", next.display()));
            }
            let to = fs::read_link(&next)?;
            if to.is_absolute() {
                here = PathBuf::from("/");
            }
            for name in components(&to).into_iter().rev() {
                ahead.push_front(name);
            }
            continue;
        }
        here = next;
        if !ahead.is_empty() && trusted.directory(&here, &found)? {
            of_groups.push(here.clone());
        }
    }
    Ok(of_groups)
}

/// Names of a path, and `..`.
fn components(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_group_may_write_what_root_made_for_it_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let found = |mode| {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            fs::metadata(dir.path()).unwrap()
        };
        let user = found(0o700).uid();
        let judge = |root, mode| {
            let trusted = Trusted { user, root };
            trusted.directory(dir.path(), &found(mode)).ok()
        };
        assert_eq!(judge(user + 1, 0o755), Some(false));
        // In the group that has the user's number nobody else is.
        let alone = ![0, NOBODY].contains(&user) && found(0o700).gid() == user;
        assert_eq!(judge(user + 1, 0o775), alone.then_some(false));
        assert_eq!(judge(user, 0o775), Some(!alone));
        assert_eq!(judge(user, 0o777), None);
        assert_eq!(judge(user, 0o1777), Some(false));
    }

    #[test]
    fn names_of_paths_keep_their_steps_up() {
        let names = components(Path::new("/a/./b/../c"));
        assert_eq!(names, ["a", "b", "..", "c"]);
    }
}
