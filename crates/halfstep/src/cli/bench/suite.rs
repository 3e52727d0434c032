//! `halfstep bench suite`: models × precisions × threads, in rounds, each case in a process of its
//! own, so that peak memory is that of the case alone. What bounds a step is read off the machine's
//! measured roofs.

use std::num::NonZeroUsize;
use std::process::{Command, ExitCode};

use halfstep::EngineRequest;
use halfstep::cpu::isa::{Isa, Level};
use halfstep::cpu::{CpuEngine, Roofline, host};
use halfstep::evidence::units;
use halfstep::graph::engine::Engine;
use halfstep::graph::engine_info::Arithmetic;
use halfstep::graph::precision::Policy;
use halfstep::train::run_dir::write_whole;
use serde::Serialize;

use super::super::args::{BenchModel, BenchSuite};
use super::super::failure::{Failure, INTERRUPTED};
use super::super::output::value_name;
use super::super::progress::bar;
use super::super::{gpus, interrupt, machine, output};
use super::step::{GroupTime, StepMeasurement};
use super::{check_seconds, median_and_min};

/// Groups of operations that are listed for each case.
const SLOWEST: usize = 10;

/// Sizes tried by `--growth`, one at a time from the model's defaults.
const GROWTH: &[(BenchModel, &str, &[usize])] = &[
    (BenchModel::Gpt, "width", &[192, 384, 510, 768]),
    (BenchModel::Gpt, "layers", &[3, 6, 12]),
    (BenchModel::Gpt, "seq", &[64, 256, 333, 1024]),
    (BenchModel::Gpt, "batch", &[1, 8, 13, 32]),
    (BenchModel::Gpt, "vocab", &[256, 8192, 50257]),
    (BenchModel::Resnet18, "width", &[32, 50, 64, 96]),
    (BenchModel::Resnet18, "batch", &[1, 16, 64]),
    (BenchModel::Mlp, "batch", &[1, 64, 256, 1000]),
];

/// One thing to measure.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Case {
    model: String,
    precision: String,
    threads: usize,
    /// A size other than the model's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<(&'static str, usize)>,
}

/// A case over all rounds.
#[derive(Clone, Debug, Serialize)]
struct Measured {
    #[serde(flatten)]
    case: Case,
    /// Median over the rounds of the rounds' medians.
    median_ms: f64,
    /// Least and largest of the rounds' medians.
    spread_ms: [f64; 2],
    items_per_s: f64,
    arena_bytes: usize,
    state_bytes: usize,
    baseline_rss_bytes: Option<usize>,
    growth_rss_bytes: Option<usize>,
    /// Of the first round: the slowest groups, with the share of the time that the roofline allows.
    slowest: Vec<Slow>,
    rounds: Vec<StepMeasurement>,
}

#[derive(Clone, Debug, Serialize)]
struct Slow {
    #[serde(flatten)]
    group: GroupTime,
    /// What the machine's roofs allow; none of a GPU, whose roofs are not measured.
    #[serde(flatten)]
    against: Option<Against>,
}

/// A time beside the machine's roofs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Against {
    /// The least time that they allow, over the time it took. Above 1 where a cache held what
    /// memory was charged for.
    roofline_share: f64,
    /// What that bound is made of.
    bound: &'static str,
}

/// What is printed and written.
#[derive(Debug, Serialize)]
struct Printed {
    program: String,
    engine: String,
    processor: String,
    cores: usize,
    /// Of the CPU.
    instruction_set: &'static str,
    /// Per number of threads; none of a GPU.
    roofs: Vec<Roof>,
    load_before: Option<f64>,
    load_after: Option<f64>,
    cases: Vec<Measured>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Roof {
    threads: usize,
    f32_gflops: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bf16_gflops: Option<f64>,
    /// Passes of bf16 that an f16 product takes; `None` where it is computed in f32.
    #[serde(skip)]
    f16_passes: Option<f64>,
    memory_gb_per_s: f64,
}

impl Roof {
    /// Operations per second for operands of this format.
    fn gflops(&self, precision: &str) -> f64 {
        match (self.bf16_gflops, self.f16_passes, precision) {
            (Some(bf16), _, "bf16") => bf16,
            (Some(bf16), Some(passes), "fp16") => bf16 / passes,
            _ => self.f32_gflops,
        }
    }

