//! Checkpoints: safetensors files of slots by name, and what is needed to use them or to resume a
//! run.
//!
//! Two forms: one file with the model, made by [`save`]; and a folder with all of a run, made while
//! it trains by [`Checkpoints`] and found again by [`Latest::find`].

mod checksums;
mod header;
mod keeper;
pub mod precision;
mod seal;
mod snapshot;
mod tensors;

use std::path::{Path, PathBuf};

use halfstep_graph::engine::{HostSlice, HostTensor, State};
use halfstep_graph::precision::{COMPENSATION, Policy};
use halfstep_graph::{Slot, SlotKind};
use halfstep_nn::InputSpec;
use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

pub use checksums::{Checksums, MANIFEST};
pub use header::{open_safetensors, refuse_duplicates};
pub use keeper::{CheckpointEvent, CheckpointStats, Checkpoints, Latest, Rejected};
pub use snapshot::{
    DataPosition, OPTIMISER, PRECISION, RandomState, RunState, STATE, SchedulePosition, attempts_of, name_of,
};

use crate::init::left_over;
use crate::run_dir::{self, RunDirError, write_whole};
use crate::session::{Progress, Session, TrainError};
use crate::step::AVERAGE;

/// The key of our entry in the file's metadata. One entry only: safetensors writes several in no
/// fixed order, and the same run must give the same bytes.
pub(crate) const KEY: &str = "halfstep";

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the program that wrote it.
    pub version: String,
    /// The precision policy it was trained under, with overrides. Weights are stored as f32 master
    /// copies.
    pub policy: Policy,
    /// The form of a sample.
    pub input: InputSpec,
    /// Seed of the run.
    pub seed: u64,
    /// Counts of the run.
    pub progress: Progress,
    /// Of a file outside the folder of a checkpoint, whose manifest has its checksum: the SHA-256
    /// of the file with zeros in place of these digits. Older versions wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Manifest {
    fn of(session: &Session<'_>) -> Manifest {
        Manifest {
            version: env!("CARGO_PKG_VERSION").to_string(),
            policy: session.policy().clone(),
            input: session.input().clone(),
            seed: session.spec().seed,
            progress: session.progress(),
            sha256: None,
        }
    }
}

/// Why a checkpoint cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] RunDirError),
    /// The engine did not give or take a slot.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The file does not fit the model.
    #[error("{}: does not fit the model of the recipe: {reason}", path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// A checkpoint's checksums do not hold, or its parts do not fit each other.
    #[error("{}: damaged: {reason}; choose another checkpoint", path.display())]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A checkpoint of a run of something else.
    #[error("{}: cannot be resumed: {reason}", path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
}

/// Saves the model of a session, as [`serialised`], whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn save(session: &Session<'_>, path: &Path) -> Result<(), CheckpointError> {
    Ok(write_whole(path, &serialised(session, path)?)?)
}

/// Weights, as their moving averages where those are kept, and running statistics, enough to use
/// the model, as a safetensors file, which is to be written to `path`.
///
/// # Errors
/// The engine did not give a slot.
pub fn serialised(session: &Session<'_>, path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let mut values: Vec<(&Slot, HostTensor)> = Vec::new();
    for slot in session.lasting_slots().filter(|slot| belongs_to_model(slot.kind)) {
        values.push((slot, session.download_averaged(&slot.name)?));
    }
    let tensors: Vec<tensors::Tensor<'_>> = values
        .iter()
        .map(|(slot, values)| tensors::Tensor { name: &slot.name, shape: &slot.ty.shape, values })
        .collect();
    let mut bytes = Vec::new();
    serde_json::to_string(&Manifest { sha256: Some(seal::ZEROS.into()), ..Manifest::of(session) })
        .map_err(std::io::Error::from)
        .and_then(|about| tensors::write(&mut bytes, &tensors, (KEY, &about)))
        .map_err(run_dir::failed(path))?;
    seal::set(&mut bytes);
    Ok(bytes)
}

/// The manifest of a checkpoint.
///
/// # Errors
/// The file cannot be read, or was not written by this program.
pub fn manifest(path: &Path) -> Result<Manifest, CheckpointError> {
    let bytes = read(path)?;
    let damaged = run_dir::damaged(path);
    let manifest = own_manifest(&bytes).map_err(&damaged)?;
    Ok(manifest.ok_or_else(|| damaged(format!("it has no `{KEY}` entry in its metadata")))?)
}

/// The manifest in a safetensors file; none where another program wrote it.
fn own_manifest(bytes: &[u8]) -> Result<Option<Manifest>, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let json = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
    json.map(|json| serde_json::from_str(json).map_err(|e| format!("its `{KEY}` entry makes no sense: {e}")))
        .transpose()
}

