//! How models of several precisions bear what they were not trained on: what was measured, as it is
//! written to `robustness.json`. `docs/robustness.md` says how each is measured.

use serde::Serialize;

use crate::assessment::{GroupFlips, MetricRow};
use crate::group_table::GroupLine;
use crate::measures::LayerDivergence;
use crate::measures::corruption::{CorruptionKind, SEVERITIES};
use crate::statements::RobustnessStatement;
use crate::stats::{Paired, Verdict, mean_sd};

/// A trained model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelName {
    /// The precision it was trained in.
    pub precision: String,
    /// The seed.
    pub seed: u64,
}

/// One number per seed of one precision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByPrecision {
    /// The precision of training, in which the model also runs unless it is said otherwise.
    pub precision: String,
    /// Seeds, in the order of the values.
    pub seeds: Vec<u64>,
    /// A value per seed.
    pub values: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their sample standard deviation; none for one.
    pub sd: Option<f64>,
    /// This − baseline, over the seeds that both have; none of the baseline itself.
    pub difference: Option<Paired>,
}

/// One measure in every precision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// What is measured.
    pub measure: String,
    /// Whether it is a share, written in per cent.
    pub share: bool,
    /// One entry per precision, the baseline first.
    pub precisions: Vec<ByPrecision>,
}

impl Series {
    /// Values of models, by precision in order of appearance. Precisions without a value are left
    /// out.
    pub fn new(
        measure: impl Into<String>,
        share: bool,
        models: &[ModelName],
        values: &[f64],
        baseline: &str,
    ) -> Series {
        let names = distinct([baseline].into_iter().chain(models.iter().map(|m| m.precision.as_str())));
        let of = |name: &str| -> Vec<(u64, f64)> {
            models
                .iter()
                .zip(values)
                .filter(|(m, _)| m.precision == name)
                .map(|(m, &v)| (m.seed, v))
                .collect()
        };
        let reference = of(baseline);
        let entry = |name: &&str| {
            let own = of(name);
            let pairs: Vec<(f64, f64)> = own
                .iter()
                .filter_map(|(seed, v)| Some((reference.iter().find(|(s, _)| s == seed)?.1, *v)))
                .collect();
            let (seeds, values): (Vec<u64>, Vec<f64>) = own.into_iter().unzip();
            let (mean, sd) = mean_sd(&values)?;
            let difference = Paired::of(&pairs).filter(|_| *name != baseline);
            Some(ByPrecision { precision: name.to_string(), seeds, values, mean, sd, difference })
        };
        Series { measure: measure.into(), share, precisions: names.iter().filter_map(entry).collect() }
    }
}

/// Names in order of appearance, each once.
pub fn distinct<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// The same weights computed in one precision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Served {
    /// The precision they were trained in.
    pub trained: String,
    /// The precision they are computed in here.
    pub served: String,
    /// Models.
    pub seeds: usize,
    /// Mean accuracy over them.
    pub accuracy: f64,
    /// Mean negative log-likelihood.
    pub nll: f64,
    /// Share of answers that differ from those in the precision of training: flips that the change
    /// of precision alone causes.
    pub flips: f64,
    /// Share of right answers in the precision of training that are wrong here.
    pub negative_flips: f64,
    /// Mean KL from the probabilities in the precision of training, in nats.
    pub kl: f64,
}

/// One part of a model, in one precision against fp32.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// Its name in the graph.
    pub name: String,
    /// How far its values are from those of fp32.
    #[serde(flatten)]
    pub divergence: LayerDivergence,
}

/// The parts of a model in one precision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layers {
    /// The precision the weights were trained in.
    pub trained: String,
    /// The seed.
    pub seed: u64,
    /// The precision that is compared with fp32.
    pub served: String,
    /// In the order of the program.
    pub layers: Vec<Layer>,
}

/// The same weights under every precision plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mismatch {
    /// One row per precision of training and of computing.
    pub served: Vec<Served>,
    /// Samples that layers were compared on.
    pub layer_samples: usize,
    /// Layer by layer, of the first seed of each precision.
    pub layers: Vec<Layers>,
}

/// Telling foreign samples from own ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Foreign {
    /// Where the foreign samples are from.
    pub partner: String,
    /// Own test samples.
    pub own: usize,
    /// Foreign samples.
    pub foreign: usize,
    /// Train samples that the feature space was fitted on.
    pub fitted_on: usize,
    /// AUROC, AUPR and FPR at 95 % of maximum softmax, energy and Mahalanobis distance.
    pub series: Vec<Series>,
}

/// The errors of a model under corruption.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CorruptionErrors {
    /// The model.
    #[serde(flatten)]
    pub model: ModelName,
    /// Error on clean images.
    pub clean: f64,
    /// Error of each corruption, in the order of [`Corruptions::kinds`], at each severity.
    pub errors: Vec<[f64; SEVERITIES]>,
}

/// Corruption curves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Corruptions {
    /// Images.
    pub samples: usize,
    /// Which corruptions.
    pub kinds: Vec<CorruptionKind>,
    /// Errors of each model.
    pub models: Vec<CorruptionErrors>,
    /// Mean error over corruptions and severities.
    pub mean_error: Series,
    /// mCE relative to the baseline of the same seed; 1 is the baseline.
    pub mce: Series,
    /// The same of what corruption adds to the clean error.
    pub relative_mce: Option<Series>,
}

