//! The sections of a recipe that are neither data, model, optimiser nor schedule.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use halfstep_graph::ByteSize;
use halfstep_graph::precision::{Override, Policy, PolicyError};
use serde::{Deserialize, Serialize};

use super::policy::PolicySettings;
use crate::scaler::LossScale;
use crate::setting::{SettingError, require};
use crate::step_options::{ParameterGroup, Reduce, StepOptions};

/// Share of the train samples that are set aside to choose by, if the recipe does not say.
pub const VALIDATION_FRACTION: f64 = 0.1;

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// So many passes over the train data.
    Epochs(u64),
    /// So many steps.
    Steps(u64),
}

impl Length {
    /// What recipes call it.
    pub fn key(self) -> &'static str {
        match self {
            Length::Epochs(_) => "epochs",
            Length::Steps(_) => "steps",
        }
    }

    /// Steps of a run with so many in an epoch.
    pub fn steps(self, per_epoch: u64) -> u64 {
        match self {
            Length::Epochs(n) => n.saturating_mul(per_epoch),
            Length::Steps(n) => n,
        }
    }
}

/// The `[train]` section.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainSettings {
    /// `epochs` or `steps`.
    #[serde(flatten)]
    pub length: Length,
    /// `batch`: samples in a step.
    pub batch: usize,
    /// `clip`: largest global norm of the gradients; absent, they are left as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// `skip_limit`: skipped steps in a row, at the lowest loss scale, that end the run as
    /// diverged.
    pub skip_limit: u32,
    /// `evaluate_every`: steps between evaluations; absent, about a dozen times in a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<u64>,
    /// `memory_budget`: bytes that the engine may hold for a training step, such as `"512 MiB"`;
    /// activations are computed again to keep within it. Absent, nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_budget: Option<ByteSize>,
    /// `patience`: evaluations in a row without a better one, by the metric of `[checkpoint]`, that
    /// end the run early.
    pub patience: Option<u64>,
    /// `validation_fraction`: share of the train samples that are set aside to choose by, where
    /// something is chosen: by `patience`, or by `keep_best` of `[checkpoint]`. Absent, nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_fraction: Option<f64>,
    /// `accumulate`, `ema`, `groups` and `reduce`.
    #[serde(flatten)]
    pub options: StepOptions,
}

/// `[train]` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainTable {
    pub epochs: Option<u64>,
    pub steps: Option<u64>,
    pub batch: usize,
    pub clip: Option<f64>,
    pub skip_limit: Option<u32>,
    pub evaluate_every: Option<u64>,
    pub memory_budget: Option<ByteSize>,
    pub patience: Option<u64>,
    pub validation_fraction: Option<f64>,
    pub accumulate: Option<usize>,
    pub ema: Option<f64>,
    #[serde(default)]
    pub groups: Vec<ParameterGroup>,
    #[serde(default)]
    pub reduce: Reduce,
}

/// What makes one checkpoint better than another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BestBy {
    /// A lower loss on the validation data.
    #[default]
    Loss,
    /// A higher accuracy on the validation data.
    Accuracy,
}

/// The `[checkpoint]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Steps between checkpoints; absent, one after every evaluation, unless the last is still
    /// being written.
    pub every: Option<u64>,
    /// A checkpoint is made also when the last is older than so many minutes.
    pub minutes: f64,
    /// How many of the latest are kept.
    pub keep_last: usize,
    /// How many of the best are kept besides: by validation data, which are set aside for that.
    /// Absent, 1 where there are such data for another reason, else 0.
    pub keep_best: Option<usize>,
    /// What is best.
    pub metric: BestBy,
}

impl Default for CheckpointSettings {
    fn default() -> CheckpointSettings {
        CheckpointSettings { every: None, minutes: 10.0, keep_last: 2, keep_best: None, metric: BestBy::Loss }
    }
}

impl CheckpointSettings {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        require(self.every != Some(0), "every", 0, "at least 1")?;
        require(self.minutes > 0.0, "minutes", self.minutes, "a number above 0")?;
        require(self.keep_last > 0, "keep_last", self.keep_last, "at least 1")
    }
}

