//! All of a run at one moment, copied out of the engine: what is written to a checkpoint's folder,
//! and read from there.
//!
//! | file | what |
//! |---|---|
//! | `model.safetensors` | weights and running statistics, under their names in the model |
//! | `optimiser.safetensors` | moments, counters, the loss scaler, moving averages |
//! | `averaged.safetensors` | the model with its weights' moving averages in their place, where they are kept |
//! | `state.json` | [`RunState`] |
//! | `precision.json` | [`PrecisionManifest`] |
//! | `manifest.json` | length and SHA-256 of the others |

use std::io;
use std::path::Path;
use std::sync::Arc;

use halfstep_graph::engine::HostTensor;
use halfstep_graph::{Slot, SlotKind};
use serde::{Deserialize, Serialize};

use super::checksums::{Checksums, MANIFEST};
use super::precision::{PrecisionManifest, ScaleChange};
use super::tensors::{self, Tensor};
use super::{KEY, Manifest, belongs_to_model};
use crate::files::{Files, UNFINISHED};
use crate::metrics::EvaluationMetrics;
use crate::run_dir::{AVERAGED, MODEL, pretty};
use crate::run_log::LogPosition;
use crate::schedule::Schedule;
use crate::session::{Progress, Session, TrainError};
use crate::step::AVERAGE;

/// Moments, counters and the loss scaler in the folder of a checkpoint.
pub const OPTIMISER: &str = "optimiser.safetensors";
/// Everything that is not a tensor.
pub const STATE: &str = "state.json";
/// The formats.
pub const PRECISION: &str = "precision.json";

/// What a run must know to go on, besides its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Version of the program.
    pub version: String,
    /// The engine it computed with: another one may round differently.
    pub engine: String,
    /// Precision policy.
    pub policy: String,
    /// Seed of the run.
    pub seed: u64,
    /// Counts.
    pub progress: Progress,
    /// Where in the data the next step begins.
    pub data: DataPosition,
    /// Where the random numbers stand.
    pub random: RandomState,
    /// Where the learning rate stands.
    pub schedule: SchedulePosition,
    /// How far `metrics.jsonl` had come.
    pub log: LogPosition,
    /// The evaluation of just this state, if there was one.
    pub evaluation: Option<EvaluationMetrics>,
    /// Seconds that the run had taken.
    pub wall_seconds: f64,
}

/// Where in the data the next step begins: order and augmentation follow from seed and epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPosition {
    /// SHA-256 of all samples.
    pub fingerprint: String,
    /// Epoch, counted from 0.
    pub epoch: u64,
    /// Batch in the epoch, counted from 0.
    pub batch: u64,
}

/// All random numbers are functions of the seed, the attempt, and what they are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RandomState {
    /// `philox4x32-10`.
    pub generator: String,
    /// The key.
    pub seed: u64,
    /// The attempt that the next step's draws are keyed by.
    pub attempt: u64,
}

/// The learning rate's schedule, and how far it has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchedulePosition {
    /// The schedule.
    pub schedule: Schedule,
    /// Steps it has counted: those that changed the model.
    pub committed: u64,
    /// Steps of the run.
    pub total: u64,
}

/// All of a run at one moment, in memory.
pub(crate) struct Snapshot {
    tensors: Vec<(Slot, HostTensor)>,
    manifest: Manifest,
    pub state: RunState,
    precision: Arc<PrecisionManifest>,
    history: Vec<ScaleChange>,
}

/// The file that a slot is saved in.
pub(crate) fn file_of(kind: SlotKind) -> &'static str {
    if belongs_to_model(kind) { MODEL } else { OPTIMISER }
}

/// The name of the checkpoint after so many attempts.
pub fn name_of(attempts: u64) -> String {
    format!("step-{attempts:06}")
}

/// The attempts after which a checkpoint of this name was made.
pub fn attempts_of(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.parse().ok()
}

