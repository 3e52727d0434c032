//! The CPU engine passes what every engine must, on every instruction set.
//!
//! Which instruction sets there are is known at run time only, so this file has a test harness of
//! its own: those that the processor lacks are counted as ignored.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::{Isa, Level};
use halfstep_graph::communicator::Communicator;
use halfstep_graph::conformance;
use halfstep_graph::engine::Engine;
use libtest_mimic::{Arguments, Trial};

fn check(level: Level, threads: usize) {
    let isa = Isa::new(level).unwrap_or_else(|missing| panic!("{missing}"));
    let engine = || CpuEngine::new(isa, NonZeroUsize::new(threads).unwrap());
    let rank = |communicator: Arc<Communicator>| -> Box<dyn Engine> {
        Box::new(engine().with_communicator(communicator))
    };
    let left_out = conformance::check(&engine(), Some(&rank));
    assert!(left_out.is_empty(), "not tested: {left_out:?}");
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