/// The `[doctor]` section: how closely a run's numbers are watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoctorSettings {
    /// Steps between samples of the range of every value; 0 takes none. A sample holds the memory
    /// of a second program, so none is taken under a `memory_budget`.
    pub every: u64,
    /// Skipped steps in a row after which the last one is diagnosed.
    pub skips: u32,
}

impl Default for DoctorSettings {
    fn default() -> DoctorSettings {
        DoctorSettings { every: 500, skips: 4 }
    }
}

impl DoctorSettings {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        require(self.skips > 0, "skips", self.skips, "at least 1")
    }
}

/// The `[track]` section: trackers that a run is sent to. It decides nothing of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrackSettings {
    /// Whether an event file for TensorBoard is written.
    pub tensorboard: bool,
    /// URL of an MLflow server.
    pub mlflow: Option<String>,
    /// The experiment that the run belongs to there; absent, it has the recipe's name.
    pub experiment: Option<String>,
    /// URL of an OpenTelemetry collector that takes OTLP over HTTP.
    pub otlp: Option<String>,
}

impl Default for TrackSettings {
    fn default() -> TrackSettings {
        TrackSettings { tensorboard: true, mlflow: None, experiment: None, otlp: None }
    }
}

impl TrackSettings {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// What is no URL, or one with a password, which would be written to the run directory.
    pub fn validate(&self) -> Result<(), SettingError> {
        for (field, url) in [("mlflow", &self.mlflow), ("otlp", &self.otlp)] {
            if let Some(url) = url {
                check_url(field, url)?;
            }
        }
        require(self.experiment.as_deref() != Some(""), "experiment", "\"\"", "a name")
    }
}

/// Whether a tracker can be reached at such a URL.
///
/// # Errors
/// It is not `http://` or `https://`, or holds a password.
pub fn check_url(field: &'static str, url: &str) -> Result<(), SettingError> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let good = !host.is_empty() && !url.contains(char::is_whitespace);
    require(good, field, format!("\"{url}\""), "a URL such as \"http://127.0.0.1:5000\"")?;
    let expected = "a URL without a name or password; those belong in the environment";
    require(!host.contains('@'), field, "a URL with a name", expected)
}

/// The `[precision]` section.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrecisionSettings {
    /// `policy`: what `train` uses.
    pub policy: String,
    /// `policies`: what `compare` sets side by side.
    pub policies: Vec<String>,
    /// `loss_scale`: in place of what a policy with a low format would use by default. Policies
    /// that store f32 are never scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// `overrides`: exceptions by name pattern, for every policy but `fp32`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// `[precision.fp8]`, `[precision.bf16]` and so on: settings of one policy, by its name.
    #[serde(flatten)]
    pub of_policies: BTreeMap<String, PolicySettings>,
}

impl Default for PrecisionSettings {
    fn default() -> PrecisionSettings {
        PrecisionSettings {
            policy: "bf16".into(),
            policies: Policy::USUAL.map(String::from).to_vec(),
            loss_scale: None,
            overrides: Vec::new(),
            of_policies: BTreeMap::new(),
        }
    }
}

impl PrecisionSettings {
    /// The named policy with this section's overrides, and its loss scaling.
    ///
    /// # Errors
    /// No policy has that name.
    pub fn resolve(&self, name: &str) -> Result<(Policy, LossScale), PolicyError> {
        let mut policy = Policy::named(name)?;
        if let Some(settings) = self.of_policies.get(name) {
            // They were checked when the recipe was read.
            policy = settings.apply(policy.clone()).unwrap_or(policy);
        }
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

/// `[precision]` as written, without the sections in it.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PrecisionTable {
    pub policy: Option<String>,
    pub policies: Option<Vec<String>>,
    pub overrides: Vec<Override>,
    /// Read apart, because its keys depend on its kind.
    pub loss_scale: Option<()>,
    /// Read apart, to point at what is wrong in them.
    pub fp32: Option<()>,
    pub bf16: Option<()>,
    pub fp16: Option<()>,
    pub tf32: Option<()>,
    pub bf16x3: Option<()>,
    pub bf16x6: Option<()>,
    pub fp8: Option<()>,
    #[serde(rename = "fp8-current")]
    pub fp8_current: Option<()>,
    #[serde(rename = "fp8-block")]
    pub fp8_block: Option<()>,
    pub mxfp8: Option<()>,
    pub mxfp4: Option<()>,
    pub nvfp4: Option<()>,
}

/// A margin as recipes write it: a number in the metric's unit, or text such as `"1.0pt"`, `"2%"`
/// or `"off"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MarginText {
    /// In the metric's own unit.
    Number(f64),
    /// With a unit, or `off`.
    Text(String),
}

