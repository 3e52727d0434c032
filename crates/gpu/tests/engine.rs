//! The GPU engine passes what every engine must, on a simulated GPU that checks every access of its
//! kernels.
//!
//! Kernels are compiled by NVRTC. Whether there is one is known at run time only, so this file has
//! a test harness of its own: without NVRTC its tests are counted as ignored.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use halfstep_gpu::cache::{KernelCache, LIMIT_BYTES};
use halfstep_gpu::compile::Compiler;
use halfstep_gpu::{Architecture, GpuEngine, SimulatedDevice, find};
use halfstep_graph::conformance;
use halfstep_ptx::{Arrival, Options};
use libtest_mimic::{Arguments, Trial};

fn engine(architecture: Architecture, options: Options) -> GpuEngine {
    let nvrtc = find::nvrtc(None).unwrap_or_else(|absent| panic!("{absent}"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels");
    let compiler = Compiler::new(nvrtc, Some(KernelCache::at(folder, LIMIT_BYTES))).unwrap();
    GpuEngine::new(Arc::new(SimulatedDevice::new(compiler, architecture, options)))
}

fn late() -> Options {
    Options::default()
}

fn shuffled() -> Options {
    Options { arrival: Arrival::Early, seed: Some(7), ..Options::default() }
}

/// Nothing is left out but sums over ranks, which a GPU does not make.
fn nothing_is_left_out(left_out: Vec<String>) {
    assert!(left_out.is_empty(), "not tested: {left_out:?}");
}

fn main() -> ExitCode {
    let absent = find::nvrtc(None).err();
    // Read by who wonders why tests are ignored.
    #[allow(clippy::print_stderr)]
    if let Some(absent) = &absent {
        eprintln!("{absent}");
    }
    type Part = fn(&GpuEngine);
    let parts: [(&str, Part); 4] = [
        ("operations", |engine| nothing_is_left_out(conformance::operations(engine))),
        ("step", |engine| nothing_is_left_out(conformance::step(engine))),
        ("state", |engine| conformance::state(engine)),
        ("fusion", |engine| nothing_is_left_out(conformance::fusion(engine))),
    ];
    let devices = [
        ("sm_80", Architecture::MINIMUM, late as fn() -> Options),
        ("sm_90a", Architecture::of_device(9, 0), shuffled),
    ];
    let trials = devices.into_iter().flat_map(|(device, architecture, options)| {
        parts.map(|(part, check)| {
            let test = move || {
                check(&engine(architecture, options()));
                Ok(())
            };
            Trial::test(format!("{device}::{part}"), test).with_ignored_flag(absent.is_some())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
