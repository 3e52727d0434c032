//! Is the candidate worse by less than a margin that was stated beforehand? One-sided paired
//! t-tests over seeds.
//!
//! Everything here is in units of *harm*: a positive number means that the candidate is worse. Of
//! pairs (reference r, candidate c) and a margin m, the test looks at the excess e = harm(r, c) −
//! m. `pass` is the rejection of "mean e ≥ 0" at level α, `fail` the rejection of "mean e ≤ 0";
//! without either the runs cannot tell. "No significant difference" is never a pass (Schuirmann
//! 1987; Piaggio et al., CONSORT extension for non-inferiority, JAMA 2012).

use serde::Serialize;

use crate::stats::{ALPHA, Paired, Verdict, mean_sd, t_survival, t_upper};

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// As of accuracy.
    Higher,
    /// As of a loss.
    Lower,
}

impl Better {
    /// How much worse the candidate is, from candidate − reference.
    pub fn harm(self, difference: f64) -> f64 {
        match self {
            Better::Higher => -difference,
            Better::Lower => difference,
        }
    }
}

/// The greatest harm that counts as none, stated before the runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Margin {
    /// In units of the metric: 0.01 of accuracy is one percentage point.
    Absolute(f64),
    /// As a share of the reference's own value, pair by pair.
    Relative(f64),
}

impl Margin {
    /// The margin in units of the metric beside the reference value `reference`.
    pub fn at(self, reference: f64) -> f64 {
        match self {
            Margin::Absolute(m) => m,
            Margin::Relative(share) => share * reference.abs(),
        }
    }
}

/// What is asked of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Is it not worse by the margin or more? Better is welcome.
    NonInferiority,
    /// Does it differ by less than the margin either way? Two one-sided tests (TOST, Schuirmann
    /// 1987), for when better is suspicious too.
    Equivalence,
}

/// One metric of a candidate against the reference, at a margin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MarginTest {
    /// The pairs and the interval of candidate − reference, with the pairs' correlation.
    pub paired: Paired,
    /// Which way is good.
    pub better: Better,
    /// The margin as it was stated.
    pub margin: Margin,
    /// What was asked.
    pub question: Question,
    /// Mean margin in units of the metric.
    pub margin_mean: f64,
    /// Mean harm: how much worse the candidate is.
    pub harm: f64,
    /// One-sided 95 % upper bound of the mean harm; none for one pair.
    pub harm_at_most: Option<f64>,
    /// One-sided 95 % lower bound of the mean harm; none for one pair.
    pub harm_at_least: Option<f64>,
    /// P value of "the harm is at least the margin": small means pass. For equivalence the greater
    /// of the two tests'.
    pub p_pass: Option<f64>,
    /// P value of "the harm is at most the margin": small means fail. For equivalence twice the
    /// smaller of the two tests' (Bonferroni: there are two ways to fail).
    pub p_fail: Option<f64>,
    /// What follows.
    pub verdict: Verdict,
}

impl MarginTest {
    /// Tests pairs of (reference, candidate).
    ///
    /// None without pairs, or if a value is not finite, or if the margin is not a positive finite
    /// number.
    pub fn of(
        pairs: &[(f64, f64)],
        better: Better,
        margin: Margin,
        question: Question,
    ) -> Option<MarginTest> {
        let (Margin::Absolute(size) | Margin::Relative(size)) = margin;
        if !(size > 0.0 && size.is_finite()) {
            return None;
        }
        let paired = Paired::of(pairs)?;
        let harm = |&(r, c): &(f64, f64)| better.harm(c - r);
        let margin_mean = pairs.iter().map(|&(r, _)| margin.at(r)).sum::<f64>() / pairs.len() as f64;
        let excess = Tail::of(pairs.iter().map(|p| harm(p) - margin.at(p.0)))?;
        // The other side: is the gain less than the margin?
        let gain = Tail::of(pairs.iter().map(|p| -harm(p) - margin.at(p.0)))?;
        Some(MarginTest::from_tails(paired, better, (margin, margin_mean), question, excess, gain))
    }

