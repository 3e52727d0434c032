//! What the operating system says of this machine and this process. Each answer is `None` where it does not say.

use std::fs;
use std::path::Path;

use halfstep::evidence::units;

use super::failure::Failure;

/// Starts a new peak of this process's resident memory, so that one run's peak can be told from another's.
///
/// False where the system has no such thing; then peaks are of the whole process so far.
pub fn reset_peak_rss() -> bool {
    // Documented in proc(5): 5 resets the peak resident set size, since Linux 4.0.
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Peak resident memory of this process in bytes, since the start or the last reset.
pub fn peak_rss_bytes() -> Option<usize> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM")
}

/// Resident memory of this process in bytes, now.
pub fn rss_bytes() -> Option<usize> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS")
}

/// Memory of the machine in bytes: (all, available).
pub fn memory_bytes() -> Option<(usize, usize)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    Some((kilobytes(&text, "MemTotal")?, kilobytes(&text, "MemAvailable")?))
}

/// Memory that this process may still take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Available {
    /// How much.
    pub bytes: usize,
    /// What sets the limit.
    pub source: Limit,
}

/// What limits the memory of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// What the machine has free.
    Machine,
    /// The control group it runs in, as containers and schedulers set up.
    ControlGroup,
}

impl Limit {
    /// For a sentence that begins with a number of bytes.
    pub fn words(self) -> &'static str {
        match self {
            Limit::Machine => "are free on this machine",
            Limit::ControlGroup => "are left of what the container or job may use",
        }
    }
}

/// Memory that this process may still take: what is free on the machine, or less where its control group says so.
pub fn available_memory() -> Option<Available> {
    let machine = memory_bytes().map(|(_, bytes)| Available { bytes, source: Limit::Machine });
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = cgroup_bytes(Path::new("/sys/fs/cgroup"), &membership);
    let group = group.map(|bytes| Available { bytes, source: Limit::ControlGroup });
    machine.into_iter().chain(group).min_by_key(|a| a.bytes)
}

/// What is left under the limits of a control group and those above it; `membership` is `/proc/self/cgroup`.
fn cgroup_bytes(root: &Path, membership: &str) -> Option<usize> {
    // Lines are `id:controllers:path`: one without controllers in version 2, one for memory in version 1.
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

/// An error if `bytes` are more than this machine has, where that is known.
pub fn check_memory(what: &str, bytes: usize) -> Result<(), Failure> {
    match memory_bytes() {
        Some((all, _)) if bytes > all => {
            let message =
                format!("{what} needs {}, this machine has {}", units::bytes(bytes), units::bytes(all));
            Err(Failure::asked(message, "choose smaller sizes"))
        }
        _ => Ok(()),
    }
}

/// How many processes wanted to run over the last minute, on average.
pub fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// The processor's name.
pub fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The processor's name, or what it is of.
pub fn processor_or_kind() -> String {
    processor().unwrap_or_else(|| format!("{} processor", std::env::consts::ARCH))
}

fn kilobytes(text: &str, key: &str) -> Option<usize> {
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok().map(|kb| kb * 1024)
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

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_covers_what_is_touched() {
        let reset = reset_peak_rss();
        let before = peak_rss_bytes().unwrap();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = peak_rss_bytes().unwrap();
        assert_eq!(block[12345], 1);
        // Without a reset the peak may have been higher before.
        assert!(after >= before);
        assert!(!reset || after - before >= 60 << 20, "{before} {after}");
    }
}
