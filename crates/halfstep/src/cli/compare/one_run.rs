//! One run of a comparison: taken from the cache, resumed, or begun.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use halfstep::evidence::logits::to_safetensors;
use halfstep::evidence::{Inference, RunResult, Spent, Way};
use halfstep::graph::engine::{Engine, HostSlice};
use halfstep::train::checkpoint::{self, Checkpoints, Latest};
use halfstep::train::metrics::{Outcome, RunRecord};
use halfstep::train::recipe::{CheckpointSettings, Experiment};
use halfstep::train::run_dir::{self, METRICS, RunDir, RunDirError};
use halfstep::train::run_log::{Lines, LogPosition};
use halfstep::train::scaler::LossScale;
use halfstep::train::session::Session;
use halfstep::train::train_loop::{Keeping, Run};
use halfstep_track::now;
use indicatif::MultiProgress;
use serde::{Deserialize, Serialize};

use super::cache::{Cache, CachedRun, Checksum, FORMAT, LOGITS, MODEL, RECORD};
use super::energy::Meter;
use crate::cli::failure::Failure;
use crate::cli::numerics::Numerics;
use crate::cli::output::{self, Messages};
use crate::cli::progress::{LogCallbacks, above, bar};
use crate::cli::{gpus, interrupt, machine, pass};

/// Attempts at a run, with what they cost.
const ATTEMPTS: &str = "attempts.json";
/// Most logits that are kept of a run: 32 MiB.
const MOST_LOGITS: usize = 1 << 23;
/// Minutes between checkpoints of a run, at most: what a kill can cost.
const MINUTES: f64 = 1.0;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Task {
    /// Precision.
    pub policy: String,
    /// Seed.
    pub seed: u64,
    /// Its name in the cache.
    pub id: String,
    /// What it has in common with the same run on other engines.
    pub on_any_engine: String,
}

impl Task {
    /// A run of an experiment, named as in this cache.
    ///
    /// # Errors
    /// No precision has that name.
    pub fn of(cache: &Cache, experiment: &Experiment, policy: &str, seed: u64) -> Result<Task, Failure> {
        let id = cache.id(experiment, policy, seed)?;
        let on_any_engine = cache.on_any_engine(experiment, policy, seed)?;
        Ok(Task { policy: policy.to_string(), seed, id, on_any_engine })
    }
}

/// A run, and where its files are.
pub struct Obtained {
    /// What it measured.
    pub result: RunResult,
    /// Its folder in the cache.
    pub place: PathBuf,
}

/// One attempt at a run.
#[derive(Debug, Serialize, Deserialize)]
struct Attempt {
    /// Seconds since 1970.
    began: f64,
    /// How long it was; none while it lasts, or if it was killed.
    seconds: Option<f64>,
    threads: usize,
    joules: Option<f64>,
}

/// Test samples whose logits are kept: all, or evenly spaced ones.
pub fn measured_samples(experiment: &Experiment) -> Vec<u32> {
    let (info, all) = (&experiment.info, experiment.data.test.len());
    let per_sample = info.input.labels_per_sample() * info.outputs;
    let stride = (all * per_sample).div_ceil(MOST_LOGITS).max(1);
    (0..all as u32).step_by(stride).collect()
}

/// A finished run from the cache; none where there is none. A damaged one causes a warning and is
/// not used.
pub fn cached(cache: &Cache, task: &Task, messages: Messages) -> Option<Obtained> {
    match cache.read(&task.id) {
        Ok(cached) => cached.map(|cached| obtained(cache, task, cached.run, true)),
        Err(damage) => {
            let place = cache.entry(&task.id);
            messages.say(&format!(
                "warning: {}: this cached run is damaged and is trained again: {damage}",
                place.display()
            ));
            None
        }
    }
}

fn obtained(cache: &Cache, task: &Task, run: RunResult, cached: bool) -> Obtained {
    let result = RunResult { id: task.id.clone(), cached, ..run };
    Obtained { result, place: cache.entry(&task.id) }
}

/// Makes a run, from its latest checkpoint where there is one. Waits while another process makes
/// the same run. What the cache cannot take is made in its spare folder.
pub fn make(
    cache: &Cache,
    experiment: &Experiment,
    engine: &dyn Engine,
    task: &Task,
    way: &Way,
    bars: &MultiProgress,
) -> Result<Obtained, Failure> {
    let first = cache.to_write();
    match make_in(first, experiment, engine, task, way, bars) {
        Err(failure) if failure.is_unwritten() && std::ptr::eq(first, cache) => {
            let spare = above(bars, || cache.give_up(&failure));
            spare.map_or(Err(failure), |spare| make_in(spare, experiment, engine, task, way, bars))
        }
        made => made,
    }
}

