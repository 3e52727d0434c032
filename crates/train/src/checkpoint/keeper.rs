//! Checkpoints of a run while it trains: when, written by a thread beside it, kept by policy; and
//! the latest that is good.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::precision::{PrecisionManifest, ScaleChange};
use super::snapshot::{OPTIMISER, RunState, STATE, Snapshot, attempts_of, file_of, name_of, retire};
use super::{CheckpointError, Checksums, put, values_of};
use crate::metrics::EvaluationMetrics;
use crate::recipe::{BestBy, CheckpointSettings};
use crate::run_dir::{CHECKPOINTS, METRICS, MODEL, RunDir, RunDirError};
use crate::session::{Session, TrainError};
use crate::step::is_lasting;

/// What became of a checkpoint.
#[derive(Debug)]
pub enum CheckpointEvent {
    /// It is on the disk.
    Written {
        /// Its name.
        name: String,
        /// Bytes of its files.
        bytes: u64,
        /// Time it took, beside training.
        time: Duration,
    },
    /// It could not be written. Those before it are as they were, and the run goes on.
    Failed {
        /// Its name.
        name: String,
        /// The reason.
        error: RunDirError,
    },
}

/// What the checkpoints of a run cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CheckpointStats {
    /// Checkpoints written.
    pub written: u64,
    /// Checkpoints that could not be written.
    pub failed: u64,
    /// Bytes of a copy of the run's state: the memory that a checkpoint needs until it is written.
    pub snapshot_bytes: usize,
    /// Time that training stood still for these copies.
    pub copying: Duration,
    /// Time that training stood still because the checkpoint before was still being written.
    pub waiting: Duration,
    /// Time spent writing, beside training.
    pub writing: Duration,
}

/// A checkpoint that is kept, and what it is worth.
#[derive(Clone, Debug)]
struct Kept {
    attempts: u64,
    evaluation: Option<EvaluationMetrics>,
}

/// Makes the checkpoints of a run in its directory.
///
/// The step stands still only while its state is copied; a thread writes the copy. There is one
/// copy at a time: if the disk is slower than the checkpoints come, training waits for it.
pub struct Checkpoints {
    settings: CheckpointSettings,
    /// Where the run's log is.
    pub(crate) log: PathBuf,
    jobs: Option<SyncSender<Snapshot>>,
    done: Receiver<CheckpointEvent>,
    thread: Option<JoinHandle<()>>,
    in_flight: bool,
    last: Option<u64>,
    last_time: Instant,
    best: Option<EvaluationMetrics>,
    precision: Option<Arc<PrecisionManifest>>,
    events: Vec<CheckpointEvent>,
    stats: CheckpointStats,
}

impl Checkpoints {
    /// Begins to keep checkpoints in `dir`, of a new run or of one that goes on from `resume`: then
    /// those before it count.
    pub fn new(dir: &RunDir, settings: &CheckpointSettings, resume: Option<&Latest>) -> Checkpoints {
        let folder = dir.file(CHECKPOINTS);
        let last = resume.map(|latest| latest.state.progress.attempts);
        let kept: Vec<Kept> = names(&folder)
            .into_iter()
            .filter(|&attempts| last.is_some_and(|last| attempts <= last))
            .filter_map(|attempts| {
                let folder = folder.join(name_of(attempts));
                let state = Checksums::read(&folder).ok()?.read_file(&folder, STATE).ok()?;
                let state: RunState = serde_json::from_slice(&state).ok()?;
                Some(Kept { attempts, evaluation: state.evaluation })
            })
            .collect();
        let by = settings.metric;
        let best = kept.iter().filter_map(|k| k.evaluation.clone()).min_by(|a, b| by.compare(a, b));
        let (jobs, work) = sync_channel::<Snapshot>(1);
        let (report, done) = sync_channel(2);
        let (dir, log) = (dir.clone(), dir.file(METRICS));
        let writer = Writer { dir, kept, settings: settings.clone() };
        let thread = std::thread::spawn(move || writer.work(&work, &report));
        Checkpoints {
            settings: settings.clone(),
            log,
            jobs: Some(jobs),
            done,
            thread: Some(thread),
            in_flight: false,
            last,
            last_time: Instant::now(),
            best,
            precision: None,
            events: Vec::new(),
            stats: CheckpointStats::default(),
        }
    }

    /// Whether a checkpoint is to be made after `attempts`; `evaluation` is that of this state, if
    /// there was one.
    pub(crate) fn due(&mut self, attempts: u64, evaluation: Option<&EvaluationMetrics>) -> bool {
        if attempts == 0 || self.last == Some(attempts) {
            return false;
        }
        let better = |e: &&EvaluationMetrics| {
            self.best.as_ref().is_none_or(|best| self.settings.metric.compare(e, best) == Ordering::Less)
        };
        let is_best = evaluation.filter(better).cloned();
        let wanted = match self.settings.every {
            Some(every) => {
                attempts.is_multiple_of(every)
                    || (is_best.is_some() && self.settings.keep_best.unwrap_or(0) > 0)
            }
            // Training does not wait for a slow disk unless the recipe says how often.
            None => evaluation.is_some() && !self.in_flight,
        };
        if is_best.is_some() {
            self.best = is_best;
        }
        wanted || self.last_time.elapsed().as_secs_f64() > self.settings.minutes * 60.0
    }

