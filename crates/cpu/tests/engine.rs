//! The CPU engine passes what every engine must, on every instruction set.
//!
//! Which instruction sets there are is known at run time only, so this file has a test harness of
//! its own: those that the processor lacks are counted as ignored.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::{Isa, Level};
use halfstep_graph::conformance;
use libtest_mimic::{Arguments, Trial};

fn check(level: Level, threads: usize) {
    let isa = Isa::new(level).unwrap_or_else(|missing| panic!("{missing}"));
    conformance::check(&CpuEngine::new(isa, NonZeroUsize::new(threads).unwrap()));
}

fn main() -> ExitCode {
    let trial = |level: Level, threads| {
        let name = format!("{}::threads_{threads}", level.name());
        let test = move || {
            check(level, threads);
            Ok(())
        };
        Trial::test(name, test).with_ignored_flag(Isa::new(level).is_err())
    };
    let trials = Level::ALL.into_iter().flat_map(|level| [1, 2, 3].map(|threads| trial(level, threads)));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
