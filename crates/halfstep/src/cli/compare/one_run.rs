//! One run of a comparison: taken from the cache, gone on with, or begun.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use halfstep::data::{Batch, Draw};
use halfstep::evidence::logits::to_safetensors;
use halfstep::evidence::{Inference, RunResult, Spent, Way};
use halfstep::graph::engine::Engine;
use halfstep::train::checkpoint::{self, Checkpoints, Contents, Latest, host_slice};
use halfstep::train::metrics::{EvaluationMetrics, Outcome, RunRecord, RunningLoss};
use halfstep::train::recipe::{CheckpointSettings, Experiment};
use halfstep::train::run_dir::{self, METRICS, RunDir, RunDirError};
use halfstep::train::run_log::{Lines, LogPosition};
use halfstep::train::scaler::LossScale;
use halfstep::train::session::Session;
use halfstep::train::train_loop::{Keeping, RunError};
use indicatif::MultiProgress;
use serde::{Deserialize, Serialize};

use super::cache::{Cache, FORMAT, LOGITS, MODEL, RECORD, Stored, Sum};
use super::energy::Meter;
use crate::cli::failure::Failure;
use crate::cli::numerics::Numerics;
use crate::cli::progress::{Watcher, bar};
use crate::cli::{interrupt, machine};

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

/// A finished run from the cache; none where there is none. One that is damaged is told of and not used.
pub fn stored(cache: &Cache, task: &Task, say: &dyn Fn(&str)) -> Option<Obtained> {
    match cache.read(&task.id) {
        Ok(stored) => stored.map(|stored| obtained(cache, task, stored.run, true)),
        Err(damage) => {
            let place = cache.entry(&task.id);
            say(&format!("warning: {}: damaged, and made again: {damage}", place.display()));
            None
        }
    }
}

fn obtained(cache: &Cache, task: &Task, run: RunResult, cached: bool) -> Obtained {
    let result = RunResult { id: task.id.clone(), cached, ..run };
    Obtained { result, place: cache.entry(&task.id) }
}

/// Makes a run, from its latest checkpoint where there is one. Another process that makes the same is waited for.
pub fn make(
    cache: &Cache,
    experiment: &Experiment,
    engine: &dyn Engine,
    task: &Task,
    way: &Way,
    bars: &MultiProgress,
) -> Result<Obtained, Failure> {
    let place = cache.entry(&task.id);
    let dir = loop {
        match directory(&place, experiment) {
            Ok(dir) => break dir,
            Err(Opening::Busy) if !interrupt::asked() => std::thread::sleep(Duration::from_millis(200)),
            Err(Opening::Busy) => {
                return Err(Failure::failed("interrupted while another process made this run"));
            }
            Err(Opening::Failed(e)) => return Err(e),
        }
    };
    match cache.read(&task.id) {
        // Made while we waited.
        Ok(Some(stored)) => return Ok(obtained(cache, task, stored.run, true)),
        Ok(None) => {}
        Err(_) => clear(&dir)?,
    }
    let mut ledger = Ledger::open(&dir, way.threads)?;
    let (latest, _) = Latest::find(&dir);
    let position = latest.as_ref().map_or(LogPosition::default(), |l| l.state().log.clone());
    let mut lines = Lines::resume(dir.files(), &dir.file(METRICS), &position)?;
    let bar = bars.add(bar(&format!("{} seed {}", task.policy, task.seed), experiment.steps));
    let attempts = latest.as_ref().map_or(0, |l| l.state().progress.attempts);
    bar.set_position(attempts);
    let mut numerics = Numerics::new(&dir, &experiment.recipe.name, attempts)?;
    let mut evaluated =
        |_: &EvaluationMetrics, _: &Session<'_>, _: &indicatif::ProgressBar| Ok::<(), RunError>(());
    let mut watcher = Watcher {
        bar: bar.clone(),
        lines: &mut lines,
        policy: &task.policy,
        seed: task.seed,
        evaluated: &mut evaluated,
        running: RunningLoss::default(),
        numerics: &mut numerics,
    };
    let own = &experiment.recipe.checkpoint;
    // Only to go on from: no best ones, and none of runs that are done in a minute.
    let settings = CheckpointSettings {
        every: own.every.or(Some(u64::MAX)),
        minutes: own.minutes.min(MINUTES),
        keep_last: 1,
        keep_best: 0,
        metric: own.metric,
    };
    let alone = way.beside == 0;
    if alone {
        machine::reset_peak_rss();
    }
    let mut checkpoints = Checkpoints::new(&dir, &settings, latest.as_ref());
    let keeping = Keeping { checkpoints: Some(&mut checkpoints), resume: latest.as_ref(), start: None };
    let run = experiment.run_with(engine, &task.policy, task.seed, &mut watcher, keeping);
    drop(checkpoints);
    bar.finish_and_clear();
    let run = run?;
    let (mut session, mut record) = (run.session, run.record);
    // The log has been told of everything that the record has.
    drop(lines);
    let mut inference = None;
    if record.outcome == Outcome::Finished {
        let logits = Measured::of(&mut session, experiment)?;
        inference = Some(logits.inference);
        if logits.values.iter().all(|x| x.is_finite()) {
            let bytes = to_safetensors(&logits.values, experiment.info.outputs, &logits.labels, task.seed);
            dir.write(LOGITS, &bytes.map_err(|e| Failure::failed(e.to_string()))?)?;
        } else {
            let reason = "the trained model gives outputs that are not finite".to_string();
            record.outcome = Outcome::Diverged { reason };
        }
    }
    let spent = ledger.close(&dir, way.beside + 1)?;
    let result = RunResult {
        id: task.id.clone(),
        cached: false,
        scaled: session.spec().scaling != LossScale::Off,
        record: without_log(&record),
        peak_rss_bytes: if alone { machine::peak_rss_bytes() } else { None },
        way: way.clone(),
        spent,
        attempts: ledger.attempts.len(),
        inference,
        ended: now().as_secs(),
    };
    let mut stored = Stored { format: FORMAT, run: result, files: Default::default() };
    if record.outcome != Outcome::Interrupted {
        checkpoint::save(&session, &dir.file(MODEL), Contents::Model)?;
        for name in [MODEL, LOGITS, METRICS] {
            let path = dir.file(name);
            if path.is_file() {
                let sum = Sum::of(&path).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
                stored.files.insert(name.into(), sum);
            }
        }
        dir.write_json(RECORD, &stored)?;
        remove_checkpoints(&dir)?;
    }
    Ok(obtained(cache, task, RunResult { record, ..stored.run }, false))
}