impl std::fmt::Display for MarginText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MarginText::Number(x) => write!(f, "{x}"),
            MarginText::Text(text) => f.write_str(text),
        }
    }
}

/// The `[compare]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompareSettings {
    /// How many seeds; they are `seed`, `seed + 1` and so on, the same for every precision.
    pub seeds: u64,
    /// Loss of test accuracy, as a fraction, below which a precision counts as good enough. Stated
    /// before the runs.
    pub margin: f64,
    /// The policy that the others are measured against.
    pub reference: String,
    /// Margins of other metrics, by name, in place of their defaults; `"off"` takes one out of the
    /// verdict.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub margins: BTreeMap<String, MarginText>,
    /// The greatest accepted chance that a run diverges; absent, divergence is reported and does
    /// not gate.
    pub max_divergence: Option<f64>,
    /// Of what the verdict speaks.
    pub claim: ClaimSetting,
    /// How often the comparison is judged, with more seeds each time, before one answer counts: α
    /// is divided over the looks.
    pub looks: NonZeroU32,
    /// Groups that must be judged, as `column=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Better by more than a margin fails too.
    pub equivalence: bool,
    /// Chance to pass, without any difference, that numbers of seeds are planned for.
    pub power: f64,
}

/// Of what a verdict speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClaimSetting {
    /// Of other seeds on other examples like those of the test set.
    Examples,
    /// Of other seeds on the samples of the test set.
    Samples,
}

impl Default for CompareSettings {
    fn default() -> CompareSettings {
        CompareSettings {
            seeds: 3,
            margin: 0.01,
            reference: "fp32".into(),
            margins: BTreeMap::new(),
            max_divergence: None,
            claim: ClaimSetting::Examples,
            looks: NonZeroU32::MIN,
            groups: Vec::new(),
            equivalence: false,
            power: 0.8,
        }
    }
}

impl CompareSettings {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        let inside = |x: f64, least: f64| x > least && x < 1.0;
        require((1..=10_000).contains(&self.seeds), "seeds", self.seeds, "a count from 1 to 10000")?;
        let expected = "a fraction of accuracy between 0 and 1, such as 0.01";
        require(inside(self.margin, 0.0), "margin", self.margin, expected)?;
        let most = self.max_divergence.unwrap_or(0.5);
        require(inside(most, 0.0), "max_divergence", most, "a share between 0 and 1, such as 0.05")?;
        let expected = "a chance above 0.05 and below 1, such as 0.8";
        require(inside(self.power, 0.05), "power", self.power, expected)
    }
}

/// The `[cost]` section: what the cost of runs is reckoned from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CostSettings {
    /// Price of a core for an hour; absent, no price is reckoned.
    pub rate_per_core_hour: Option<f64>,
    /// What the price is in.
    pub currency: String,
    /// Power of a busy core with its share of the machine, in watts: assumed where the processor
    /// does not count its energy.
    pub watts_per_core: f64,
    /// Carbon dioxide of a kilowatt-hour, in grams: an assumption about the grid.
    pub grams_co2_per_kwh: f64,
}

impl Default for CostSettings {
    fn default() -> CostSettings {
        CostSettings {
            rate_per_core_hour: None,
            currency: "USD".into(),
            watts_per_core: 10.0,
            grams_co2_per_kwh: 475.0,
        }
    }
}

impl CostSettings {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        let amount = |x: f64| x >= 0.0 && x.is_finite();
        let expected = "a number of at least 0";
        let rate = self.rate_per_core_hour.unwrap_or(0.0);
        require(amount(rate), "rate_per_core_hour", rate, expected)?;
        require(amount(self.watts_per_core), "watts_per_core", self.watts_per_core, expected)?;
        require(amount(self.grams_co2_per_kwh), "grams_co2_per_kwh", self.grams_co2_per_kwh, expected)
    }
}
