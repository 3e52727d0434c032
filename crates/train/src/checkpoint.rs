//! Checkpoints: safetensors files of slots by name, and what is needed to use them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use halfstep_graph::engine::{HostSlice, HostTensor};
use halfstep_graph::precision::Policy;
use halfstep_graph::{DType, SlotKind};
use halfstep_nn::InputSpec;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::run_dir::{RunDirError, write_whole};
use crate::session::{Progress, Session, TrainError};

/// The key of our entry in the file's metadata. One entry only: safetensors writes several in no fixed order, and the
/// same run must give the same bytes.
const KEY: &str = "halfstep";

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the program that wrote it.
    pub version: String,
    /// The precision policy it was trained under, with overrides. Weights are stored as f32 master copies.
    pub policy: Policy,
    /// The form of a sample.
    pub input: InputSpec,
    /// Seed of the run.
    pub seed: u64,
    /// Counts of the run.
    pub progress: Progress,
}

/// Which slots to save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Weights and running statistics: enough to use the model.
    Model,
    /// All state: enough to go on training.
    Everything,
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
}

/// Saves slots of a session, whole or not at all.
///
/// Errors: the file cannot be written.
pub fn save(session: &Session<'_>, path: &Path, contents: Contents) -> Result<(), CheckpointError> {
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for slot in session.slots() {
        if contents == Contents::Model && !belongs_to_model(slot.kind) {
            continue;
        }
        let shape: Vec<usize> = slot.ty.shape.to_vec();
        let (dtype, bytes) = match session.download(&slot.name)? {
            HostTensor::F32(x) => (Dtype::F32, x.iter().flat_map(|v| v.to_le_bytes()).collect()),
            HostTensor::I32(x) => (Dtype::I32, x.iter().flat_map(|v| v.to_le_bytes()).collect()),
        };
        tensors.push((slot.name.clone(), dtype, shape, bytes));
    }
    let manifest = Manifest {
        version: env!("CARGO_PKG_VERSION").to_string(),
        policy: session.policy().clone(),
        input: session.input().clone(),
        seed: session.spec().seed,
        progress: session.progress(),
    };
    let unwritable = |reason: String| RunDirError::Damaged { path: path.to_path_buf(), reason };
    let json = serde_json::to_string(&manifest).map_err(|e| unwritable(e.to_string()))?;
    let mut views = Vec::new();
    for (name, dtype, shape, bytes) in &tensors {
        let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(|e| unwritable(e.to_string()))?;
        views.push((name, view));
    }
    let metadata = Some(HashMap::from([(KEY.to_string(), json)]));
    let bytes = safetensors::serialize(views, metadata).map_err(|e| unwritable(e.to_string()))?;
    Ok(write_whole(path, &bytes)?)
}

/// The manifest of a checkpoint.
///
/// Errors: the file cannot be read, or was not written by this program.
pub fn manifest(path: &Path) -> Result<Manifest, CheckpointError> {
    let bytes = read(path)?;
    let damaged = |reason: String| RunDirError::Damaged { path: path.to_path_buf(), reason };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(e.to_string()))?;
    let json = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
    let json = json.ok_or_else(|| damaged(format!("it has no `{KEY}` entry in its metadata")))?;
    Ok(serde_json::from_str(json).map_err(|e| damaged(e.to_string()))?)
}

/// Puts a checkpoint's values into the slots of a session. Slots the file lacks stay as they are, unless they belong to
/// the model.
///
/// Errors: the file cannot be read; a slot is missing or has another shape; the file has a tensor the model lacks.
pub fn load(session: &mut Session<'_>, path: &Path) -> Result<(), CheckpointError> {
    let bytes = read(path)?;
    let damaged = |reason: String| RunDirError::Damaged { path: path.to_path_buf(), reason };
    let misfit = |reason: String| CheckpointError::Misfit { path: path.to_path_buf(), reason };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
    let slots = session.slots().to_vec();
    if let Some(name) = file.names().into_iter().find(|n| !slots.iter().any(|s| s.name == **n)) {
        return Err(misfit(format!("it has a tensor `{name}`, the model has not")));
    }
    let mut values = Vec::new();
    for slot in &slots {
        let Ok(tensor) = file.tensor(&slot.name) else {
            if belongs_to_model(slot.kind) {
                return Err(misfit(format!("it has no tensor `{}`", slot.name)));
            }
            continue;
        };
        let shape: Vec<usize> = slot.ty.shape.to_vec();
        let expected = if slot.ty.dtype == DType::I32 { Dtype::I32 } else { Dtype::F32 };
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
        values.push((&slot.name, value));
    }
    // Only once everything is known to fit.
    for (name, value) in &values {
        session.upload(name, value.as_slice())?;
    }
    Ok(())
}

fn belongs_to_model(kind: SlotKind) -> bool {
    matches!(kind, SlotKind::Weight { .. } | SlotKind::Statistic)
}

fn read(path: &Path) -> Result<Vec<u8>, RunDirError> {
    std::fs::read(path).map_err(|source| RunDirError::Read { path: path.to_path_buf(), source })
}

/// Input values as an engine takes them.
pub fn host_slice(x: &halfstep_data::BatchX) -> HostSlice<'_> {
    match x {
        halfstep_data::BatchX::F32 { data, .. } => HostSlice::F32(data),
        halfstep_data::BatchX::Tokens { data, .. } => HostSlice::I32(data),
    }
}
