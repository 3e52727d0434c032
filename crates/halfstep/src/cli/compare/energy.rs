//! Energy that the processor counted (RAPL), where the system lets it be read.

use std::fs;
use std::path::{Path, PathBuf};

/// Where Linux shows the counters.
const COUNTERS: &str = "/sys/class/powercap";

/// A reading of every package's counter.
pub struct Meter {
    readings: Vec<(PathBuf, u64)>,
}

impl Meter {
    /// Reads the counters; none where there are none, or they may not be read.
    pub fn start() -> Option<Meter> {
        Meter::start_at(Path::new(COUNTERS))
    }

    fn start_at(folder: &Path) -> Option<Meter> {
        let package = |path: &PathBuf| {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            // `intel-rapl:0` is a package (on AMD too); `intel-rapl:0:0` is part of it.
            name.starts_with("intel-rapl:") && name.matches(':').count() == 1
        };
        let entries = fs::read_dir(folder).ok()?.flatten().map(|e| e.path());
        let mut packages: Vec<PathBuf> = entries.filter(package).collect();
        packages.sort();
        let readings: Option<Vec<_>> =
            packages.into_iter().map(|path| Some((path.clone(), number(&path.join("energy_uj"))?))).collect();
        readings.filter(|r| !r.is_empty()).map(|readings| Meter { readings })
    }

    /// Joules since the start. The counter is taken to have wrapped once at most, which takes it
    /// minutes or more.
    pub fn joules(&self) -> Option<f64> {
        let since = |(path, before): &(PathBuf, u64)| {
            let now = number(&path.join("energy_uj"))?;
            match now.checked_sub(*before) {
                Some(difference) => Some(difference),
                None => Some(number(&path.join("max_energy_range_uj"))?.saturating_sub(*before) + now),
            }
        };
        let all: Option<Vec<u64>> = self.readings.iter().map(since).collect();
        Some(all?.iter().sum::<u64>() as f64 / 1e6)
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_added_and_counters_wrap() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(Meter::start_at(root.path()).is_none());
        for (package, before) in [("intel-rapl:0", "1000000\n"), ("intel-rapl:1", "9000000\n")] {
            write(&format!("{package}/energy_uj"), before);
            write(&format!("{package}/max_energy_range_uj"), "10000000\n");
        }
        write("intel-rapl:0:0/energy_uj", "5\n");
        let meter = Meter::start_at(root.path()).unwrap();
        write("intel-rapl:0/energy_uj", "3000000\n");
        write("intel-rapl:1/energy_uj", "500000\n");
        // 2 J, and 1 J up to the end of the counter with half a joule behind it.
        assert_eq!(meter.joules(), Some(3.5));
    }
}
