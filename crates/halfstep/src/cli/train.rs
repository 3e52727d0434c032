//! `halfstep train`: one run in one precision.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use halfstep::evidence::units;
use halfstep::train::checkpoint::{self, Contents};
use halfstep::train::metrics::{EvaluationMetrics, Outcome, RunningLoss};
use halfstep::train::session::Session;
use indicatif::ProgressBar;
use serde::Serialize;

use super::args::Train;
use super::failure::{FAILED, Failure, INTERRUPTED};
use super::progress::{Watcher, bar};
use super::{interrupt, output, prepare};

/// Name of the checkpoint, replaced after every evaluation.
pub const CHECKPOINT: &str = "final";

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    run_directory: String,
    precision: &'a str,
    seed: u64,
    outcome: &'a Outcome,
    steps: usize,
    skipped: u64,
    train_loss: Option<f64>,
    test: Option<&'a EvaluationMetrics>,
    median_ms: Option<f64>,
    arena_bytes: usize,
    wall_seconds: f64,
}

/// Runs the command.
pub fn run(args: Train, threads: Option<NonZeroUsize>) -> Result<ExitCode, Failure> {
    let mut recipe = prepare::recipe(Some(&args.recipe))?;
    if let Some(name) = args.precision {
        prepare::known_precision(&name)?;
        recipe.precision.policy = name;
    }
    recipe.seed = args.seed.unwrap_or(recipe.seed);
    let (policy, seed) = (recipe.precision.policy.clone(), recipe.seed);
    let engine = halfstep::engine(threads)?;
    let experiment = prepare::prepare(recipe)?;
    let (dir, mut lines) =
        prepare::run_dir(&experiment, engine.as_ref(), std::slice::from_ref(&policy), args.out.as_ref())?;
    interrupt::listen();
    let say = |text: &str| if args.json { eprintln!("{text}") } else { output::line(text) };
    say(&format!(
        "{} in {policy} on {}; {} parameters, {} steps of {}; {}",
        output::bold(&prepare::describe_model(&experiment)),
        prepare::describe_data(&experiment),
        units::count(prepare::parameters(&experiment)? as u64),
        units::count(experiment.steps),
        experiment.recipe.train.batch,
        engine.name()
    ));
    let bar = bar(&policy, experiment.steps);
    let path = dir.checkpoint(CHECKPOINT);
    let mut evaluated = |e: &EvaluationMetrics, session: &Session<'_>, bar: &ProgressBar| {
        let text = format!(
            "step {:>6}   test loss {:.4}   test accuracy {}",
            e.attempt,
            e.loss,
            units::percent(e.accuracy, None)
        );
        bar.suspend(|| say(&text));
        Ok(checkpoint::save(session, &path, Contents::Everything)?)
    };
    let mut watcher = Watcher {
        bar: bar.clone(),
        lines: &mut lines,
        policy: &policy,
        seed,
        evaluated: &mut evaluated,
        running: RunningLoss::default(),
    };
    let run = experiment.run(engine.as_ref(), &policy, seed, &mut watcher)?;
    bar.finish_and_clear();
    let record = &run.record;
    if args.json {
        output::json(&Printed {
            run_directory: dir.path().display().to_string(),
            precision: &policy,
            seed,
            outcome: &record.outcome,
            steps: record.losses.len(),
            skipped: record.skipped,
            train_loss: record.final_train_loss(),
            test: record.last_evaluation(),
            median_ms: record.median_ms(),
            arena_bytes: record.arena_bytes,
            wall_seconds: record.wall_seconds,
        })?;
    } else {
        let fields = [
            ("train loss", record.final_train_loss().map_or("–".into(), |l| format!("{l:.4}"))),
            ("step", record.median_ms().map_or("–".into(), units::milliseconds) + " on this CPU"),
            ("skipped steps", units::count(record.skipped)),
            ("step's scratch", units::bytes(record.arena_bytes)),
            ("weights and optimiser", units::bytes(record.state_bytes.total())),
            ("whole run", units::seconds(record.wall_seconds)),
            ("run directory", dir.path().display().to_string()),
        ];
        output::raw(&format!("\n{}", output::fields(&fields)));
    }
    match &record.outcome {
        Outcome::Finished => Ok(ExitCode::SUCCESS),
        Outcome::Interrupted => Ok(ExitCode::from(INTERRUPTED)),
        Outcome::Diverged { reason } => {
            Failure::failed(reason.clone()).show();
            Ok(ExitCode::from(FAILED))
        }
    }
}