/// Puts a checkpoint's values into the slots of a session. Slots the file lacks stay as they are,
/// unless they belong to the model. A file in the folder of a checkpoint is compared with its
/// checksum first.
///
/// # Errors
/// The file cannot be read or is damaged; a slot is missing or has another shape; the file has a
/// tensor the model lacks.
pub fn load(session: &mut Session<'_>, path: &Path) -> Result<(), CheckpointError> {
    let slots = session.slots().to_vec();
    let values = model_values(&slots, path)?;
    put(session.state_mut(), &values)
}

/// The values that a checkpoint has of these slots, which belong to a model or are of its training:
/// those must all be there, these need not.
pub(crate) fn model_values<'s>(
    slots: &'s [Slot],
    path: &Path,
) -> Result<Vec<(&'s Slot, HostTensor)>, CheckpointError> {
    let bytes = read(path)?;
    values_of(slots, path, &[(path, &bytes)], |slot| belongs_to_model(slot.kind))
}

/// What files have of these slots. `path` stands for all of them in messages; slots of a kind that
/// is `needed` must be there.
fn values_of<'s>(
    slots: &'s [Slot],
    path: &Path,
    files: &[(&Path, &[u8])],
    needed: fn(&Slot) -> bool,
) -> Result<Vec<(&'s Slot, HostTensor)>, CheckpointError> {
    let misfit = |reason: String| CheckpointError::Misfit { path: path.to_path_buf(), reason };
    let mut found = std::collections::HashMap::new();
    for (path, bytes) in files {
        let damaged = run_dir::damaged(path);
        let file = open_safetensors(bytes).map_err(damaged)?;
        found.extend(file.tensors());
    }
    let mut values = Vec::new();
    for slot in slots {
        let Some(tensor) = found.remove(&slot.name) else {
            if needed(slot) {
                return Err(misfit(format!("it has no tensor `{}`", slot.name)));
            }
            continue;
        };
        let shape: Vec<usize> = slot.ty.shape.to_vec();
        let expected = if slot.ty.dtype.is_float() { Dtype::F32 } else { Dtype::I32 };
        if tensor.shape() != shape || tensor.dtype() != expected {
            let (found, kind) = (tensor.shape(), tensor.dtype());
            let reason =
                format!("`{}` is {kind:?} {found:?} in the file, expected {expected:?} {shape:?}", slot.name);
            return Err(misfit(reason));
        }
        let words = tensor.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        let value = match expected {
            Dtype::I32 => HostTensor::I32(words.map(i32::from_le_bytes).collect()),
            _ => HostTensor::F32(words.map(f32::from_le_bytes).collect()),
        };
        values.push((slot, value));
    }
    if let Some(name) = found.keys().min() {
        return Err(misfit(format!("it has a tensor `{name}`, the model has not")));
    }
    Ok(values)
}

/// Puts values into slots. A moving average that has none begins anew at its weight, and so does a
/// weight's compensation.
pub(crate) fn put(state: &mut State, values: &[(&Slot, HostTensor)]) -> Result<(), CheckpointError> {
    let upload = |state: &mut State, name: &str, values: HostSlice<'_>| {
        state.upload(name, values).map_err(TrainError::from)
    };
    for (slot, value) in values {
        upload(state, &slot.name, value.as_slice())?;
    }
    for slot in state.slots().to_vec() {
        let there = values.iter().any(|(s, _)| s.name == slot.name);
        if let (Some(weight), false) = (slot.name.strip_prefix(AVERAGE), there) {
            let value = state.download(weight).map_err(TrainError::from)?;
            upload(state, &slot.name, value.as_slice())?;
        }
        let compensated = slot.name.strip_prefix(COMPENSATION).filter(|_| !there);
        let weight = values.iter().find(|(s, _)| compensated == Some(s.name.as_str()));
        if let Some((_, weight)) = weight {
            upload(state, &slot.name, HostSlice::F32(&left_over(weight.f32())))?;
        }
    }
    Ok(())
}

pub(crate) fn belongs_to_model(kind: SlotKind) -> bool {
    matches!(kind, SlotKind::Weight { .. } | SlotKind::Statistic)
}

/// The bytes of a file, which are compared with its checksum: in the folder of a checkpoint that of
/// the folder's manifest, else the file's own if this program wrote it.
///
/// # Errors
/// It cannot be read, or is damaged.
pub fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    if let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
        && folder.join(MANIFEST).is_file()
    {
        let damaged = |reason| CheckpointError::Damaged { path: folder.to_path_buf(), reason };
        let sums = Checksums::read(folder).map_err(damaged)?;
        return sums.read_file(folder, name).map_err(damaged);
    }
    let bytes = run_dir::read(path)?;
    seal::check(&bytes).map_err(run_dir::damaged(path))?;
    Ok(bytes)
}

/// Input values as an engine takes them.
pub fn host_slice(x: &halfstep_data::BatchX) -> HostSlice<'_> {
    match x {
        halfstep_data::BatchX::F32 { data, .. } => HostSlice::F32(data),
        halfstep_data::BatchX::Tokens { data, .. } => HostSlice::I32(data),
    }
}
