//! Is the candidate worse by less than a margin that was stated beforehand? One-sided tests over
//! seeds, and over seeds and examples.
//!
//! Everything here is in units of *harm*: a positive number means that the candidate is worse. Of
//! pairs (reference r, candidate c) and a margin m, the test looks at the excess e = harm(r, c) −
//! m. `pass` is the rejection of "mean e ≥ 0" at level α, `fail` the rejection of "mean e ≤ 0";
//! without either the runs cannot tell. "No significant difference" is never a pass (Schuirmann
//! 1987; Piaggio et al., CONSORT extension for non-inferiority, JAMA 2012).

use serde::{Deserialize, Serialize};

use crate::answers::ChangedAnswers;
use crate::crossed::Crossed;
use crate::stats::{Looks, Verdict, mean_sd};
use crate::tail::{Part, Tail};

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

/// Of whom a verdict speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// Of other seeds on the samples that were measured.
    Samples,
    /// Of other seeds on other examples like these.
    #[default]
    Examples,
}

/// What is asked of one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// Which way is good.
    pub better: Better,
    /// The margin as it was stated.
    pub margin: Margin,
    /// Whether better is suspicious too.
    pub question: Question,
    /// Looks over which α is divided.
    pub looks: Looks,
}

/// One metric of a candidate against the reference, at a margin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MarginTest {
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
    /// One-sided upper bound of the mean harm, at 95 % over all looks; none for one pair.
    pub harm_at_most: Option<f64>,
    /// One-sided lower bound of the mean harm, at 95 % over all looks; none for one pair.
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

/// So many independent differences that are −1, 0 or 1 each: right answers, changed answers, or
/// those of the rarest class, where each class counts alike. At a mean of m their variance is
/// m(1 − m) at least, and where few of them are seen it must not be taken for less.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnitDifferences {
    /// Their number.
    pub count: f64,
}

impl UnitDifferences {
    /// The least standard error of their mean where the harm is exactly `margin`, so that losses
    /// exceed gains by it: √(margin (1 − margin)/count).
    fn error_at(self, margin: f64) -> f64 {
        (margin * (1.0 - margin)).max(0.0).sqrt() / self.count.sqrt()
    }
}

impl MarginTest {
    /// Tests pairs of (reference, candidate), one for each seed: what it says holds for other seeds
    /// on these samples. Of `few`, the differences' variance is not taken for less than the one
    /// that differences of −1, 0 and 1 have at the margin without any gain.
    ///
    /// None without pairs, or if a value is not finite, or if the margin is not a positive finite
    /// number.
    pub fn of_seeds(pairs: &[(f64, f64)], asked: Asked, few: Option<UnitDifferences>) -> Option<MarginTest> {
        let finite = pairs.iter().all(|(r, c)| r.is_finite() && c.is_finite());
        let harm = |&(r, c): &(f64, f64)| asked.better.harm(c - r);
        let size = |p: &(f64, f64)| asked.margin.at(p.0);
        let (mean_harm, _) = mean_sd(&pairs.iter().map(harm).collect::<Vec<_>>())?;
        let (margin_mean, _) = mean_sd(&pairs.iter().map(size).collect::<Vec<_>>())?;
        let tail = |sign: f64| {
            let values: Vec<f64> = pairs.iter().map(|p| sign * harm(p) - size(p)).collect();
            let (mean, sd) = mean_sd(&values)?;
            let n = values.len() as f64;
            let seen = Tail::of_t(mean, sd.map(|sd| sd / n.sqrt()), n - 1.0, asked.looks);
            Some(match few.filter(|_| sd.is_some()) {
                Some(few) => seen.or_wider(Tail::of_normal(
                    mean,
                    few.error_at(margin_mean),
                    0.5 / few.count,
                    asked.looks,
                )),
                None => seen,
            })
        };
        if !finite {
            return None;
        }
        MarginTest::new(asked, mean_harm, margin_mean, tail)
    }

