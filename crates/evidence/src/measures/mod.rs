//! What logits say of a model, in f64: accuracy, likelihood, calibration, agreement with another
//! model, detection of foreign samples, subgroups; and the arithmetic of what is done to inputs to
//! see how a model bears it.
//!
//! Everything is a sum over samples ([`Quality`], [`Agreement`], [`GroupTable`]), so samples can
//! come in batches of any size.

pub mod agreement;
pub mod attack;
pub mod by_group;
pub mod calibration;
pub mod confusion;
pub mod constant;
pub mod corruption;
pub mod detection;
pub mod fairness;
pub mod features;
pub mod groups;
pub mod layers;
pub mod ranking;
pub mod sample;
pub mod sums;
pub mod temperature;

pub use agreement::Agreement;
pub use by_group::ColumnMeasures;
pub use calibration::{Calibration, ReliabilityBin};
pub use confusion::{ClassScores, ConfusionMatrix};
pub use constant::BesideConstant;
pub use features::Mahalanobis;
pub use groups::{GroupColumn, GroupRow, GroupTable};
pub use layers::{LayerDivergence, LayerSums};
pub use ranking::Auroc;
pub use sample::{Sample, measure, measure_pair};
pub use sums::Sums;
pub use temperature::Temperature;

use serde::Serialize;

/// Sums over the samples of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quality {
    samples: u64,
    correct: u64,
    in_top_5: u64,
    nll: f64,
    brier: f64,
    pub(crate) calibration: Calibration,
}

/// What the sums come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct QualityValues {
    /// Samples.
    pub samples: u64,
    /// Share whose likeliest class is the label.
    pub accuracy: f64,
    /// Share whose label is among the five likeliest classes.
    pub top_5: f64,
    /// Mean negative log-likelihood of the label, in nats.
    pub nll: f64,
    /// exp of it.
    pub perplexity: f64,
    /// Mean squared distance of the probabilities from the label's one-hot vector, 0 to 2 (Brier
    /// 1950).
    pub brier: f64,
    /// Expected calibration error, 15 bins of equal width, l1 (Guo et al. 2017), 0 to 1.
    pub ece: f64,
    /// The same without the part that chance alone adds; see [`Calibration::ece_debiased`].
    pub ece_debiased: f64,
}

impl Quality {
    /// Adds a sample.
    pub fn push(&mut self, s: &Sample) {
        self.samples += 1;
        self.correct += u64::from(s.correct());
        self.in_top_5 += u64::from(s.rank < 5);
        self.nll += s.nll;
        self.brier += s.brier;
        self.calibration.push(s.confidence, s.correct());
    }

    /// Means over the samples; none without samples.
    pub fn values(&self) -> Option<QualityValues> {
        if self.samples == 0 {
            return None;
        }
        let n = self.samples as f64;
        Some(QualityValues {
            samples: self.samples,
            accuracy: self.correct as f64 / n,
            top_5: self.in_top_5 as f64 / n,
            nll: self.nll / n,
            perplexity: (self.nll / n).exp(),
            brier: self.brier / n,
            ece: self.calibration.ece(),
            ece_debiased: self.calibration.ece_debiased(),
        })
    }
}
