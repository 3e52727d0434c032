//! The precision manifest of a checkpoint: in which formats it was trained and is stored, and what
//! loss scaling did. `schema/precision-manifest.schema.json` describes it.

use halfstep_graph::precision::{Compute, GradientRounding, PlanEntry, Policy};
use halfstep_graph::{DType, MomentFormat, SlotKind, Split, WeightFormat};
use serde::{Deserialize, Serialize};

use crate::scaler::LossScale;
use crate::session::Session;

/// What `format` says.
pub const FORMAT: &str = "halfstep-precision-manifest";
/// The version of the schema.
pub const VERSION: u32 = 1;
/// The schema, in JSON Schema 2020-12.
pub const SCHEMA: &str = include_str!("../../schema/precision-manifest.schema.json");

/// The formats of a run, and of the tensors of one checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrecisionManifest {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// The program that wrote it, with its version.
    pub program: String,
    /// What was asked for.
    pub policy: Policy,
    /// What that means for most values; `values` has them all.
    pub formats: Formats,
    /// Loss scaling.
    pub loss_scaling: LossScaling,
    /// The tensors of the checkpoint.
    pub tensors: Vec<StoredTensor>,
    /// Every value of the training step, with the reason for its formats.
    pub values: Vec<PlanEntry>,
}

/// The formats of a run in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formats {
    /// How activations, and the copies of weights that products read, are stored.
    pub storage: DType,
    /// What contractions multiply.
    pub compute: Compute,
    /// What contractions sum in.
    pub accumulation: DType,
    /// How weights are kept between steps and updated.
    pub master: DType,
    /// How the optimiser's averages are kept.
    pub moments: DType,
    /// How a value is rounded to a narrower format.
    pub rounding: Rounding,
}

/// How a value is rounded to a narrower format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// To the nearest value, of two equally near ones to that with an even last digit.
    NearestEven,
    /// To the nearest value, of two equally near ones to that farther from zero.
    NearestAway,
    /// Gradients that become codes, up or down by chance with an exact mean; all else to the
    /// nearest.
    Stochastic,
}

/// Loss scaling as asked for, and as it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScaling {
    /// The rule.
    pub recipe: LossScale,
    /// The scale of the first step, and of every step that had another than the step before.
    pub history: Vec<ScaleChange>,
}

/// A step from which on the loss scale was another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScaleChange {
    /// Steps tried before it.
    pub attempt: u64,
    /// The scale.
    pub scale: f32,
}

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTensor {
    /// Its name in the file.
    pub name: String,
    /// The file.
    pub file: String,
    /// What it is, as the schema lists: `weight`, which is the master copy, `moment`, `scaler` and
    /// so on.
    pub kind: String,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// How it is stored in the file.
    pub storage: DType,
}

fn kind_of(kind: SlotKind) -> &'static str {
    match kind {
        SlotKind::Weight { .. } => "weight",
        SlotKind::Moment => "moment",
        SlotKind::Compensation => "compensation",
        SlotKind::Statistic => "statistic",
        SlotKind::Scaler => "scaler",
        SlotKind::Scale => "scale",
        SlotKind::Counter => "counter",
    }
}

impl PrecisionManifest {
    /// The manifest of a checkpoint of `session`; `file` names the file a slot is saved in.
    pub fn of(
        session: &Session<'_>,
        history: &[ScaleChange],
        file: impl Fn(SlotKind) -> &'static str,
    ) -> Self {
        let slots: Vec<&halfstep_graph::Slot> = session.lasting_slots().collect();
        let low = session.policy().low.unwrap_or(DType::F32);
        let state = session.policy().state;
        let stored = |slot: &halfstep_graph::Slot| StoredTensor {
            name: slot.name.clone(),
            file: file(slot.kind).into(),
            kind: kind_of(slot.kind).into(),
            shape: slot.ty.shape.to_vec(),
            // Floating-point values leave an engine as f32, and are saved as they come.
            storage: if slot.ty.dtype.is_float() { DType::F32 } else { DType::I32 },
        };
        PrecisionManifest {
            format: FORMAT.into(),
            version: VERSION,
            program: format!("halfstep {}", env!("CARGO_PKG_VERSION")),
            policy: session.policy().clone(),
            formats: Formats {
                storage: low,
                compute: match (session.policy().split, session.policy().narrow) {
                    (Some(split), _) => Compute::Split(split),
                    (None, Some(narrow)) => Compute::Codes(narrow.forward),
                    (None, None) => Compute::Format(low),
                },
                accumulation: DType::F32,
                master: if state.weights == WeightFormat::F32 { DType::F32 } else { DType::Bf16 },
                moments: match state.moments {
                    MomentFormat::F32 => DType::F32,
                    MomentFormat::Bf16 => DType::Bf16,
                    MomentFormat::Int8 => DType::U8,
                },
                rounding: match (session.policy().narrow.map(|n| n.rounding), session.policy().split) {
                    (Some(GradientRounding::Stochastic), _) => Rounding::Stochastic,
                    (_, Some(Split::Tf32)) => Rounding::NearestAway,
                    (Some(GradientRounding::Nearest) | None, _) => Rounding::NearestEven,
                },
            },
            loss_scaling: LossScaling { recipe: session.spec().scaling.clone(), history: history.to_vec() },
            tensors: slots.iter().map(|slot| stored(slot)).collect(),
            values: session.precision().entries.clone(),
        }
    }
}
