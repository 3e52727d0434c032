//! How many seeds and samples a test needs.

use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};
use statrs::function::gamma::ln_gamma;

use crate::buckets::BUCKETS;
use crate::crossed::{Components, degrees_of_examples};
use crate::noninferiority::Claim;
use crate::stats::{ALPHA, Looks, t_upper, z_upper};
use crate::tail::{Part, half_width};

/// More seeds than anyone trains.
pub const MOST_SEEDS: usize = 10_000;

/// More examples than anyone measures for a verdict.
pub const MOST_EXAMPLES: usize = 1 << 30;

/// Variances of a difference between candidate and reference, by what they come from
/// ([`crate::crossed`]).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// Of seeds.
    pub seed: f64,
    /// Of examples, whatever the seed; 0 of the samples that were measured.
    pub example: f64,
    /// Of an example with a seed.
    pub rest: f64,
}

impl Spread {
    /// From the parts of a mean's variance over `seeds` seeds and `examples` examples.
    pub fn of(parts: Components, seeds: usize, examples: f64) -> Spread {
        let s = seeds as f64;
        Spread {
            seed: (parts.seeds - parts.rest).max(0.0) * s,
            example: parts.examples * examples,
            rest: parts.rest * s * examples,
        }
    }

    /// A standard deviation of differences between seeds, as of a measure without examples.
    pub fn of_seeds(sd: f64) -> Spread {
        Spread { seed: sd * sd, ..Spread::default() }
    }
}

/// A test that is planned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// How the differences scatter.
    pub spread: Spread,
    /// The margin, in units of the metric.
    pub margin: f64,
    /// The harm that the candidate is thought to do; 0 for one without any difference.
    pub harm: f64,
    /// Of a measure that moves by whole answers, the share of the examples that they count among:
    /// its variance at the margin is known.
    pub answers: Option<f64>,
    /// Of what it is to speak.
    pub claim: Claim,
    /// Looks over which α is divided.
    pub looks: Looks,
}

impl Plan {
    /// For one look at a smooth measure of examples like these, of which no harm is thought.
    pub fn of(spread: Spread, margin: f64) -> Plan {
        Plan { spread, margin, harm: 0.0, answers: None, claim: Claim::Examples, looks: Looks::ONE }
    }

    /// The same with the one-sided 95 % upper bound of the scatter that `pilot` seeds showed: a few
    /// may by chance have scattered little. None for fewer than two.
    pub fn at_most(&self, pilot: usize) -> Option<Plan> {
        let factor = sd_at_most(1.0, pilot)?.powi(2);
        let Spread { seed, rest, .. } = self.spread;
        Some(Plan { spread: Spread { seed: seed * factor, rest: rest * factor, ..self.spread }, ..*self })
    }

