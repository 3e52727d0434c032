//! The simulated GPU for tests. Kernels are compiled by NVRTC: whether there is one is known at run
//! time only, so these tests have a harness of their own, which counts them as ignored without it.

#[allow(dead_code, reason = "not every test binary uses it")]
pub mod edited;
#[allow(dead_code, reason = "not every test binary uses it")]
pub mod ptxas;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use halfstep_gpu::cache::{KernelCache, LIMIT_BYTES};
use halfstep_gpu::compile::Compiler;
use halfstep_gpu::{Architecture, GpuEngine, SimulatedDevice, find};
use halfstep_ptx::Options;
use libtest_mimic::{Arguments, Trial};

/// An engine on a simulated GPU.
#[allow(dead_code, reason = "not every test binary uses it")]
pub fn engine(architecture: Architecture, options: Options) -> GpuEngine {
    GpuEngine::new(Arc::new(device(architecture, options)))
}

/// A simulated GPU.
#[allow(dead_code, reason = "not every test binary uses it")]
pub fn device(architecture: Architecture, options: Options) -> SimulatedDevice {
    SimulatedDevice::new(compiler(), architecture, options)
}

/// The compiler; what it makes is kept between runs.
pub fn compiler() -> Compiler {
    let nvrtc = find::nvrtc(None).unwrap_or_else(|absent| panic!("{absent}"));
    // Examples are not given the folder of tests.
    let folder = option_env!("CARGO_TARGET_TMPDIR")
        .unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tmp"));
    let folder = Path::new(folder).join("kernels");
    Compiler::new(nvrtc, Some(KernelCache::at(folder, LIMIT_BYTES))).unwrap()
}

/// Whether what takes many minutes is tested too.
#[allow(dead_code, reason = "not every test binary uses it")]
pub fn thorough() -> bool {
    std::env::var("HALFSTEP_CONFORMANCE").is_ok_and(|which| which == "all")
}

/// Runs tests by name.
#[allow(dead_code, reason = "an example has none")]
pub fn run(tests: Vec<(String, Box<dyn FnOnce() + Send>)>) -> ExitCode {
    let absent = find::nvrtc(None).err();
    // Read by who wonders why tests are ignored.
    #[allow(clippy::print_stderr)]
    if let Some(absent) = &absent {
        eprintln!("{absent}");
    }
    let trial = |(name, test): (String, Box<dyn FnOnce() + Send>)| {
        let test = move || {
            test();
            Ok(())
        };
        Trial::test(name, test).with_ignored_flag(absent.is_some())
    };
    libtest_mimic::run(&Arguments::from_args(), tests.into_iter().map(trial).collect()).exit_code()
}
