//! Is the reference worth comparing with? A candidate that is as good as a model that learned
//! nothing is not shown to be good.

use halfstep_train::metrics::{LossTrend, Outcome};
use serde::Serialize;

use crate::experiment::SeedMeasures;
use crate::model::ModelMeasures;
use crate::run::RunResult;
use crate::statements::{Models, StudyStatement, VerdictStatement};
use crate::stats::mean_sd;

/// The models of the reference beside the constant predictor: each must be shown better in at least
/// one of negative log-likelihood, balanced accuracy and AUROC, as
/// [`crate::measures::BesideConstant`] tests it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReferenceCheck {
    /// Models.
    pub models: usize,
    /// Those that are not shown better, by their names.
    pub not_shown_better: Vec<String>,
    /// Those whose loss is not finite.
    pub not_finite: usize,
    /// Those whose accuracy is not shown better than that of the most frequent label.
    pub accuracy_not_shown_better: usize,
    /// Means over the models, for the sentences.
    #[serde(skip)]
    means: Means,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Means {
    nll: f64,
    constant_nll: f64,
    balanced_accuracy: f64,
    constant_balanced_accuracy: f64,
    auroc: Option<f64>,
    accuracy: f64,
    majority: f64,
}

impl ReferenceCheck {
    /// Of the references of all pairs.
    pub fn of(seeds: &[SeedMeasures]) -> ReferenceCheck {
        let models: Vec<&ModelMeasures> = seeds.iter().map(|s| &s.reference).collect();
        let weak = models.iter().filter(|m| !m.beside_constant.shown_better);
        let mean = |f: &dyn Fn(&ModelMeasures) -> f64| {
            mean_sd(&models.iter().map(|m| f(m)).collect::<Vec<_>>()).map_or(f64::NAN, |m| m.0)
        };
        let areas: Vec<f64> = models.iter().filter_map(|m| Some(m.auroc?.value)).collect();
        ReferenceCheck {
            models: models.len(),
            not_shown_better: weak.map(|m| m.name.clone()).collect(),
            not_finite: models.iter().filter(|m| !m.quality.nll.is_finite()).count(),
            accuracy_not_shown_better: models
                .iter()
                .filter(|m| !m.beside_constant.is_accuracy_shown_better())
                .count(),
            means: Means {
                nll: mean(&|m| m.quality.nll),
                constant_nll: mean(&|m| m.beside_constant.constant_nll),
                balanced_accuracy: mean(&|m| m.classes.balanced_accuracy),
                constant_balanced_accuracy: mean(&|m| m.beside_constant.constant_balanced_accuracy),
                auroc: mean_sd(&areas).map(|m| m.0),
                accuracy: mean(&|m| m.quality.accuracy),
                majority: mean(&|m| m.classes.majority_accuracy),
            },
        }
    }

    /// Whether every model is shown better than the constant predictor.
    pub fn is_worth_comparing_with(&self) -> bool {
        self.not_shown_better.is_empty() && self.not_finite == 0
    }

    /// Why there is no verdict; none where the reference is worth comparing with. `reference` names
    /// it, such as `the baseline`.
    pub fn why_inconclusive(&self, reference: &str) -> Option<VerdictStatement> {
        if self.is_worth_comparing_with() {
            return None;
        }
        let reference = reference.to_string();
        if self.not_finite > 0 {
            return Some(VerdictStatement::ReferenceNotFinite { reference, of: self.among(self.not_finite) });
        }
        let m = &self.means;
        Some(VerdictStatement::ReferenceWorthless {
            reference,
            of: self.among(self.not_shown_better.len()),
            nll: m.nll,
            constant_nll: m.constant_nll,
            balanced_accuracy: m.balanced_accuracy,
            constant_balanced_accuracy: m.constant_balanced_accuracy,
            auroc: m.auroc,
        })
    }

