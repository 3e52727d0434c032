//! The program with a library that stands in for NVIDIA's driver and runs no kernels, so that what
//! is computed means nothing. Kernels are compiled, so without NVRTC such tests are counted as
//! ignored.

use std::path::Path;
use std::process::{Command, ExitCode};

use halfstep::gpu::find;
use libtest_mimic::{Arguments, Trial};

use super::Place;

/// A folder for a test whose compiled kernels are kept for other tests, and for the next time.
pub fn place() -> Place {
    let place = Place::new();
    let kernels = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels");
    std::fs::create_dir_all(&kernels).unwrap();
    std::os::unix::fs::symlink(&kernels, place.cache.path().join("kernels")).unwrap();
    place
}

/// The program with a driver of these settings; its calls are in the file `log`.
pub fn command(place: &Place, settings: &str, args: &[&str]) -> Command {
    let mut command = place.command(args);
    let log = place.path("log");
    let _ = std::fs::remove_file(&log);
    command
        .env("HALFSTEP_CUDA_DRIVER", halfstep_fake_cuda::library())
        .env("HALFSTEP_FAKE_CUDA", format!("{settings};log={}", log.display()))
        .env_remove("CUDA_VISIBLE_DEVICES");
    command
}

/// No call was made that the driver would not take, and nothing was left behind.
pub fn no_problems(place: &Place) {
    assert_eq!(halfstep_fake_cuda::problems(&place.path("log")), [""; 0]);
}

/// Calls of the driver's function of this name.
pub fn calls(place: &Place, function: &str) -> usize {
    let log = std::fs::read_to_string(place.path("log")).unwrap_or_default();
    log.lines().filter(|line| line.starts_with(function)).count()
}

/// The most bytes of the GPU's memory that were taken at one time.
pub fn most_memory(place: &Place) -> usize {
    let log = std::fs::read_to_string(place.path("log")).unwrap();
    let (mut held, mut now, mut most) = (std::collections::HashMap::new(), 0, 0);
    for line in log.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["cuMemAlloc_v2", bytes, address] => {
                let bytes: usize = bytes.parse().unwrap();
                held.insert(address.to_string(), bytes);
                now += bytes;
                most = most.max(now);
            }
            ["cuMemFree_v2", address] => now -= held.remove(address).unwrap(),
            _ => {}
        }
    }
    most
}

/// Runs tests by name.
pub fn run(tests: &[(&str, fn())]) -> ExitCode {
    let absent = find::nvrtc(None).is_err();
    let trial = |&(name, test): &(&str, fn())| {
        let test = move || {
            test();
            Ok(())
        };
        Trial::test(name, test).with_ignored_flag(absent)
    };
    libtest_mimic::run(&Arguments::from_args(), tests.iter().map(trial).collect()).exit_code()
}
