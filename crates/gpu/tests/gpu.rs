//! The GPU engine passes what every engine must, on the GPU of this machine.
//!
//! Without one, or without NVRTC, its tests are counted as ignored; so they are under a library
//! that stands in for the driver, which runs no kernels.

use std::process::ExitCode;
use std::sync::Arc;

use halfstep_gpu::cache::{KernelCache, LIMIT_BYTES};
use halfstep_gpu::compile::Compiler;
use halfstep_gpu::survey::{self, DRIVER_VARIABLE};
use halfstep_gpu::{CudaDevice, GpuChoice, GpuEngine, find};
use halfstep_graph::conformance;
use halfstep_graph::precision::Policy;
use libtest_mimic::{Arguments, Trial};

/// The engine of the first GPU that can be used, or why there is none.
fn engine() -> Result<GpuEngine, String> {
    if std::env::var_os(DRIVER_VARIABLE).is_some() {
        return Err(format!("{DRIVER_VARIABLE} names another driver"));
    }
    let found = survey::driver().map_err(|e| e.to_string())?;
    let gpu = GpuChoice::Any.of(&found.gpus).map_err(|e| e.to_string())?;
    let nvrtc = find::nvrtc(Some(found.driver.version().major)).map_err(|e| e.to_string())?;
    // Not the folder of the build: this program may run on another machine.
    let folder = std::env::temp_dir().join("halfstep-kernels");
    let compiler =
        Compiler::new(nvrtc, Some(KernelCache::at(folder, LIMIT_BYTES))).map_err(|e| e.to_string())?;
    let device =
        CudaDevice::open(&found.driver, gpu, compiler, Box::new(|_| {})).map_err(|e| e.to_string())?;
    Ok(GpuEngine::new(Arc::new(device)))
}

fn nothing_is_left_out(left_out: Vec<String>) {
    assert!(left_out.is_empty(), "not tested: {left_out:?}");
}

fn main() -> ExitCode {
    let absent = engine().err();
    // Read by who wonders why tests are ignored.
    #[allow(clippy::print_stderr)]
    if let Some(absent) = &absent {
        eprintln!("{absent}");
    }
    type Part = fn(&GpuEngine);
    let parts: [(&str, Part); 3] = [
        ("step", |engine| nothing_is_left_out(conformance::step(engine))),
        ("state", |engine| conformance::state(engine)),
        ("fusion", |engine| nothing_is_left_out(conformance::fusion(engine))),
    ];
    let parts = parts.map(|(part, check)| {
        let test = move || {
            check(&engine()?);
            Ok(())
        };
        Trial::test(part, test).with_ignored_flag(absent.is_some())
    });
    // Side by side: the compiler takes most of the time.
    let operations = Policy::NAMES.iter().map(|&name| {
        let test = move || {
            let policy = Policy::named(name).map_err(|e| e.to_string())?;
            nothing_is_left_out(conformance::operations_under(&engine()?, &policy));
            Ok(())
        };
        Trial::test(format!("operations::{name}"), test).with_ignored_flag(absent.is_some())
    });
    libtest_mimic::run(&Arguments::from_args(), operations.chain(parts).collect()).exit_code()
}