impl Snapshot {
    /// Copies the session's state. `precision` is the manifest of the run's first checkpoint.
    pub fn take(
        session: &Session<'_>,
        state: RunState,
        precision: Arc<PrecisionManifest>,
        history: Vec<ScaleChange>,
    ) -> Result<Snapshot, TrainError> {
        let copy = |slot: &Slot| Ok((slot.clone(), session.download(&slot.name)?));
        let tensors = session.lasting_slots().map(copy).collect::<Result<_, TrainError>>()?;
        Ok(Snapshot { tensors, manifest: Manifest::of(session), state, precision, history })
    }

    /// Writes it as `folder/step-NNNNNN`, whole or not at all: an unfinished folder, all of it
    /// flushed to the disk, then renamed. Returns its bytes.
    pub fn write(&self, files: &dyn Files, folder: &Path) -> io::Result<u64> {
        let name = name_of(self.state.progress.attempts);
        let unfinished = folder.join(format!("{UNFINISHED}{name}"));
        let result = self.write_to(files, folder, &unfinished, &folder.join(&name));
        if result.is_err() {
            // The disk may be full or gone: what cannot be removed now is removed when the run goes
            // on.
            let _ = files.remove_dir_all(&unfinished);
        }
        result
    }

    fn write_to(&self, files: &dyn Files, folder: &Path, unfinished: &Path, to: &Path) -> io::Result<u64> {
        if unfinished.exists() {
            files.remove_dir_all(unfinished)?;
        }
        files.create_dir(unfinished)?;
        let mut sums = Checksums::default();
        let about = serde_json::to_string(&self.manifest)?;
        let is_average = |slot: &Slot| slot.name.starts_with(AVERAGE);
        let averages = self.tensors.iter().any(|(slot, _)| is_average(slot));
        for file in [MODEL, OPTIMISER, AVERAGED].into_iter().filter(|f| *f != AVERAGED || averages) {
            let of_file = |kind| if file == AVERAGED { MODEL } else { file } == file_of(kind);
            let values_of = |at: &'_ Slot| {
                let average = format!("{AVERAGE}{}", at.name);
                self.tensors.iter().find(|(slot, _)| file == AVERAGED && slot.name == average)
            };
            let tensor = |(slot, values)| {
                let values = values_of(slot).map_or(values, |(_, average)| average);
                Tensor { name: &slot.name, shape: &slot.ty.shape, values }
            };
            let tensors: Vec<Tensor<'_>> = self
                .tensors
                .iter()
                .filter(|(slot, _)| of_file(slot.kind))
                .map(|(slot, values)| tensor((slot, values)))
                .collect();
            sums.write(files, unfinished, file, |out| tensors::write(out, &tensors, (KEY, &about)))?;
        }
        let mut precision = PrecisionManifest::clone(&self.precision);
        precision.loss_scaling.history.clone_from(&self.history);
        sums.write(files, unfinished, PRECISION, |out| out.write_all(&pretty(&precision)?))?;
        sums.write(files, unfinished, STATE, |out| out.write_all(&pretty(&self.state)?))?;
        let bytes = sums.bytes();
        // Its own checksum goes nowhere: a manifest that has changed no longer fits the files.
        Checksums::default().write(files, unfinished, MANIFEST, |out| out.write_all(&pretty(&sums)?))?;
        files.sync_dir(unfinished)?;
        if to.exists() {
            // From a run that went on from an earlier checkpoint, because this one was damaged.
            retire(files, folder, to)?;
        }
        files.rename(unfinished, to)?;
        files.sync_dir(folder)?;
        Ok(bytes)
    }
}

/// Removes the checkpoint at `path` in `folder`. It is renamed first: a folder that is half removed
/// is no checkpoint.
pub(crate) fn retire(files: &dyn Files, folder: &Path, path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let old = folder.join(format!("{UNFINISHED}old-{name}"));
    if old.exists() {
        files.remove_dir_all(&old)?;
    }
    files.rename(path, &old)?;
    files.remove_dir_all(&old)
}
