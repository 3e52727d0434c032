//! `halfstep train`: one run in one precision, from its first step or from a checkpoint.

mod callbacks;
mod directory;
mod display;
mod request;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use halfstep::EngineRequest;
use halfstep::evidence::statements::CommandStatement;
use halfstep::evidence::units;
use halfstep::graph::engine::Engine;
use halfstep::train::checkpoint::{self, CheckpointStats, Checkpoints};
use halfstep::train::metrics::Outcome;
use halfstep::train::recipe::Experiment;
use halfstep::train::train_loop::{Keeping, Run};
use serde_json::{Value, json};

use super::args::Train;
use super::failure::{FAILED, Failure, INTERRUPTED, OUT_OF_TIME};
use super::numerics::Numerics;
use super::open::FINAL;
use super::output::Messages;
use super::progress::LogCallbacks;
use super::track::{Trackers, Tracking, delivery_message};
use super::{gpus, import, interrupt, output, prepare, ranks};
use callbacks::{EvaluationTime, TrainCallbacks};
use directory::{InitialWeights, RunFiles};
use display::Display;
use request::Request;

/// What is trained, and what trains it.
#[derive(Clone, Copy)]
struct Training<'a> {
    experiment: &'a Experiment,
    engine: &'a dyn Engine,
    policy: &'a String,
    seed: u64,
}

/// A training that has ended.
struct Trained<'a> {
    run: Run<'a>,
    checkpoints: CheckpointStats,
    /// Why the last checkpoint could not be written.
    checkpoint_error: Option<String>,
}

/// Runs the command.
pub fn run(args: Train, request: EngineRequest) -> Result<ExitCode, Failure> {
    let deadline = args.max_time.map(|time| Instant::now() + time);
    let ranks = ranks::join()?;
    if let Some(ranks) = ranks.as_ref().filter(|r| r.rank() > 0) {
        return ranks::follow(ranks, request);
    }
    let Request { recipe, destination } = Request::of(&args)?;
    let (policy, seed) = (recipe.precision.policy.clone(), recipe.seed);
    let trackers = Trackers::of(&args.track, &recipe.track)?;
    #[cfg(feature = "tui")]
    if args.tui {
        super::tui::check()?;
    }
    // A run goes on where it began, if that is there.
    let taken = request.taken_for(destination.engine());
    gpus::say(&taken);
    let engine = ranks::engine(taken.request, ranks.as_ref())?;
    if let Some(ranks) = ranks.as_ref().filter(|r| r.size() > 1) {
        ranks.broadcast(recipe.resolved()?.into_bytes())?;
    }
    let experiment = prepare::prepare(recipe)?;
    ranks::agree(ranks.as_ref(), &experiment, engine.as_ref(), &policy)?;
    let training = Training { experiment: &experiment, engine: engine.as_ref(), policy: &policy, seed };
    let initial = match &args.from {
        Some(path) => {
            let bytes = import::start(&experiment, engine.as_ref(), path, args.map.as_deref())?;
            Some(InitialWeights { path, bytes })
        }
        None => None,
    };
    let messages = Messages::of(args.json);
    let mut files = RunFiles::open(destination, &training, initial.as_ref(), messages)?;
    let resumed_from = files.latest.as_ref().map(|latest| latest.state.progress.attempts);
    interrupt::listen(interrupt::TRAINING);
    messages.say(&headline(&training)?);
    let trained = train(&training, &mut files, trackers, &args, deadline)?;
    checkpoint::save(&trained.run.session, &files.dir.checkpoint(FINAL))?;
    let run = files.dir.path();
    if args.json {
        output::json(&printed(&training, &trained, run, resumed_from))?;
    } else {
        let summary = summary(&training, &trained, run);
        output::raw(&format!("\n{}", output::fields(&summary)));
    }
    if let Some(e) = trained.checkpoint_error {
        Failure::failed(e).show();
        return Ok(ExitCode::from(FAILED));
    }
    Ok(end(&trained.run, &args, run, messages))
}

/// What `--json` prints.
fn printed(training: &Training<'_>, trained: &Trained<'_>, run: &Path, resumed_from: Option<u64>) -> Value {
    let (record, stats) = (&trained.run.record, trained.checkpoints);
    json!({
        "run_directory": run.display().to_string(),
        "precision": training.policy,
        "seed": training.seed,
        "outcome": record.outcome,
        "steps": record.losses.len(),
        "skipped": record.skipped,
        "train_loss": record.final_train_loss(),
        "test": record.evaluations.last(),
        "median_ms": record.median_ms(),
        "arena_bytes": record.arena_bytes,
        "wall_seconds": record.wall_seconds,
        "data_seconds": record.data_seconds,
        "resumed_from": resumed_from,
        "checkpoints": {
            "written": stats.written,
            "failed": stats.failed,
            "snapshot_bytes": stats.snapshot_bytes,
            "copying_seconds": stats.copying.as_secs_f64(),
            "waiting_seconds": stats.waiting.as_secs_f64(),
            "writing_seconds": stats.writing.as_secs_f64(),
        },
    })
}