fn make_in(
    cache: &Cache,
    experiment: &Experiment,
    engine: &dyn Engine,
    task: &Task,
    way: &Way,
    bars: &MultiProgress,
) -> Result<Obtained, Failure> {
    let dir = lock(&cache.entry(&task.id), experiment)?;
    match cache.read(&task.id) {
        // Made while we waited.
        Ok(Some(cached)) => return Ok(obtained(cache, task, cached.run, true)),
        Ok(None) => {}
        Err(_) => clear(&dir)?,
    }
    let mut ledger = Ledger::open(&dir, way.threads, gpus::is_gpu(engine))?;
    let alone = way.beside == 0;
    if alone {
        machine::reset_peak_rss();
    }
    let Run { mut session, mut record } = train(&dir, experiment, engine, task, bars)?;
    let inference = match record.outcome {
        Outcome::Finished => Some(predict(&dir, experiment, &mut session, &mut record)?),
        _ => None,
    };
    let spent = ledger.close(&dir, way.beside + 1)?;
    let result = RunResult {
        id: task.id.clone(),
        cached: false,
        scaled: session.spec().scaling != LossScale::Off,
        // Without what its log tells.
        record: RunRecord {
            losses: Vec::new(),
            step_ms: Vec::new(),
            evaluations: Vec::new(),
            skipped: 0,
            ..record.clone()
        },
        peak_rss_bytes: if alone { machine::peak_rss_bytes() } else { None },
        way: way.clone(),
        spent,
        attempts: ledger.attempts.len(),
        inference,
        ended: now() as u64,
    };
    let mut cached = CachedRun {
        format: FORMAT,
        run: result,
        engine: Some(cache.engine().clone()),
        on_any_engine: task.on_any_engine.clone(),
        files: Default::default(),
    };
    if record.outcome != Outcome::Interrupted {
        checkpoint::save(&session, &dir.file(MODEL))?;
        for name in [MODEL, LOGITS, METRICS] {
            let path = dir.file(name);
            if path.is_file() {
                let sum =
                    Checksum::of(&path).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
                cached.files.insert(name.into(), sum);
            }
        }
        dir.write_json(RECORD, &cached)?;
        remove_checkpoints(&dir)?;
    }
    Ok(obtained(cache, task, RunResult { record, ..cached.run }, false))
}

/// The run's directory, once no other process has it.
fn lock(place: &Path, experiment: &Experiment) -> Result<RunDir, Failure> {
    let resolved = experiment.recipe.resolved()?;
    loop {
        match directory(place, experiment, &resolved) {
            Err(RunDirError::Busy { .. }) if !interrupt::asked() => {
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(RunDirError::Busy { .. }) => {
                return Err(Failure::failed("interrupted while another process made this run"));
            }
            opened => return Ok(opened?),
        }
    }
}

/// Trains to the end or to the first interruption, from the latest checkpoint.
fn train<'e>(
    dir: &RunDir,
    experiment: &'e Experiment,
    engine: &'e dyn Engine,
    task: &Task,
    bars: &MultiProgress,
) -> Result<Run<'e>, Failure> {
    let (latest, _) = Latest::find(dir);
    let position = latest.as_ref().map_or(LogPosition::default(), |l| l.state.log.clone());
    let mut lines = Lines::resume(dir.files(), &dir.file(METRICS), &position)?;
    let bar = bars.add(bar(&format!("{} seed {}", task.policy, task.seed), experiment.steps));
    let attempts = latest.as_ref().map_or(0, |l| l.state.progress.attempts);
    bar.set_position(attempts);
    let mut numerics = Numerics::new(dir, &experiment.recipe.name, attempts)?;
    let print = |text: &str| above(bars, || output::message(text));
    let mut callbacks =
        LogCallbacks::new(bar.clone(), &print, &mut lines, &task.policy, task.seed, &mut numerics);
    let own = &experiment.recipe.checkpoint;
    // Only to resume from: no best ones, and none of runs that take less than a minute.
    let settings = CheckpointSettings {
        every: own.every.or(Some(u64::MAX)),
        minutes: own.minutes.min(MINUTES),
        keep_last: 1,
        keep_best: Some(0),
        metric: own.metric,
    };
    let mut checkpoints = Checkpoints::new(dir, &settings, latest.as_ref());
    let keeping = Keeping { checkpoints: Some(&mut checkpoints), resume: latest.as_ref(), start: None };
    let run = experiment.run_with(engine, &task.policy, task.seed, &mut callbacks, keeping);
    bar.finish_and_clear();
    Ok(run?)
}