    /// Tests two models by their differences, example by example, from the mean over `paired.pairs`
    /// examples and its spread: what it says holds for these two models on examples like these, not
    /// for others trained alike. A relative margin is one of `reference`, taken as known.
    ///
    /// None if the margin is not a positive finite number.
    pub fn of_examples(
        paired: Paired,
        reference: f64,
        better: Better,
        margin: Margin,
        question: Question,
    ) -> Option<MarginTest> {
        let size = margin.at(reference);
        if !(size > 0.0 && size.is_finite()) {
            return None;
        }
        let harm = better.harm(paired.mean);
        let tail = |mean| Tail::from_moments(mean, paired.sd, paired.pairs);
        let (excess, gain) = (tail(harm - size), tail(-harm - size));
        Some(MarginTest::from_tails(paired, better, (margin, size), question, excess, gain))
    }

    fn from_tails(
        paired: Paired,
        better: Better,
        (margin, margin_mean): (Margin, f64),
        question: Question,
        excess: Tail,
        gain: Tail,
    ) -> MarginTest {
        let (p_pass, p_fail) = match question {
            Question::NonInferiority => (excess.below, excess.above),
            Question::Equivalence => (
                excess.below.zip(gain.below).map(|(a, b)| a.max(b)),
                excess.above.zip(gain.above).map(|(a, b)| (2.0 * a.min(b)).min(1.0)),
            ),
        };
        let verdict = match (p_pass, p_fail) {
            (Some(p), _) if p < ALPHA => Verdict::Pass,
            (_, Some(p)) if p < ALPHA => Verdict::Fail,
            _ => Verdict::Inconclusive,
        };
        let half = excess.half;
        let harm = excess.mean + margin_mean;
        MarginTest {
            paired,
            better,
            margin,
            question,
            margin_mean,
            harm,
            harm_at_most: half.map(|h| harm + h),
            harm_at_least: half.map(|h| harm - h),
            p_pass,
            p_fail,
            verdict,
        }
    }

    /// Standard deviation of the differences over the margin: what the number of seeds follows from
    /// ([`crate::power::seeds_needed`]). None for one pair.
    pub fn spread_over_margin(&self) -> Option<f64> {
        self.paired.sd.map(|sd| sd / self.margin_mean)
    }
}

/// The one-sample t-test of a mean against zero.
struct Tail {
    mean: f64,
    half: Option<f64>,
    /// P value of "the mean is zero or more".
    below: Option<f64>,
    /// P value of "the mean is zero or less".
    above: Option<f64>,
}

impl Tail {
    fn of(values: impl Iterator<Item = f64>) -> Option<Tail> {
        let values: Vec<f64> = values.collect();
        let (mean, sd) = mean_sd(&values)?;
        Some(Tail::from_moments(mean, sd, values.len()))
    }

    fn from_moments(mean: f64, sd: Option<f64>, n: usize) -> Tail {
        let error = sd.map(|sd| sd / (n as f64).sqrt());
        // Without spread the mean is certain: t is infinite, and a mean of exactly zero is on
        // neither side.
        let p = |sign: f64| {
            error.map(|e| if e == 0.0 && mean == 0.0 { 1.0 } else { t_survival(sign * mean / e, n - 1) })
        };
        Tail { mean, half: error.map(|e| t_upper(n - 1) * e), below: p(-1.0), above: p(1.0) }
    }
}

/// Holm's step-down adjustment: reject those whose adjusted p value is below α, and the chance of
/// any false rejection among all of them is at most α (Holm 1979). In the order given; adjusted
/// values are at most 1.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![1.0; p.len()];
    let mut greatest = 0.0f64;
    for (rank, &i) in order.iter().enumerate() {
        greatest = greatest.max((p.len() - rank) as f64 * p[i]).min(1.0);
        adjusted[i] = greatest;
    }
    adjusted
}

