//! `halfstep train`: one run in one precision, from its first step or from a checkpoint.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use halfstep::EngineRequest;
use halfstep::evidence::units;
use halfstep::graph::engine::Engine;
use halfstep::train::checkpoint::{self, CheckpointEvent, CheckpointStats, Checkpoints, Contents, Latest};
use halfstep::train::doctor::{Diagnosis, Sample};
use halfstep::train::metrics::{EvaluationMetrics, Outcome, RunRecord, RunningLoss, StepMetrics};
use halfstep::train::recipe::Experiment;
use halfstep::train::run_dir::{self, RunDir, RunInfo};
use halfstep::train::run_log::{Lines, LogPosition};
use halfstep::train::session::{Progress, Session};
use halfstep::train::train_loop::{Callbacks, Keeping, Proceed, RunError};
use indicatif::ProgressBar;
use serde::Serialize;

use super::args::Train;
use super::failure::{FAILED, Failure, INTERRUPTED, OUT_OF_TIME};
use super::numerics::Numerics;
use super::progress::{Watcher, bar};
use super::resume::{Place, Task};
use super::track::{self, Told, Trackers};
use super::{import, interrupt, output, prepare, ranks};

/// Name of the model that a run ends with.
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
    data_seconds: f64,
    resumed_from: Option<u64>,
    checkpoints: PrintedCheckpoints,
}

#[derive(Serialize)]
struct PrintedCheckpoints {
    written: u64,
    failed: u64,
    snapshot_bytes: usize,
    copying_seconds: f64,
    waiting_seconds: f64,
    writing_seconds: f64,
}

impl From<CheckpointStats> for PrintedCheckpoints {
    fn from(s: CheckpointStats) -> PrintedCheckpoints {
        PrintedCheckpoints {
            written: s.written,
            failed: s.failed,
            snapshot_bytes: s.snapshot_bytes,
            copying_seconds: s.copying.as_secs_f64(),
            waiting_seconds: s.waiting.as_secs_f64(),
            writing_seconds: s.writing.as_secs_f64(),
        }
    }
}

