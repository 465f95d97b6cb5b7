//! The memory limit of the control group that this process is in (cgroups v2 and v1).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use aqueduct_primitives::ByteCount;

/// The files read here are a few lines long.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The smallest limit of this process's group and those above it; `None` if there is none.
pub(crate) fn memory_limit() -> Option<ByteCount> {
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    limit_in(Path::new("/sys/fs/cgroup"), &groups)
}

/// `groups` has a line `0::/PATH` for cgroups v2, and `N:memory:/PATH` for v1.
fn limit_in(root: &Path, groups: &str) -> Option<ByteCount> {
    groups.lines().filter_map(|line| line_limit(root, line)).min()
}

fn line_limit(root: &Path, line: &str) -> Option<ByteCount> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (root, file) = match controllers {
        "" => (root.to_path_buf(), "memory.max"),
        names if names.split(',').any(|name| name == "memory") => {
            (root.join("memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let group: PathBuf = root.join(path.trim_start_matches('/'));
    // Within a container the group's own path is often not mounted; the root then is the container's.
    let above = group.ancestors().take_while(|one| one.starts_with(&root)).chain([root.as_path()]);
    above.filter_map(|folder| read(&folder.join(file))?.trim().parse().ok().map(ByteCount::new)).min()
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("a/b");
        std::fs::create_dir_all(&group).unwrap();
        std::fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit_in(root.path(), "0::/a/b\n"), None);
        std::fs::write(root.path().join("a/memory.max"), "1000\n").unwrap();
        std::fs::write(root.path().join("memory.max"), "4000\n").unwrap();
        assert_eq!(limit_in(root.path(), "0::/a/b\n"), Some(ByteCount::new(1000)));
        assert_eq!(limit_in(root.path(), "0::/elsewhere\n"), Some(ByteCount::new(4000)));
        assert_eq!(limit_in(root.path(), "3:cpu:/x\n"), None);
    }
}
