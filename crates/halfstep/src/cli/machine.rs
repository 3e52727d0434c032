//! What the operating system says of this process, and of the load on this machine. Each answer is
//! `None` where it does not say.

use std::fs;

use halfstep::cpu::host::{memory_bytes, proc_bytes};
use halfstep::evidence::units;

use super::failure::Failure;

/// Starts a new peak of this process's resident memory, so that one run's peak can be distinguished
/// from another's.
///
/// False where the system has no such thing; then peaks are of the whole process so far.
pub fn reset_peak_rss() -> bool {
    // Documented in proc(5): 5 resets the peak resident set size, since Linux 4.0.
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Peak resident memory of this process in bytes, since the start or the last reset.
pub fn peak_rss_bytes() -> Option<usize> {
    proc_bytes("/proc/self/status", "VmHWM")
}

/// Resident memory of this process in bytes, now.
pub fn rss_bytes() -> Option<usize> {
    proc_bytes("/proc/self/status", "VmRSS")
}

/// An error if `bytes` are more than this machine has, where that is known.
pub fn check_memory(what: &str, bytes: usize) -> Result<(), Failure> {
    match memory_bytes() {
        Some(all) if bytes > all => {
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

#[cfg(test)]
mod tests {
    use super::*;

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
