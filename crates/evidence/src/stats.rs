//! Paired comparison of two sets of runs over the same seeds.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Level of every one-sided test over all looks; bounds hold with confidence 1 − α.
pub const ALPHA: f64 = 0.05;

/// How often one question is looked at: α is divided over the looks that are stated beforehand,
/// which keeps the chance of any false answer at most α, also where looks share examples and seeds
/// (Bonferroni). A look beyond them has no α left and decides nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Looks {
    stated: NonZeroU32,
    /// Looks of this level that were made before this one.
    #[serde(skip)]
    before: u32,
}

impl Looks {
    /// One look.
    pub const ONE: Looks = Looks { stated: NonZeroU32::MIN, before: 0 };

    /// The first of so many looks.
    pub fn of(stated: NonZeroU32) -> Looks {
        Looks { stated, before: 0 }
    }

    /// The look after `before` others.
    pub fn after(self, before: u32) -> Looks {
        Looks { before, ..self }
    }

    /// How many are stated.
    pub fn number(self) -> u32 {
        self.stated.get()
    }

    /// The level of one one-sided test at one look.
    pub fn alpha(self) -> f64 {
        ALPHA / f64::from(self.number())
    }

    /// Whether earlier looks have used α up.
    pub fn are_spent(self) -> bool {
        self.before >= self.number()
    }

    /// Whether another look may follow this one.
    pub fn are_left(self) -> bool {
        self.before + 1 < self.number()
    }

    /// Whether a p value is small enough at this look; none is where α is used up.
    pub fn reject(self, p: f64) -> bool {
        p < self.alpha() && !self.are_spent()
    }
}

/// Differences between pairs, and how sure they make us.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Paired {
    /// Number of pairs.
    pub pairs: usize,
    /// Mean of candidate − reference.
    pub mean: f64,
    /// Sample standard deviation of the differences (n − 1); none for one pair.
    pub sd: Option<f64>,
    /// One-sided 95 % lower bound of the mean difference: mean − t(0.95, n − 1)·sd/√n. None for one
    /// pair.
    pub lower: Option<f64>,
    /// One-sided 95 % upper bound of the mean difference. None for one pair.
    pub upper: Option<f64>,
    /// Pearson correlation of reference and candidate over the pairs: how much pairing helped. None
    /// for fewer than three pairs, or where one side does not vary.
    pub correlation: Option<f64>,
}

/// What a bound says about a margin that was stated before the runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The candidate is worse by less than the margin, at 95 % confidence.
    Pass,
    /// The candidate is worse by more than the margin, at 95 % confidence.
    Fail,
    /// The runs cannot tell; more seeds may. One pair has no spread to judge by and never tells.
    Inconclusive,
}

impl Verdict {
    /// `pass`, `fail` or `inconclusive`.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Inconclusive => "inconclusive",
        }
    }
}

impl Paired {
    /// Compares candidates with references, pair by pair: the one-sided paired t-test as an
    /// interval.
    ///
    /// None without pairs, or if a value is not finite.
    pub fn of(pairs: &[(f64, f64)]) -> Option<Paired> {
        let n = pairs.len();
        if n == 0 || pairs.iter().any(|(r, c)| !r.is_finite() || !c.is_finite()) {
            return None;
        }
        let differences: Vec<f64> = pairs.iter().map(|(r, c)| c - r).collect();
        let (mean, sd) = mean_sd(&differences)?;
        Some(Paired { correlation: correlation(pairs), ..Paired::from_moments(n, mean, sd) })
    }

    /// Two-sided p value of "the mean difference is zero"; 1 without spread: equal differences of
    /// a few coarse numbers are no certainty.
    pub fn p_differs(&self) -> f64 {
        match self.sd {
            Some(sd) if sd > 0.0 => {
                let n = self.pairs as f64;
                2.0 * t_survival(self.mean.abs() * n.sqrt() / sd, n - 1.0)
            }
            _ => 1.0,
        }
    }

    /// The interval from the number of differences, their mean and their standard deviation.
    pub fn from_moments(pairs: usize, mean: f64, sd: Option<f64>) -> Paired {
        let half = sd.map(|sd| t_upper(pairs.saturating_sub(1) as f64, ALPHA) * sd / (pairs as f64).sqrt());
        Paired {
            pairs,
            mean,
            sd,
            lower: half.map(|h| mean - h),
            upper: half.map(|h| mean + h),
            correlation: None,
        }
    }
}

