//! The run directory of `train`: begun, or resumed from its latest checkpoint.

use std::path::{Path, PathBuf};

use halfstep::graph::engine::EngineError;

use halfstep::train::checkpoint::Latest;
use halfstep::train::run_dir::{self, RunDir, RunDirError, RunInfo};
use halfstep::train::run_log::{Lines, LogPosition};
use halfstep::train::session::{Progress, TrainError};
use halfstep::train::train_loop::RunError;

use super::Training;
use super::request::{Destination, Resumed};
use crate::cli::failure::Failure;
use crate::cli::open::FINAL;
use crate::cli::output::Messages;
use crate::cli::{memory, new_run, output};

/// The weights of `--from`.
pub struct InitialWeights<'a> {
    /// The run or the file that they are from.
    pub path: &'a Path,
    /// As a safetensors file.
    pub bytes: Vec<u8>,
}

/// The files of a run that is about to train.
pub struct RunFiles {
    /// Its directory.
    pub dir: RunDir,
    /// Its log of metrics, open at its end.
    pub lines: Lines,
    /// The checkpoint to resume from.
    pub latest: Option<Latest>,
}

impl RunFiles {
    /// Begins the run or resumes it, as `destination` says.
    pub fn open(
        destination: Destination,
        training: &Training<'_>,
        initial: Option<&InitialWeights<'_>>,
        messages: Messages,
    ) -> Result<RunFiles, Failure> {
        match destination {
            Destination::New(out) => {
                let name = &training.experiment.recipe.name;
                begin(training, initial, || new_run::create_run_dir(out.as_ref(), name))
            }
            Destination::Over(out) => begin(training, initial, || RunDir::create_over(&out)),
            Destination::Resume(resumed) => resume(training, *resumed, messages),
        }
    }

    /// How far the run has come.
    pub fn progress(&self) -> Progress {
        self.latest.as_ref().map_or(Progress::default(), |l| l.state.progress)
    }

    /// The file of the weights that the run begins with, if they are not drawn at random.
    pub fn start(&self) -> Result<Option<PathBuf>, Failure> {
        let info: RunInfo = self.dir.read_json(run_dir::RUN)?;
        Ok(info.from.is_some().then(|| self.dir.checkpoint(run_dir::START)))
    }
}

fn begin(
    training: &Training<'_>,
    initial: Option<&InitialWeights<'_>>,
    make: impl FnOnce() -> Result<RunDir, RunDirError>,
) -> Result<RunFiles, Failure> {
    let info = RunInfo {
        command: "train".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        from: initial.map(|weights| weights.path.display().to_string()),
    };
    let make = || {
        let dir = make()?;
        if let Some(weights) = initial {
            let file = format!("{}/{}.safetensors", run_dir::CHECKPOINTS, run_dir::START);
            dir.write(&file, &weights.bytes)?;
        }
        Ok(dir)
    };
    let policies = std::slice::from_ref(training.policy);
    let (dir, lines) = new_run::begin(training.experiment, training.engine, policies, Some(info), make)?;
    Ok(RunFiles { dir, lines, latest: None })
}

fn resume(training: &Training<'_>, resumed: Resumed, messages: Messages) -> Result<RunFiles, Failure> {
    memory::check(training.experiment, training.engine, std::slice::from_ref(training.policy), true)?;
    let Resumed { dir, latest, rejected } = resumed;
    for bad in rejected {
        output::warning(format!("the checkpoint {} cannot be used: {}", bad.name, bad.reason));
    }
    let run = dir.path().display();
    let position = match &latest {
        Some(latest) => {
            messages.say(&format!("Resuming {run} from its checkpoint {}.", latest.name));
            warn_of_changes(training, latest);
            latest.state.log.clone()
        }
        None => {
            messages.say(&format!("{run} has no checkpoint yet: it starts at its first step."));
            LogPosition::default()
        }
    };
    let lines = Lines::resume(dir.files(), &dir.file(run_dir::METRICS), &position)?;
    // The model of an earlier stop: until the run ends again, the latest checkpoint is the model to
    // use.
    let earlier = dir.checkpoint(FINAL);
    if earlier.is_file() {
        dir.files()
            .remove_file(&earlier)
            .map_err(|e| Failure::failed(format!("{}: {e}", earlier.display())))?;
    }
    Ok(RunFiles { dir, lines, latest })
}

/// Why a run ended, and where it resumes from if it is the device that failed: what was on it is
/// gone.
pub fn failed(error: RunError, dir: &RunDir) -> Failure {
    if !matches!(error, RunError::Train(TrainError::Engine(EngineError::Device { .. }))) {
        return error.into();
    }
    let resume = format!("`halfstep train --resume {}`", output::quoted(dir.path()));
    let help = match Latest::find(dir).0 {
        Some(latest) => format!("{resume} resumes from the checkpoint {}", latest.name),
        None => format!("there is no checkpoint yet: {resume} starts at the first step"),
    };
    Failure::from(error).with_help(&help)
}

/// Warns if the checkpoint was made by another engine or version.
fn warn_of_changes(training: &Training<'_>, latest: &Latest) {
    let state = &latest.state;
    for (what, was, is) in [
        ("engine", state.engine.as_str(), training.engine.name().as_str()),
        ("version", &state.version, env!("CARGO_PKG_VERSION")),
    ] {
        if without_threads(was) != without_threads(is) {
            output::warning(format!(
                "the {what} was {was} and is {is} now: from here on, the last bits of results may differ"
            ));
        }
    }
}

/// An engine's name less its number of threads, which no result depends on.
fn without_threads(name: &str) -> &str {
    name.split(", ").next().unwrap_or(name)
}
