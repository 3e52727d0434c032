//! `halfstep info`: the machine, and what each precision runs on.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use halfstep::cpu::isa::{Isa, IsaError, Level};
use halfstep::evidence::units;
use halfstep::graph::precision::Policy;
use serde::Serialize;

use super::args::Info;
use super::failure::Failure;
use super::{machine, output};

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
    runs_on: &'static str,
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

/// What the kernels compute matrix products with, for each of [`Policy::NAMES`].
fn runs_on(level: Level) -> Vec<RunsOn> {
    let texts = match level {
        Level::Portable => [
            "f32, portable code",
            "f32 products of bf16 values (exact), portable code: saves memory, not time",
            "f32 products of f16 values (exact), portable code: saves memory, not time",
            "f32, portable code, there being no bf16 tiles: as accurate and as fast as fp32",
            "f32, portable code, there being no bf16 tiles: as accurate and as fast as fp32",
        ],
        Level::Avx2 => [
            "f32 multiply-add, AVX2",
            "f32 multiply-add of bf16 values (exact products), AVX2: saves memory, not time",
            "f32 multiply-add of f16 values (exact products), AVX2: saves memory, not time",
            "f32 multiply-add, AVX2, there being no bf16 tiles: as accurate and as fast as fp32",
            "f32 multiply-add, AVX2, there being no bf16 tiles: as accurate and as fast as fp32",
        ],
        Level::Avx512 => [
            "f32 multiply-add, AVX-512",
            "f32 multiply-add of bf16 values (exact products), AVX-512: saves memory, not time",
            "f32 multiply-add of f16 values (exact products), AVX-512: saves memory, not time",
            "f32 multiply-add, AVX-512, there being no bf16 tiles: as accurate and as fast as fp32",
            "f32 multiply-add, AVX-512, there being no bf16 tiles: as accurate and as fast as fp32",
        ],
        Level::Avx512Bf16 => [
            "f32 multiply-add, AVX-512",
            "AVX512-BF16: exact bf16 products added in pairs, f32 sums",
            "f32 multiply-add of f16 values (exact products), AVX-512: saves memory, not time",
            "f32 multiply-add, AVX-512, faster here than three bf16 passes: as accurate and as fast as fp32",
            "f32 multiply-add, AVX-512, faster here than six bf16 passes: as accurate and as fast as fp32",
        ],
        Level::Amx | Level::AmxFp16 => [
            "f32 multiply-add, AVX-512",
            "AMX tiles: exact bf16 products, f32 sums",
            if level == Level::Amx {
                "AMX tiles: each f16 value as the exact sum of two bf16 values, four passes"
            } else {
                "AMX-FP16 tiles: exact f16 products, f32 sums"
            },
            "AMX tiles: each f32 value as two bf16 terms, three passes; error within 2^-15 of |A||B|",
            "AMX tiles: each f32 value as three bf16 terms, six passes; error within 2^-23 of |A||B|",
        ],
    };
    // The values of codes are exact in bf16: formats below 16 bits are rehearsed on what multiplies bf16.
    let narrow = match level {
        Level::Amx | Level::AmxFp16 => "rehearsed: exact codes, multiplied by AMX tiles as bf16, f32 sums",
        Level::Avx512Bf16 => "rehearsed: exact codes, multiplied by AVX512-BF16 as bf16, f32 sums",
        Level::Portable | Level::Avx2 | Level::Avx512 => {
            "rehearsed: exact codes, multiplied as f32 (exact products): shows quality, saves memory, not time"
        }
    };
    let texts = texts.into_iter().chain(std::iter::repeat(narrow));
    Policy::NAMES.into_iter().zip(texts).map(|(precision, runs_on)| RunsOn { precision, runs_on }).collect()
}

/// Runs the command.
pub fn run(args: Info, threads: Option<NonZeroUsize>) -> Result<ExitCode, Failure> {
    let used = Isa::from_env()?;
    let set = |level: Level| {
        let lacks = match Isa::new(level) {
            Err(IsaError::Missing { missing, .. }) => missing,
            Ok(_) | Err(IsaError::Unknown(_)) => Vec::new(),
        };
        Set { name: level.name(), available: lacks.is_empty(), lacks }
    };
    let memory = machine::memory_bytes();
    let printed = Printed {
        version: env!("CARGO_PKG_VERSION"),
        processor: machine::processor_or_kind(),
        cores: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        threads: halfstep::threads_or_all(threads).get(),
        memory_bytes: memory.map(|m| m.0),
        available_bytes: memory.map(|m| m.1),
        instruction_sets: Level::ALL.map(set).into(),
        used: used.level().name(),
        forced: std::env::var_os("HALFSTEP_ISA").is_some(),
        precisions: runs_on(used.level()),
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