    fn against(&self, precision: &str, group: &GroupTime) -> Against {
        let compute = group.flops / (self.gflops(precision) * 1e6);
        let memory = group.bytes / (self.memory_gb_per_s * 1e6);
        let bound = if compute > memory { "arithmetic" } else { "memory" };
        Against { roofline_share: compute.max(memory) / group.ms.max(1e-9), bound }
    }
}

/// All cases, those of the same model and number of threads side by side.
fn cases(args: &BenchSuite, threads: &[usize]) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |model: BenchModel, threads, size| {
        for precision in &args.precisions {
            let case = Case { model: value_name(&model), precision: value_name(precision), threads, size };
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
    };
    for &model in &args.models {
        threads.iter().for_each(|&t| add(model, t, None));
    }
    if args.growth {
        let most = threads.last().copied().unwrap_or(1);
        for &(model, dimension, sizes) in GROWTH.iter().filter(|g| args.models.contains(&g.0)) {
            sizes.iter().for_each(|&size| add(model, most, Some((dimension, size))));
        }
    }
    cases
}

/// Measures a case in a process of its own.
fn measure(case: &Case, seconds: f64, request: EngineRequest) -> Result<StepMeasurement, Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|e| Failure::failed(format!("this program cannot be found: {e}")))?;
    let mut command = Command::new(program);
    command.args(["bench", "step", "--json", "--model", &case.model, "--precision", &case.precision]);
    command.args(["--threads", &case.threads.to_string(), "--seconds", &seconds.to_string()]);
    command.args(["--device", &request.device.to_string()]);
    if let Some(limit) = request.device_memory {
        command.args(["--device-memory", &limit.to_string()]);
    }
    command.args(["--groups", &SLOWEST.to_string()]);
    if let Some((dimension, size)) = case.size {
        command.args([&format!("--{dimension}"), &size.to_string()]);
    }
    let out = command.output();
    let out = out.map_err(|e| Failure::failed(format!("`bench step` could not be started: {e}")))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        return Err(Failure::failed(format!("`bench step` for {} failed: {}", label(case), said.trim())));
    }
    Ok(serde_json::from_slice(&out.stdout)?)
}

fn label(case: &Case) -> String {
    let size = case.size.map_or(String::new(), |(dimension, size)| format!(" {dimension} {size}"));
    format!("{}{size} {} ×{}", case.model, case.precision, case.threads)
}

fn summary(case: Case, rounds: Vec<StepMeasurement>, roofs: &[Roof]) -> Option<Measured> {
    let first = rounds.first()?;
    let mut medians: Vec<f64> = rounds.iter().map(|r| r.median_ms).collect();
    let (median_ms, least) = median_and_min(&mut medians);
    let roof = roofs.iter().find(|r| r.threads == case.threads);
    let slow = |group: &GroupTime| Slow {
        group: group.clone(),
        against: roof.map(|roof| roof.against(&case.precision, group)),
    };
    let slowest = first.groups.iter().map(slow).collect();
    let growth = |r: &StepMeasurement| Some(r.peak_rss_bytes?.saturating_sub(r.baseline_rss_bytes?));
    Some(Measured {
        median_ms,
        spread_ms: [least, medians.last().copied().unwrap_or(least)],
        items_per_s: first.items_per_s * first.median_ms / median_ms,
        arena_bytes: first.arena_bytes,
        state_bytes: first.state_bytes,
        baseline_rss_bytes: first.baseline_rss_bytes,
        growth_rss_bytes: rounds.iter().filter_map(growth).max(),
        slowest,
        case,
        rounds,
    })
}