/// Runs the command.
pub fn run(args: Train, request: EngineRequest) -> Result<ExitCode, Failure> {
    let deadline = args.max_time.map(|time| Instant::now() + time);
    let ranks = ranks::join()?;
    if let Some(ranks) = ranks.as_ref().filter(|r| r.rank() > 0) {
        return ranks::follow(ranks, request);
    }
    let Task { recipe, place } = Task::of(&args)?;
    let (policy, seed) = (recipe.precision.policy.clone(), recipe.seed);
    let trackers = Trackers::of(&args.track, &recipe.track)?;
    #[cfg(feature = "tui")]
    if args.tui {
        super::tui::check()?;
    }
    let engine = ranks::engine(request, ranks.as_ref())?;
    ranks::lead(ranks.as_ref(), &recipe)?;
    let experiment = prepare::prepare(recipe)?;
    ranks::agree(ranks.as_ref(), &experiment, engine.as_ref(), &policy)?;
    let say = |text: &str| if args.json { eprintln!("{text}") } else { output::line(text) };
    let weights = match &args.from {
        Some(from) => Some(import::start(&experiment, engine.as_ref(), from, args.map.as_deref())?),
        None => None,
    };
    let from = args.from.as_ref().zip(weights.as_deref());
    let (dir, mut lines, latest) = place_of(place, &experiment, engine.as_ref(), &policy, from, &say)?;
    let info: RunInfo = dir.read_json(run_dir::RUN)?;
    let start = info.from.is_some().then(|| dir.checkpoint(run_dir::START));
    let progress = latest.as_ref().map_or(Progress::default(), |l| l.state().progress);
    let skipped = progress.attempts - progress.committed;
    let trackers = trackers.of_run(&dir);
    let told = Told::begin(&dir, &experiment, &trackers, progress.attempts, skipped);
    interrupt::listen();
    say(&format!(
        "{} in {policy} on {}; {} parameters, {} steps of {}; {}{}",
        output::bold(&prepare::describe_model(&experiment)),
        prepare::describe_data(&experiment),
        units::count(prepare::parameters(&experiment)? as u64),
        units::count(experiment.steps),
        experiment.recipe.train.batch,
        engine.name(),
        match engine.target().ranks() {
            1 => String::new(),
            n => format!(" on each of {n} ranks"),
        }
    ));
    let bar = bar(&policy, experiment.steps);
    bar.set_position(progress.attempts);
    bar.reset_eta();
    #[cfg(feature = "tui")]
    let tui = match args.tui {
        true => {
            Some(super::tui::Tui::begin(tui_title(&experiment, &policy), &experiment, progress.attempts)?)
        }
        false => None,
    };
    #[cfg(feature = "tui")]
    let board = tui.as_ref().map(|tui| tui.board());
    #[cfg(feature = "tui")]
    if board.is_some() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    // What is said while a dashboard has the terminal is said on it.
    let note = |text: &str| {
        #[cfg(feature = "tui")]
        if let Some(board) = &board {
            board.note(text);
            return;
        }
        bar.suspend(|| eprintln!("{text}"));
    };
    let mut evaluated = |e: &EvaluationMetrics, _: &Session<'_>, bar: &ProgressBar| {
        let text = format!(
            "step {:>6}   test loss {:.4}   test accuracy {}",
            e.attempt,
            e.loss,
            units::percent(e.accuracy, None)
        );
        #[cfg(feature = "tui")]
        if board.is_some() {
            return Ok(());
        }
        bar.suspend(|| say(&text));
        Ok(())
    };
    let attempts = latest.as_ref().map_or(0, |l| l.state().progress.attempts);
    let mut kept = Numerics::new(&dir, &experiment.recipe.name, attempts)?;
    let watcher = Watcher {
        bar: bar.clone(),
        lines: &mut lines,
        policy: &policy,
        seed,
        evaluated: &mut evaluated,
        running: RunningLoss::default(),
        numerics: &mut kept,
    };
    let mut watcher = Timed {
        watcher,
        deadline,
        unwritten: None,
        told,
        note: &note,
        #[cfg(feature = "tui")]
        board: board.clone(),
    };
    let mut checkpoints = Checkpoints::new(&dir, &experiment.recipe.checkpoint, latest.as_ref());
    let keeping =
        Keeping { checkpoints: Some(&mut checkpoints), resume: latest.as_ref(), start: start.as_deref() };
    let run = experiment.run_with(engine.as_ref(), &policy, seed, &mut watcher, keeping);
    let Timed { unwritten, mut told, .. } = watcher;
    kept.finish()?;
    #[cfg(feature = "tui")]
    drop(tui);
    bar.finish_and_clear();
    told.troubles().iter().for_each(|trouble| eprintln!("warning: {trouble}"));
    for (name, delivered) in told.finish(&policy, run.as_ref().ok().map(|run| &run.record.outcome)) {
        eprintln!("{}", track::words(name, &delivered, &dir.path().display().to_string()));
    }
    let run = run?;
    checkpoint::save_to(&dir, CHECKPOINT, &run.session, Contents::Model)?;
    let (record, stats) = (&run.record, checkpoints.stats());
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
            data_seconds: record.data_seconds,
            resumed_from: latest.as_ref().map(|l| l.state().progress.attempts),
            checkpoints: stats.into(),
        })?;
    } else {
        let device = engine.device().kind;
        output::raw(&format!("\n{}", output::fields(&summary(record, stats, dir.path(), &device))));
    }
    if let Some(e) = unwritten {
        Failure::failed(e).show();
        return Ok(ExitCode::from(FAILED));
    }
    let progress = run.session.progress();
    let goes_on = format!("`halfstep train --resume {}` goes on from there.", dir.path().display());
    match &record.outcome {
        Outcome::Finished => {
            if let Some(patience) = record.out_of_patience {
                let steps = units::count(progress.attempts);
                say(&format!(
                    "Ended early, after step {steps}: {patience} evaluations in a row were no better."
                ));
            }
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Interrupted if interrupt::asked() => {
            say(&format!("Stopped after step {}. {goes_on}", progress.attempts));
            Ok(ExitCode::from(INTERRUPTED))
        }
        Outcome::Interrupted => {
            let time = args.max_time.map_or(0.0, |t| t.as_secs_f64());
            say(&format!(
                "The {} of --max-time are over after step {}. {goes_on}",
                units::seconds(time),
                progress.attempts
            ));
            Ok(ExitCode::from(OUT_OF_TIME))
        }
        Outcome::Diverged { reason } => {
            Failure::failed(reason.clone()).show();
            Ok(ExitCode::from(FAILED))
        }
    }
}

