//! Changed answers of one pair of models: tests of "the second loses less than a margin" that hold
//! at every number of examples.
//!
//! An example is lost if the first model alone answers it right, gained if the second alone does.
//! The harm is P(lost) − P(gained). Two tests are made, and the better one counts:
//!
//! * Clopper and Pearson's exact bound of P(lost) alone (1934), which is at least the harm;
//! * Tango's score test of a difference of paired proportions (Statistics in Medicine 17, 1998,
//!   891–908), whose variance is the one at the margin, with a continuity correction of one half.
//!
//! That the better of two tests at level α still has level α is no theorem: the level is summed
//! exactly over all outcomes, for many sizes, margins and chances of gains, in
//! `docs/verdict.md` and in this module's tests. Tango's test without the correction passes a
//! candidate at the margin in up to 6.6 % of cases (n = 270), a test from the scatter seen in 36 %
//! (n = 100): without a changed answer it sees none.

use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal};

/// Answers that differ between two models, over examples that both were asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedAnswers {
    /// Examples.
    pub examples: u64,
    /// Right with the first model alone.
    pub losses: u64,
    /// Right with the second model alone.
    pub gains: u64,
}

/// Halvings of an interval of length two: bounds are exact to 2^-39, far below what is printed.
const HALVINGS: u32 = 40;

impl ChangedAnswers {
    /// The same seen from the second model.
    pub fn reversed(self) -> ChangedAnswers {
        ChangedAnswers { losses: self.gains, gains: self.losses, ..self }
    }

    /// P(lost) − P(gained) as observed.
    pub fn harm(self) -> f64 {
        (self.losses as f64 - self.gains as f64) / self.examples as f64
    }

    /// P value of "the harm is `margin` or more": small means that less is lost.
    pub fn p_harm_at_least(self, margin: f64) -> f64 {
        if self.examples == 0 || margin >= 1.0 {
            return if self.examples == 0 { 1.0 } else { 0.0 };
        }
        if margin <= -1.0 {
            return 1.0;
        }
        let of_losses = match Binomial::new(margin.max(0.0), self.examples) {
            Ok(b) if margin > 0.0 => b.cdf(self.losses),
            _ => 1.0,
        };
        of_losses.min(Normal::standard().cdf(self.score(margin, 0.5)))
    }

    /// P value of "the harm is `margin` or less": small means that more is lost. The score test
    /// alone, with a correction of one whole answer: with half of one it fails a candidate at the
    /// margin in up to 6.1 % of cases (n = 138, 3 points).
    pub fn p_harm_at_most(self, margin: f64) -> f64 {
        if self.examples == 0 || margin >= 1.0 {
            return 1.0;
        }
        if margin <= -1.0 {
            return 0.0;
        }
        Normal::standard().sf(self.score(margin, -1.0))
    }

    /// Upper bound of the harm that holds with confidence 1 − `alpha`.
    pub fn harm_bound_above(self, alpha: f64) -> f64 {
        root(|margin| self.p_harm_at_least(margin) < alpha)
    }

    /// Lower bound of the harm that holds with confidence 1 − `alpha`.
    pub fn harm_bound_below(self, alpha: f64) -> f64 {
        root(|margin| self.p_harm_at_most(margin) >= alpha)
    }

    /// Tango's statistic at harm `margin`: (losses − gains − n·margin + correction) over its
    /// standard deviation where the chance of a gain is the likeliest one at that margin.
    fn score(self, margin: f64, correction: f64) -> f64 {
        let (n, b, c) = (self.examples as f64, self.losses as f64, self.gains as f64);
        // The chance of a gain q solves 2n·q² + B·q + C = 0.
        let linear = -b - c + (2.0 * n - b + c) * margin;
        let constant = -c * margin * (1.0 - margin);
        let gain = (((linear * linear - 8.0 * n * constant).max(0.0)).sqrt() - linear) / (4.0 * n);
        let variance = n * (2.0 * gain + margin * (1.0 - margin));
        (b - c - n * margin + correction) / variance.max(f64::MIN_POSITIVE).sqrt()
    }
}

/// The least margin in [−1, 1] at which `holds`, which stays true once it is.
fn root(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (-1.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if holds(middle) { high = middle } else { low = middle }
    }
    high
}

/// How often a pair of models is judged wrongly, summed exactly over every number of losses and
/// gains.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    /// Examples.
    pub examples: u64,
    /// Chance that an example is lost.
    pub loss: f64,
    /// Chance that an example is gained.
    pub gain: f64,
}

impl Level {
    /// The chance that [`ChangedAnswers::p_harm_at_least`] of `margin` lies below `alpha`.
    ///
    /// For each number of gains the p value rises with the losses: P = Σ over gains g of
    /// P(g) · P(losses ≤ the most that still pass | g), both binomial.
    pub fn passes(self, margin: f64, alpha: f64) -> f64 {
        self.sum(|answers| answers.p_harm_at_least(margin) < alpha)
    }

    /// The chance that [`ChangedAnswers::p_harm_at_most`] of `margin` lies below `alpha`.
    pub fn fails(self, margin: f64, alpha: f64) -> f64 {
        1.0 - self.sum(|answers| answers.p_harm_at_most(margin) >= alpha)
    }

