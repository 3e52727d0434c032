//! `halfstep info`: the machine, its GPUs, and what each precision runs on.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use halfstep::EngineRequest;
use halfstep::cpu::host;
use halfstep::cpu::isa::{Isa, IsaError, Level};
use halfstep::evidence::units;
use halfstep::graph::engine_info::PolicyDescription;
use halfstep::graph::precision::Policy;
use serde::Serialize;
use serde_json::json;

use super::args::Info;
use super::failure::Failure;
use super::gpus::{self, Gpus};
use super::output;

#[derive(Serialize)]
struct Set {
    name: &'static str,
    available: bool,
    /// Features that are missing.
    lacks: Vec<&'static str>,
}

/// Runs the command.
pub fn run(args: Info, request: EngineRequest) -> Result<ExitCode, Failure> {
    let found = Gpus::find();
    let engine = halfstep::engine(request)?;
    let used = Isa::from_env()?;
    let set = |level: Level| {
        let lacks = match Isa::new(level) {
            Err(IsaError::Missing { missing, .. }) => missing,
            Ok(_) | Err(IsaError::Unknown(_)) => Vec::new(),
        };
        Set { name: level.name(), available: lacks.is_empty(), lacks }
    };
    let describe = |name| Ok((name, engine.describe(&Policy::named(name)?)));
    let described: Vec<(&str, PolicyDescription)> =
        Policy::NAMES.into_iter().map(describe).collect::<Result<_, Failure>>()?;
    let (sets, used) = (Level::ALL.map(set), used.level().name());
    let (device, processor, threads) = (engine.device(), host::processor(), request.threads());
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let (memory, available) = (host::memory_bytes(), host::available_bytes());
    let forced = std::env::var_os("HALFSTEP_ISA").is_some();
    if args.json {
        let runs_on = |(name, d): &(&str, PolicyDescription)| json!({ "precision": name, "runs_on": d.text, "arithmetic": d.arithmetic });
        output::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "processor": processor,
            "device": { "kind": device.kind, "name": device.name },
            "cores": cores,
            "threads": threads,
            "memory_bytes": memory,
            "available_bytes": available,
            "instruction_sets": sets,
            "used": used,
            "forced": forced,
            "gpu": found.json(),
            "precisions": described.iter().map(runs_on).collect::<Vec<_>>(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let bytes = |n: Option<usize>| n.map_or("unknown".into(), units::bytes);
    let mut machine = vec![
        ("halfstep", env!("CARGO_PKG_VERSION").to_string()),
        ("processor", processor),
        ("cores", format!("{cores} ({threads} threads used)")),
        ("memory", format!("{}, {} available", bytes(memory), bytes(available))),
    ];
    if gpus::is_gpu(engine.as_ref()) {
        machine.push(("computes on", device.name));
    }
    output::raw(&output::fields(&machine));
    output::line(&format!("\n{}", output::bold("Instruction sets")));
    for set in &sets {
        let used = match (set.name == used, forced) {
            (true, true) => "used (HALFSTEP_ISA)",
            (true, false) => "used",
            (false, _) => "",
        };
        let state = match set.available {
            true => format!("yes   {used}"),
            false => format!("no    lacks {}", set.lacks.join(", ")),
        };
        output::line(&format!("  {:<11} {}", set.name, state.trim_end()));
    }
    output::line(&format!("\n{}", output::bold("GPUs")));
    for (name, text) in found.lines() {
        output::line(&format!("  {name:<11} {text}"));
    }
    output::line(&format!("\n{}", output::bold("What each precision runs on")));
    for (name, description) in described {
        output::line(&format!("  {name:<11} {}", description.text));
    }
    Ok(ExitCode::SUCCESS)
}
