//! Exact statements about counts: how often runs diverge, and whether flips go both ways alike.

use serde::Serialize;
use statrs::distribution::{Beta, Binomial, ContinuousCDF, DiscreteCDF, Hypergeometric};

use crate::stats::{ALPHA, Looks, Verdict};

/// Runs that diverged, as an endpoint of its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// Runs begun.
    pub runs: u64,
    /// Runs that diverged.
    pub diverged: u64,
    /// Exact one-sided upper bound of the chance that a run diverges (Clopper and Pearson 1934), at
    /// 95 % over all looks.
    pub at_most: f64,
    /// Exact one-sided lower bound, likewise.
    pub at_least: f64,
    /// The greatest chance that is accepted, if one was stated.
    pub max_divergence: Option<f64>,
    /// P value of "the chance is at most the accepted one": P(X ≥ diverged) for a binomial X.
    pub p_fail: Option<f64>,
    /// What follows; none where no greatest chance was stated, and then it does not gate.
    pub verdict: Option<Verdict>,
}

impl Divergence {
    /// `diverged` of `runs` runs, against the greatest accepted chance if there is one. More
    /// diverged runs than runs count as all of them.
    pub fn of(diverged: u64, runs: u64, max_divergence: Option<f64>, looks: Looks) -> Divergence {
        let (diverged, alpha) = (diverged.min(runs), looks.alpha());
        let (at_least, at_most) = (lower_bound(diverged, runs, alpha), upper_bound(diverged, runs, alpha));
        let verdict = max_divergence.map(|most| {
            if looks.are_spent() {
                Verdict::Inconclusive
            } else if at_most <= most {
                Verdict::Pass
            } else if at_least > most {
                Verdict::Fail
            } else {
                Verdict::Inconclusive
            }
        });
        let p_fail = max_divergence.map(|most| match (diverged, Binomial::new(most, runs)) {
            (1.., Ok(b)) => b.sf(diverged - 1),
            _ => 1.0,
        });
        Divergence { runs, diverged, at_most, at_least, max_divergence, p_fail, verdict }
    }
}

/// How much oftener candidate runs diverge than the baseline's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Excess {
    /// Baseline runs begun.
    pub baseline_runs: u64,
    /// Baseline runs that diverged.
    pub baseline_diverged: u64,
    /// Upper bound, at 95 %, of the candidate's chance to diverge less the baseline's: the
    /// difference of exact bounds that hold at 97.5 % each (Bonferroni).
    pub at_most: f64,
    /// P value of "the candidate diverges no oftener": Fisher's exact test, one-sided. It can fail
    /// a candidate; that it does not shows nothing.
    pub p_fail: f64,
}

impl Excess {
    /// Of `diverged` of `runs` runs over `baseline_diverged` of `baseline_runs`.
    pub fn of(diverged: u64, runs: u64, baseline_diverged: u64, baseline_runs: u64) -> Excess {
        let (diverged, baseline_diverged) = (diverged.min(runs), baseline_diverged.min(baseline_runs));
        let at_least = lower_bound(baseline_diverged, baseline_runs, ALPHA / 2.0);
        let all = diverged + baseline_diverged;
        let p_fail = match (diverged, Hypergeometric::new(runs + baseline_runs, all, runs)) {
            (1.., Ok(h)) => h.sf(diverged - 1),
            _ => 1.0,
        };
        let at_most = upper_bound(diverged, runs, ALPHA / 2.0) - at_least;
        Excess { baseline_runs, baseline_diverged, at_most, p_fail }
    }
}

/// One-sided upper bound of a chance of which `k` of `n` trials were seen, at confidence
/// 1 − `alpha`: that quantile of Beta(k + 1, n − k), 1 if all were.
pub fn upper_bound(k: u64, n: u64, alpha: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    if k == 0 {
        // Beta(1, n) in closed form.
        return -(alpha.ln() / n as f64).exp_m1();
    }
    Beta::new(k as f64 + 1.0, (n - k) as f64).map_or(1.0, |b| b.inverse_cdf(1.0 - alpha))
}

/// One-sided lower bound: the `alpha` quantile of Beta(k, n − k + 1), 0 if none were.
pub fn lower_bound(k: u64, n: u64, alpha: f64) -> f64 {
    if k == 0 || n == 0 {
        return 0.0;
    }
    1.0 - upper_bound(n - k.min(n), n, alpha)
}

