//! How much memory this process may still take: the machine's, or less where a control group (a container) limits it.

use std::path::Path;

/// The most memory that this process has held in bytes; none where the system does not say (only Linux does).
pub fn peak_memory() -> Option<u64> {
    field(&read(Path::new("/"), "proc/self/status")?, "VmHWM:")?.checked_mul(1024)
}

/// Bytes that can still be allocated without swapping; none where the system does not say (only Linux does).
pub fn available_memory() -> Option<u64> {
    available_in(Path::new("/"))
}

/// Bytes of memory that this process has now; none where the system does not say (only Linux does).
pub fn resident_memory() -> Option<u64> {
    field(&read(Path::new("/"), "proc/self/status")?, "VmRSS:")?.checked_mul(1024)
}

/// [`available_memory`], with the system's files below `root`.
fn available_in(root: &Path) -> Option<u64> {
    let machine = field(&read(root, "proc/meminfo")?, "MemAvailable:")?.checked_mul(1024)?;
    Some(group_of(root).map_or(machine, |group| machine.min(group)))
}

/// What the tightest of this process's control groups (version 2) leaves; none where none has a limit.
fn group_of(root: &Path) -> Option<u64> {
    let groups = read(root, "proc/self/cgroup")?;
    let mut group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mut least = None;
    loop {
        let left = left_in(root, group);
        least = match (least, left) {
            (Some(least), Some(left)) => Some(std::cmp::min(least, left)),
            (least, left) => least.or(left),
        };
        if group.is_empty() {
            return least;
        }
        group = group.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
}

/// What one group leaves: its limit less what is in use and could not be given back at once.
fn left_in(root: &Path, group: &str) -> Option<u64> {
    let folder = root.join("sys/fs/cgroup").join(group);
    let limit: u64 = read(&folder, "memory.max")?.trim().parse().ok()?;
    let used: u64 = read(&folder, "memory.current")?.trim().parse().ok()?;
    // File pages count as in use; the kernel drops inactive ones when memory is short.
    let cached = read(&folder, "memory.stat").and_then(|stat| field(&stat, "inactive_file ")).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

fn read(folder: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(folder.join(name)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_tightest_limit_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(available_in(root), None);
        put(root, "proc/meminfo", "MemTotal: 4096 kB\nMemAvailable:    2048 kB\n");
        assert_eq!(available_in(root), Some(2048 << 10));
        put(root, "proc/self/cgroup", "0::/pod/server\n");
        put(root, "sys/fs/cgroup/pod/server/memory.max", "max\n");
        assert_eq!(available_in(root), Some(2048 << 10), "a group without a limit");
        put(root, "sys/fs/cgroup/pod/memory.max", "1000000\n");
        put(root, "sys/fs/cgroup/pod/memory.current", "900000\n");
        assert_eq!(available_in(root), Some(100_000), "the parent's limit");
        put(root, "sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file 300000\n");
        assert_eq!(available_in(root), Some(400_000), "cached files do not count");
        put(root, "sys/fs/cgroup/pod/server/memory.max", "50\n");
        put(root, "sys/fs/cgroup/pod/server/memory.current", "70\n");
        assert_eq!(available_in(root), Some(0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_says_how_much_there_is() {
        assert!(available_memory().is_some_and(|bytes| bytes > 0));
        assert!(resident_memory().is_some_and(|bytes| bytes > 1 << 16));
    }
}