/// The verdict over all metrics that gate, from each one's verdict and p value of failing.
///
/// `pass` needs every metric to pass, each tested at α: an intersection–union test, whose level is
/// α without any correction (Berger 1982). `fail` needs a metric that fails after Holm's
/// adjustment, so that a candidate with nothing wrong is failed in at most α of all cases, however
/// many metrics gate. No metrics: inconclusive.
pub fn over_all(tests: &[(Verdict, Option<f64>)]) -> Verdict {
    let p: Vec<f64> = tests.iter().map(|t| t.1.unwrap_or(1.0)).collect();
    if tests.iter().zip(holm(&p)).any(|(t, p)| t.0 == Verdict::Fail && p < ALPHA) {
        Verdict::Fail
    } else if !tests.is_empty() && tests.iter().all(|t| t.0 == Verdict::Pass) {
        Verdict::Pass
    } else {
        Verdict::Inconclusive
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;
    use crate::power;

    fn test(pairs: &[(f64, f64)], margin: f64) -> MarginTest {
        MarginTest::of(pairs, Better::Higher, Margin::Absolute(margin), Question::NonInferiority).unwrap()
    }

    /// `n` pairs whose difference has mean −`harm` and standard deviation `sd`; experiment number
    /// `which`.
    fn experiment(which: u64, n: usize, harm: f64, sd: f64) -> Vec<(f64, f64)> {
        let draws = Draws::new(1, which);
        (0..n)
            .map(|i| {
                let seed_effect = draws.normal(2 * i as u64);
                (seed_effect, seed_effect - harm + sd * draws.normal(2 * i as u64 + 1))
            })
            .collect()
    }

    fn share(trials: u64, verdict: Verdict, of: impl Fn(u64) -> Verdict) -> f64 {
        (0..trials).filter(|&i| of(i) == verdict).count() as f64 / trials as f64
    }

    /// Five standard deviations of a binomial share.
    fn error(p: f64, trials: u64) -> f64 {
        5.0 * (p * (1.0 - p) / trials as f64).sqrt()
    }

    #[test]
    fn at_the_margin_a_false_pass_is_as_rare_as_stated() {
        const TRIALS: u64 = 20_000;
        for n in [2, 5, 12] {
            for verdict in [Verdict::Pass, Verdict::Fail] {
                let found = share(TRIALS, verdict, |i| test(&experiment(i, n, 0.01, 0.004), 0.01).verdict);
                assert!((found - ALPHA).abs() < error(ALPHA, TRIALS), "{n} pairs: {verdict:?} {found}");
            }
        }
        // Equivalence at the margin passes at most as often, and fails at most as often.
        let equivalence = |i| {
            let pairs = experiment(i, 5, 0.01, 0.004);
            MarginTest::of(&pairs, Better::Higher, Margin::Absolute(0.01), Question::Equivalence)
                .unwrap()
                .verdict
        };
        assert!(share(TRIALS, Verdict::Pass, equivalence) < ALPHA + error(ALPHA, TRIALS));
        assert!(share(TRIALS, Verdict::Fail, equivalence) < ALPHA + error(ALPHA, TRIALS));
    }

    #[test]
    fn without_a_difference_the_power_is_as_planned() {
        const TRIALS: u64 = 5_000;
        for (ratio, goal) in [(0.5, 0.8), (1.0, 0.9), (1.5, 0.8)] {
            let n = power::seeds_needed(ratio, goal).unwrap();
            let found =
                share(TRIALS, Verdict::Pass, |i| test(&experiment(i, n, 0.0, ratio * 0.01), 0.01).verdict);
            let planned = power::power(n, ratio);
            assert!(planned >= goal);
            assert!((found - planned).abs() < error(planned, TRIALS), "{ratio}: {found}, planned {planned}");
        }
    }

    #[test]
    fn a_relative_margin_is_a_share_of_the_reference() {
        // Losses 2.0 and 4.0; the candidate loses 1 % in each. Margin 2 %: excess −1 % of each.
        let pairs = [(2.0, 2.02), (4.0, 4.04)];
        let of = |share| {
            MarginTest::of(&pairs, Better::Lower, Margin::Relative(share), Question::NonInferiority).unwrap()
        };
        let t = of(0.02);
        assert!((t.margin_mean - 0.06).abs() < 1e-12 && (t.harm - 0.03).abs() < 1e-12);
        // Excesses −0.02 and −0.04: t = 0.03 / 0.01 = 3 with one degree of freedom, whose tail is
        // 1/2 − atan(3)/π.
        let p = 0.5 - 3f64.atan() / std::f64::consts::PI;
        assert!((t.p_pass.unwrap() - p).abs() < 1e-9, "{t:?}");
        assert_eq!(t.verdict, Verdict::Inconclusive);
    }

    #[test]
    fn no_spread_and_one_pair() {
        assert_eq!(test(&[(0.9, 0.9), (0.8, 0.8)], 0.01).verdict, Verdict::Pass);
        assert_eq!(test(&[(0.9, 0.7), (0.8, 0.6)], 0.01).verdict, Verdict::Fail);
        // Exactly at the margin, in numbers that f64 holds: neither.
        let at = test(&[(1.0, 0.5), (0.75, 0.25)], 0.5);
        assert_eq!((at.verdict, at.p_pass, at.p_fail), (Verdict::Inconclusive, Some(1.0), Some(1.0)));
        let one = test(&[(0.9, 0.1)], 0.01);
        assert_eq!((one.verdict, one.p_fail, one.harm_at_most), (Verdict::Inconclusive, None, None));
        for margin in [0.0, -1.0, f64::NAN] {
            let margin = Margin::Absolute(margin);
            assert_eq!(MarginTest::of(&[(0.9, 0.9)], Better::Higher, margin, Question::NonInferiority), None);
        }
    }

    #[test]
    fn equivalence_does_not_pass_what_is_too_good() {
        let pairs = [(0.80, 0.90), (0.81, 0.911), (0.79, 0.889)];
        assert_eq!(test(&pairs, 0.02).verdict, Verdict::Pass);
        let t =
            MarginTest::of(&pairs, Better::Higher, Margin::Absolute(0.02), Question::Equivalence).unwrap();
        assert_eq!(t.verdict, Verdict::Fail);
    }

    #[test]
    fn holm_by_hand() {
        // Sorted: 0.01·4, 0.02·3, 0.03·2, 0.04·1, never falling.
        let adjusted = holm(&[0.04, 0.01, 0.03, 0.02]);
        for (a, b) in adjusted.iter().zip([0.06, 0.04, 0.06, 0.06]) {
            assert!((a - b).abs() < 1e-12, "{adjusted:?}");
        }
    }

    #[test]
    fn many_metrics_do_not_make_failures_likelier() {
        // Six metrics, all exactly at their margins, so that each test fails in 5 % of experiments.
        const TRIALS: u64 = 5_000;
        let verdict = |i: u64| {
            let tests: Vec<_> = (0..6)
                .map(|m| {
                    let t = test(&experiment(6 * i + m, 6, 0.01, 0.01), 0.01);
                    (t.verdict, t.p_fail)
                })
                .collect();
            over_all(&tests)
        };
        assert!(share(TRIALS, Verdict::Fail, verdict) < ALPHA + error(ALPHA, TRIALS));
        assert_eq!(over_all(&[]), Verdict::Inconclusive);
        let mixed = [(Verdict::Pass, Some(0.9)), (Verdict::Fail, Some(0.001))];
        assert_eq!(over_all(&mixed), Verdict::Fail);
    }
}