/// Runs the command.
pub fn run(args: BenchSuite, request: EngineRequest) -> Result<ExitCode, Failure> {
    check_seconds(args.seconds)?;
    interrupt::listen("Stopping after this case; what was measured will be shown.");
    let (engine, isa) = (halfstep::engine(request)?, Isa::from_env()?);
    for precision in &args.precisions {
        engine.target().supports(&Policy::named(&value_name(precision))?)?;
    }
    let all = request.threads();
    let on_gpu = gpus::is_gpu(engine.as_ref());
    // Threads share the work of the CPU alone, and its roofs are measured.
    let threads = if all.get() == 1 || on_gpu { vec![all.get()] } else { vec![1, all.get()] };
    let measured = threads.iter().filter(|_| !on_gpu).filter_map(|&t| NonZeroUsize::new(t));
    let roofs: Vec<Roof> = measured.map(|t| roof(isa, t)).collect();
    let cases = cases(&args, &threads);
    let load_before = machine::load();
    let mut rounds: Vec<Vec<StepMeasurement>> = vec![Vec::new(); cases.len()];
    let bar = bar("cases", (cases.len() * args.rounds.get()) as u64);
    'all: for _ in 0..args.rounds.get() {
        for (case, measured) in cases.iter().zip(&mut rounds) {
            bar.set_message(label(case));
            match measure(case, args.seconds, request) {
                // Ctrl-C reaches the measuring process too.
                Err(_) if interrupt::asked() => break 'all,
                result => measured.push(result?),
            }
            bar.inc(1);
            if interrupt::asked() {
                break 'all;
            }
        }
    }
    bar.finish_and_clear();
    let measured = cases.into_iter().zip(rounds).filter_map(|(case, told)| summary(case, told, &roofs));
    let printed = Printed {
        program: format!("halfstep {}", env!("CARGO_PKG_VERSION")),
        engine: engine.name(),
        processor: host::processor(),
        cores: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        instruction_set: isa.level().name(),
        cases: measured.collect(),
        roofs,
        load_before,
        load_after: machine::load(),
    };
    if let Some(path) = &args.output {
        write_whole(path, &serde_json::to_vec_pretty(&printed)?)?;
    }
    if args.json {
        output::json(&printed)?;
    } else {
        let on = if on_gpu { engine.name() } else { format!("{}, {isa}", CpuEngine::KIND) };
        show(&printed, &on);
        widened(&printed, engine.as_ref())?.iter().for_each(|text| output::line(text));
    }
    Ok(if interrupt::asked() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

fn roof(isa: Isa, threads: NonZeroUsize) -> Roof {
    let measured = Roofline::measure(isa, threads);
    Roof {
        threads: threads.get(),
        f32_gflops: measured.f32_flops / 1e9,
        bf16_gflops: measured.bf16_flops.map(|f| f / 1e9),
        f16_passes: match isa.level() {
            Level::AmxFp16 => Some(1.0),
            // The architecture page says why.
            Level::Amx => Some(4.0),
            _ => None,
        },
        memory_gb_per_s: measured.memory_bytes / 1e9,
    }
}

fn show(printed: &Printed, engine: &str) {
    output::line(&format!("{} on {} ({engine})", printed.program, printed.processor));
    for roof in &printed.roofs {
        let bf16 = roof.bf16_gflops.map_or(String::new(), |g| format!("bf16 {} GFLOP/s, ", units::three(g)));
        output::line(&format!(
            "roofs, {} thread{}: f32 {} GFLOP/s, {bf16}memory {} GB/s",
            roof.threads,
            if roof.threads == 1 { "" } else { "s" },
            units::three(roof.f32_gflops),
            units::three(roof.memory_gb_per_s)
        ));
    }
    if let (Some(before), Some(after)) = (printed.load_before, printed.load_after) {
        output::line(&format!("load average {before:.1} before, {after:.1} after"));
    }
    let row = |m: &Measured| {
        let same = |o: &&Measured| {
            o.case.precision == "fp32"
                && (&o.case.model, o.case.threads, o.case.size)
                    == (&m.case.model, m.case.threads, m.case.size)
        };
        let fp32 = printed.cases.iter().find(same);
        vec![
            m.case.model.clone(),
            m.case.size.map_or("default".into(), |(dimension, size)| format!("{dimension} {size}")),
            m.case.precision.clone(),
            m.case.threads.to_string(),
            units::milliseconds(m.median_ms),
            format!("{}–{}", units::three(m.spread_ms[0]), units::three(m.spread_ms[1])),
            fp32.map_or("–".into(), |f| format!("{:.2}×", m.median_ms / f.median_ms)),
            units::count(m.items_per_s.round() as u64),
            units::bytes(m.arena_bytes),
            m.growth_rss_bytes.map_or("–".into(), units::bytes),
        ]
    };
    let heading =
        "model | size | precision | threads | step | spread | against fp32 | items/s | arena | RSS growth";
    let rows = output::headed(heading, printed.cases.iter().map(row));
    output::raw(&format!("\n{}", output::columns(&rows)));
    for m in printed.cases.iter().filter(|m| m.case.size.is_none() && !m.slowest.is_empty()) {
        output::line(&format!("\n{}", output::bold(&format!("{}: slowest groups", label(&m.case)))));
        let row = |slow: &Slow| {
            vec![
                slow.group.name.clone(),
                units::three(slow.group.ms),
                format!("{:.0} %", 100.0 * slow.group.ms / m.rounds[0].median_ms),
                slow.against.map_or("–".into(), |a| format!("{:.0} %", 100.0 * a.roofline_share)),
                slow.against.map_or("–".into(), |a| a.bound.into()),
            ]
        };
        let rows =
            output::headed("group | ms | of the step | of the roof | bound by", m.slowest.iter().map(row));
        output::raw(&output::columns(&rows));
    }
}

/// What must be said of precisions that the engine has no products of its own for.
fn widened(printed: &Printed, engine: &dyn Engine) -> Result<Option<String>, Failure> {
    let mut names: Vec<&str> = Vec::new();
    for name in printed.cases.iter().map(|m| m.case.precision.as_str()) {
        let policy = Policy::named(name)?;
        let is_widened = engine.describe(&policy).arithmetic == Arithmetic::Widened;
        if policy.low.is_some() && is_widened && !names.contains(&name) {
            names.push(name);
        }
    }
    let verb = if names.len() == 1 { "saves" } else { "save" };
    Ok((!names.is_empty()).then(|| {
        let names = names.join(" and ");
        format!(
            "\nThis processor has no products of its own for {names}, which {verb} memory here, not time."
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::case::GPT_HEADS;

    fn measurement(median_ms: f64) -> StepMeasurement {
        StepMeasurement {
            median_ms,
            min_ms: median_ms,
            items_per_s: 1000.0 / median_ms,
            steps: 5,
            arena_bytes: 1,
            state_bytes: 1,
            device_bytes: None,
            baseline_rss_bytes: Some(10),
            peak_rss_bytes: Some(30),
            compile_ms: 1.0,
            groups: vec![GroupTime { name: "a matmul".into(), ms: 2.0, flops: 1e8, bytes: 1e6 }],
        }
    }

    /// `bench step` refuses other widths; once the suite asked for one.
    #[test]
    fn heads_divide_every_width_that_growth_asks_for() {
        let widths = GROWTH.iter().filter(|g| g.0 == BenchModel::Gpt && g.1 == "width");
        assert!(widths.flat_map(|g| g.2).all(|width| width % GPT_HEADS == 0));
    }

    #[test]
    fn a_case_is_the_median_of_its_rounds_held_against_the_roof() {
        let case = Case { model: "mlp".into(), precision: "bf16".into(), threads: 1, size: None };
        let roof = Roof {
            threads: 1,
            f32_gflops: 100.0,
            bf16_gflops: None,
            f16_passes: None,
            memory_gb_per_s: 10.0,
        };
        let m = summary(case, vec![measurement(4.0), measurement(2.0), measurement(3.0)], &[roof]).unwrap();
        assert_eq!((m.median_ms, m.spread_ms, m.growth_rss_bytes), (3.0, [2.0, 4.0], Some(20)));
        // 10^8 operations at 10^11 per second take 1 ms of the 2 ms; 10^6 bytes take 0.1 ms.
        assert_eq!(m.slowest[0].against, Some(Against { roofline_share: 0.5, bound: "arithmetic" }));
        assert!((m.items_per_s - 1000.0 / 3.0).abs() < 1e-9);
    }
}