enum Opening {
    Busy,
    Failed(Failure),
}

/// The run's directory, locked: made, or gone on with.
fn directory(place: &Path, experiment: &Experiment) -> Result<RunDir, Opening> {
    let failed = |e: RunDirError| match e {
        RunDirError::Busy { .. } => Opening::Busy,
        e => Opening::Failed(e.into()),
    };
    if place.join(run_dir::RECIPE).is_file() {
        return RunDir::resume(place).map_err(failed);
    }
    let resolved = experiment.recipe.resolved().map_err(|e| Opening::Failed(e.into()))?;
    let dir = RunDir::create_over(place).map_err(failed)?;
    dir.write_json(run_dir::PREPROCESSING, &experiment.data.preprocessing).map_err(failed)?;
    dir.write(run_dir::RECIPE, resolved.as_bytes()).map_err(failed)?;
    Ok(dir)
}

/// Takes away what a damaged entry has, so that it is begun anew.
fn clear(dir: &RunDir) -> Result<(), Failure> {
    for name in [RECORD, MODEL, LOGITS, METRICS, ATTEMPTS] {
        let path = dir.file(name);
        if path.is_file() {
            fs::remove_file(&path).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
        }
    }
    remove_checkpoints(dir)
}

fn remove_checkpoints(dir: &RunDir) -> Result<(), Failure> {
    let folder = dir.file(run_dir::CHECKPOINTS);
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
    }
    Ok(())
}

fn without_log(record: &RunRecord) -> RunRecord {
    RunRecord {
        losses: Vec::new(),
        step_ms: Vec::new(),
        evaluations: Vec::new(),
        skipped: 0,
        ..record.clone()
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What the attempts at a run cost, kept in its folder: a killed attempt is charged too.
struct Ledger {
    attempts: Vec<Attempt>,
    begun: Instant,
    meter: Option<Meter>,
}

impl Ledger {
    fn open(dir: &RunDir, threads: usize) -> Result<Ledger, Failure> {
        let mut attempts: Vec<Attempt> = dir.read_json(ATTEMPTS).unwrap_or_default();
        if let Some(killed) = attempts.last_mut().filter(|a| a.seconds.is_none()) {
            // The last sign of life is the last line of its log.
            let last = fs::metadata(dir.file(METRICS)).and_then(|m| m.modified());
            let last = last.ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            killed.seconds = Some((last.as_secs_f64() - killed.began).max(0.0));
        }
        attempts.push(Attempt { began: now().as_secs_f64(), seconds: None, threads, joules: None });
        dir.write_json(ATTEMPTS, &attempts)?;
        Ok(Ledger { attempts, begun: Instant::now(), meter: Meter::start() })
    }

    /// Ends this attempt, and sums up all. The energy of `sharing` runs side by side is shared alike.
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

/// Logits of the test data.
struct Measured {
    values: Vec<f32>,
    labels: Vec<u32>,
    inference: Inference,
}

impl Measured {
    fn of(session: &mut Session<'_>, experiment: &Experiment) -> Result<Measured, Failure> {
        let (part, batch) = (&experiment.data.test, experiment.evaluation_batch());
        let samples = measured_samples(experiment);
        let (per_sample, classes) = (experiment.info.input.labels_per_sample(), experiment.info.outputs);
        let mut buffers = Batch::new(part.input(), batch);
        let (mut values, mut labels, mut seconds) = (Vec::new(), Vec::new(), 0.0);
        let mut indices = vec![0; batch];
        for chunk in samples.chunks(batch) {
            // The last batch is filled up with its first sample, which is not counted again.
            indices.fill(chunk[0]);
            indices[..chunk.len()].copy_from_slice(chunk);
            part.fill_batch(&indices, Draw::AsIs, &mut buffers)?;
            let begun = Instant::now();
            let evaluation = session.evaluate(host_slice(&buffers.x), &buffers.labels)?;
            seconds += begun.elapsed().as_secs_f64();
            let rows = chunk.len() * per_sample;
            values.extend_from_slice(&evaluation.logits[..rows * classes]);
            labels.extend(buffers.labels[..rows].iter().map(|&l| l as u32));
        }
        Ok(Measured { values, labels, inference: Inference { samples: samples.len(), seconds } })
    }
}
