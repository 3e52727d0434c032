//! What the operating system says of this machine and this process. Each answer is `None` where it does not say.

use std::fs;

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