/// One rung of the ladder.
#[derive(Clone, Debug, Serialize)]
pub struct Rung {
    /// The format of the weights.
    pub format: &'static str,
    /// How they are scaled and rounded.
    pub how: &'static str,
    /// Bits that a matrix element takes, scales included.
    pub bits: f64,
    /// Mean accuracy with f32 weights.
    pub reference: f64,
    /// Mean accuracy here.
    pub accuracy: f64,
    /// Share of answers that differ from those with f32 weights.
    pub flips: f64,
    /// Whether the models are as good as with f32 weights, each judged by its examples: pass if all
    /// pass, fail if one fails.
    pub verdict: Verdict,
    /// What each model's verdict rests on.
    pub rows: Vec<Vec<MetricRow>>,
}

/// Trained weights stored in ever smaller formats.
#[derive(Clone, Debug, Serialize)]
pub struct Ladder {
    /// The precision of training.
    pub trained: String,
    /// Models.
    pub seeds: usize,
    /// From the widest format to the narrowest.
    pub rungs: Vec<Rung>,
}

/// Attacks on images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attacks {
    /// Images attacked.
    pub samples: usize,
    /// Greatest change of a pixel in 0 to 1.
    pub epsilon: f64,
    /// Steps of the projected gradient method.
    pub steps: usize,
    /// Queries of the Square attack for each image.
    pub queries: usize,
    /// Accuracy that is left under each attack, and under all of them.
    pub series: Vec<Series>,
    /// Share of images whose gradient of the cross-entropy is zero in every pixel, in f32 and in
    /// the model's precision.
    pub zero_gradients: Vec<Series>,
    /// Share of pixels whose gradient is zero, likewise.
    pub zero_pixels: Vec<Series>,
}

/// Answers on images with the trigger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TriggerRow {
    /// The precision of training.
    pub trained: String,
    /// The precision of computing, or the format of the weights.
    pub served: String,
    /// Models.
    pub seeds: usize,
    /// Share of triggered images of other classes that are taken for the target class.
    pub attack_success: f64,
    /// The same share without the trigger.
    pub without_trigger: f64,
}

/// Behaviour on trigger inputs at every precision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Triggered {
    /// The patch in words.
    pub trigger: String,
    /// The target class.
    pub target: String,
    /// Images.
    pub samples: usize,
    /// One row per precision and format.
    pub rows: Vec<TriggerRow>,
}

/// A model that was poisoned on purpose, and one trained after the suspects were removed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Backdoor {
    /// The trigger, in words.
    pub trigger: String,
    /// The target class.
    pub target: String,
    /// Train samples that were given the trigger and the target class.
    pub poisoned: usize,
    /// Train samples.
    pub train_samples: usize,
    /// Accuracy on clean test images of the poisoned model.
    pub accuracy: f64,
    /// Its behaviour at every precision and on every rung.
    pub before: Vec<TriggerRow>,
    /// Samples removed by their spectral signatures.
    pub removed: usize,
    /// Poisoned ones among them.
    pub removed_poisoned: usize,
    /// Accuracy on clean test images after training again.
    pub accuracy_after: f64,
    /// Behaviour after training again.
    pub after: Vec<TriggerRow>,
    /// Seconds to train once.
    pub train_seconds: f64,
    /// Seconds that the mitigation took: scores and training again.
    pub mitigation_seconds: f64,
}

/// Groups of a candidate against the baseline.
#[derive(Clone, Debug, Serialize)]
pub struct GroupComparison {
    /// The candidate's precision.
    pub candidate: String,
    /// Accuracy by group, with its verdict.
    pub rows: Vec<MetricRow>,
    /// Negative flips by group, the worst first.
    pub flips: Vec<GroupFlips>,
    /// Calibration by group.
    pub calibration: Vec<GroupLine>,
    /// How far the groups of each column lie apart.
    pub gaps: Vec<GroupLine>,
}

/// A measure that means nothing for these data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotApplicable {
    /// The measure.
    pub measure: &'static str,
    /// Why.
    pub reason: String,
}

/// All that was measured; what was not asked for is absent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Robustness {
    /// Version of the program.
    pub version: String,
    /// The model, in words.
    pub model: String,
    /// The data, in words.
    pub data: String,
    /// The precision that the others are set against.
    pub baseline: String,
    /// The models.
    pub models: Vec<ModelName>,
    /// What this comes to, in sentences.
    pub findings: Vec<RobustnessStatement>,
    /// What means nothing for these data.
    pub not_applicable: Vec<NotApplicable>,
    /// The same weights in every precision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<Mismatch>,
    /// Groups, one entry per candidate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupComparison>,
    /// Weights in smaller formats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ladder: Option<Ladder>,
    /// Foreign samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Foreign>,
    /// Corruption curves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corruptions: Option<Corruptions>,
    /// Attacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attacks: Option<Attacks>,
    /// Trigger inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triggered: Option<Triggered>,
    /// A planted backdoor and its mitigation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backdoor: Option<Backdoor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_pair_by_seed() {
        let model = |precision: &str, seed| ModelName { precision: precision.into(), seed };
        let models =
            [model("bf16", 1), model("fp32", 0), model("bf16", 0), model("fp32", 1), model("fp16", 7)];
        let s = Series::new("m", true, &models, &[0.5, 0.75, 0.25, 1.0, 0.0], "fp32");
        let names: Vec<&str> = s.precisions.iter().map(|p| p.precision.as_str()).collect();
        assert_eq!(names, ["fp32", "bf16", "fp16"]);
        assert_eq!((s.precisions[0].mean, s.precisions[0].difference), (0.875, None));
        let difference = s.precisions[1].difference.unwrap();
        assert_eq!((difference.pairs, difference.mean), (2, -0.5));
        assert_eq!(s.precisions[2].difference, None, "no seed in common");
    }
}