/// The run directory and its log, and the checkpoint to go on from.
fn place_of(
    place: Place,
    experiment: &Experiment,
    engine: &dyn Engine,
    policy: &String,
    from: Option<(&PathBuf, &[u8])>,
    say: &dyn Fn(&str),
) -> Result<(RunDir, Lines, Option<Latest>), Failure> {
    let begin = |make: &dyn Fn() -> Result<RunDir, Failure>| {
        let info = RunInfo {
            command: "train".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            from: from.map(|(path, _)| path.display().to_string()),
        };
        let make = || {
            let dir = make()?;
            if let Some((_, weights)) = from {
                dir.write(&format!("{}/{}.safetensors", run_dir::CHECKPOINTS, run_dir::START), weights)?;
            }
            Ok(dir)
        };
        let (dir, lines) =
            prepare::begin(experiment, engine, std::slice::from_ref(policy), Some(info), make)?;
        Ok((dir, lines, None))
    };
    let dir = match place {
        Place::New(Some(out)) => return begin(&|| Ok(RunDir::create_at(&out)?)),
        Place::New(None) => {
            return begin(&|| Ok(RunDir::create(Path::new("runs"), &experiment.recipe.name)?));
        }
        Place::Over(out) => return begin(&|| Ok(RunDir::create_over(&out)?)),
        Place::There(dir) => dir,
    };
    super::memory::check(experiment, engine, std::slice::from_ref(policy), true)?;
    let (latest, rejected) = Latest::find(&dir);
    for bad in rejected {
        eprintln!("warning: the checkpoint {} cannot be used: {}", bad.name, bad.reason);
    }
    let position = latest.as_ref().map_or(LogPosition::default(), |l| l.state().log.clone());
    match &latest {
        Some(latest) => {
            let state = latest.state();
            say(&format!("Going on with {} from its checkpoint {}.", dir.path().display(), latest.name));
            for (what, was, is) in [
                ("engine", state.engine.as_str(), engine.name().as_str()),
                ("version", &state.version, env!("CARGO_PKG_VERSION")),
            ] {
                if without_threads(was) != without_threads(is) {
                    eprintln!(
                        "warning: the {what} was {was} and is {is} now: from here on, the last bits may differ"
                    );
                }
            }
        }
        None => say(&format!("{} has no checkpoint yet: beginning at its first step.", dir.path().display())),
    }
    let lines = Lines::resume(dir.files(), &dir.file(run_dir::METRICS), &position)?;
    // The model of an earlier stop: until the run ends again, the latest checkpoint is the model to use.
    let earlier = dir.checkpoint(CHECKPOINT);
    if earlier.is_file() {
        dir.files()
            .remove_file(&earlier)
            .map_err(|e| Failure::failed(format!("{}: {e}", earlier.display())))?;
    }
    Ok((dir, lines, latest))
}

/// An engine's name less its number of threads, which no result depends on.
fn without_threads(name: &str) -> &str {
    name.split(", ").next().unwrap_or(name)
}