    /// Chance that a candidate with that harm passes after `seeds` seeds on `examples` examples. 0
    /// for fewer than two seeds, 1 without spread.
    ///
    /// The mean difference is normal, and the scatter of seeds that the test will see is its true
    /// variance times χ²(ν)/ν with ν = seeds − 1, independent of the mean: the chance is the mean,
    /// over S = √(χ²(ν)/ν), of Φ((margin − bound(S))/sd), integrated over the density of S by
    /// Simpson's rule. Without scatter of examples this is the noncentral t distribution.
    pub fn power(&self, seeds: usize, examples: f64) -> f64 {
        let Spread { seed, example, rest } = self.spread;
        if seeds < 2 || !(seed + example + rest).is_finite() {
            return 0.0;
        }
        let (v, s) = ((seeds - 1) as f64, seeds as f64);
        let rest = rest / (s * examples);
        let (of_seeds, of_examples) = (seed / s + rest, example / examples);
        let sd = (of_seeds + of_examples).sqrt();
        let alpha = self.looks.alpha();
        let at_margin = self.answers.map(|share| (self.margin * (1.0 - self.margin)).max(0.0) / share);
        // Of these samples the bound is the wider of two, of others the variances are added.
        let (least, known) = match (self.claim, at_margin) {
            (_, None) => (0.0, 0.0),
            (Claim::Samples, Some(variance)) => {
                let answers = s * examples;
                (z_upper(alpha) * (variance / answers).sqrt() + 0.5 / answers, 0.0)
            }
            (Claim::Examples, Some(variance)) => (0.0, variance / examples),
        };
        // The bound's half width where seeds show a variance `of_seeds` of the mean, with the parts
        // that `MarginTest` adds.
        let buckets = (BUCKETS as f64).min(examples);
        let fixed = half_width(
            &[
                Part { variance: of_examples, degrees: degrees_of_examples(buckets) },
                Part { variance: known, degrees: f64::INFINITY },
            ],
            alpha,
        );
        let quantile = t_upper(v, alpha);
        let half_width = |of_seeds: f64| (quantile * quantile * of_seeds + fixed * fixed).sqrt().max(least);
        if sd == 0.0 {
            return if half_width(0.0) < self.margin - self.harm { 1.0 } else { 0.0 };
        }
        let scale = std::f64::consts::LN_2 + v / 2.0 * (v / 2.0).ln() - ln_gamma(v / 2.0);
        let normal = Normal::standard();
        let integrand = |x: f64| {
            // The density of S: 2 (ν/2)^(ν/2) / Γ(ν/2) · s^(ν−1) · exp(−ν s²/2); s^0 is 1 at zero
            // too.
            let log_power = if v > 1.0 { (v - 1.0) * x.ln() } else { 0.0 };
            let density = (scale + log_power - v * x * x / 2.0).exp();
            if density < 1e-12 {
                return 0.0;
            }
            density * normal.cdf((self.margin - self.harm - half_width(of_seeds * x * x)) / sd)
        };
        // S has mean about 1 and standard deviation below 1/√(2ν): 12/√ν is 17 deviations beyond.
        let panels = 2000;
        let width = (1.0 + 12.0 / v.sqrt()) / f64::from(panels);
        let at = |i: i32| integrand(f64::from(i) * width);
        let inner: f64 = (1..panels).map(|i| at(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
        ((at(0) + inner + at(panels)) * width / 3.0).min(1.0)
    }

    /// The fewest seeds on `examples` examples with which such a candidate passes with
    /// chance `goal`, such as 0.8. None if [`MOST_SEEDS`] are too few.
    pub fn seeds_needed(&self, examples: f64, goal: f64) -> Option<usize> {
        least(1, MOST_SEEDS, |seeds| self.power(seeds, examples) >= goal)
    }

    /// The fewest examples with which it does after `seeds` seeds. None if [`MOST_EXAMPLES`] are
    /// too few.
    pub fn examples_needed(&self, seeds: usize, goal: f64) -> Option<usize> {
        least(1, MOST_EXAMPLES, |examples| self.power(seeds, examples as f64) >= goal)
    }
}

/// The least number above `too_few`, at most `most`, for which `enough` holds, which stays true
/// once it is.
fn least(mut too_few: usize, most: usize, enough: impl Fn(usize) -> bool) -> Option<usize> {
    if !enough(most) {
        return None;
    }
    let mut high = most;
    while high - too_few > 1 {
        let middle = (too_few + high) / 2;
        if enough(middle) { high = middle } else { too_few = middle }
    }
    Some(high)
}

/// Chance that all of several tests pass, at least, from each one's: whatever they have in common,
/// no more can be lost than each loses alone (Bonferroni).
pub fn all_pass_at_least(each: impl IntoIterator<Item = f64>) -> f64 {
    (1.0 - each.into_iter().map(|p| 1.0 - p).sum::<f64>()).max(0.0)
}

/// One-sided 95 % upper bound of a standard deviation that was `sd` over `n` values of a normal
/// distribution: sd·√((n − 1)/χ²(0.05, n − 1)). A few pilot seeds may by chance have scattered
/// little; plans by the bound do not suffer for it. None for fewer than two values.
pub fn sd_at_most(sd: f64, n: usize) -> Option<f64> {
    let v = n.checked_sub(1).filter(|&v| v > 0)? as f64;
    Some(sd * (v / ChiSquared::new(v).ok()?.inverse_cdf(ALPHA)).sqrt())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::draws::Draws;
    use crate::stats::mean_sd;

    /// The bound lies below the truth in 5 % of experiments: a binomial count, five of whose
    /// deviations are allowed.
    #[test]
    fn the_bound_of_a_spread_covers_it_as_often_as_it_says() {
        const TRIALS: u64 = 20_000;
        for n in [2, 3, 5, 10] {
            let misses = (0..TRIALS).filter(|&which| {
                let draws = Draws::new(11 + n as u64, which);
                let values: Vec<f64> = (0..n as u64).map(|i| draws.normal(i)).collect();
                let sd = mean_sd(&values).unwrap().1.unwrap();
                sd_at_most(sd, n).unwrap() < 1.0
            });
            let share = misses.count() as f64 / TRIALS as f64;
            let error = 5.0 * (0.05 * 0.95 / TRIALS as f64).sqrt();
            assert!((share - 0.05).abs() < error, "{n}: {share}");
        }
        assert_eq!(sd_at_most(1.0, 1), None);
    }

    fn plan(ratio: f64) -> Plan {
        Plan::of(Spread::of_seeds(ratio), 1.0)
    }

    /// The table that the project plans by, from the noncentral t distribution.
    #[test]
    fn the_table_of_seeds() {
        let table = [(0.5, 4, 4), (1.0, 8, 11), (1.5, 16, 21), (2.0, 27, 36), (3.0, 58, 79)];
        for (ratio, at_80, at_90) in table {
            let needed = |goal| plan(ratio).seeds_needed(1.0, goal);
            assert_eq!((needed(0.8), needed(0.9)), (Some(at_80), Some(at_90)), "{ratio}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(plan(0.0).seeds_needed(1.0, 0.8), Some(2));
        assert_eq!(plan(f64::NAN).seeds_needed(1.0, 0.8), None);
        assert_eq!(plan(1e6).seeds_needed(1.0, 0.8), None);
        assert_eq!(plan(1.0).power(1, 1.0), 0.0);
        // No chance beyond α without a margin to speak of, nor beyond α/2 at one of two looks.
        assert!((plan(1e9).power(10, 1.0) - 0.05).abs() < 1e-6);
        let two = Plan { looks: Looks::of(NonZeroU32::new(2).unwrap()), ..plan(1e9) };
        assert!((two.power(10, 1.0) - 0.025).abs() < 1e-6);
        // What all seeds do to the same examples no number of seeds takes away.
        let spread = Spread { example: 100.0, ..Spread::of_seeds(0.1) };
        let common = Plan::of(spread, 1.0);
        assert_eq!(common.seeds_needed(20.0, 0.8), None);
        assert!(common.examples_needed(5, 0.8).is_some_and(|n| n > 500 && n < 1000));
        assert!((all_pass_at_least([0.9, 0.95]) - 0.85).abs() < 1e-12);
    }
}
