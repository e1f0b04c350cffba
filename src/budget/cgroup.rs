//! How much memory the control group of this process may use.
//!
//! Not for: changing it, or watching how much is used.
//! Called by: the parent module, once at start.

use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const MOUNTED: &str = "/sys/fs/cgroup";

/// What version 1 says where there is no limit is close to 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// The lowest limit of the process's control group and those above it, of
/// either version; none if there is none, or no such thing.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    lowest(&groups, Path::new(MOUNTED))
}

fn lowest(groups: &str, mounted: &Path) -> Option<u64> {
    files(groups, mounted)
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .filter_map(|text| text.trim().parse::<u64>().ok())
        .filter(|limit| *limit < NO_LIMIT)
        .min()
}

/// The files that hold limits, of each group of memory and those above it.
fn files(groups: &str, mounted: &Path) -> impl Iterator<Item = PathBuf> {
    let groups = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        if controllers.is_empty() {
            return Some((mounted.to_owned(), path, "memory.max"));
        }
        let memory = controllers.split(',').any(|c| c == "memory");
        memory.then(|| (mounted.join("memory"), path, "memory.limit_in_bytes"))
    });
    let files = groups.map(|(root, path, file)| {
        let below = Path::new(path.trim_start_matches('/'));
        // In a container the path may be that of the host: then only the
        // mount itself is there.
        let levels = below.ancestors().map(|level| root.join(level).join(file));
        levels.collect::<Vec<_>>()
    });
    files.collect::<Vec<_>>().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_lowest_limit_above_the_process_counts() {
        let dir = mounted(&[
            ("memory.max", "max\n"),
            ("a/memory.max", "1000\n"),
            ("a/b/memory.max", "2000\n"),
        ]);
        assert_eq!(lowest("0::/a/b\n", dir.path()), Some(1000));
        assert_eq!(lowest("0::/\n", dir.path()), None);
    }

    #[test]
    fn a_path_of_the_host_leads_to_the_mount_itself() {
        let dir = mounted(&[("memory.max", "4096\n")]);
        assert_eq!(lowest("0::/docker/abc\n", dir.path()), Some(4096));
    }

    #[test]
    fn version_one_has_a_number_where_there_is_no_limit() {
        let dir = mounted(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/x/memory.limit_in_bytes", "12345\n"),
        ]);
        let groups = "5:cpu:/y\n4:memory:/x\n";
        assert_eq!(lowest(groups, dir.path()), Some(12345));
        assert_eq!(lowest("4:memory:/z\n", dir.path()), None);
    }
}