/// Mean and sample standard deviation (n − 1); no deviation for one value, nothing for none.
pub fn mean_sd(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Some((mean, (n > 1).then(|| (squares / (n - 1) as f64).sqrt())))
}

/// Degrees of freedom from which on Student's distribution is taken for the normal one: quantiles
/// differ by 1 in 10⁶ there.
const MANY_DEGREES: f64 = 1e6;

/// The 1 − `alpha` quantile of Student's t distribution; infinite without degrees of freedom.
pub(crate) fn t_upper(degrees: f64, alpha: f64) -> f64 {
    if degrees >= MANY_DEGREES {
        return z_upper(alpha);
    }
    StudentsT::new(0.0, 1.0, degrees).map_or(f64::INFINITY, |t| -t.inverse_cdf(alpha))
}

/// P(T > t) for Student's t distribution; 1/2 without degrees of freedom.
pub(crate) fn t_survival(t: f64, degrees: f64) -> f64 {
    if degrees >= MANY_DEGREES {
        return Normal::standard().sf(t);
    }
    StudentsT::new(0.0, 1.0, degrees).map_or(0.5, |d| d.sf(t))
}

/// The 1 − `alpha` quantile of the standard normal distribution.
pub(crate) fn z_upper(alpha: f64) -> f64 {
    -Normal::standard().inverse_cdf(alpha)
}

fn correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 3 {
        return None;
    }
    let n = pairs.len() as f64;
    let (mx, my) = (pairs.iter().map(|p| p.0).sum::<f64>() / n, pairs.iter().map(|p| p.1).sum::<f64>() / n);
    let sum = |f: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|&(x, y)| f(x - mx, y - my)).sum::<f64>();
    let (xx, yy, xy) = (sum(&|x, _| x * x), sum(&|_, y| y * y), sum(&|x, y| x * y));
    (xx > 0.0 && yy > 0.0).then(|| xy / (xx * yy).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;

    /// Quantiles from the printed table of Student's t distribution (NIST/SEMATECH e-Handbook,
    /// 1.3.6.7.2), three decimals.
    #[test]
    fn quantiles_are_those_of_the_table() {
        for (degrees, quantile) in [(1.0, 6.314), (2.0, 2.920), (4.0, 2.132), (9.0, 1.833), (30.0, 1.697)] {
            let found = t_upper(degrees, ALPHA);
            assert!((found - quantile).abs() <= 0.0005, "{degrees}: {found}");
        }
        assert!((z_upper(ALPHA) - 1.6449).abs() <= 0.00005);
    }

    #[test]
    fn a_bound_worked_by_hand() {
        // Differences −1, 0, 1, 2: mean 0.5, sd √(5/3), t(0.95, 3) = 2.353363.
        let p = Paired::of(&[(1.0, 0.0), (2.0, 2.0), (3.0, 4.0), (4.0, 6.0)]).unwrap();
        assert_eq!((p.pairs, p.mean), (4, 0.5));
        let half = 2.353363 * (5.0f64 / 3.0).sqrt() / 2.0;
        assert!((p.lower.unwrap() - (0.5 - half)).abs() < 1e-5);
        assert!((p.upper.unwrap() - (0.5 + half)).abs() < 1e-5);
        // Four points on the line y = 2x − 2.
        assert!((p.correlation.unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_bound_covers_the_truth_as_often_as_it_says() {
        // Differences with true mean 0: the lower bound lies above 0 in 5 % of 4000 experiments of
        // 5 pairs. The count is binomial with standard deviation √(4000·0.05·0.95) = 13.8; five of
        // them are allowed.
        let normal = |which: u64, i: u64| Draws::new(0, which).normal(i);
        let misses = (0..4000).filter(|&which| {
            let pairs: Vec<(f64, f64)> = (0..5).map(|i| (0.0, normal(which, i))).collect();
            Paired::of(&pairs).unwrap().lower.unwrap() > 0.0
        });
        let misses = misses.count() as f64;
        assert!((misses - 200.0).abs() < 5.0 * 13.8, "{misses}");
    }

    #[test]
    fn nothing_is_said_of_values_that_are_not_finite() {
        assert_eq!(Paired::of(&[]), None);
        assert_eq!(Paired::of(&[(0.5, f64::NAN)]), None);
    }
}