    /// P(`of`) where `of` holds from no loss to some greatest number of them, which does not fall
    /// as gains are added.
    fn sum(self, of: impl Fn(ChangedAnswers) -> bool) -> f64 {
        let Level { examples: n, loss, gain } = self;
        let gains = Binomial::new(gain, n).ok();
        let of_gains = |g: u64| match &gains {
            Some(b) => b.cdf(g) - if g == 0 { 0.0 } else { b.cdf(g - 1) },
            None => f64::NAN,
        };
        let (mut total, mut most, mut seen) = (0.0, None::<u64>, 0.0);
        for g in 0..=n {
            let p = of_gains(g);
            if p < 1e-15 {
                if seen > 0.5 {
                    break;
                }
                continue;
            }
            seen += p;
            loop {
                let next = most.map_or(0, |m| m + 1);
                if g + next > n || !of(ChangedAnswers { examples: n, losses: next, gains: g }) {
                    break;
                }
                most = Some(next);
            }
            if let (Some(most), Ok(losses)) = (most, Binomial::new((loss / (1.0 - gain)).min(1.0), n - g)) {
                total += p * losses.cdf(most.min(n - g));
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact::clean_runs_needed;
    use crate::stats::ALPHA;

    #[test]
    fn without_a_changed_answer_the_bound_is_clopper_and_pearsons() {
        let none = ChangedAnswers { examples: 100, losses: 0, gains: 0 };
        // 1 − 0.05^(1/100).
        assert!((none.harm_bound_above(ALPHA) - 0.029513).abs() < 1e-6);
        for (margin, least) in [(0.01, 299), (0.03, 99)] {
            assert_eq!(clean_runs_needed(margin, ALPHA), Some(least));
            let p = |examples| ChangedAnswers { examples, losses: 0, gains: 0 }.p_harm_at_least(margin);
            assert!(p(least) < ALPHA && p(least - 1) >= ALPHA, "{margin}");
        }
    }

    /// The score of a table worked in Tango's paper is symmetric: what one side loses the other
    /// gains, and at no difference the statistic is McNemar's with its correction.
    #[test]
    fn at_no_difference_it_is_mcnemars_statistic() {
        let answers = ChangedAnswers { examples: 50, losses: 9, gains: 3 };
        let mcnemar = (9.0 - 3.0 - 0.5) / 12f64.sqrt();
        assert!((answers.score(0.0, -0.5) - mcnemar).abs() < 1e-12);
        assert!((answers.reversed().score(0.0, 0.5) + mcnemar).abs() < 1e-12);
        assert!((answers.harm() - 0.12).abs() < 1e-15);
        let (low, high) = (answers.harm_bound_below(ALPHA), answers.harm_bound_above(ALPHA));
        assert!(low < 0.12 && 0.12 < high);
        assert!((answers.p_harm_at_least(high) - ALPHA).abs() < 1e-6, "a bound is where p is α");
    }

    /// The level at the margin, exactly, on a grid that fits a test; `docs/verdict.md` has all of
    /// it.
    #[test]
    fn at_the_margin_it_is_wrong_in_at_most_five_per_cent() {
        for examples in (30..=400).step_by(37).chain([270, 500, 1000, 2000]) {
            for margin in [0.01, 0.03] {
                for gain in [0.0, 0.005, 0.02, 0.05] {
                    let level = Level { examples, loss: margin + gain, gain };
                    let (pass, fail) = (level.passes(margin, ALPHA), level.fails(margin, ALPHA));
                    assert!(pass <= ALPHA, "{examples}, {margin}, {gain}: {pass}");
                    assert!(fail <= ALPHA, "{examples}, {margin}, {gain}: {fail}");
                }
            }
        }
    }

    #[test]
    fn equal_models_pass_as_often_as_stated() {
        for (examples, least) in [(500, 0.50), (1000, 0.85), (2000, 0.98)] {
            let power = Level { examples, loss: 0.0045, gain: 0.0045 }.passes(0.01, ALPHA);
            assert!(power >= least, "{examples}: {power}");
        }
    }

    /// The sum against a plain double sum over every outcome.
    #[test]
    fn the_sum_is_that_over_all_outcomes() {
        let (n, loss, gain, margin) = (40u64, 0.05, 0.02, 0.03);
        let ln_choose = |n: u64, k: u64| statrs::function::factorial::ln_binomial(n, k);
        let mut by_hand = 0.0;
        for losses in 0..=n {
            for gains in 0..=n - losses {
                let answers = ChangedAnswers { examples: n, losses, gains };
                if answers.p_harm_at_least(margin) < 0.2 {
                    let rest = n - losses - gains;
                    let ln = ln_choose(n, losses)
                        + ln_choose(n - losses, gains)
                        + losses as f64 * f64::ln(loss)
                        + gains as f64 * f64::ln(gain)
                        + rest as f64 * f64::ln(1.0 - loss - gain);
                    by_hand += ln.exp();
                }
            }
        }
        let summed = Level { examples: n, loss, gain }.passes(margin, 0.2);
        assert!((summed - by_hand).abs() < 1e-10, "{summed}, {by_hand}");
    }
}