/// The fewest clean trials after which the upper bound at level `alpha` is at most `chance`: 59 for
/// 5 % at 0.05, from (1 − chance)^n ≤ `alpha`. None unless 0 < chance < 1.
pub fn clean_runs_needed(chance: f64, alpha: f64) -> Option<u64> {
    (chance > 0.0 && chance < 1.0).then(|| (alpha.ln() / (-chance).ln_1p()).ceil().max(1.0) as u64)
}

/// McNemar's exact test: the two-sided p value of `only_reference` samples right with the reference
/// alone and `only_candidate` right with the candidate alone, both equally likely (binomial with
/// 1/2). It tells a difference of accuracy on these samples; equally many flips both ways pass it,
/// so it never stands alone.
pub fn mcnemar(only_reference: u64, only_candidate: u64) -> f64 {
    let (n, k) = (only_reference + only_candidate, only_reference.min(only_candidate));
    Binomial::new(0.5, n).map_or(1.0, |b| (2.0 * b.cdf(k)).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_nine_clean_runs_for_five_per_cent() {
        assert_eq!(clean_runs_needed(0.05, ALPHA), Some(59));
        assert_eq!(Divergence::of(0, 59, Some(0.05), Looks::ONE).verdict, Some(Verdict::Pass));
        assert_eq!(Divergence::of(0, 58, Some(0.05), Looks::ONE).verdict, Some(Verdict::Inconclusive));
        let many = Divergence::of(8, 59, Some(0.05), Looks::ONE);
        assert!(many.verdict == Some(Verdict::Fail) && many.p_fail.unwrap() < 0.05);
        // The bound and the p value are the same statement.
        let some = Divergence::of(5, 59, Some(0.05), Looks::ONE);
        assert!(some.verdict == Some(Verdict::Inconclusive) && some.p_fail.unwrap() > 0.05);
        // Zero of ten still allows 26 %.
        let ten = Divergence::of(0, 10, None, Looks::ONE);
        assert!((ten.at_most - 0.2589).abs() < 5e-5 && ten.verdict.is_none());
        // All of three: 0.05^(1/3), to the rounding of a few operations.
        assert!((lower_bound(3, 3, ALPHA) - 0.05f64.cbrt()).abs() < 4.0 * f64::EPSILON);
        assert_eq!(upper_bound(3, 3, ALPHA), 1.0);
        assert_eq!((lower_bound(0, 0, ALPHA), upper_bound(0, 0, ALPHA)), (0.0, 1.0));
    }

    #[test]
    fn bounds_solve_the_binomial_equation() {
        // P(X ≤ k) at the upper bound is 5 %, by definition; the quantile is found to 1e-9 or
        // better.
        for (k, n) in [(1, 10), (3, 20), (17, 59)] {
            let at = Binomial::new(upper_bound(k, n, ALPHA), n).unwrap().cdf(k);
            assert!((at - 0.05).abs() < 1e-8, "{k} of {n}: {at}");
        }
    }

    #[test]
    fn a_candidate_that_diverges_oftener_is_found_and_silence_is_no_bound() {
        // 5 of 5 against 0 of 5: one of C(10, 5) = 252 ways.
        let all = Excess::of(5, 5, 0, 5);
        assert!((all.p_fail - 1.0 / 252.0).abs() < 1e-12 && all.at_most == 1.0);
        // One of five against none: chance alone does it in half of all cases, and much may hide.
        let one = Excess::of(1, 5, 0, 5);
        assert!((one.p_fail - 0.5).abs() < 1e-12 && one.at_most > 0.7, "{one:?}");
        assert_eq!(Excess::of(0, 5, 0, 5).p_fail, 1.0);
        // The bound without any is Clopper and Pearson's at 97.5 %.
        assert!((Excess::of(0, 5, 0, 5).at_most - (1.0 - 0.025f64.powf(0.2))).abs() < 1e-12);
    }

    #[test]
    fn mcnemar_by_hand() {
        // 1 and 9: 2 · (C(10,0) + C(10,1)) / 2^10.
        assert!((mcnemar(1, 9) - 22.0 / 1024.0).abs() < 1e-12);
        assert_eq!((mcnemar(5, 5), mcnemar(0, 0)), (1.0, 1.0));
    }
}
