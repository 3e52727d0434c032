//! Is a model better than one that always says the same? The constant predictor gives every sample
//! the frequencies of the labels it is tested on, the best that a constant can do.

use serde::Serialize;
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal};

use super::{Auroc, ConfusionMatrix};
use crate::stats::{ALPHA, t_survival};

/// Tests of which one must tell a model from the constant predictor: negative log-likelihood,
/// balanced accuracy, AUROC.
const TESTS: f64 = 3.0;

/// Below this an advantage in nats is the rounding of f32 logits.
const ROUNDING: f64 = 1e-6;

/// Sums of the losses of the samples of each label.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossesByLabel {
    sums: Vec<f64>,
    squares: Vec<f64>,
}

/// A model beside the constant predictor. Every p value is one-sided: the chance of so large an
/// advantage or a larger one if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BesideConstant {
    /// Mean negative log-likelihood of the constant predictor, in nats: the entropy of the labels'
    /// frequencies.
    pub constant_nll: f64,
    /// Balanced accuracy of the constant predictor: 1 by the number of classes that have samples.
    pub constant_balanced_accuracy: f64,
    /// Of the mean negative log-likelihood: a paired t-test over the samples. So that a few samples
    /// that agree do not pass for certainty, one more is added on which the model loses as much as
    /// the constant predictor does on average.
    pub p_nll: f64,
    /// Of the balanced accuracy over the constant predictor's: Bernstein's inequality, with the
    /// variance that it has if answers do not depend on the sample.
    pub p_balanced_accuracy: f64,
    /// Of the AUROC over 1/2: by its normal approximation if ranks do not depend on the label. 1
    /// without an AUROC.
    pub p_auroc: f64,
    /// Of the accuracy over that of the most frequent label: the exact sign test on the samples
    /// that one of them has right.
    pub p_accuracy: f64,
    /// Whether it is shown better: its losses are finite, and one of the first three p values is at
    /// most 0.05/3, so that a model that is no better passes in at most 5 % of cases.
    pub shown_better: bool,
}

impl LossesByLabel {
    /// Without samples yet, for so many classes.
    pub fn new(classes: usize) -> LossesByLabel {
        LossesByLabel { sums: vec![0.0; classes], squares: vec![0.0; classes] }
    }

    /// Adds a sample's negative log-likelihood; one whose label is no class is ignored.
    pub fn push(&mut self, label: u32, nll: f64) {
        if let (Some(sum), Some(square)) =
            (self.sums.get_mut(label as usize), self.squares.get_mut(label as usize))
        {
            *sum += nll;
            *square += nll * nll;
        }
    }
}

impl BesideConstant {
    /// From the sums over one model's samples; none without samples.
    pub fn of(
        answers: &ConfusionMatrix,
        losses: &LossesByLabel,
        auroc: Option<Auroc>,
    ) -> Option<BesideConstant> {
        let n = answers.samples() as f64;
        if n == 0.0 {
            return None;
        }
        let constant = |&count: &u64| if count > 0 { -(count as f64 / n).ln() } else { 0.0 };
        let constant_nll = answers.labels().iter().map(|c| *c as f64 / n * constant(c)).sum();
        let p_nll = p_nll(answers.labels(), losses, constant_nll, n);
        let (balanced, classes) = answers.balanced_accuracy();
        let (variance, weight) = answers.balanced_accuracy_by_chance();
        let constant_balanced_accuracy = 1.0 / classes as f64;
        let p_balanced_accuracy = bernstein(balanced - constant_balanced_accuracy, variance, weight);
        let normal = Normal::standard();
        let p_auroc = auroc.map_or(1.0, |a| normal.sf((a.value - 0.5) / a.chance_sd));
        let (model_alone, constant_alone) = answers.beside_majority();
        let p_accuracy = match (model_alone, Binomial::new(0.5, model_alone + constant_alone)) {
            (1.., Ok(b)) => b.sf(model_alone - 1),
            _ => 1.0,
        };
        let finite = losses.sums.iter().all(|sum| sum.is_finite());
        let shown_better =
            finite && [p_nll, p_balanced_accuracy, p_auroc].iter().any(|p| *p <= ALPHA / TESTS);
        Some(BesideConstant {
            constant_nll,
            constant_balanced_accuracy,
            p_nll,
            p_balanced_accuracy,
            p_auroc,
            p_accuracy,
            shown_better,
        })
    }

    /// Whether its accuracy is shown better than that of the most frequent label.
    pub fn is_accuracy_shown_better(&self) -> bool {
        self.p_accuracy <= ALPHA
    }
}

/// The one-sided paired t-test of a mean loss below the constant predictor's; 1 for losses that are
/// not finite.
fn p_nll(counts: &[u64], losses: &LossesByLabel, entropy: f64, n: f64) -> f64 {
    let (mut sum, mut squares) = (entropy, entropy * entropy);
    for (label, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (count, constant) = (count as f64, -(count as f64 / n).ln());
        let (s, s2) = (losses.sums[label], losses.squares[label]);
        sum += s - count * constant;
        squares += s2 - 2.0 * constant * s + count * constant * constant;
    }
    let samples = n + 1.0;
    let mean = sum / samples;
    let variance = (squares - samples * mean * mean).max(0.0) / n;
    if !mean.is_finite() || !variance.is_finite() || mean >= -ROUNDING {
        return 1.0;
    }
    t_survival(-(mean + ROUNDING) / (variance / samples).sqrt(), n)
}