fn summary(
    record: &RunRecord,
    stats: CheckpointStats,
    run: &Path,
    device: &str,
) -> Vec<(&'static str, String)> {
    let stood_still = (stats.copying + stats.waiting).as_secs_f64();
    let share = if record.wall_seconds > 0.0 { stood_still / record.wall_seconds } else { 0.0 };
    let checkpoints = match stats.written {
        0 => "none written".to_string(),
        n => format!(
            "{} written, {} each in memory; training stood still for {:.1} % of the time",
            units::count(n),
            units::bytes(stats.snapshot_bytes),
            share * 100.0
        ),
    };
    vec![
        ("train loss", record.final_train_loss().map_or("–".into(), |l| format!("{l:.4}"))),
        ("step", record.median_ms().map_or("–".into(), units::milliseconds) + " on this " + device),
        ("skipped steps", units::count(record.skipped)),
        ("step's scratch", units::bytes(record.arena_bytes)),
        ("weights and optimiser", units::bytes(record.state_bytes.total())),
        ("whole run", units::seconds(record.wall_seconds)),
        ("waited for data", units::seconds(record.data_seconds)),
        ("checkpoints", checkpoints),
        ("run directory", run.display().to_string()),
    ]
}

/// What the dashboard is headed with.
#[cfg(feature = "tui")]
fn tui_title(experiment: &Experiment, policy: &str) -> String {
    format!("{}  {}  {policy}", experiment.recipe.name, prepare::describe_model(experiment))
}

/// A watcher that stops in time, tells others, and warns of checkpoints that could not be written.
struct Timed<'a, 'd> {
    watcher: Watcher<'a, 'd>,
    told: Told,
    note: &'a dyn Fn(&str),
    #[cfg(feature = "tui")]
    board: Option<super::tui::Board>,
    deadline: Option<Instant>,
    /// Why the last checkpoint could not be written.
    unwritten: Option<String>,
}

impl Callbacks for Timed<'_, '_> {
    fn step(&mut self, metrics: &StepMetrics) -> Result<Proceed, RunError> {
        self.watcher.step(metrics)?;
        self.told.step(metrics);
        self.told.troubles().iter().for_each(|trouble| (self.note)(&format!("warning: {trouble}")));
        #[cfg(feature = "tui")]
        if let Some(board) = &self.board {
            board.step(metrics);
        }
        Ok(self.proceed())
    }

    fn proceed(&self) -> Proceed {
        let over = self.deadline.is_some_and(|at| Instant::now() >= at);
        if over || interrupt::asked() { Proceed::Stop } else { Proceed::Continue }
    }

    fn evaluation(&mut self, metrics: &EvaluationMetrics, session: &Session<'_>) -> Result<(), RunError> {
        self.watcher.evaluation(metrics, session)?;
        self.told.evaluation(metrics);
        #[cfg(feature = "tui")]
        if let Some(board) = &self.board {
            board.evaluation(metrics);
        }
        Ok(())
    }

    fn sampled(&mut self, sample: &Sample) -> Result<(), RunError> {
        self.watcher.sampled(sample)
    }

    fn diagnosed(&mut self, diagnosis: &Diagnosis) -> Result<(), RunError> {
        self.watcher.diagnosed(diagnosis)
    }

    fn checkpoint(&mut self, event: &CheckpointEvent) {
        self.told.checkpoint(event);
        #[cfg(feature = "tui")]
        if let (Some(board), CheckpointEvent::Written { name, bytes, .. }) = (&self.board, event) {
            board.checkpoint(name, *bytes);
        }
        match event {
            CheckpointEvent::Written { .. } => self.unwritten = None,
            CheckpointEvent::Failed { error, .. } => {
                let text =
                    format!("warning: {error}; training goes on, earlier checkpoints are as they were");
                (self.note)(&text);
                self.unwritten = Some(error.to_string());
            }
        }
    }

    fn log_position(&self) -> LogPosition {
        self.watcher.log_position()
    }
}