    /// Makes a checkpoint: copies the state now, and has it written.
    ///
    /// # Errors
    /// The engine did not give a slot; the writing thread is gone.
    pub(crate) fn take(
        &mut self,
        session: &Session<'_>,
        state: RunState,
        history: &[ScaleChange],
    ) -> Result<(), TrainError> {
        let begun = Instant::now();
        if self.in_flight {
            self.receive(true);
            self.stats.waiting += begun.elapsed();
        }
        let begun = Instant::now();
        let precision = self
            .precision
            .get_or_insert_with(|| Arc::new(PrecisionManifest::of(session, history, file_of)))
            .clone();
        let attempts = state.progress.attempts;
        let snapshot = Snapshot::take(session, state, precision, history.to_vec())?;
        self.stats.snapshot_bytes = session.snapshot_bytes();
        self.stats.copying += begun.elapsed();
        (self.last, self.last_time) = (Some(attempts), Instant::now());
        self.in_flight = self.jobs.as_ref().is_some_and(|jobs| jobs.send(snapshot).is_ok());
        if !self.in_flight {
            self.lost(name_of(attempts));
        }
        Ok(())
    }

    /// What became of checkpoints since the last time this was asked.
    pub(crate) fn news(&mut self) -> Vec<CheckpointEvent> {
        if self.in_flight {
            self.receive(false);
        }
        std::mem::take(&mut self.events)
    }

    fn receive(&mut self, wait: bool) {
        let event = if wait { self.done.recv().ok() } else { self.done.try_recv().ok() };
        match event {
            Some(event) => {
                match &event {
                    CheckpointEvent::Written { time, .. } => {
                        self.stats.written += 1;
                        self.stats.writing += *time;
                    }
                    CheckpointEvent::Failed { .. } => self.stats.failed += 1,
                }
                self.in_flight = false;
                self.events.push(event);
            }
            None if wait => {
                self.in_flight = false;
                self.lost(self.last.map(name_of).unwrap_or_default());
            }
            None => {}
        }
    }

    /// The writing thread is gone, which only a bug can cause: it is reported like any other
    /// failure.
    fn lost(&mut self, name: String) {
        let source = std::io::Error::other("the thread that writes checkpoints has ended");
        let path = self.log.with_file_name(CHECKPOINTS).join(&name);
        self.stats.failed += 1;
        self.events.push(CheckpointEvent::Failed { name, error: RunDirError::Write { path, source } });
    }

    /// Waits until the last checkpoint is written. Returns what became of those not yet told of.
    pub(crate) fn settle(&mut self) -> Vec<CheckpointEvent> {
        let begun = Instant::now();
        if self.in_flight {
            self.receive(true);
            self.stats.waiting += begun.elapsed();
        }
        std::mem::take(&mut self.events)
    }

    /// What they cost so far.
    pub fn stats(&self) -> CheckpointStats {
        self.stats
    }

    /// The attempts after which the last checkpoint was made, written or not.
    pub fn last(&self) -> Option<u64> {
        self.last
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        // Ends the thread's loop, after what it is writing.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    dir: RunDir,
    kept: Vec<Kept>,
    settings: CheckpointSettings,
}

impl Writer {
    fn work(mut self, jobs: &Receiver<Snapshot>, report: &SyncSender<CheckpointEvent>) {
        while let Ok(snapshot) = jobs.recv() {
            let name = name_of(snapshot.state.progress.attempts);
            let begun = Instant::now();
            let event = match self.write(&snapshot) {
                Ok(bytes) => CheckpointEvent::Written { name, bytes, time: begun.elapsed() },
                Err(error) => CheckpointEvent::Failed { name, error },
            };
            if report.send(event).is_err() {
                return;
            }
        }
    }

    fn write(&mut self, snapshot: &Snapshot) -> Result<u64, RunDirError> {
        let (files, folder) = (self.dir.files(), self.dir.file(CHECKPOINTS));
        // The log it refers to must be there for as long as the checkpoint is.
        let (log, state) = (self.dir.file(METRICS), &snapshot.state);
        if state.log.bytes > 0 {
            files.sync_file(&log).map_err(crate::run_dir::failed(&log))?;
        }
        let path = folder.join(name_of(state.progress.attempts));
        let bytes = snapshot.write(files, &folder).map_err(crate::run_dir::failed(&path))?;
        let attempts = state.progress.attempts;
        self.kept.retain(|k| k.attempts != attempts);
        self.kept.push(Kept { attempts, evaluation: state.evaluation.clone() });
        let keep = self.keep();
        self.kept.retain(|k| keep.contains(&k.attempts));
        // Also those that were damaged when the run went on, once it has come past them.
        for attempts in names(&folder).into_iter().filter(|a| *a < attempts && !keep.contains(a)) {
            let path = folder.join(name_of(attempts));
            retire(files, &folder, &path).map_err(crate::run_dir::failed(&path))?;
        }
        Ok(bytes)
    }