/// P(a sum of independent terms exceeds its mean by `excess`) is at most exp(−e² / (2 (variance +
/// weight·e/3))), no term exceeding its mean by more than `weight` (Bernstein 1924).
fn bernstein(excess: f64, variance: f64, weight: f64) -> f64 {
    if excess > 0.0 { (-excess * excess / (2.0 * (variance + weight * excess / 3.0))).exp() } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;
    use crate::measures::{measure, ranking::auroc};

    fn beside(logits: &[f32], labels: &[u32], classes: usize) -> BesideConstant {
        let (mut answers, mut losses) = (ConfusionMatrix::new(classes), LossesByLabel::new(classes));
        let mut exps = vec![0.0; classes];
        for (row, &label) in logits.chunks(classes).zip(labels) {
            let s = measure(row, label, &mut exps);
            answers.push(label, s.predicted);
            losses.push(label, s.nll);
        }
        BesideConstant::of(&answers, &losses, auroc(logits, labels, classes)).unwrap()
    }

    #[test]
    fn a_constant_is_no_better_than_itself() {
        // Frequencies 0.6, 0.3, 0.1, as logits: equal to the constant predictor up to rounding.
        let labels: Vec<u32> = (0..1000).map(|i| [0, 0, 0, 0, 0, 0, 1, 1, 1, 2][i % 10]).collect();
        let frequencies = [0.6f32.ln(), 0.3f32.ln(), 0.1f32.ln()];
        let c = beside(&frequencies.repeat(1000), &labels, 3);
        let entropy = -(0.6 * 0.6f64.ln() + 0.3 * 0.3f64.ln() + 0.1 * 0.1f64.ln());
        assert!((c.constant_nll - entropy).abs() < 1e-12);
        assert_eq!((c.p_nll, c.p_balanced_accuracy, c.p_auroc), (1.0, 1.0, 0.5));
        assert!(!c.shown_better && !c.is_accuracy_shown_better());
        // Nor is one that is sure of the most frequent label.
        assert!(!beside(&[9.0, 0.0, 0.0].repeat(1000), &labels, 3).shown_better);
        // And labels that are all alike leave nothing to be better in.
        assert!(!beside(&[9.0, 0.0, 0.0].repeat(1000), &[0; 1000], 3).shown_better);
    }

    #[test]
    fn a_model_that_knows_something_is_shown_better() {
        let labels: Vec<u32> = (0..300).map(|i| u32::from(i % 10 == 0)).collect();
        // Never answers class 1, but ranks: accuracy alone does not show it.
        let logits: Vec<f32> = labels.iter().flat_map(|&l| [1.0, -2.0 + 2.0 * l as f32]).collect();
        let c = beside(&logits, &labels, 2);
        assert!(c.shown_better && c.p_auroc < 1e-9 && c.p_nll < 1e-6, "{c:?}");
        assert!(c.p_balanced_accuracy == 1.0 && !c.is_accuracy_shown_better());
        let right: Vec<f32> = labels.iter().flat_map(|&l| [0.0, 8.0 * l as f32 - 4.0]).collect();
        assert!(beside(&right, &labels, 2).is_accuracy_shown_better());
        // A handful of samples is no evidence, however right.
        for (n, shown) in [(2, false), (4, false), (12, true)] {
            let labels: Vec<u32> = (0..n).map(|i| i % 2).collect();
            let logits: Vec<f32> = labels.iter().flat_map(|&l| [0.0, 40.0 * l as f32 - 20.0]).collect();
            assert_eq!(beside(&logits, &labels, 2).shown_better, shown, "{n}");
        }
        // NaN is never shown better.
        assert!(!beside(&[f32::NAN; 600], &labels, 2).shown_better);
    }

    /// Answers that do not depend on the sample are shown better in at most 5 % of cases, with few
    /// and many samples, alike and rare classes, sure and unsure models. The count is binomial:
    /// three of its deviations, 1.5 % of 2,000, are allowed.
    #[test]
    fn a_worthless_model_is_rarely_shown_better() {
        const TRIALS: u64 = 2000;
        for (which, (n, classes, rare, scale)) in [
            (6, 2, 2, 3.0),
            (20, 2, 10, 1.0),
            (40, 2, 20, 10.0),
            (100, 2, 100, 3.0),
            (30, 3, 3, 0.1),
            (60, 10, 10, 5.0),
            (300, 5, 50, 1.0),
        ]
        .into_iter()
        .enumerate()
        {
            let shown = (0..TRIALS).filter(|&trial| {
                let draws = Draws::new(90 + which as u64, trial);
                // Labels are of class 0 but for one in `rare` / (classes − 1).
                let labels: Vec<u32> =
                    (0..n).map(|i| if i % rare < classes - 1 { 1 + (i % rare) as u32 } else { 0 }).collect();
                let logits: Vec<f32> =
                    (0..n * classes).map(|i| (scale * draws.normal(i as u64)) as f32).collect();
                beside(&logits, &labels, classes).shown_better
            });
            let share = shown.count() as f64 / TRIALS as f64;
            assert!(share <= 0.05 + 0.015, "{n} samples, {classes} classes, one in {rare}, {scale}: {share}");
        }
    }
}