    /// What limits a verdict that there is: accuracy that the most frequent label has too.
    pub fn caveat(&self, reference: &str) -> Option<VerdictStatement> {
        if self.accuracy_not_shown_better == 0 || !self.is_worth_comparing_with() {
            return None;
        }
        Some(VerdictStatement::ReferenceAccuracyOfMajority {
            reference: reference.to_string(),
            of: self.among(self.accuracy_not_shown_better),
            accuracy: self.means.accuracy,
            majority: self.means.majority,
        })
    }

    fn among(&self, count: usize) -> Models {
        Models { count, all: self.models }
    }
}

/// That the loss still fell when the finished runs of a policy, which is called `reference`, ended:
/// by [`LossTrend::is_falling`] of their mean. None where it had settled.
pub fn loss_still_falling(runs: &[RunResult], policy: &str, reference: &str) -> Option<StudyStatement> {
    let finished = |r: &&RunResult| r.record.policy == policy && r.record.outcome == Outcome::Finished;
    let trends: Vec<LossTrend> = runs.iter().filter(finished).filter_map(|r| r.record.loss_trend()).collect();
    let mean = LossTrend::mean(&trends).filter(LossTrend::is_falling)?;
    Some(StudyStatement::LossStillFalling {
        reference: reference.to_string(),
        runs: trends.len(),
        fell: -mean.change,
        steps: mean.steps as u64,
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::experiment::NoiseFloor;
    use crate::experiment::measure_seed;
    use crate::logits::InMemory;

    /// A reference of two classes, one sample in ten of the second, with logits by the label.
    fn check(models: &[fn(usize, u32) -> f32]) -> ReferenceCheck {
        ReferenceCheck::of(&measured(models))
    }

    fn measured(models: &[fn(usize, u32) -> f32]) -> Vec<SeedMeasures> {
        let labels: Vec<u32> = (0..400).map(|i| u32::from(i % 10 == 0)).collect();
        let measured = models.iter().enumerate().map(|(seed, logit)| {
            let logits = labels.iter().enumerate().flat_map(|(i, &l)| [0.0, logit(i, l)]).collect();
            let model = InMemory::new(format!("seed {seed}"), 2, logits, &labels);
            measure_seed(&model, &model, None, NoiseFloor::OtherSeed, NonZeroUsize::MIN).unwrap()
        });
        measured.collect()
    }

    #[test]
    fn a_constant_reference_gives_no_verdict_and_a_weak_one_a_caveat() {
        let constant = |_, _| -9f32.ln();
        let ranks = |_, l| -4.0 + 2.0 * l as f32;
        let good = |i: usize, l| (6.0 * l as f32 - 3.0) * if i % 50 == 3 { -1.0 } else { 1.0 };
        let c = check(&[good, good]);
        assert!(c.is_worth_comparing_with());
        assert_eq!((c.why_inconclusive("fp32"), c.caveat("fp32")), (None, None));
        let c = check(&[good, constant]);
        assert_eq!(c.not_shown_better, ["seed 1"]);
        let said = c.why_inconclusive("fp32").unwrap().to_string();
        assert!(said.contains("fp32 is not shown better than a constant predictor"), "{said}");
        assert!(said.contains("in 1 of its 2 models"), "{said}");
        // Never answers the rare class, but knows which samples are likelier to be of it.
        let c = check(&[ranks]);
        assert_eq!(c.why_inconclusive("the baseline"), None);
        let said = c.caveat("the baseline").unwrap().to_string();
        assert!(
            said.contains("the baseline, 90.00 %, is not shown better") && !said.contains("models"),
            "{said}"
        );
    }

    #[test]
    fn a_reference_without_a_finite_loss_gives_no_verdict() {
        let good = |_, l| 6.0 * l as f32 - 3.0;
        let mut pairs = measured(&[good, good]);
        assert!(ReferenceCheck::of(&pairs).is_worth_comparing_with());
        pairs[1].reference.quality.nll = f64::NAN;
        let c = ReferenceCheck::of(&pairs);
        assert!(!c.is_worth_comparing_with());
        let said = c.why_inconclusive("fp32").unwrap().to_string();
        assert!(said.contains("the loss of fp32 is not a finite number in 1 of its 2 models"), "{said}");
    }
}
