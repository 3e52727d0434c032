//! The sections of a recipe that are neither data, model, optimiser nor schedule.

use halfstep_graph::ByteSize;
use halfstep_graph::precision::{Override, Policy, PolicyError};
use serde::{Deserialize, Serialize};

use crate::scaler::LossScale;

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many passes over the train data.
    Epochs(u64),
    /// So many steps.
    Steps(u64),
}

/// The `[train]` section.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "TrainTable")]
pub struct TrainSettings {
    /// `epochs` or `steps`.
    pub length: Length,
    /// `batch`: samples in a step.
    pub batch: usize,
    /// `clip`: largest global norm of the gradients; absent, they are left as they are.
    pub clip: Option<f64>,
    /// `skip_limit`: skipped steps in a row, at the lowest loss scale, that end the run as diverged.
    pub skip_limit: u32,
    /// `evaluate_every`: steps between evaluations; absent, about a dozen times in a run.
    pub evaluate_every: Option<u64>,
    /// `memory_budget`: bytes that the engine may hold for a training step, such as `"512 MiB"`; activations are computed
    /// again to keep within it. Absent, nothing is.
    pub memory_budget: Option<ByteSize>,
}

/// `[train]` as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainTable {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    pub batch: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    #[serde(default = "default_skip_limit")]
    pub skip_limit: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_budget: Option<ByteSize>,
}

fn default_skip_limit() -> u32 {
    25
}

impl From<TrainSettings> for TrainTable {
    fn from(s: TrainSettings) -> TrainTable {
        let (epochs, steps) = match s.length {
            Length::Epochs(n) => (Some(n), None),
            Length::Steps(n) => (None, Some(n)),
        };
        TrainTable {
            epochs,
            steps,
            batch: s.batch,
            clip: s.clip,
            skip_limit: s.skip_limit,
            evaluate_every: s.evaluate_every,
            memory_budget: s.memory_budget,
        }
    }
}

/// The `[precision]` section.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrecisionSettings {
    /// `policy`: what `train` uses.
    pub policy: String,
    /// `policies`: what `compare` sets side by side.
    pub policies: Vec<String>,
    /// `loss_scale`: in place of what a policy with a low format would use by default. Policies that store f32 are
    /// never scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// `overrides`: exceptions by name pattern, for every policy but `fp32`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
}

impl Default for PrecisionSettings {
    fn default() -> PrecisionSettings {
        PrecisionSettings {
            policy: "bf16".into(),
            policies: Policy::USUAL.map(String::from).to_vec(),
            loss_scale: None,
            overrides: Vec::new(),
        }
    }
}

impl PrecisionSettings {
    /// The named policy with this section's overrides, and its loss scaling.
    ///
    /// Errors: no policy has that name.
    pub fn resolve(&self, name: &str) -> Result<(Policy, LossScale), PolicyError> {
        let mut policy = Policy::named(name)?;
        if policy.low.is_some() || policy.split.is_some() {
            policy.overrides = self.overrides.clone();
        }
        // Gradients stored in f32 need no scaling.
        if policy.low.is_none() {
            return Ok((policy, LossScale::Off));
        }
        let scaling = self.loss_scale.clone().unwrap_or_else(|| LossScale::for_policy(&policy));
        Ok((policy, scaling))
    }
}

/// `[precision]` as written, without `loss_scale`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PrecisionTable {
    pub policy: String,
    pub policies: Vec<String>,
    pub overrides: Vec<Override>,
    /// Read apart, because its keys depend on its kind.
    pub loss_scale: Option<()>,
}

impl Default for PrecisionTable {
    fn default() -> PrecisionTable {
        let PrecisionSettings { policy, policies, overrides, .. } = PrecisionSettings::default();
        PrecisionTable { policy, policies, overrides, loss_scale: None }
    }
}

/// The `[compare]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompareSettings {
    /// How many seeds; they are `seed`, `seed + 1` and so on, the same for every precision.
    pub seeds: u64,
    /// Loss of test accuracy, as a fraction, below which a precision counts as good enough. Stated before the runs.
    pub margin: f64,
    /// The policy that the others are measured against.
    pub reference: String,
}

impl Default for CompareSettings {
    fn default() -> CompareSettings {
        CompareSettings { seeds: 3, margin: 0.01, reference: "fp32".into() }
    }
}