/// Keeps the logits of the test data. A run whose logits are not finite has diverged.
fn predict(
    dir: &RunDir,
    experiment: &Experiment,
    session: &mut Session<'_>,
    record: &mut RunRecord,
) -> Result<Inference, Failure> {
    let (values, labels, inference) = measured(session, experiment)?;
    if values.iter().all(|x| x.is_finite()) {
        // The targets of one window of text share its context: windows are what differs by chance.
        let per_sample = experiment.info.input.labels_per_sample();
        let windows = || (0..labels.len()).map(|row| (row / per_sample) as u32).collect::<Vec<_>>();
        let clusters = (per_sample > 1).then(windows);
        let bytes =
            to_safetensors(&values, experiment.info.outputs, &labels, clusters.as_deref(), record.seed);
        dir.write(LOGITS, &bytes.map_err(|e| Failure::failed(e.to_string()))?)?;
    } else {
        let reason = "the trained model gives outputs that are not finite".to_string();
        record.outcome = Outcome::Diverged { reason };
    }
    Ok(inference)
}

/// The run's directory, locked: a new one, or that of a run to resume.
fn directory(place: &Path, experiment: &Experiment, resolved: &str) -> Result<RunDir, RunDirError> {
    if place.join(run_dir::RECIPE).is_file() {
        return RunDir::resume(place);
    }
    let dir = RunDir::create_over(place)?;
    dir.write_json(run_dir::PREPROCESSING, &experiment.data.preprocessing)?;
    dir.write(run_dir::RECIPE, resolved.as_bytes())?;
    Ok(dir)
}

/// Takes away what a damaged entry has, so that it is begun anew.
fn clear(dir: &RunDir) -> Result<(), Failure> {
    for name in [RECORD, MODEL, LOGITS, METRICS, ATTEMPTS] {
        let path = dir.file(name);
        if path.is_file() {
            fs::remove_file(&path).map_err(|e| unwritten(path, e))?;
        }
    }
    remove_checkpoints(dir)
}

fn unwritten(path: PathBuf, source: std::io::Error) -> Failure {
    RunDirError::Write { path, source }.into()
}

fn remove_checkpoints(dir: &RunDir) -> Result<(), Failure> {
    let folder = dir.file(run_dir::CHECKPOINTS);
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|e| unwritten(path, e))?;
    }
    Ok(())
}

/// What the attempts at a run cost, kept in its folder: a killed attempt is charged too.
struct Ledger {
    attempts: Vec<Attempt>,
    begun: Instant,
    meter: Option<Meter>,
}

impl Ledger {
    /// The energy of a GPU is not counted, and that of the processor is not all then.
    fn open(dir: &RunDir, threads: usize, on_gpu: bool) -> Result<Ledger, Failure> {
        let mut attempts: Vec<Attempt> = dir.read_json(ATTEMPTS).unwrap_or_default();
        if let Some(killed) = attempts.last_mut().filter(|a| a.seconds.is_none()) {
            // The last sign of life is the last line of its log.
            let last = fs::metadata(dir.file(METRICS)).and_then(|m| m.modified());
            let last = last.ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            killed.seconds = Some((last.as_secs_f64() - killed.began).max(0.0));
        }
        attempts.push(Attempt { began: now(), seconds: None, threads, joules: None });
        dir.write_json(ATTEMPTS, &attempts)?;
        let meter = if on_gpu { None } else { Meter::start() };
        Ok(Ledger { attempts, begun: Instant::now(), meter })
    }

    /// Ends this attempt, and sums up all. The energy of `sharing` runs side by side is shared
    /// alike.
    fn close(&mut self, dir: &RunDir, sharing: usize) -> Result<Spent, Failure> {
        if let Some(own) = self.attempts.last_mut() {
            own.seconds = Some(self.begun.elapsed().as_secs_f64());
            own.joules = self.meter.as_ref().and_then(Meter::joules).map(|j| j / sharing as f64);
        }
        dir.write_json(ATTEMPTS, &self.attempts)?;
        let of = |a: &Attempt| {
            let wall_seconds = a.seconds.unwrap_or(0.0);
            Spent { wall_seconds, core_seconds: wall_seconds * a.threads as f64, joules: a.joules }
        };
        let zero = Spent { joules: Some(0.0), ..Spent::default() };
        Ok(self.attempts.iter().map(of).fold(zero, Spent::plus))
    }
}

/// Logits of the test data, the labels of their rows, and what they took.
fn measured(
    session: &mut Session<'_>,
    experiment: &Experiment,
) -> Result<(Vec<f32>, Vec<u32>, Inference), Failure> {
    let (part, batch) = (&experiment.data.test, experiment.evaluation_batch());
    let samples = measured_samples(experiment);
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    let mut evaluate = |x: HostSlice<'_>, y: &[i32]| session.evaluate(x, y);
    let time = pass::over(&mut evaluate, part, &samples, batch, &mut |evaluation, own| {
        values.extend_from_slice(&evaluation.logits);
        labels.extend(own.iter().map(|&l| l as u32));
    })?;
    let seconds = time.as_secs_f64();
    Ok((values, labels, Inference { samples: samples.len(), seconds }))
}
