//! Do two models say the same of each sample? The same accuracy can hide many changed answers.

use serde::Serialize;

use super::Sample;
use crate::exact::mcnemar;

/// Sums over samples that two models were asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Agreement {
    samples: u64,
    flips: u64,
    only_first: u64,
    only_second: u64,
    kl: f64,
}

/// What the sums come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AgreementValues {
    /// Samples.
    pub samples: u64,
    /// Share whose predicted class differs (arXiv 2407.09141).
    pub flips: f64,
    /// Share that the first model has right and the second wrong (arXiv 2011.09161).
    pub negative_flips: f64,
    /// Share that the first model has wrong and the second right.
    pub positive_flips: f64,
    /// Mean KL(first ‖ second) of the probabilities, in nats.
    pub kl: f64,
    /// McNemar's exact p value of equal accuracy on these samples; it cannot see flips that
    /// balance.
    pub mcnemar: f64,
}

impl Agreement {
    /// Adds a sample as both models see it, and the divergence of their probabilities.
    pub fn push(&mut self, first: &Sample, second: &Sample, kl: f64) {
        self.samples += 1;
        self.flips += u64::from(first.predicted != second.predicted);
        self.only_first += u64::from(first.correct() && !second.correct());
        self.only_second += u64::from(!first.correct() && second.correct());
        self.kl += kl;
    }

    /// Means over the samples; none without samples.
    pub fn values(&self) -> Option<AgreementValues> {
        let share = |count: u64| count as f64 / self.samples as f64;
        (self.samples > 0).then(|| AgreementValues {
            samples: self.samples,
            flips: share(self.flips),
            negative_flips: share(self.only_first),
            positive_flips: share(self.only_second),
            kl: self.kl / self.samples as f64,
            mcnemar: mcnemar(self.only_first, self.only_second),
        })
    }
}
