//! Does a confidence of 80 % mean right in 80 of 100 cases? Bins of confidence and what follows
//! from them.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal};

use super::Sums;

/// Bins of equal width over [0, 1].
pub const BINS: usize = 15;

/// Sums over the samples in each bin of confidence. Bin i holds [i/15, (i+1)/15); exactly 1.0 is in
/// the last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    counts: [u64; BINS],
    confidences: [f64; BINS],
    correct: [u64; BINS],
}

/// One bar of a reliability diagram.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// Lower edge of confidence.
    pub from: f64,
    /// Upper edge.
    pub to: f64,
    /// Samples in it.
    pub samples: u64,
    /// Their mean confidence; none in an empty bin.
    pub confidence: Option<f64>,
    /// The share of them that is right; none in an empty bin.
    pub accuracy: Option<f64>,
}

impl Calibration {
    /// Adds a sample; a confidence outside [0, 1] counts in the nearest bin.
    pub fn push(&mut self, confidence: f64, correct: bool) {
        let bin = ((confidence * BINS as f64) as usize).min(BINS - 1);
        self.counts[bin] += 1;
        self.confidences[bin] += confidence;
        self.correct[bin] += u64::from(correct);
    }

    /// The reliability diagram.
    pub fn reliability(&self) -> Vec<ReliabilityBin> {
        (0..BINS)
            .map(|i| {
                let n = self.counts[i];
                let mean = |sum: f64| (n > 0).then(|| sum / n as f64);
                ReliabilityBin {
                    from: i as f64 / BINS as f64,
                    to: (i + 1) as f64 / BINS as f64,
                    samples: n,
                    confidence: mean(self.confidences[i]),
                    accuracy: mean(self.correct[i] as f64),
                }
            })
            .collect()
    }

    /// Expected calibration error: the mean over samples of |accuracy − confidence| of their bin
    /// (Naeini et al. 2015, Guo et al. 2017). 0 without samples.
    pub fn ece(&self) -> f64 {
        self.mean(|accuracy, confidence, _| (accuracy - confidence).abs())
    }

    /// ECE less its expected excess: twice the ECE minus what it would be on average if the
    /// accuracy of each bin were drawn anew from N(accuracy, accuracy (1 − accuracy) / n) (Kumar,
    /// Liang and Ma, arXiv 1909.10155, and their library's `normal_debiased_ce` for p = 1; they
    /// draw, here the mean of the folded normal is used). It can fall below zero; then nothing
    /// speaks against perfect calibration.
    pub fn ece_debiased(&self) -> f64 {
        let normal = Normal::standard();
        let expected = |accuracy: f64, confidence: f64, n: f64| {
            let (mean, sd) = (accuracy - confidence, (accuracy * (1.0 - accuracy) / n).sqrt());
            if sd == 0.0 {
                return mean.abs();
            }
            let z = mean / sd;
            sd * (2.0 / std::f64::consts::PI).sqrt() * (-z * z / 2.0).exp()
                + mean * (1.0 - 2.0 * normal.cdf(-z))
        };
        2.0 * self.ece() - self.mean(expected)
    }

    /// Mean over samples of f(accuracy, confidence, samples) of their bin.
    fn mean(&self, f: impl Fn(f64, f64, f64) -> f64) -> f64 {
        let all = self.counts.iter().sum::<u64>().max(1) as f64;
        let term = |i: usize| {
            let n = self.counts[i] as f64;
            n * f(self.correct[i] as f64 / n, self.confidences[i] / n, n)
        };
        (0..BINS).filter(|&i| self.counts[i] > 0).map(term).sum::<f64>() / all
    }
}

impl Sums for Calibration {
    fn samples(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn add(&mut self, other: &Calibration) {
        for i in 0..BINS {
            self.counts[i] += other.counts[i];
            self.confidences[i] += other.confidences[i];
            self.correct[i] += other.correct[i];
        }
    }

    fn subtract(&mut self, other: &Calibration) {
        for i in 0..BINS {
            self.counts[i] -= other.counts[i];
            self.confidences[i] -= other.confidences[i];
            self.correct[i] -= other.correct[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certainty_is_in_the_last_bin() {
        let mut c = Calibration::default();
        c.push(1.0, true);
        c.push(0.99, false);
        let last = c.reliability()[BINS - 1];
        assert_eq!((last.samples, last.accuracy), (2, Some(0.5)));
        assert!((c.ece() - 0.495).abs() < 1e-12);
        assert_eq!(Calibration::default().ece(), 0.0);
    }

    #[test]
    fn debiasing_takes_chance_away() {
        // Perfectly calibrated at 0.5 in one bin, 16 samples, over all outcomes. The plain error is
        // E|k/16 − 1/2|. With normal accuracies |Z|σ the debiased one has mean (2 E|Z| − E|Z +
        // Z'|)σ = (2 − √2) E|Z| σ: it takes away 41 % of the excess, as l1 allows. The binomial is
        // that normal up to terms of 1/16.
        let (mut plain, mut debiased) = (0.0, 0.0);
        for bits in 0..1u32 << 16 {
            let right = bits.count_ones();
            let mut c = Calibration::default();
            (0..16).for_each(|i| c.push(0.5, i < right));
            plain += c.ece() / 65536.0;
            debiased += c.ece_debiased() / 65536.0;
        }
        assert!((debiased / plain - (2.0 - 2f64.sqrt())).abs() < 1.0 / 16.0, "{plain} {debiased}");
    }
}
