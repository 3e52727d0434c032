//! Shared by the integration tests.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod faulty_disk;
pub mod golden;
pub mod json_schema;
pub mod models;
pub mod rounding;
pub mod run;

use std::num::NonZeroUsize;

use halfstep_cpu::CpuEngine;
use halfstep_cpu::isa::{Isa, Level};
use halfstep_graph::engine::Engine;
use halfstep_graph::interp::{InterpreterEngine, Rounding};
use halfstep_graph::precision::Policy;

/// The reference interpreter, rounding every value to the type the plan stores it in.
pub fn interpreter() -> InterpreterEngine {
    InterpreterEngine { rounding: Rounding::Stored }
}

/// The policies that differ on this machine: without tiles, splits are computed as `fp32`.
pub fn policies() -> &'static [&'static str] {
    if Isa::best().level() >= Level::Amx { &Policy::NAMES } else { &Policy::USUAL }
}

/// The interpreter, and the CPU with every instruction set it has. Those it lacks are named on
/// stderr.
pub fn engines() -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(interpreter())];
    for level in Level::ALL {
        match Isa::new(level) {
            Ok(isa) => engines.push(Box::new(CpuEngine::new(isa, NonZeroUsize::new(2).unwrap()))),
            Err(missing) => eprintln!("skipped {}: {missing}", level.name()),
        }
    }
    engines
}
