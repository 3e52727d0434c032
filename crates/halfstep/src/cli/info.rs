//! `halfstep info`: the machine, and what each precision runs on.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::cpu::host;
use halfstep::cpu::isa::{Isa, IsaError, Level};
use halfstep::evidence::units;
use halfstep::graph::engine::Engine;
use halfstep::graph::engine_info::Arithmetic;
use halfstep::graph::precision::Policy;
use serde::Serialize;

use super::args::Info;
use super::failure::Failure;
use super::output;

#[derive(Serialize)]
struct Set {
    name: &'static str,
    available: bool,
    /// Features that are missing.
    lacks: Vec<&'static str>,
}

#[derive(Serialize)]
struct RunsOn {
    precision: &'static str,
    runs_on: String,
    arithmetic: Arithmetic,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed {
    version: &'static str,
    processor: String,
    cores: usize,
    threads: usize,
    memory_bytes: Option<usize>,
    available_bytes: Option<usize>,
    instruction_sets: Vec<Set>,
    used: &'static str,
    forced: bool,
    precisions: Vec<RunsOn>,
}

/// What the engine computes each policy with.
fn runs_on(engine: &dyn Engine) -> Result<Vec<RunsOn>, Failure> {
    let of = |precision| {
        let described = engine.describe(&Policy::named(precision)?);
        Ok(RunsOn { precision, runs_on: described.text, arithmetic: described.arithmetic })
    };
    Policy::NAMES.into_iter().map(of).collect()
}

/// Runs the command.
pub fn run(args: Info, request: EngineRequest) -> Result<ExitCode, Failure> {
    let engine = halfstep::engine(request)?;
    let used = Isa::from_env()?;
    let set = |level: Level| {
        let lacks = match Isa::new(level) {
            Err(IsaError::Missing { missing, .. }) => missing,
            Ok(_) | Err(IsaError::Unknown(_)) => Vec::new(),
        };
        Set { name: level.name(), available: lacks.is_empty(), lacks }
    };
    let printed = Printed {
        version: env!("CARGO_PKG_VERSION"),
        processor: engine.device().name,
        cores: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        threads: request.threads().get(),
        memory_bytes: host::memory_bytes(),
        available_bytes: host::available_bytes(),
        instruction_sets: Level::ALL.map(set).into(),
        used: used.level().name(),
        forced: std::env::var_os("HALFSTEP_ISA").is_some(),
        precisions: runs_on(engine.as_ref())?,
    };
    if args.json {
        output::json(&printed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let bytes = |n: Option<usize>| n.map_or("unknown".into(), units::bytes);
    output::raw(&output::fields(&[
        ("halfstep", printed.version.to_string()),
        ("processor", printed.processor.clone()),
        ("cores", format!("{} ({} threads used)", printed.cores, printed.threads)),
        ("memory", format!("{}, {} available", bytes(printed.memory_bytes), bytes(printed.available_bytes))),
    ]));
    output::line(&format!("\n{}", output::bold("Instruction sets")));
    for set in &printed.instruction_sets {
        let used = if set.name == printed.used {
            if printed.forced { "used (HALFSTEP_ISA)" } else { "used" }
        } else {
            ""
        };
        let state = if set.available {
            format!("yes   {used}")
        } else {
            format!("no    lacks {}", set.lacks.join(", "))
        };
        output::line(&format!("  {:<11} {}", set.name, state.trim_end()));
    }
    output::line(&format!("\n{}", output::bold("What each precision runs on")));
    for p in &printed.precisions {
        output::line(&format!("  {:<11} {}", p.precision, p.runs_on));
    }
    Ok(ExitCode::SUCCESS)
}
