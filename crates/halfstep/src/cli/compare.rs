//! `halfstep compare`: one model in several precisions, side by side.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Instant;

use halfstep::cpu::isa::{Isa, Level};
use halfstep::evidence::{Comparison, Outcome, RunResult, Setup, report, table, units};
use halfstep::graph::precision::Policy;
use halfstep::train::checkpoint::{self, Contents};
use halfstep::train::metrics::{EvaluationMetrics, RunningLoss};
use halfstep::train::recipe::Experiment;
use halfstep::train::run_dir::RunDir;
use halfstep::train::scaler::LossScale;
use serde::Serialize;

use super::args::Compare;
use super::failure::{Failure, INTERRUPTED};
use super::progress::{Watcher, bar};
use super::ranks::Done;
use super::{interrupt, machine, output, prepare, ranks};

/// File of the comparison's numbers.
const RESULTS: &str = "results.json";

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    run_directory: &'a str,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

/// Runs the command.
pub fn run(args: Compare, threads: Option<NonZeroUsize>) -> Result<ExitCode, Failure> {
    let ranks = ranks::join()?;
    let ranks = ranks.as_ref();
    let mut recipe = prepare::recipe(args.recipe.as_deref())?;
    if let Some(precisions) = args.precisions {
        for (i, name) in precisions.iter().enumerate() {
            prepare::known_precision(name)?;
            if precisions[..i].contains(name) {
                return Err(Failure::asked(format!("the precision `{name}` is named twice"), ""));
            }
        }
        recipe.precision.policies = precisions;
    }
    if let Some(seeds) = args.seeds {
        if seeds == 0 {
            return Err(Failure::asked(
                "a comparison needs at least one seed",
                "give --seeds 2 or more for a bound",
            ));
        }
        recipe.compare.seeds = seeds;
    }
    if !recipe.precision.policies.contains(&recipe.compare.reference) {
        recipe.compare.reference = recipe.precision.policies[0].clone();
    }
    let engine = halfstep::engine(threads)?;
    let experiment = prepare::prepare(recipe)?;
    let policies = experiment.recipe.precision.policies.clone();
    let make = || prepare::run_dir(&experiment, engine.as_ref(), &policies, args.out.as_ref());
    let (dir, mut lines) = ranks::run_dir(ranks, make)?;
    interrupt::listen();

    let setup = setup(&experiment, engine.name())?;
    let say = |text: &str| match (ranks::is_first(ranks), args.json) {
        (false, _) => {}
        (true, true) => eprintln!("{text}"),
        (true, false) => output::line(text),
    };
    say(&format!("{} on {}", output::bold(&setup.model), setup.data));
    say(&format!(
        "{} parameters, {} steps of {}, seeds {}; {} ({})\n",
        units::count(setup.parameters as u64),
        units::count(setup.steps),
        setup.batch,
        list(&setup.seeds),
        setup.processor,
        setup.engine
    ));

    let start = Instant::now();
    let mut done: Vec<Done> = Vec::new();
    'all: for (round, &seed) in setup.seeds.iter().enumerate() {
        for i in 0..policies.len() {
            let number = round * policies.len() + i;
            if !ranks::is_mine(ranks, number) {
                continue;
            }
            // Precisions take turns in going first: what else the machine does falls on all of them alike.
            let policy = &policies[(i + round) % policies.len()];
            let label = format!("{policy} seed {seed}");
            let bar = bar(&label, experiment.steps);
            machine::reset_peak_rss();
            let mut watcher = Watcher {
                bar: bar.clone(),
                lines: &mut lines,
                policy,
                seed,
                evaluated: &mut |_: &EvaluationMetrics, _: &_, _: &_| Ok(()),
                running: RunningLoss::default(),
            };
            let run = experiment.run(engine.as_ref(), policy, seed, &mut watcher)?;
            let peak = machine::peak_rss_bytes();
            bar.finish_and_clear();
            checkpoint::save(
                &run.session,
                &dir.checkpoint(&format!("{policy}-seed{seed}")),
                Contents::Model,
            )?;
            let scaled = run.session.spec().scaling != LossScale::Off;
            let run = Done::new(number, run.record, scaled, peak);
            say(&one_line(&run.result()));
            done.push(run);
            if interrupt::asked() {
                break 'all;
            }
        }
    }
    let done = ranks::gather(ranks, done)?;
    if !ranks::is_first(ranks) {
        return Ok(ExitCode::SUCCESS);
    }
    for theirs in done.iter().filter(|run| !ranks::is_mine(ranks, run.run)) {
        say(&one_line(&theirs.result()));
    }
    let runs = done.iter().map(Done::result).collect();
    let seconds = start.elapsed().as_secs_f64();
    let mut comparison = Comparison::new(setup, runs);
    comparison.findings.extend(not_split_here(&policies)?);
    write(&dir, &comparison)?;
    if args.json {
        output::json(&Printed { run_directory: &dir.path().display().to_string(), comparison: &comparison })?;
    } else {
        output::raw(&format!("\n{}\n", table::text(&comparison, &output::bold)));
        output::raw(&output::bullets(&comparison.findings));
        output::line(&format!(
            "\n{} in all. {}",
            units::seconds(seconds),
            dir.path().join("report.html").display()
        ));
    }
    Ok(if interrupt::asked() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// What must be said of policies that split f32 products into bf16 ones where the processor does not.
fn not_split_here(policies: &[String]) -> Result<Option<String>, Failure> {
    let split = |name: &&String| Policy::named(name).is_ok_and(|p| p.split.is_some());
    let names: Vec<&str> = policies.iter().filter(split).map(String::as_str).collect();
    let (used, plural) = (Isa::from_env()?, if names.len() == 1 { "was" } else { "were" });
    Ok((!names.is_empty() && used.level() < Level::Amx).then(|| {
        format!(
            "{} {plural} computed as fp32, because this processor ({used}) has no bf16 tiles: more accurate than the split \
             and no slower. These runs say nothing about the split itself.",
            names.join(" and ")
        )
    }))
}

fn setup(experiment: &Experiment, engine: String) -> Result<Setup, Failure> {
    let recipe = &experiment.recipe;
    Ok(Setup {
        name: recipe.name.clone(),
        model: prepare::describe_model(experiment),
        data: prepare::describe_data(experiment),
        fingerprint: experiment.info.fingerprint.clone(),
        parameters: prepare::parameters(experiment)?,
        steps: experiment.steps,
        batch: recipe.train.batch,
        seeds: (0..recipe.compare.seeds).map(|i| recipe.seed.wrapping_add(i)).collect(),
        policies: recipe.precision.policies.clone(),
        reference: recipe.compare.reference.clone(),
        margin: recipe.compare.margin,
        engine,
        processor: machine::processor_or_kind(),
        version: env!("CARGO_PKG_VERSION").into(),
    })
}

fn write(dir: &RunDir, comparison: &Comparison) -> Result<(), Failure> {
    dir.write_json(RESULTS, comparison)?;
    dir.write("report.md", report::markdown(comparison)?.as_bytes())?;
    dir.write("report.html", report::html(comparison)?.as_bytes())?;
    Ok(())
}

fn one_line(run: &RunResult) -> String {
    let accuracy = run.evaluations.last().map_or("–".into(), |e| units::percent(e.accuracy, None));
    let step = run.step_ms.map_or("–".into(), units::milliseconds);
    let wall = units::seconds(run.wall_seconds);
    let skipped = if run.skipped > 0 { format!("   {} skipped", run.skipped) } else { String::new() };
    let end = match &run.outcome {
        Outcome::Finished => String::new(),
        Outcome::Interrupted => "   stopped".into(),
        Outcome::Diverged { reason } => format!("\n  {reason}"),
    };
    let (policy, seed) = (&run.policy, run.seed);
    format!(
        "{policy:<6} seed {seed:<3} test accuracy {accuracy:>8}   {step:>8}/step   {wall:>7}{skipped}{end}"
    )
}

fn list(seeds: &[u64]) -> String {
    match seeds {
        [first, .., last] if seeds.len() > 2 => format!("{first}–{last}"),
        _ => seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    }
}