/// Model, data, length of the run and engine in a line.
fn headline(training: &Training<'_>) -> Result<String, Failure> {
    let Training { experiment, engine, policy, .. } = *training;
    let ranks = match engine.target().ranks() {
        1 => String::new(),
        n => format!(" on each of {n} ranks"),
    };
    Ok(format!(
        "{} in {policy} on {}; {} parameters, {} steps of {}; {}{ranks}",
        output::bold(&prepare::describe_model(experiment)),
        prepare::describe_data(experiment),
        units::count(prepare::parameters(experiment)? as u64),
        units::count(experiment.steps),
        experiment.recipe.train.batch,
        engine.name(),
    ))
}

/// Trains to the end of the recipe, to the deadline, or until a stop is asked for.
fn train<'a>(
    training: &Training<'a>,
    files: &mut RunFiles,
    trackers: Trackers,
    args: &Train,
    deadline: Option<Instant>,
) -> Result<Trained<'a>, Failure> {
    let Training { experiment, engine, policy, seed } = *training;
    let (progress, start) = (files.progress(), files.start()?);
    let RunFiles { dir, lines, latest } = files;
    let (dir, latest) = (&*dir, latest.as_ref());
    let skipped = progress.attempts - progress.committed;
    let tracking = Tracking::begin(dir, experiment, &trackers.of_run(dir), progress.attempts, skipped);
    let display = Display::begin(args, training, progress.attempts, Messages::of(args.json))?;
    let mut numerics = Numerics::new(dir, &experiment.recipe.name, progress.attempts)?;
    let mut checkpoints = Checkpoints::new(dir, &experiment.recipe.checkpoint, latest);
    let print = |text: &str| display.bar.suspend(|| output::message(text));
    let mut callbacks = TrainCallbacks {
        log: LogCallbacks::new(display.bar.clone(), &print, lines, policy, seed, &mut numerics),
        tracking,
        display: &display,
        evaluation_time: EvaluationTime::new(Instant::now()),
        evaluate_every: experiment.evaluate_every(),
        deadline,
        checkpoint_error: None,
    };
    let keeping = Keeping { checkpoints: Some(&mut checkpoints), resume: latest, start: start.as_deref() };
    let run = experiment.run_with(engine, policy, seed, &mut callbacks, keeping);
    let TrainCallbacks { checkpoint_error, mut tracking, .. } = callbacks;
    let shown = numerics.finish();
    display.finish();
    tracking.take_warnings().iter().for_each(output::warning);
    for (name, delivered) in tracking.finish(policy, run.as_ref().ok().map(|run| &run.record.outcome)) {
        output::message(&delivery_message(name, &delivered, dir.path()));
    }
    // The run's own error first: on a full disk the pictures fail too.
    let run = run.map_err(|error| directory::failed(error, dir))?;
    shown?;
    Ok(Trained { run, checkpoints: checkpoints.stats(), checkpoint_error })
}

/// Says how the run ended, and returns the exit code.
fn end(run: &Run<'_>, args: &Train, dir: &Path, messages: Messages) -> ExitCode {
    let attempts = units::count(run.session.progress().attempts);
    let resume = format!("`halfstep train --resume {}` continues from there.", output::quoted(dir));
    match &run.record.outcome {
        Outcome::Finished => {
            if let Some(patience) = run.record.out_of_patience {
                let step = run.session.progress().attempts;
                messages.say(&CommandStatement::StoppedNoBetter { step, patience }.to_string());
            }
            ExitCode::SUCCESS
        }
        Outcome::Interrupted if interrupt::asked() => {
            messages.say(&format!("Stopped after step {attempts}. {resume}"));
            ExitCode::from(INTERRUPTED)
        }
        Outcome::Interrupted => {
            let time = units::seconds(args.max_time.map_or(0.0, |t| t.as_secs_f64()));
            messages.say(&format!("Stopped after step {attempts}: --max-time of {time} is over. {resume}"));
            ExitCode::from(OUT_OF_TIME)
        }
        Outcome::Diverged { reason } => {
            Failure::failed(reason.clone()).show();
            ExitCode::from(FAILED)
        }
    }
}

fn summary(training: &Training<'_>, trained: &Trained<'_>, run: &Path) -> Vec<(&'static str, String)> {
    let (record, stats) = (&trained.run.record, trained.checkpoints);
    let device = training.engine.device().kind;
    let paused = (stats.copying + stats.waiting).as_secs_f64();
    let share = if record.wall_seconds > 0.0 { paused / record.wall_seconds } else { 0.0 };
    let checkpoints = match stats.written {
        0 => "none written".to_string(),
        n => format!(
            "{} written, {} each in memory; training was paused for {:.1} % of the time",
            units::count(n),
            units::bytes(stats.snapshot_bytes),
            share * 100.0
        ),
    };
    vec![
        ("train loss", record.final_train_loss().map_or("–".into(), |l| format!("{l:.4}"))),
        ("step", record.median_ms().map_or("–".into(), units::milliseconds) + " on this " + &device),
        ("skipped steps", units::count(record.skipped)),
        ("step's scratch", units::bytes(record.arena_bytes)),
        ("weights and optimiser", units::bytes(record.state_bytes.total())),
        ("whole run", units::seconds(record.wall_seconds)),
        ("waited for data", units::seconds(record.data_seconds)),
        ("checkpoints", checkpoints),
        ("run directory", run.display().to_string()),
    ]
}