    /// Those that the policy keeps.
    fn keep(&self) -> Vec<u64> {
        let by = self.settings.metric;
        let last = self.kept.iter().rev().take(self.settings.keep_last).map(|k| k.attempts);
        let mut judged: Vec<(&EvaluationMetrics, u64)> =
            self.kept.iter().filter_map(|k| Some((k.evaluation.as_ref()?, k.attempts))).collect();
        // Of two equally good ones the earlier.
        judged.sort_by(|a, b| by.compare(a.0, b.0).then(a.1.cmp(&b.1)));
        let best = judged.iter().take(self.settings.keep_best.unwrap_or(0)).map(|&(_, attempts)| attempts);
        last.chain(best).collect()
    }
}

impl BestBy {
    /// Less if `a` is better than `b`. A loss that is not a number is the worst.
    pub(crate) fn compare(self, a: &EvaluationMetrics, b: &EvaluationMetrics) -> Ordering {
        let worst_if_nan = |x: f64| if x.is_nan() { f64::INFINITY } else { x };
        let (a, b) = (a.choosing(), b.choosing());
        match self {
            BestBy::Loss => worst_if_nan(a.loss).total_cmp(&worst_if_nan(b.loss)),
            BestBy::Accuracy => worst_if_nan(-a.accuracy).total_cmp(&worst_if_nan(-b.accuracy)),
        }
    }
}

/// The attempts of all checkpoints in a folder, in order.
fn names(folder: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<u64> = entries.filter_map(|e| attempts_of(e.file_name().to_str()?)).collect();
    names.sort_unstable();
    names
}

/// A checkpoint that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The latest checkpoint of a run that is whole and fits the run's log.
pub struct Latest {
    /// Its name.
    pub name: String,
    /// What it says of the run.
    pub state: RunState,
    path: PathBuf,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Latest {
    /// Looks for it from the latest backwards. Those that are damaged are named, latest first.
    pub fn find(dir: &RunDir) -> (Option<Latest>, Vec<Rejected>) {
        let (folder, log) = (dir.file(CHECKPOINTS), dir.file(METRICS));
        let mut rejected = Vec::new();
        for name in names(&folder).into_iter().rev().map(name_of) {
            let read = Latest::read(&folder, &name).and_then(|latest| {
                // The log must be as it was, or the run would not be the same.
                crate::run_log::events(&log, &latest.state.log).map_err(|e| e.to_string())?;
                Ok(latest)
            });
            match read {
                Ok(latest) => return (Some(latest), rejected),
                Err(reason) => rejected.push(Rejected { name, reason }),
            }
        }
        (None, rejected)
    }

    /// Reads a checkpoint and verifies it, or says in words what is wrong with it.
    fn read(folder: &Path, name: &str) -> Result<Latest, String> {
        let path = folder.join(name);
        let sums = Checksums::read(&path)?;
        let state = sums.read_file(&path, STATE)?;
        let state = serde_json::from_slice(&state).map_err(|e| format!("`{STATE}` makes no sense: {e}"))?;
        for name in sums.names().filter(|name| ![STATE, MODEL, OPTIMISER].contains(name)) {
            sums.read_file(&path, name)?;
        }
        let tensors = [MODEL, OPTIMISER].map(|name| Ok((path.join(name), sums.read_file(&path, name)?)));
        let files = tensors.into_iter().collect::<Result<_, String>>()?;
        Ok(Latest { name: name.to_string(), state, path, files })
    }

    /// Puts its tensors and counts into a session.
    ///
    /// # Errors
    /// A slot is missing or has another shape; it has a tensor the session lacks.
    pub fn restore(&self, session: &mut Session<'_>) -> Result<(), CheckpointError> {
        let files: Vec<(&Path, &[u8])> =
            self.files.iter().map(|(p, b)| (p.as_path(), b.as_slice())).collect();
        let slots = session.slots().to_vec();
        let values = values_of(&slots, &self.path, &files, is_lasting)?;
        put(session.state_mut(), &values)?;
        session.restore_progress(self.state.progress);
        Ok(())
    }

    /// An error of this checkpoint.
    pub(crate) fn of_other_run(&self, reason: String) -> CheckpointError {
        CheckpointError::OtherRun { path: PathBuf::from(&self.name), reason }
    }
}