    /// Tests a mean over seeds and examples: what it says holds for other seeds on other examples
    /// like these; of one pair of models, for these two on other examples. `reference` is the
    /// baseline's mean, and `harm` the candidate's. `error_of(sign, share)` is the standard error
    /// of the mean over seeds and examples of sign · harm − share · reference. Of `few`, the
    /// variance that the losses at the margin have, if they fall on the same examples in every
    /// seed, is added: a harm that few examples show, or none, has no scatter of its own to be
    /// seen.
    ///
    /// None where there is no standard error, a value is not finite, or the margin is not a
    /// positive finite number.
    pub fn of_examples(
        harm: f64,
        reference: f64,
        asked: Asked,
        error_of: impl Fn(f64, f64) -> Option<Crossed>,
        few: Option<UnitDifferences>,
    ) -> Option<MarginTest> {
        let margin = asked.margin.at(reference);
        let share = match asked.margin {
            Margin::Absolute(_) => 0.0,
            Margin::Relative(share) => share,
        };
        let tail = |sign: f64| {
            let mean = sign * harm - margin;
            let known = few.map_or(0.0, |few| few.error_at(margin)).powi(2);
            let [seeds, examples] = error_of(sign, share)?.parts();
            let parts = [seeds, examples, Part { variance: known, degrees: f64::INFINITY }];
            Some(Tail::of_parts(mean, &parts, asked.looks))
        };
        MarginTest::new(asked, harm, margin, tail)
    }

    /// Tests two models by the answers that changed between them, at an absolute margin; exactly
    /// where few did. None if the margin is not a positive finite number.
    pub fn of_answers(answers: ChangedAnswers, asked: Asked) -> Option<MarginTest> {
        let margin = asked.margin.at(1.0);
        let alpha = asked.looks.alpha();
        let tail = |sign: f64| {
            let answers = if sign > 0.0 { answers } else { answers.reversed() };
            Some(Tail {
                at_most: Some(answers.harm_bound_above(alpha) - margin),
                at_least: Some(answers.harm_bound_below(alpha) - margin),
                below: Some(answers.p_harm_at_least(margin)),
                above: Some(answers.p_harm_at_most(margin)),
            })
        };
        MarginTest::new(asked, answers.harm(), margin, tail)
    }

