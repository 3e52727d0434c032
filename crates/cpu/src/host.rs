//! What the operating system says of the processor and its memory. Each answer is `None` where it
//! does not say.

use std::fs;
use std::path::Path;

use halfstep_graph::engine_info::FreeMemory;

/// The processor's name, or, where the system has none, its architecture.
pub fn processor() -> String {
    let name = || {
        let text = fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|l| l.starts_with("model name"))?;
        Some(line.split_once(':')?.1.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    name().unwrap_or_else(|| format!("{} processor", std::env::consts::ARCH))
}

/// Memory of the machine in bytes.
pub fn memory_bytes() -> Option<usize> {
    proc_bytes("/proc/meminfo", "MemTotal")
}

/// Memory of the machine in bytes that is free, or in use for what can be given up.
pub fn available_bytes() -> Option<usize> {
    proc_bytes("/proc/meminfo", "MemAvailable")
}

/// The bytes that a file of proc(5) gives in kB for a key, such as `VmHWM` of `/proc/self/status`.
pub fn proc_bytes(file: &str, key: &str) -> Option<usize> {
    kilobytes(&fs::read_to_string(file).ok()?, key)
}

fn kilobytes(text: &str, key: &str) -> Option<usize> {
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok().map(|kb| kb * 1024)
}

/// Memory that this process may still take: what is free on the machine, or less where its control
/// group, as containers and schedulers set up, says so.
pub fn free_memory() -> Option<FreeMemory> {
    let free = |bytes, limit: &str| FreeMemory { bytes, limit: limit.into() };
    let machine = available_bytes().map(|bytes| free(bytes, "are free on this machine"));
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = cgroup_bytes(Path::new("/sys/fs/cgroup"), &membership);
    let group = group.map(|bytes| free(bytes, "are left of what the container or job may use"));
    machine.into_iter().chain(group).min_by_key(|free| free.bytes)
}

/// What is left under the limits of a control group and those above it; `membership` is
/// `/proc/self/cgroup`.
fn cgroup_bytes(root: &Path, membership: &str) -> Option<usize> {
    // Lines are `id:controllers:path`: one without controllers in version 2, one for memory in
    // version 1.
    let mut lines = membership.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let (controllers, path) = lines.find(|(c, _)| c.is_empty() || c.split(',').any(|c| c == "memory"))?;
    let (root, limit, usage, cache) = match controllers {
        "" => (root.to_path_buf(), "memory.max", "memory.current", "inactive_file"),
        _ => (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    };
    let left = |folder: &Path| -> Option<usize> {
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<usize>().ok();
        // `max` and, in version 1, a number beyond any memory mean that there is no limit.
        let limit = number(limit).filter(|&n| n < 1 << 62)?;
        // Cached files that nobody uses are given up when memory is wanted.
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cached =
            stat.lines().find_map(|l| l.strip_prefix(cache)?.trim().parse::<usize>().ok()).unwrap_or(0);
        Some(limit.saturating_sub(number(usage)?.saturating_sub(cached)))
    };
    // In a container the path may be the host's: then only the root is there.
    let own = root.join(path.trim_start_matches('/'));
    own.ancestors().take_while(|a| a.starts_with(&root)).filter_map(left).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_of_proc_files_are_read() {
        let text = "VmPeak:\t   10 kB\nVmHWM:\t  2048 kB\n";
        assert_eq!(kilobytes(text, "VmHWM"), Some(2048 * 1024));
        assert_eq!(kilobytes(text, "VmRSS"), None);
    }

    #[test]
    fn control_groups_limit_what_is_left() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        // Version 2: the job's own group has no limit, the one above has.
        write("jobs/memory.max", "1000\n");
        write("jobs/memory.current", "700\n");
        write("jobs/memory.stat", "anon 500\ninactive_file 100\n");
        write("jobs/7/memory.max", "max\n");
        write("jobs/7/memory.current", "700\n");
        assert_eq!(cgroup_bytes(root.path(), "0::/jobs/7\n"), Some(400));
        assert_eq!(cgroup_bytes(root.path(), "0::/elsewhere\n"), None);
        // Version 1.
        write("memory/box/memory.limit_in_bytes", "5000");
        write("memory/box/memory.usage_in_bytes", "6000");
        let membership = "3:cpu,cpuacct:/box\n2:memory:/box\n";
        assert_eq!(cgroup_bytes(root.path(), membership), Some(0));
        write("memory/box/memory.limit_in_bytes", "9223372036854771712");
        assert_eq!(cgroup_bytes(root.path(), membership), None);
    }
}