    /// From what is known of sign · harm − margin, the excess of harm (1) or of gain (−1).
    fn new(
        asked: Asked,
        harm: f64,
        margin_mean: f64,
        tail: impl Fn(f64) -> Option<Tail>,
    ) -> Option<MarginTest> {
        let (Margin::Absolute(size) | Margin::Relative(size)) = asked.margin;
        if !(size > 0.0 && size.is_finite() && harm.is_finite() && margin_mean.is_finite()) {
            return None;
        }
        let excess = tail(1.0)?;
        let (p_pass, p_fail) = match asked.question {
            Question::NonInferiority => (excess.below, excess.above),
            Question::Equivalence => {
                let gain = tail(-1.0)?;
                (
                    excess.below.zip(gain.below).map(|(a, b)| a.max(b)),
                    excess.above.zip(gain.above).map(|(a, b)| (2.0 * a.min(b)).min(1.0)),
                )
            }
        };
        let verdict = match (p_pass, p_fail) {
            (Some(p), _) if asked.looks.reject(p) => Verdict::Pass,
            (_, Some(p)) if asked.looks.reject(p) => Verdict::Fail,
            _ => Verdict::Inconclusive,
        };
        Some(MarginTest {
            better: asked.better,
            margin: asked.margin,
            question: asked.question,
            margin_mean,
            harm,
            harm_at_most: excess.at_most.map(|e| e + margin_mean),
            harm_at_least: excess.at_least.map(|e| e + margin_mean),
            p_pass,
            p_fail,
            verdict,
        })
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

/// A test that a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateTest {
    /// What it says.
    pub verdict: Verdict,
    /// P value of failing; 1 where there is none.
    pub p_fail: f64,
}

/// The verdict over all tests that gate, from each one's verdict and p value of failing.
///
/// `pass` needs every test to pass, each at its level: an intersection–union test, which needs no
/// correction (Berger 1982). `fail` needs one that fails after Holm's adjustment, so that where
/// nothing is wrong something is failed in at most α of all cases, however many tests there are. No
/// tests: inconclusive.
pub fn over_all(tests: &[GateTest], looks: Looks) -> Verdict {
    let p: Vec<f64> = tests.iter().map(|t| t.p_fail).collect();
    over_adjusted(tests, &holm(&p), looks)
}

/// The same from p values that are adjusted already, over these tests or over more.
pub(crate) fn over_adjusted(tests: &[GateTest], adjusted: &[f64], looks: Looks) -> Verdict {
    if tests.iter().zip(adjusted).any(|(t, p)| t.verdict == Verdict::Fail && looks.reject(*p)) {
        Verdict::Fail
    } else if !tests.is_empty() && tests.iter().all(|t| t.verdict == Verdict::Pass) {
        Verdict::Pass
    } else {
        Verdict::Inconclusive
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;
    use crate::power::{Plan, Spread};
    use crate::stats::ALPHA;

    fn test(pairs: &[(f64, f64)], margin: f64) -> MarginTest {
        MarginTest::of_seeds(pairs, asked(Margin::Absolute(margin)), None).unwrap()
    }

    fn asked(margin: Margin) -> Asked {
        Asked { better: Better::Higher, margin, question: Question::NonInferiority, looks: Looks::ONE }
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
            let asked = Asked { question: Question::Equivalence, ..asked(Margin::Absolute(0.01)) };
            MarginTest::of_seeds(&pairs, asked, None).unwrap().verdict
        };
        assert!(share(TRIALS, Verdict::Pass, equivalence) < ALPHA + error(ALPHA, TRIALS));
        assert!(share(TRIALS, Verdict::Fail, equivalence) < ALPHA + error(ALPHA, TRIALS));
    }

    #[test]
    fn without_a_difference_the_power_is_as_planned() {
        const TRIALS: u64 = 5_000;
        for (ratio, goal) in [(0.5, 0.8), (1.0, 0.9), (1.5, 0.8)] {
            let plan = Plan::of(Spread::of_seeds(ratio), 1.0);
            let n = plan.seeds_needed(1.0, goal).unwrap();
            let found =
                share(TRIALS, Verdict::Pass, |i| test(&experiment(i, n, 0.0, ratio * 0.01), 0.01).verdict);
            let planned = plan.power(n, 1.0);
            assert!(planned >= goal);
            assert!((found - planned).abs() < error(planned, TRIALS), "{ratio}: {found}, planned {planned}");
        }
    }

    #[test]
    fn a_relative_margin_is_a_share_of_the_reference() {
        // Losses 2.0 and 4.0; the candidate loses 1 % in each. Margin 2 %: excess −1 % of each.
        let pairs = [(2.0, 2.02), (4.0, 4.04)];
        let of = |share| {
            let asked = Asked { better: Better::Lower, ..asked(Margin::Relative(share)) };
            MarginTest::of_seeds(&pairs, asked, None).unwrap()
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
        // Where earlier looks have used α up nothing is decided, however sure it is.
        for pairs in [[(0.9, 0.9), (0.8, 0.8)], [(0.9, 0.7), (0.8, 0.6)]] {
            let asked = Asked { looks: Looks::ONE.after(1), ..asked(Margin::Absolute(0.01)) };
            let t = MarginTest::of_seeds(&pairs, asked, None).unwrap();
            assert_eq!(t.verdict, Verdict::Inconclusive, "{t:?}");
        }
        let one = test(&[(0.9, 0.1)], 0.01);
        assert_eq!((one.verdict, one.p_fail, one.harm_at_most), (Verdict::Inconclusive, None, None));
        for margin in [0.0, -1.0, f64::NAN] {
            let margin = Margin::Absolute(margin);
            assert_eq!(MarginTest::of_seeds(&[(0.9, 0.9)], asked(margin), None), None);
        }
    }

    #[test]
    fn equivalence_does_not_pass_what_is_too_good() {
        let pairs = [(0.80, 0.90), (0.81, 0.911), (0.79, 0.889)];
        assert_eq!(test(&pairs, 0.02).verdict, Verdict::Pass);
        let t = MarginTest::of_seeds(
            &pairs,
            Asked { question: Question::Equivalence, ..asked(Margin::Absolute(0.02)) },
            None,
        )
        .unwrap();
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
                    GateTest { verdict: t.verdict, p_fail: t.p_fail.unwrap() }
                })
                .collect();
            over_all(&tests, Looks::ONE)
        };
        assert!(share(TRIALS, Verdict::Fail, verdict) < ALPHA + error(ALPHA, TRIALS));
        assert_eq!(over_all(&[], Looks::ONE), Verdict::Inconclusive);
        let mixed = [(Verdict::Pass, 0.9), (Verdict::Fail, 0.001)]
            .map(|(verdict, p_fail)| GateTest { verdict, p_fail });
        assert_eq!(over_all(&mixed, Looks::ONE), Verdict::Fail);
    }
}
